"""The write path: order, bounds, back-pressure, cancellation, shutting down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tlog.log import (
    InvalidRequest,
    Log,
    LogConfig,
    Overloaded,
    ShuttingDown,
    Unavailable,
    create_log,
)


@contextlib.asynccontextmanager
async def opened(directory: Path, **settings: Any) -> AsyncIterator[Log]:
    settings = {"checkpoint_interval": 0, **settings}
    create_log(directory, LogConfig(origin="example.com/s", name="s", **settings))
    async with Log.opened(directory) as log:
        yield log


async def append(log: Log, *entries: bytes) -> list[int]:
    return list(await log.submit(entries))


async def test_entries_are_indexed_in_the_order_they_were_accepted(tmp_path: Path) -> None:
    async with opened(tmp_path / "log") as log:
        accepted = [log.submit([b"%d" % i] * (i % 3 + 1)) for i in range(500)]
        placed = [index for each in accepted for index in await each]
    assert placed == list(range(len(placed)))


@pytest.mark.parametrize(
    ("entries", "field", "said"),
    [
        ([], "entries", "at least one"),
        ([b"x"] * 4, "entries", "at most 3"),
        ([b"ok", b"x" * 11], "entries[1]", "11 bytes long: this log takes at most 10"),
    ],
)
async def test_a_bad_batch_is_refused_whole(
    tmp_path: Path, entries: list[bytes], field: str, said: str
) -> None:
    async with opened(tmp_path / "log", max_entry_size=10, max_batch_entries=3) as log:
        with pytest.raises(InvalidRequest, match=said) as caught:
            log.submit(entries)
        assert caught.value.field == field
        assert await append(log, b"next") == [0]


async def test_the_longest_entry_fits(tmp_path: Path) -> None:
    longest = bytes(65535)
    async with opened(tmp_path / "log") as log:
        assert await append(log, *[longest] * 300) == list(range(300))
        (receipt,) = await log.append_published([b"last"])
        assert log.reader.entry(299, receipt.head.size) == longest


@pytest.mark.parametrize("bounds", [{"max_pending_entries": 8}, {"max_pending_bytes": 80}])
async def test_a_full_pool_pushes_back_and_loses_nothing(
    tmp_path: Path, bounds: dict[str, int]
) -> None:
    async with opened(tmp_path / "log", **bounds) as log:
        accepted = []
        with pytest.raises(Overloaded) as caught:
            for i in range(100):
                accepted.append(log.submit([b"entry %04d" % i]))
        assert len(accepted) == 8
        assert 0 < caught.value.retry_after < 60
        assert [list(await each) for each in accepted] == [[i] for i in range(8)]
        assert await append(log, b"there is room again") == [8]


async def test_one_caller_that_gives_up_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path / "log") as log:
        tasks = [asyncio.create_task(append(log, b"%d" % i)) for i in range(20)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(3), asyncio.CancelledError)
        assert all(isinstance(result, list) for result in results)
        # It was accepted: giving up did not take it back.
        assert await append(log, b"next") == [20]


async def test_the_same_leaf_at_the_same_time_has_one_index(tmp_path: Path) -> None:
    async with opened(tmp_path / "log", dedup=True) as log:
        await append(log, b"before")
        tasks = [asyncio.create_task(append(log, b"same", b"%d" % (i % 2))) for i in range(50)]
        placed = await asyncio.gather(*tasks)
        assert {tuple(indices) for indices in placed} == {(1, 2), (1, 3)}
        assert await append(log, b"before", b"same") == [0, 1]
        (receipt,) = await log.append_published([b"same"])
        assert receipt.index == 1
        assert log.published.size == 4


async def test_without_dedup_each_append_has_its_own_index(tmp_path: Path) -> None:
    async with opened(tmp_path / "log") as log:
        assert await append(log, b"same", b"same") == [0, 1]
        assert await append(log, b"same") == [2]


async def test_what_was_accepted_is_finished_and_published_when_the_log_closes(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "log"
    async with opened(directory, checkpoint_interval=3600) as log:
        waiting = asyncio.create_task(log.append_published([b"receipt"]))
        await asyncio.sleep(0)
        accepted = [log.submit([b"%d" % i]) for i in range(1000)]
    assert [list(await each) for each in accepted] == [[i] for i in range(1, 1001)]
    assert (await waiting)[0].index == 0
    with pytest.raises(ShuttingDown):
        log.submit([b"too late"])
    async with Log.opened(directory) as log:
        assert log.published.size == 1001


async def test_at_most_one_head_in_each_interval(tmp_path: Path) -> None:
    async with opened(tmp_path / "log", checkpoint_interval=0.2) as log:
        sizes = set()
        loop = asyncio.get_running_loop()
        started = loop.time()
        while loop.time() < started + 1.0:
            await append(log, b"x")
            sizes.add(log.published.size)
        assert 3 <= len(sizes) <= 8


async def test_an_internal_error_stops_the_log_and_tells_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one mock: a bug cannot be had for real."""
    async with opened(tmp_path / "log") as log:
        await append(log, b"good")

        def bug(*_: object) -> None:
            raise RuntimeError("bug")

        monkeypatch.setattr(log.sequencer, "_integrate", bug)
        with pytest.raises(Unavailable, match="restart"):
            await append(log, b"bad")
        with pytest.raises(Exception, match="internal error"):
            log.submit([b"after"])
