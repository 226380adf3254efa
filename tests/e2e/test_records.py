"""Records from an application to a published checkpoint, with real processes and kills between."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import Served, Terminal
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import parse_leaf
from tlog.client import Client, MemoryState, Producer
from tlog.merkle import split_bundle

ALICE = "alice@example.com"
REQUEST: dict[str, Any] = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}
COUNT = 10


@pytest.fixture
def tenant(terminal: Terminal, mylog: Path) -> Terminal:
    """A records log of which shop.key may record."""
    for words in (("init", "mylog", "--tenant", "acme"), ("add-producer", "mylog", "shop")):
        more = ("--key", "shop.key") if "shop" in words else ()
        done = terminal.run("records", *words, *more)
        assert done.returncode == 0, done.stderr
    return terminal


def producer(terminal: Terminal, target: str) -> Producer:
    at = terminal.directory
    return Producer(target, key=at / "shop.key", tenant="acme", spool=at / "spool")


def record(shop: Producer, count: int = COUNT) -> list[str]:
    """Record events; their ids."""
    return [
        shop.record("request.received", subject=ALICE, **REQUEST, details={"at": number}).event_id
        for number in range(count)
    ]


def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def published(server: Served, size: int) -> list[bytes]:
    """The entries of the served bundle, when a checkpoint of this size is published and proves
    each of them."""
    with Client(server.grpc, vkeys=server.ready["logs"][0]["vkeys"], state=MemoryState()) as client:
        until(lambda: client.checkpoint().size >= size)
        assert client.checkpoint().size == size
        proven = [client.entry(index) for index in range(size)]
    partial = httpx.get(f"{server.http}/mylog/tile/entries/000.p/{size}").raise_for_status()
    for word in (ALICE.encode(), b"alice", b"YWxpY2", b"FsaWNl", b"hbGljZ"):  # base64 of alice too
        assert word not in partial.content
    assert split_bundle(partial.content) == proven
    return proven


def claims(entry: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(parse_jws(parse_leaf(entry).jws).payload())
    return payload


def test_recorded_proven_and_nothing_personal(tenant: Terminal) -> None:
    with tenant.ready("serve", "mylog") as server:
        with producer(tenant, server.grpc) as shop:
            ids = record(shop)
            assert shop.flush(20), shop.problem
        entries = published(server, COUNT + 1)
        assert server.stop() == (0, "")
    assert claims(entries[0])["type"] == "producer.registered"
    assert [claims(entry)["event_id"] for entry in entries[1:]] == ids
    assert [claims(entry)["producer_seq"] for entry in entries[1:]] == list(range(1, COUNT + 1))
    assert claims(entries[1]).items() > REQUEST.items()
    # The vault has it, sealed.
    for file in (tenant.directory / "mylog").rglob("*"):
        if file.is_file():
            assert ALICE.encode() not in file.read_bytes(), file


def test_a_server_that_is_killed_loses_and_repeats_nothing(tenant: Terminal) -> None:
    with tenant.ready("serve", "mylog") as server:
        address = server.grpc
        with producer(tenant, address) as shop:
            ids = record(shop)
            assert shop.flush(20), shop.problem
            ids += record(shop, 200)
            # While they are delivered; and the process that verifies for it ends, too, or the
            # pipes would stay open.
            assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
            ids += record(shop)
            assert shop.spool.waiting >= COUNT
    # What waits outlives the application, too.
    with tenant.ready("serve", "mylog", grpc=address) as server:
        with producer(tenant, address) as shop:
            assert shop.flush(30), shop.problem
            assert shop.spool.waiting == 0
        entries = published(server, len(ids) + 1)
    assert [claims(entry)["event_id"] for entry in entries[1:]] == ids
    assert {claims(entry)["type"] for entry in entries[1:]} == {"request.received"}


def test_ctrl_c_leaves_it_to_the_server_what_its_processes_do(tenant: Terminal) -> None:
    with tenant.ready("serve", "mylog") as server, producer(tenant, server.grpc) as shop:
        record(shop, 200)
        assert shop.flush(20), shop.problem
        os.killpg(server.child.pid, signal.SIGINT)
        _, said = server.child.communicate(timeout=20)
        assert (server.child.returncode, said) == (0, b"")


def test_nobody_appends_to_a_records_log_but_its_records(tenant: Terminal) -> None:
    with tenant.serving("mylog") as server:
        assert server.ready["logs"][0]["tenant"] == "acme"
        done = tenant.run("append", "hello")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"mylog is a records log, which takes signed events only" in done.stderr
        assert b"AuditService.Record" in done.stderr
        answer = httpx.post(f"{server.http}/mylog/add", content=b"hello")
        assert answer.status_code == 403
        assert "records log" in answer.text
        (tenant.directory / "lines").write_bytes(b"one\ntwo\n")
        done = tenant.run("append", "--lines", "lines")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"records log" in done.stderr
        assert len(published(server, 1)) == 1


def test_a_producer_keeps_its_events_until_a_log_knows_its_key(tenant: Terminal) -> None:
    at = tenant.directory
    (at / "shop.key").rename(at / "kept.key")
    tenant.run("init", "other", "--origin", "example.com/other")
    tenant.run("records", "init", "other", "--tenant", "acme")
    done = tenant.run("records", "add-producer", "other", "shop", "--key", "shop.key", "--json")
    vkey = json.loads(done.stdout)["vkey"]
    with tenant.ready("serve", "mylog") as server, producer(tenant, server.grpc) as shop:
        record(shop, 1)
        until(lambda: "no producer has the key" in shop.problem)
    assert tenant.run("records", "add-producer", "mylog", "shop", "--vkey", vkey).returncode == 1
    # The name is taken by the first key: only a server that knows the second takes its events.
    with tenant.ready("serve", "other") as server, producer(tenant, server.grpc) as shop:
        assert shop.flush(20), shop.problem


@pytest.mark.parametrize("lost", ["records.toml", "vault", "keys/tenant.key", "keys/service.key"])
def test_a_records_log_that_lost_a_part_is_not_served(tenant: Terminal, lost: str) -> None:
    mylog = tenant.directory / "mylog"
    os.rename(mylog / lost, tenant.directory / "lost")
    done = tenant.run("serve", "mylog", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, b"")
    assert lost in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
