"""A log and three real witnesses, over HTTP and gRPC: quorum, late ones, absent ones, healing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.remote.witnesses import Station, make_log, opened, until, write_policy
from tlog.log import Log
from tlog.notes import Policy, parse_proof

SCHEMES = ("http", "grpc", "http")


@dataclass
class Scene:
    log: Log
    stations: list[Station]
    policy: Policy
    directory: Path

    def cosigned_by(self, note: bytes | None = None) -> tuple[str, ...]:
        """Which witnesses cosigned the published head (or a note), by the policy."""
        return self.policy.open(note or self.log.published.note).cosigned_by

    async def append(self, *entries: bytes) -> None:
        for entry in entries:
            async with asyncio.timeout(90):
                (receipt,) = await self.log.append_published([entry])
            self.policy.open(parse_proof(receipt.tlog_proof()).checkpoint)


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, *, quorum: int = 2) -> AsyncIterator[Scene]:
    """Three witnesses and a log whose policy wants `quorum` of them."""
    directory = tmp_path / "log"
    vkeys = make_log(directory)
    stations = [Station(tmp_path / f"w{n}", scheme) for n, scheme in enumerate(SCHEMES)]
    try:
        for station in stations:
            station.trust(vkeys)
            await station.start()
        # One of the Ed25519 keys, one of the ML-DSA-44 keys: either counts.
        witnesses = [(station.vkeys[n % 2], station.url) for n, station in enumerate(stations)]
        policy = write_policy(directory, vkeys, witnesses, quorum)
        async with opened(directory) as log:
            yield Scene(log, stations, policy, directory)
    finally:
        for station in stations:
            await station.stop()


async def test_three_cosignatures(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await until(lambda: it.log.publisher.latest is not None)
        assert it.log.published.size == 0
        await it.append(b"one", b"two", b"three")
        # The third may come after the quorum: it joins the published head.
        await until(lambda: it.cosigned_by() == ("w0", "w1", "w2"))
        assert it.log.published.size == 3
        assert [station.size() for station in it.stations] == [3, 3, 3]
        assert it.log.cosigners is not None
        assert [status.away for status in it.log.cosigners.status()] == [False] * 3


@pytest.mark.parametrize("stopped", [0, 1])
async def test_one_away_changes_nothing(tmp_path: Path, stopped: int) -> None:
    async with scene(tmp_path) as it:
        await it.append(b"one")
        await it.stations[stopped].stop()
        for number in range(3):
            await it.append(b"entry %d" % number)
        assert f"w{stopped}" not in it.cosigned_by()
        await it.stations[stopped].start()
        # It comes back by itself, and is given what it missed.
        await until(lambda: len(it.cosigned_by()) == 3)
        assert it.stations[stopped].size() == 4


async def test_two_away_receipts_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.append(b"one")
        await it.stations[0].stop()
        await it.stations[1].stop()
        waiting = [asyncio.create_task(it.append(b"waiting %d" % n)) for n in range(3)]
        indices = await it.log.submit([b"durable"])
        assert len(indices) == 1
        assert it.log.sequencer.edge.size == 5
        _, pending = await asyncio.wait(waiting, timeout=1.0)
        assert len(pending) == 3
        assert it.log.published.size == 1
        await it.stations[1].start()
        async with asyncio.timeout(90):
            await asyncio.gather(*waiting)
        await until(lambda: it.log.published.size == 5)
        assert set(it.cosigned_by()) >= {"w1", "w2"}


async def test_a_witness_without_memory_is_healed(tmp_path: Path) -> None:
    async with scene(tmp_path, quorum=3) as it:
        await it.append(b"one", b"two", b"three")
        for station in it.stations[:2]:
            await station.stop()
            station.forget()
            await station.start()
        # The log believes that they have size 3; 409 tells it that it is 0.
        await it.append(b"four")
        assert len(it.cosigned_by()) == 3
        assert [station.size() for station in it.stations] == [4, 4, 4]


async def test_a_log_that_forgot_what_witnesses_have_is_healed(tmp_path: Path) -> None:
    async with scene(tmp_path, quorum=3) as it:
        await it.append(b"one", b"two", b"three")
        assert it.log.cosigners is not None
        for feeder, wrong in zip(it.log.cosigners._feeders, (0, 1, 2), strict=True):
            feeder._known_size = wrong
        await it.append(b"four")
        assert [station.size() for station in it.stations] == [4, 4, 4]


async def test_a_restarted_log_goes_on(tmp_path: Path) -> None:
    async with scene(tmp_path, quorum=3) as it:
        await it.append(b"one", b"two")
    stations = it.stations
    for station in stations:
        await station.start()
    try:
        async with opened(it.directory) as log:
            again = Scene(log, stations, it.policy, it.directory)
            assert log.published.size == 2
            await again.append(b"three")
            assert again.cosigned_by() == ("w0", "w1", "w2")
    finally:
        for station in stations:
            await station.stop()


async def test_a_witness_that_is_ahead_is_told_of(tmp_path: Path) -> None:
    """It cosigned a head that this log does not know: no proof can heal that."""
    async with scene(tmp_path) as it:
        await it.append(b"one")
        ahead = it.stations[2]
        assert ahead.witness is not None

        async def conflict(*request: object) -> None:
            from tlog.witness import SizeConflict

            raise SizeConflict("ahead", size=1000)

        ahead.witness.add_checkpoint = conflict  # type: ignore[method-assign,assignment]
        await it.append(b"two")
        assert it.log.cosigners is not None
        await until(lambda: it.log.cosigners and it.log.cosigners.status()[2].failures)
        assert "1000" in it.log.cosigners.status()[2].last_error
        assert set(it.cosigned_by()) == {"w0", "w1"}
