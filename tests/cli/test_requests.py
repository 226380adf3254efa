"""`tlog requests` and `tlog report`, before a server in a process of its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from tests.cli.conftest import Run
from tests.support import running_server
from tlog.audit.tenancy import RecordsConfig, create_records
from tlog.cli import main
from tlog.client import Producer
from tlog.log import LogConfig, create_log

TODAY = datetime.now(UTC)


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a records log: R-late, R-near and R-new are open, R-done is not."""
    directory = tmp_path_factory.mktemp("office")
    create_log(directory / "log", LogConfig(origin="example.com/office", name="office"))
    create_records(directory / "log", RecordsConfig(tenant="acme"), passphrase=None)
    (directory / "log" / "calendar.toml").write_text("at_risk_days = 7\n")
    with (directory / "log" / "records.toml").open("a") as file:
        file.write('calendar = "calendar.toml"\n')
    key = directory / "shop.key"
    with pytest.raises(SystemExit) as ended:
        main(["records", "add-producer", str(directory / "log"), "shop", "--key", str(key)])
    assert not ended.value.code
    structlog.reset_defaults()
    with running_server(directory / "log") as server:
        with Producer(server.target, key=key, tenant="acme", spool=directory / "spool") as shop:
            for name, days in (("R-done", 50), ("R-new", 0), ("R-near", 39), ("R-late", 46)):
                shop.record(
                    "request.received",
                    subject="alice@example.com",
                    occurred_at=TODAY - timedelta(days=days),
                    request_id=name,
                    request_type="delete",
                    channel="webform",
                    jurisdiction="US-CO" if name == "R-near" else "US-CA",
                )
                if name != "R-new":
                    shop.record(
                        "request.acknowledged",
                        occurred_at=TODAY - timedelta(days=days),
                        request_id=name,
                    )
            shop.record("request.fulfilled", request_id="R-done", occurred_at=TODAY)
            assert shop.flush(30), shop.problem
        yield server.target


def listed(run: Run, office: str, *words: str) -> tuple[int, list[str]]:
    result = run("requests", "--server", office, "--json", *words)
    return result.code, [json.loads(line)["request_id"] for line in result.out.splitlines()]


def test_a_script_asks_whether_something_is_late(run: Run, office: str) -> None:
    assert listed(run, office) == (5, ["R-late", "R-near", "R-new"])
    assert listed(run, office, "--status", "at-risk") == (0, ["R-near"])
    assert listed(run, office, "--status", "at-risk", "--status", "late")[0] == 5
    assert listed(run, office, "--within", "6") == (5, ["R-late", "R-near"])
    assert listed(run, office, "--within", "0") == (5, ["R-late"])
    assert listed(run, office, "--jurisdiction", "us-co") == (0, ["R-near"])
    assert listed(run, office, "--type", "opt_in") == (0, [])
    assert listed(run, office, "--request", "R-done") == (0, ["R-done"])


def test_what_is_said_to_a_person(run: Run, office: str) -> None:
    result = run("requests", "--server", office)
    text = result.out.decode()
    assert result.code == 5
    assert text.index("R-late") < text.index("R-near") < text.index("R-new")
    assert "LATE       -1 d  answer by " in text
    assert "at risk    +6 d  answer by " in text
    assert "10 business days" in text
    assert "11 CCR 7021(b)" in text
    assert "3 requests, 1 late, 1 at risk, on " in result.err
    assert "calendar: holidays " in result.err
    assert "alice" not in text


def test_what_was_dated_back_is_told(run: Run, office: str) -> None:
    words = ("requests", "--server", office, "--request", "R-done")
    deadlines = json.loads(run(*words, "--json").out)["deadlines"]
    told = {each["duty"]: (each["status"], each["recorded_late"]) for each in deadlines}
    assert told == {"confirm receipt": ("met", True), "answer": ("late", False)}
    assert b", after the last day\n" in run(*words).out


def test_a_request_that_is_not_there(run: Run, office: str) -> None:
    result = run("requests", "--server", office, "--request", "R-none")
    assert (result.code, result.out) == (1, b"")
    assert "no request R-none" in result.err


def test_nobody_listens(run: Run) -> None:
    assert run("requests", "--server", "127.0.0.1:1").code == 4


def test_a_report_to_a_file_and_to_standard_output(run: Run, office: str, tmp_path: Path) -> None:
    year = str((TODAY - timedelta(days=46)).year)
    words = ("report", "--server", office, "--year", year)
    told = json.loads(run(*words).out)
    assert told["figures"]["all individuals"]["delete"]["received"]["value"] >= 1
    page = tmp_path / "metrics.html"
    result = run(*words, "--format", "html", "-o", page, "--json")
    assert json.loads(result.out) == {"output": str(page), "bytes": page.stat().st_size}
    assert page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o600
    rows = csv.reader(io.StringIO(run(*words, "--format", "csv").out.decode(), newline=""))
    assert next(rows)[0] == "year"
    only = run(*words, "--format", "json", "--jurisdiction", "US-NV", "--counted-by", "answered")
    assert json.loads(only.out)["jurisdictions"] == ["US-NV"]


def test_a_report_that_fails_leaves_the_file_as_it_was(
    run: Run, office: str, tmp_path: Path
) -> None:
    page = tmp_path / "metrics.html"
    page.write_text("of last year")
    result = run("report", "--server", office, "--year", "1999", "-o", page)
    assert result.code == 1
    assert "a year of 2018 to 2097" in result.err
    assert page.read_text() == "of last year"
    assert list(tmp_path.iterdir()) == [page]
    missing = tmp_path / "no" / "metrics.html"
    result = run("report", "--server", office, "--year", "2026", "-o", missing)
    assert (result.code, "No such file" in result.err) == (1, True)


def test_an_export_to_a_file(run: Run, office: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    words = ("export", "--server", office, "--purpose", "audit", "--type", "request.received")
    result = run(*words, "--format", "ocsf", "-o", file, "--json")
    assert json.loads(result.out) == {"output": str(file), "records": 4}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["class_uid"] for line in lines} == {3004}
    assert file.stat().st_mode & 0o777 == 0o600
    result = run(*words, "--request", "R-new")
    assert (len(result.out.splitlines()), result.err) == (2, "1 records\n")
    disclosed = run(*words, "--disclose", "all", "--recipient", "Agency", "--format", "jsonl")
    assert disclosed.out.count(b"alice@example.com") == 4
    assert b"alice" not in run(*words, "--disclose", "none", "--format", "jsonl").out


def test_an_export_that_is_not_made(
    run: Run, office: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.csv"
    file.write_text("of yesterday")
    words = ("export", "--server", office, "-o", file)
    assert "what for? Give --purpose" in run(*words).err
    monkeypatch.setenv("TLOG_PURPOSE", "audit")
    for more, says, code in (
        (["--disclose", "all"], "who gets it? Give --recipient", 2),
        (["--disclose", "all", "--disclose", "none", "--recipient", "x"], "and something else", 2),
        (["--since", "yesterday"], "since: not a time of RFC 3339", 1),
        (["--disclose", "all", "--recipient", "a@example.com"], "recipient: it seems to hold", 1),
    ):
        result = run(*words, *more)
        assert (result.code, says in result.err) == (code, True), result.err
    assert file.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [file]
