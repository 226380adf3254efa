"""`tlog records --subject …`, `tlog records show` and `tlog reindex`, before a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.e2e.processes import Served, Terminal
from tlog.client import Producer

ALICE = "alice@example.com"
REQUEST: dict[str, Any] = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}


@pytest.fixture
def served(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A case of Alice's, and what was read of Bob."""
    monkeypatch.chdir(tmp_path)
    assert run("init", "mylog", "--origin", "example.com/mylog").code == 0
    assert run("records", "init", "mylog", "--tenant", "acme").code == 0
    assert run("records", "add-producer", "mylog", "shop", "--key", "shop.key").code == 0
    monkeypatch.setenv("TLOG_PURPOSE", "complaint 7")
    with Terminal(tmp_path).ready("serve", "mylog") as server:
        monkeypatch.setenv("TLOG_SERVER", server.grpc)
        with Producer(
            server.grpc, key=tmp_path / "shop.key", tenant="acme", spool=tmp_path / "s"
        ) as p:
            p.record("request.received", subject=ALICE, **REQUEST, details={"note": "\x1b[31mred"})
            p.record("access.read", subject="bob@example.com", purpose="support", actor="eve")
            p.record("request.fulfilled", subject=ALICE, request_id="R-1", outcome="success")
            assert p.flush(20), p.problem
        yield server


def test_the_case_is_shown_and_the_reading_recorded(run: Run, served: Served) -> None:
    result = run("records", "--subject", ALICE)
    text = result.out.decode()
    assert result.code == 0, result.err
    assert text.index("request.received") < text.index("request.fulfilled")
    assert ALICE in text
    assert "\x1b" not in text  # a stranger may have worded it
    assert "bob" not in text
    assert "4 entries of the log" in result.err
    *told, last = map(json.loads, run("records", "--subject", ALICE, "--json").out.splitlines())
    assert last == {"cursor": "", "complete_to": 5}
    assert [each["claims"]["type"] for each in told] == [
        "request.received",
        "request.fulfilled",
        "log.read",
    ]
    assert told[2]["claims"]["purpose"] == "complaint 7"
    assert told[2]["shared"]["claims"]["actor"]["kind"] == "local_user"
    shown = run("records", "show", told[0]["index"], "--json")
    assert json.loads(shown.out).items() > told[0].items()


def test_filters_pages_and_time(run: Run, served: Served) -> None:
    def found(*options: str) -> list[str]:
        result = run("records", *options, "--json")
        assert result.code == 0, result.err
        *records, _ = map(json.loads, result.out.splitlines())
        return [each["claims"]["type"] for each in records]

    assert found("--actor", "eve") == ["access.read"]
    assert found("--request", "R-1", "--outcome", "success") == ["request.fulfilled"]
    assert found("--producer", "shop", "--newest", "--limit", "1") == ["request.fulfilled"]
    assert len(found("--producer", "shop", "--limit", "1", "--all")) == 3
    assert found("--producer", "shop", "--until", "2020-01-01T00:00:00Z") == []
    assert len(found("--producer", "shop", "--since", "2020-01-01T00:00:00Z")) == 3
    first = run("records", "--producer", "shop", "--limit", "2")
    cursor = first.err.partition("--cursor ")[2].partition(",")[0]
    rest = run("records", "--producer", "shop", "--limit", "2", "--cursor", cursor)
    assert rest.out.count(b"request.fulfilled") == 1
    assert run("records", "--producer", "shop", "--cursor", "x").code == 1
    assert run("records", "--producer", "shop", "--since", "2020-13-01").code == 1


@pytest.mark.parametrize("order", [(), ("--newest",)])
def test_all_pages_are_those_of_one_search(
    run: Run, served: Served, tmp_path: Path, order: tuple[str, ...]
) -> None:
    """More people than a page is of: whose reading is a record about all of them."""
    crowd = [f"user{number}@example.com" for number in range(64)]
    with Producer(
        served.grpc, key=tmp_path / "shop.key", tenant="acme", spool=tmp_path / "s"
    ) as producer:
        producer.record("access.read", subjects=crowd, purpose="monthly list", actor="clerk")
        assert producer.flush(20), producer.problem
    for before in range(3):
        result = run("records", "--subject", crowd[7], "--all", "--limit", "1", "--json", *order)
        *records, last = map(json.loads, result.out.splitlines())
        # Each reading of a page of the searches before is one more.
        assert len(records) == 2**before
        assert last["cursor"] == ""


def test_nobody_reads_without_a_purpose(
    run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLOG_PURPOSE")
    for words in (("--subject", ALICE), ("show", "1"), ("search", "--actor", "eve")):
        result = run("records", *words)
        assert (result.code, result.out) == (2, b"")
        assert "--purpose" in result.err


def test_the_index_is_made_anew_when_the_server_is_stopped(
    run: Run, served: Served, tmp_path: Path
) -> None:
    assert run("reindex", "mylog").code == 1  # it is being served
    assert served.stop() == (0, "")
    result = run("reindex", "mylog", "--json")
    assert json.loads(result.out)["entries"] == 4
    with Terminal(tmp_path).ready("serve", "mylog") as again:
        found = run("records", "--subject", ALICE, "--server", again.grpc)
        assert found.out.count(b"request.") >= 2


def test_only_records_logs_have_an_index(run: Run, tmp_path: Path) -> None:
    assert run("init", tmp_path / "plain", "--origin", "example.com/plain").code == 0
    result = run("reindex", tmp_path / "plain")
    assert result.code == 1
    assert "tlog records init" in result.err


@pytest.mark.parametrize("words", ["tlog records --sub", "tlog records search --sub"])
def test_completion_knows_the_options_of_a_search(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("_TLOG_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert b"--subject" in run().out
