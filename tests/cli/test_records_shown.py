"""What `tlog records` shows to a person and to a program, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.audit.drp import drp_request, verify_drp
from tests.cli.conftest import Result, Run
from tests.support import running_server
from tlog.audit.tenancy import RecordsConfig, create_records
from tlog.cli import main
from tlog.cli.output import Output
from tlog.cli.records.telling import _LONGEST
from tlog.client import Producer, bytes_of
from tlog.log import LogConfig, create_log

ALICE = "alice@example.com"
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=2)
HOSTILE = "\x1b[2J\x07\u202e\x9b31m"


def at_second(number: int) -> datetime:
    return BEGIN + timedelta(seconds=number)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server, and its directory: entry 0 registers the shop, 1 to 3 are of R-1, 4 to 9 others.

    Entry 10 is a request of an agent.
    """
    at = tmp_path_factory.mktemp("archive")
    create_log(at / "log", LogConfig(origin="example.com/archive", name="archive"))
    create_records(at / "log", RecordsConfig(tenant="acme"), passphrase=None)
    key = at / "shop.key"
    with pytest.raises(SystemExit) as ended:
        main(["records", "add-producer", str(at / "log"), "shop", "--key", str(key)])
    assert not ended.value.code
    structlog.reset_defaults()
    with running_server(at / "log") as server:
        with Producer(server.target, key=key, tenant="acme", spool=at / "spool") as shop:
            later = map(at_second, range(100))
            about: dict[str, Any] = {"subject": ALICE, "request_id": "R-1"}
            shop.record(
                "request.received",
                **about,
                request_type="know_specific",
                channel="webform",
                actor={"id": "eve", "note": HOSTILE},
                details="x" * (_LONGEST + 1),
                occurred_at=next(later),
            )
            shop.record("request.acknowledged", **about, occurred_at=next(later))
            shop.record("request.fulfilled", **about, outcome="success", occurred_at=next(later))
            for number in range(6):
                shop.record(
                    "access.read",
                    subject="bob@example.com",
                    purpose="support",
                    resource=f"orders/{number % 2}",
                    occurred_at=next(later),
                )
            shop.record(
                "request.received",
                subject="carol@example.com",
                request_id="R-2",
                request_type="delete",
                channel="drp",
                by_agent=True,
                agent_id="helper",
                agent_request_id="H-7",
                native_document=drp_request(),
                occurred_at=next(later),
            )
            assert shop.flush(30), shop.problem
        yield server.target, at / "log"


@pytest.fixture
def records(run: Run, archive: tuple[str, Path]) -> Run:
    """`records("--subject", …)`: with a server and a purpose."""

    def records(*words: str | Path | int) -> Result:
        verb = ["show", words[1]] if words[0] == "show" else words[:0]
        rest = words[2:] if words[0] == "show" else words
        return run("records", *verb, *rest, "--server", archive[0], "--purpose", "audit")

    return records


def entries(result: Result) -> list[int]:
    assert result.code == 0, result.err
    *lines, last = [json.loads(line) for line in result.out.splitlines()]
    assert last.keys() == {"cursor", "complete_to"}
    return [each["index"] for each in lines]


def test_what_a_person_sees(records: Run) -> None:
    result = records("--request", "R-1")
    lines = result.out.decode().splitlines()
    assert lines[0] == "request R-1"
    first, third = (f"  {at_second(number):%Y-%m-%d %H:%M:%S}Z" for number in (0, 2))
    assert f"{first}  request.received  by shop  entry 1" in lines
    assert f"{third}  request.fulfilled  success  by shop  entry 3" in lines
    assert f"      subject id    {ALICE}" in lines
    assert "      channel       webform" in lines
    assert f"{'x' * _LONGEST}… (--json has all of it)" in result.out.decode()
    assert "event_id" not in result.out.decode()
    assert result.err.startswith("3 records, of ")
    assert "More:" not in result.err
    assert all(line.isprintable() for line in lines)
    assert r"\u202e" in result.out.decode()


def test_what_a_program_gets(records: Run) -> None:
    result = records("--request", "R-1", "--json")
    assert result.err == ""
    one, *_, last = map(json.loads, result.out.splitlines())
    assert one["received_at"].endswith("Z")
    assert one["claims"]["request_type"] == "know_specific"
    assert one["shared"]["claims"]["actor"] == {"id": "eve", "note": HOSTILE}
    assert one["shared"]["claims"]["details"] == "x" * (_LONGEST + 1)
    (subject,) = one["subjects"]
    assert subject.pop("claims") == {"id": ALICE}
    assert subject == {"erased": None, "expired": None, "missing": False}
    assert (last["cursor"], last["complete_to"] >= 10) == ("", True)


def test_what_utf_8_cannot_say_is_spelt_out(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Output(as_json=True).result("", half="a\ud800", whole="\U0001f600")
    out = capfdbinary.readouterr().out
    assert out == b'{"half": "a\\ud800", "whole": "\xf0\x9f\x98\x80"}\n'
    assert json.loads(out)["half"] == "a\ud800"


def test_filters(records: Run) -> None:
    def found(*words: str) -> list[int]:
        return entries(records(*words, "--json"))

    assert found("--actor", "EVE") == [1]
    assert found("--producer", "shop", "--outcome", "success") == [3]
    assert found("--type", "request.received", "--type", "request.fulfilled") == [1, 3, 10]
    assert found("--type", "access.read", "--newest", "--limit", "100") == [9, 8, 7, 6, 5, 4]
    elsewhere = timezone(timedelta(hours=9))
    since, until = at_second(1).isoformat(), at_second(3).astimezone(elsewhere).isoformat()
    assert found("--since", since, "--until", until) == [2, 3]
    assert found("--resource", "orders/1", "--subject", "bob@example.com") == [5, 7, 9]
    assert found("--resource", "orders/1") == [5, 7, 9]
    assert found("--resource", "orders/1", "--subject", "alice@example.com") == []
    assert found("--producer", "nobody") == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--cursor", "AAAA"], 1, "not what a page before this one gave"),
        (["--cursor", "A" * 34, "--newest"], 1, "another order"),
        (["--limit", "0"], 2, "--limit"),
        (["--limit", "101"], 2, "--limit"),
        (["--since", "yesterday"], 1, "since: not a time of RFC 3339"),
        (["--subject", "\x1b"], 1, "control characters"),
        (["--outcome", "fine"], 2, "--outcome"),
        (["--frobnicate"], 2, "--frobnicate"),
        (["--for-request", "a@example.com"], 1, "request_id: it seems to hold"),
        (["show", "1000000"], 1, "1000000"),
        (["show", "-1"], 2, ""),
    ],
)
def test_what_is_refused(records: Run, words: list[str], code: int, says: str) -> None:
    result = records(*words)
    assert (result.code, result.out) == (code, b"")
    assert says in result.err
    assert result.err.count("\n") == 1
    assert result.err.strip().isprintable()


def test_one_record(records: Run) -> None:
    result = records("show", 1)
    assert b"event_id" in result.out
    assert ALICE.encode() in result.out
    told = json.loads(records("show", 1, "--json").out)
    assert (told["index"], json.loads(told["leaf"])["v"]) == (1, 1)
    assert told["claims"]["request_id"] == "R-1"


def test_what_an_agent_signed_verifies_again(records: Run) -> None:
    told = json.loads(records("show", 10, "--json").out)["shared"]["claims"]
    assert (told["agent_id"], told["agent_request_id"]) == ("helper", "H-7")
    document = base64.b64decode(told["native_document"]["base64"], validate=True)
    assert document == drp_request() == bytes_of(told["native_document"])
    assert verify_drp(document) == "Alice \u00c9mile"
    assert told["native_document"]["base64"][:20].encode() in records("show", 10).out


def test_without_a_verb_options_are_those_of_search(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("records").code == 2
    for word in ("-h", "--help"):
        help_text = run("records", word).out.decode()
        assert "tlog records --subject alice@example.com" in help_text
        assert "add-producer" in help_text
    assert "--resource" in run("records", "search", "--help").out.decode()
    assert run("records", "frobnicate").code == 2
    assert run("records", "--subject", "x", "init").code == 2
    monkeypatch.setenv("_TLOG_COMPLETE", "bash_complete")
    for line, offered in (
        ("tlog records --sub", b"--subject"),
        ("tlog records --subject x --ty", b"--type"),
        ("tlog records sh", b"show"),
        ("tlog records add", b"add-producer"),
    ):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        assert offered in run().out
    assert run().out.count(b"--help") == 0
