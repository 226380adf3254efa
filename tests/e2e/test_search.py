"""What happened to whose data, from the application to the one who asks, with real processes."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import Terminal
from tlog.client import Producer

ALICE, BOB = "alice@example.com", "bob@example.com"
CASE = ["request.received", "request.acknowledged", "request.fulfilled"]
PURPOSE = ("--purpose", "complaint 7")


@pytest.fixture
def tenant(terminal: Terminal, mylog: Path) -> Terminal:
    """A records log, a shop that records, and two approvers."""
    run(terminal, "records", "init", "mylog", "--tenant", "acme")
    for name, role in (("shop", "recorder"), ("dpo", "approver"), ("ciso", "approver")):
        words = ("records", "add-producer", "mylog", name, "--key", f"{name}.key", "--role", role)
        run(terminal, *words)
    return terminal


def run(terminal: Terminal, *words: str) -> str:
    done = terminal.run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def found(terminal: Terminal, *words: str) -> list[dict[str, Any]]:
    """The records that are found, without the last object."""
    lines = run(terminal, "records", *words, *PURPOSE, "--json").splitlines()
    *records, last = map(json.loads, lines)
    assert last["cursor"] == ""
    return records


def types(records: list[dict[str, Any]]) -> list[str]:
    return [each["claims"]["type"] for each in records]


def record(terminal: Terminal, server: str) -> None:
    at = terminal.directory
    with Producer(server, key=at / "shop.key", tenant="acme", spool=at / "spool") as shop:
        shop.record(
            "request.received",
            subject=ALICE,
            request_id="R-1",
            request_type="delete",
            channel="webform",
            details={"note": "\x1b[2J\u202eby post"},
        )
        shop.record("access.read", subject=BOB, purpose="support", resource="customers/17")
        for kind in CASE[1:]:
            shop.record(kind, subject=ALICE, request_id="R-1")
        assert shop.flush(20), shop.problem


def test_a_case_from_receipt_to_fulfilment_and_after_its_erasure(tenant: Terminal) -> None:
    with tenant.serving("mylog") as server:
        record(tenant, server.grpc)
        # What a person sees.
        text = run(tenant, "records", "--subject", ALICE, *PURPOSE)
        first, *rest = text.splitlines()
        assert first == "request R-1"
        assert [each for kind in CASE for each in rest if f"Z  {kind}  by shop  " in each] == [
            each for each in rest if "Z  " in each
        ]
        assert len([each for each in rest if "Z  " in each]) == 3
        assert text.count(ALICE) == 3
        assert "bob" not in text
        assert r'{"note": "\x1b[2J' not in text  # JSON has spelt it out
        assert "\x1b" not in text
        assert "\u202e" not in text
        # It was recorded, under her, with who asked; and of the other one nothing was opened.
        *case, read = found(tenant, "--subject", f" {ALICE.upper()} ")
        assert types(case) == CASE
        assert case[0]["shared"]["claims"]["details"] == {"note": "\x1b[2J\u202eby post"}
        assert (read["claims"]["type"], read["claims"]["purpose"]) == ("log.read", "complaint 7")
        assert read["claims"]["count"] == 3
        actor = {"id": getpass.getuser(), "kind": "local_user"}
        assert read["shared"]["claims"]["actor"] == actor
        assert [each["claims"] for each in read["subjects"]] == [{"id": ALICE}]
        assert types(found(tenant, "--subject", BOB)) == ["access.read"]
        # After an erasure the case is there, and says why nothing of it can be opened.
        keys = ("--key", "dpo.key", "--key", "ciso.key")
        words = ("erase", "--subject", ALICE, "--request", "R-1", "--reason", "asked", *keys)
        entry = json.loads(run(tenant, *words, "--json"))["index"]
        gone = f"erased at entry {entry} under request R-1"
        text = run(tenant, "records", "--subject", ALICE, *PURPOSE)
        assert all(f"  {kind}  by shop  " in text for kind in CASE)
        assert text.count(gone) == 5  # of each record's subject, and of the details
        assert ALICE not in text
        after = found(tenant, "--subject", ALICE)
        assert types(after) == [*CASE, "subject.key_destroyed"]
        for each in after:
            (part,) = each["subjects"]
            erased = {"entry": entry, "request_id": "R-1"}
            assert part == {"claims": {}, "erased": erased, "expired": None, "missing": False}
        shown = run(tenant, "records", "show", str(case[0]["index"]), *PURPOSE)
        assert gone in shown
        assert types(found(tenant, "--subject", BOB))[0] == "access.read"
        metrics = httpx.get(f"{server.http}/metrics").raise_for_status().text
        assert 'tlog_records_index_entries_behind{log="mylog"} ' in metrics
        assert server.stop() == (0, "")


def test_an_index_that_is_lost_or_made_anew_finds_the_same(tenant: Terminal) -> None:
    words = ("--type", "request.received", "--type", "access.read")
    with tenant.serving("mylog") as server:
        record(tenant, server.grpc)
        before = found(tenant, *words)
        assert len(before) == 2
        done = tenant.run("reindex", "mylog")
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert server.stop() == (0, "")
    database = tenant.directory / "mylog" / "index" / "records.db"
    database.write_bytes(b"no database" * 1000)
    told = json.loads(run(tenant, "reindex", "mylog", "--json"))
    assert told == {"directory": "mylog", "entries": 8}
    with tenant.serving("mylog") as server:
        assert found(tenant, *words) == before
        server.stop()
    database.unlink()
    with tenant.serving("mylog"):
        assert found(tenant, *words) == before
