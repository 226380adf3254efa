"""Erasure and expiry with real processes: what goes is in no file, and no kill leaves half."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.audit.approvers import CISO, COUNSEL, DPO, every_byte, order
from tests.audit.producer import ALICE, SHOP, TENANT
from tests.audit.tenant import registration
from tests.e2e.processes import Served, Terminal, ended
from tlog.audit.orders import Kind
from tlog.audit.tenancy import RecordsConfig, create_records, recording
from tlog.client import Client, MemoryState, Producer, Unreachable
from tlog.client.orders import OrderReceipt, Orders
from tlog.log import Log, LogConfig, create_log
from tlog.notes import save_signer

BOB = "bob@example.com"
HOLD = (
    *("hold", "place", "--hold", "LIT-7", "--subject", ALICE, "--reason", "litigation"),
    *("--key", "dpo.key", "--key", "ciso.key"),
)


@pytest.fixture
def office(terminal: Terminal) -> Terminal:
    """A records log, a shop that may record, and two approvers."""
    mylog = terminal.directory / "mylog"
    create_log(mylog, LogConfig(origin="example.com/mylog", name="mylog", checkpoint_interval=0.1))
    create_records(mylog, RecordsConfig(tenant=TENANT), passphrase=None)

    async def register() -> None:
        async with Log.opened(mylog) as log, recording(mylog, log, passphrase=None) as records:
            for signer, role in ((SHOP, "recorder"), (DPO, "approver"), (CISO, "approver")):
                key = terminal.directory / f"{signer.vkey.name}.key"
                save_signer(key, signer, passphrase=None)
                await records.record(registration(signer, role))

    asyncio.run(register())
    return terminal


def _run(terminal: Terminal, *words: str) -> bytes:
    done = terminal.run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(office: Terminal, server: Served, subjects: list[str]) -> None:
    at = office.directory
    with Producer(server.grpc, key=at / "shop.key", tenant=TENANT, spool=at / "spool") as shop:
        for subject in subjects:
            shop.record("access.read", subject=subject, purpose="support", details={"of": subject})
        assert shop.flush(20), shop.problem


def parts(server: Served, subject: str) -> int:
    async def ask() -> int:
        async with Orders(server.grpc) as orders:
            return (await orders.dry_run(subject, purpose="test")).parts

    return asyncio.run(ask())


def until(condition: Callable[[], Any], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def submit(server: Served, document: bytes, *, timeout: float = 20.0) -> OrderReceipt:
    async def ask() -> OrderReceipt:
        async with Orders(server.grpc, timeout=timeout) as orders:
            return await orders.submit(document)

    return asyncio.run(ask())


def entries(server: Served, count: int) -> list[bytes]:
    """The first entries, each proven to be in the published log."""
    vkeys = server.ready["logs"][0]["vkeys"]
    with Client(server.grpc, vkeys=vkeys, state=MemoryState()) as client:
        until(lambda: client.checkpoint().size >= count)
        return [client.entry(index) for index in range(count)]


def test_a_server_that_is_killed_forgets_whom_it_must(office: Terminal) -> None:
    made = order().encode()
    with office.serving("mylog") as server:
        record(office, server, [ALICE, BOB] * 20)
        before = entries(server, 43)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(submit, server, made, timeout=0.5)
            time.sleep(0.01)  # at whatever it is by then
            assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
            with contextlib.suppress(Unreachable):
                assert answer.result().outcome == "done"
    with office.serving("mylog") as server:
        receipt = submit(server, made)
        assert (receipt.index, receipt.parts) == (43, 40)
        assert submit(server, made).outcome == "done before"
        assert (parts(server, ALICE), parts(server, BOB)) == (0, 40)
        assert entries(server, 44)[:43] == before
        metrics = httpx.get(f"{server.http}/metrics").raise_for_status().text
        assert 'tlog_records_erasures_stopped_total{log="mylog"} 0.0' in metrics
        assert 'tlog_records_findings_total{kind="gap",log="mylog"} 0.0' in metrics
        assert server.stop() == (0, "")
    assert ALICE.encode() not in every_byte(office.directory / "mylog")


def test_an_approver_who_was_let_in_stays_so_after_a_kill(office: Terminal) -> None:
    made = order(Kind.REGISTER).encode()
    with office.serving("mylog") as server:
        record(office, server, [ALICE])
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(submit, server, made, timeout=0.5)
            time.sleep(0.01)  # at whatever it is by then
            assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
            with contextlib.suppress(Unreachable):
                assert answer.result().outcome == "done"
    with office.serving("mylog") as server:
        receipt = submit(server, made)
        assert (receipt.index, receipt.vkey) == (4, str(COUNSEL.vkey))
        assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    with office.serving("mylog") as server:
        assert submit(server, made).outcome == "done before"
        assert submit(server, order(Kind.ERASE, DPO, COUNSEL).encode()).index == 5
        assert server.stop() == (0, "")
    words = ("records", "add-producer", "mylog", "hr", "--role", "approver", "--key", "hr.key")
    alone = office.run(*words)
    assert alone.returncode == 1
    assert b"takes an order that 2 of them signed" in alone.stderr


EXPIRING = """
import sys
from tlog.audit import expiry
from tlog.cli import main

# All is past its time at once: what is left to see is that the server itself lets it go.
expiry.months_before = lambda now, months: now
main(["serve", "mylog", "--json", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
"""


def test_a_server_lets_go_by_itself_of_what_is_past_its_time(office: Terminal) -> None:
    settings = office.directory / "mylog" / "records.toml"
    settings.write_text(settings.read_text() + "expiry_interval = 0.1\n")
    with ended(office.start("-c", EXPIRING, program=(sys.executable,))) as child:
        assert child.stdout is not None
        server = Served(child, json.loads(child.stdout.readline()))
        office.environment["TLOG_SERVER"] = server.grpc
        _run(office, *HOLD)
        record(office, server, [ALICE, BOB] * 5)
        # Nobody looks at them meanwhile: the look would be a record of its own.
        expired = 'tlog_records_expired_total{log="mylog"} 5.0'
        until(lambda: expired in httpx.get(f"{server.http}/metrics").raise_for_status().text)
        assert parts(server, ALICE) == 11  # she is held, and so is the record of the hold
        metrics = httpx.get(f"{server.http}/metrics").raise_for_status().text
        assert 'tlog_records_unknown_type{log="mylog"} 0.0' in metrics
        assert parts(server, BOB) == 0
        assert server.stop() == (0, "")
