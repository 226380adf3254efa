"""Reads give way to appends: how long they wait, and that nothing but their own work is counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.serve.http.served import Served
from tlog.log import Overloaded
from tlog.serve import http_turns
from tlog.serve.http_turns import CONNECTION_PART, LULL_SECONDS, SHARE, Metered, ReadTurns


async def waited(turns: ReadTurns) -> float:
    started = time.monotonic()
    await turns.wait()
    return time.monotonic() - started


async def test_nobody_waits_while_nothing_is_appended() -> None:
    turns = ReadTurns(lambda: False)
    for _ in range(100):
        turns.spent(10.0)
        assert await waited(turns) < 0.05


async def test_reads_get_their_share_and_no_more() -> None:
    turns = ReadTurns(lambda: True)
    cost, count = 0.0005, 20
    started = time.monotonic()
    for _ in range(count):
        await turns.wait()
        turns.spent(cost)
    took = time.monotonic() - started
    owed = (count - 1) * cost * CONNECTION_PART / SHARE
    assert owed - 2 * http_turns.GROUP_SECONDS < took < 3 * owed + 0.2


async def test_those_who_wait_are_served_in_order() -> None:
    turns = ReadTurns(lambda: True)
    served: list[int] = []

    async def read(number: int) -> None:
        await turns.wait()
        served.append(number)
        turns.spent(0.0004)

    await asyncio.gather(*map(read, range(20)))
    assert served == list(range(20))


async def test_the_wait_ends_with_the_appends() -> None:
    appending = True
    turns = ReadTurns(lambda: appending)
    await turns.wait()
    turns.spent(0.1)  # 2.7 seconds of waiting
    reads = [asyncio.create_task(turns.wait()) for _ in range(50)]
    done, _ = await asyncio.wait(reads, timeout=0.1)
    assert not done
    appending = False
    started = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*reads), 2)
    assert time.monotonic() - started < 0.1 + LULL_SECONDS + http_turns.LOOK_SECONDS


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_turns, "PATIENCE_SECONDS", 0.1)
    turns = ReadTurns(lambda: True)
    await turns.wait()
    turns.spent(1.0)
    results = await asyncio.gather(*(turns.wait() for _ in range(10)), return_exceptions=True)
    assert [type(result) for result in results] == [Overloaded] * 10


async def test_who_gives_up_holds_up_nobody() -> None:
    turns = ReadTurns(lambda: True)
    await turns.wait()
    turns.spent(0.004)
    reads = [asyncio.create_task(turns.wait()) for _ in range(5)]
    await asyncio.sleep(0.01)
    for read in reads[:4]:
        read.cancel()
    await asyncio.wait_for(reads[4], 2)


# ---- what is counted ----


async def test_only_work_on_the_loop_is_counted() -> None:
    async def work() -> None:
        await asyncio.sleep(0.2)
        busy_until = time.perf_counter() + 0.03
        while time.perf_counter() < busy_until:
            pass
        await asyncio.to_thread(time.sleep, 0.2)

    metered = Metered(work())
    await metered
    assert 0.03 <= metered.seconds < 0.15


async def test_a_metered_coroutine_is_the_coroutine() -> None:
    got: list[Any] = []

    async def work(future: asyncio.Future[int]) -> None:
        try:
            got.append(await future)
        except ValueError as error:
            got.append(str(error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        got.append("late")
        await asyncio.sleep(60)

    loop = asyncio.get_running_loop()
    for outcome in (7, ValueError("wrong")):
        future: asyncio.Future[int] = loop.create_future()
        metered = Metered(work(future))

        async def run(metered: Metered = metered) -> None:
            await metered

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        if isinstance(outcome, int):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert got == [7, "late", "wrong", "late"]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Metered(fail())


# ---- the server ----


@pytest.fixture
def appending(small: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A log with one published entry, and one whose sync does not end until the event is set."""
    small.append([b"x" * 900])
    small.publish()
    go_on, started = threading.Event(), threading.Event()
    store = small.log._store
    sync = store.sync

    def slow() -> None:
        started.set()
        assert go_on.wait(60)
        sync()

    monkeypatch.setattr(store, "sync", slow)
    with ThreadPoolExecutor(1) as pool, small.client() as client:
        answer = pool.submit(client.post, "/small/add", content=b"slow")
        assert started.wait(10)
        yield go_on
        go_on.set()
        assert answer.result(10).text == "1"


READS = ("/small/checkpoint", "/small/tile/0/000.p/1", "/small/tile/entries/000.p/1")


def test_a_stuck_append_keeps_no_read(
    appending: threading.Event, small: Served, writer: httpx.Client
) -> None:
    # The writer's thread hangs in a sync: what answers now does not touch the write path.
    assert small.log.sequencer.pending == 1
    for path in READS:
        assert writer.get(path).status_code == 200
    packed = writer.get(READS[2], headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert writer.get("/small/tile/0/000.p/2").status_code == 404


def test_reads_are_paced_while_an_append_waits(
    appending: threading.Event,
    small: Served,
    writer: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_turns, "SHARE", 1e-6)
    monkeypatch.setattr(http_turns, "PATIENCE_SECONDS", 0.2)
    assert writer.get(READS[0]).status_code == 200  # whose debt keeps those after it waiting
    for path in (*READS, "/small/nope", "/small/tile/0/0"):
        refused = writer.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1"), path
        assert refused.headers["access-control-allow-origin"] == "*"
        assert refused.headers["cache-control"] == "no-store"
    # What tells the operator of it, and appends, wait for nothing.
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        assert writer.get(path).status_code == 200
    appending.set()
    deadline = time.monotonic() + 10
    while small.log.sequencer.pending:
        assert time.monotonic() < deadline
    time.sleep(LULL_SECONDS)
    for path in READS * 10:
        assert writer.get(path).status_code == 200


def test_a_slow_reader_costs_the_others_nothing(
    appending: threading.Event, small: Served, writer: httpx.Client
) -> None:
    request = b"GET /small/checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow: list[socket.socket] = []
        for _ in range(5):
            slow.append(stack.enter_context(small.connect()))
            slow[-1].sendall(request)  # and no body: it is answered when that is given up
        started = time.monotonic()
        time.sleep(0.5)
        for connection in slow:
            connection.sendall(b"x" * 1000)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        for path in READS:
            assert writer.get(path).status_code == 200
        assert time.monotonic() - started < 2
