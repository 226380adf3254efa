"""The batcher: nothing lost, nothing twice, errors where they belong, memory bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.servers import World
from tlog.client import Appended, Batcher, ClientError, Refused
from tlog.client.batcher import Limits


class FakeLog:
    """Takes batches, refuses those with a bad entry, and remembers what it was sent."""

    def __init__(self, *, delay: float = 0.0, most: int = 1 << 30) -> None:
        self.taken: list[bytes] = []
        self.batches: list[int] = []
        self.under_way = self.most_under_way = 0
        self._delay = delay
        self._most = most
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, entries: Sequence[bytes]) -> Sequence[Appended]:
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            self.batches.append(len(entries))
            await asyncio.sleep(self._delay)
            await self.open.wait()
            if len(entries) > self._most or any(entry.startswith(b"bad") for entry in entries):
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "bad entry")
            if any(entry.startswith(b"lost") for entry in entries):
                raise ClientError("lost", outcome_unknown=True)
            start = len(self.taken)
            self.taken += entries
            return [Appended(start + number) for number in range(len(entries))]
        finally:
            self.under_way -= 1


kinds = st.sampled_from([b"good", b"good", b"good", b"bad"])


@given(
    entries=st.lists(kinds, max_size=60),
    max_entries=st.integers(1, 20),
    max_bytes=st.integers(1, 100),
    linger=st.sampled_from([0.0, 0.001]),
    in_flight=st.integers(1, 4),
    one_by_one=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_entry_gets_its_answer(
    entries: list[bytes],
    max_entries: int,
    max_bytes: int,
    linger: float,
    in_flight: int,
    one_by_one: bool,
) -> None:
    async def scenario() -> None:
        log = FakeLog()
        named = [entry + b" %d" % number for number, entry in enumerate(entries)]
        async with Batcher(log.send, Limits(max_entries, max_bytes, linger, in_flight)) as batcher:
            if one_by_one:
                futures: list[Any] = [await batcher.submit(entry) for entry in named]
            else:
                futures = [asyncio.ensure_future(batcher.append(entry)) for entry in named]
                await asyncio.sleep(0)
            await batcher.flush()
            assert all(future.done() for future in futures) or not one_by_one
            results = await asyncio.gather(*futures, return_exceptions=True)
        for entry, result in zip(named, results, strict=True):
            if entry.startswith(b"bad"):
                assert isinstance(result, Refused)
            else:
                assert isinstance(result, Appended)
                assert log.taken[result.index] == entry
        assert len(log.taken) == sum(not entry.startswith(b"bad") for entry in named)
        assert log.most_under_way <= in_flight
        assert max(log.batches, default=0) <= max_entries
        if in_flight == 1:
            assert log.taken == [entry for entry in named if not entry.startswith(b"bad")]

    asyncio.run(scenario())


async def test_a_batch_larger_than_the_log_takes_is_halved() -> None:
    log = FakeLog(most=3)
    async with Batcher(log.send, Limits(max_entries=16, in_flight=1)) as batcher:
        results = await asyncio.gather(*(batcher.append(b"%d" % number) for number in range(16)))
    assert [result.index for result in results] == list(range(16))


async def test_a_lost_answer_concerns_its_batch_alone() -> None:
    log = FakeLog()
    async with Batcher(log.send, Limits(max_entries=2, in_flight=1)) as batcher:
        results = await asyncio.gather(
            *(batcher.append(entry) for entry in (b"a", b"b", b"lost", b"c", b"d")),
            return_exceptions=True,
        )
    assert [isinstance(result, Appended) for result in results] == [True, True, False, False, True]
    assert isinstance(results[3], ClientError)
    assert results[3].outcome_unknown
    assert len(log.batches) == 3  # what may have been taken is not sent again


async def test_back_pressure() -> None:
    log = FakeLog()
    log.open.clear()
    async with Batcher(log.send, Limits(max_entries=4, linger=0.0, in_flight=2)) as batcher:
        taken: list[int] = []

        async def produce(number: int) -> Appended:
            future = await batcher.submit(b"entry")
            taken.append(number)
            return await future

        producers = [asyncio.ensure_future(produce(number)) for number in range(100)]
        await asyncio.sleep(0.05)
        assert taken == list(range(12))
        log.open.set()
        assert len(await asyncio.gather(*producers)) == 100
        assert taken == list(range(100))


async def test_linger_and_flush() -> None:
    log = FakeLog()
    loop = asyncio.get_running_loop()
    async with Batcher(log.send, Limits(linger=0.05)) as batcher:
        began = loop.time()
        await batcher.append(b"entry")
        assert loop.time() - began >= 0.045
    async with Batcher(log.send, Limits(linger=60.0)) as batcher:
        future = await batcher.submit(b"entry")
        await batcher.flush()
        assert future.done()
        await batcher.flush()
        future = await batcher.submit(b"last")
    assert future.done()
    with pytest.raises(ClientError, match="closed"):
        await batcher.append(b"late")
    await batcher.close()


async def test_cancelled_callers_harm_nobody() -> None:
    log = FakeLog(delay=0.01)
    async with Batcher(log.send, Limits()) as batcher:
        callers = [asyncio.ensure_future(batcher.append(b"%d" % number)) for number in range(10)]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(result, Appended) for result in results) == 5


async def test_a_close_that_is_cut_short_leaves_no_promise_open() -> None:
    log = FakeLog()
    log.open.clear()
    batcher = Batcher(log.send, Limits(max_entries=1, in_flight=1))
    futures = [await batcher.submit(b"entry") for _ in range(2)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await batcher.close()
    errors = await asyncio.gather(*futures, return_exceptions=True)
    assert [getattr(error, "outcome_unknown", None) for error in errors] == [True, False]


def test_limits() -> None:
    for wrong in ({"max_entries": 0}, {"max_bytes": 0}, {"in_flight": 0}, {"linger": -1.0}):
        with pytest.raises(ValueError, match="at least"):
            Limits(**wrong)


async def test_over_a_real_log(world: World) -> None:
    entries = [b"entry %d" % number for number in range(5000)]
    async with world.client(honest=True) as client, client.batcher(in_flight=1) as batcher:
        poison = asyncio.ensure_future(batcher.append(bytes(70_000)))
        results = await asyncio.gather(*map(batcher.append, entries))
        assert [result.index for result in results] == list(range(5000))
        with pytest.raises(Refused, match="70000 bytes"):
            await poison
        async with client.batcher(wait="published") as patient:
            receipt = await patient.append(b"receipt")
            assert receipt.proof is not None


async def test_an_entry_beyond_the_limit_of_its_log(tmp_path: Any) -> None:
    from tests.client.servers import world as running

    async with running(tmp_path / "small", max_entry_size=10, max_batch_entries=8) as small:
        entries = [b"x" * (number % 12) for number in range(48)]
        async with small.client(honest=True) as client, client.batcher(in_flight=1) as batcher:
            results = await asyncio.gather(*map(batcher.append, entries), return_exceptions=True)
        assert [isinstance(result, Refused) for result in results] == [
            len(entry) > 10 for entry in entries
        ]
        assert small.log.sequencer.edge.size == 44
