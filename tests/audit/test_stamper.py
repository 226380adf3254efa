"""The schedule, the queue and the disk: authorities come and go, and the log never waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.audit.authority import Station, settings_of
from tlog.audit import StampError, StampTime, stamp_store, stamper, verify_stamp
from tlog.audit.authorities import load_settings
from tlog.audit.stamp_store import Due, StampStore
from tlog.audit.stamper import Stamper, stamping
from tlog.log import Log, LogConfig, create_log
from tlog.remote import time_stampers

INTERVAL = 0.05


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamper, "PAUSE", 0.02)
    monkeypatch.setattr(stamper, "MAX_PAUSE", 0.05)
    monkeypatch.setattr(stamper, "PACE", 0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def stations(tmp_path: Path) -> AsyncIterator[tuple[Station, Station]]:
    one, two = (Station(tmp_path / name, name=name) for name in ("one", "two"))
    async with one.serving(), two.serving():
        yield one, two


@pytest.fixture
def directory(tmp_path: Path, stations: tuple[Station, Station]) -> Path:
    """A log that is stamped by both."""
    made = tmp_path / "log"
    create_log(made, LogConfig(origin="example.com/log", name="log", checkpoint_interval=0))
    (made / "timestamps.toml").write_text(settings_of(*stations, interval=INTERVAL))
    return made


@contextlib.asynccontextmanager
async def stamped(directory: Path) -> AsyncIterator[tuple[Log, Stamper]]:
    async with (
        Log.opened(directory) as log,
        time_stampers() as connect,
        stamping(directory, log, connect) as running,
    ):
        assert running is not None
        yield log, running


@contextlib.asynccontextmanager
async def clocked(
    directory: Path, clock: Callable[[], float]
) -> AsyncIterator[tuple[Log, Stamper]]:
    """The same, by another clock than that of the authorities."""
    settings = load_settings(directory)
    assert settings is not None
    async with Log.opened(directory) as log, time_stampers() as connect:
        with contextlib.closing(StampStore(directory, create=True)) as store:
            running = Stamper(
                store,
                settings,
                published=log.publisher.wait_for,
                connect=connect,
                name="log",
                clock=clock,
            )
            async with running.running():
                yield log, running


def verified(directory: Path, *stations: Station) -> set[tuple[str, int]]:
    """The stamps that there are; all of them verify."""
    authorities = {station.name: station.authority for station in stations}
    with contextlib.closing(StampStore(directory, create=False)) as store:
        found = list(store.all())
    for stamp in found:
        verify_stamp(stamp.answer, stamp.note, authorities[stamp.authority])
    return {(stamp.authority, stamp.size) for stamp in found}


async def test_checkpoints_are_stamped_by_all_once_in_an_interval(
    directory: Path, stations: tuple[Station, Station]
) -> None:
    async with stamped(directory) as (log, running):
        await asyncio.sleep(2 * INTERVAL)
        assert running.status["one"].tally.stamped == 0  # an empty log has nothing to stamp
        started = time.monotonic()
        while running.status["two"].tally.stamped < 4:
            await log.append_published([b"entry %f" % time.monotonic()])
        spent = time.monotonic() - started
        size = log.tree_size
        await until(
            lambda: (
                {(s.tally.size, s.tally.waiting) for s in running.status.values()} == {(size, 0)}
            )
        )
        asked = len(stations[0].asked)
        assert asked <= spent / INTERVAL + 2
        await asyncio.sleep(3 * INTERVAL)
        assert len(stations[0].asked) == asked  # nothing new, nothing asked
    found = verified(directory, *stations)
    assert {name for name, _ in found} == {"one", "two"}
    assert len(found) == 2 * asked


async def test_a_restart_goes_on_with_the_interval(
    directory: Path, stations: tuple[Station, Station]
) -> None:
    (directory / "timestamps.toml").write_text(settings_of(*stations, interval=3600))
    async with stamped(directory) as (log, running):
        await log.append_published([b"one"])
        await until(lambda: running.status["one"].tally.size == 1)
    async with stamped(directory) as (log, running):
        assert running.status["one"].tally.size == 1
        await log.append_published([b"two"])
        await asyncio.sleep(0.1)
        assert running.status["one"].tally == (
            stamp_store.Tally(stamped=1, size=1, waiting=0, since=None)
        )
    # A clock that was in the future then does not stop the stamps until that time.
    with contextlib.closing(sqlite3.connect(directory / "stamps.db")) as database, database:
        database.execute("UPDATE checkpoints SET due = ?", (time.time() + 1e6,))
    (directory / "timestamps.toml").write_text(settings_of(*stations, interval=0.1))
    async with stamped(directory) as (log, running):
        await until(lambda: running.status["one"].tally.size == 2)


async def test_one_is_away_and_comes_back(
    directory: Path, stations: tuple[Station, Station]
) -> None:
    """The other is not held up, appends neither; then the queue drains, the newest first."""
    one, two = stations
    two.away = True
    async with stamped(directory) as (log, running):
        began = time.time()
        for number in range(4):
            started = time.monotonic()
            await log.append_published([b"%d" % number])
            assert time.monotonic() - started < 5
            await until(lambda: running.status["one"].tally.size == log.tree_size)
        status = running.status["two"]
        await until(lambda: status.tally.waiting == 4 and status.failures > 2)
        assert "cannot be asked" in status.last_error
        assert status.tally.stamped == 0
        assert status.tally.since is not None
        assert began <= status.tally.since <= time.time()
        assert running.status["one"].failures == 0
        already = len(two.asked)
        two.away = False
        await until(lambda: status.tally.waiting == 0)
        assert status.tally == stamp_store.Tally(stamped=4, size=4, waiting=0, since=None)
        assert status.last_error == ""
        assert len(two.asked) - already in {4, 5}
    sizes = {1, 2, 3, 4}
    assert verified(directory, one, two) == {(n, size) for n in ("one", "two") for size in sizes}
    with contextlib.closing(StampStore(directory, create=False)) as store:
        # What came back first is the newest: it bounds the time of the first entry as well.
        first = store.including(0, "two")
        assert first is not None
        said = {
            stamp.size: verify_stamp(stamp.answer, stamp.note, two.authority)
            for stamp in store.all()
            if stamp.authority == "two"
        }
        assert sorted(said, key=lambda size: said[size].serial) == [4, 3, 2, 1]
        assert said[first.size].not_after == said[4].not_after


async def test_what_waits_survives_a_restart(
    directory: Path, stations: tuple[Station, Station]
) -> None:
    one, two = stations
    two.away = True
    async with stamped(directory) as (log, running):
        await log.append_published([b"one"])
        await until(lambda: running.status["one"].tally.size == 1)
        await until(lambda: running.status["two"].failures > 0)
        since = running.status["two"].tally.since
    async with stamped(directory) as (_, running):
        assert running.status["two"].tally == stamp_store.Tally(0, 0, 1, since)
        two.away = False
        await until(lambda: running.status["two"].tally.stamped == 1)
    assert verified(directory, one, two) == {("one", 1), ("two", 1)}
    # Whoever is taken out of the settings is waited for no more.
    two.away = True
    async with stamped(directory) as (log, running):
        await log.append_published([b"two"])
        await until(lambda: running.status["two"].tally.waiting == 1)
    three = Station(directory.parent / "three", name="three")
    (directory / "timestamps.toml").write_text(settings_of(one, three, interval=INTERVAL))
    async with stamped(directory) as (_, running):
        assert list(running.status) == ["one", "three"]
    with contextlib.closing(StampStore(directory, create=False)) as store:
        assert store.tally("two").waiting == 0


async def test_who_is_back_is_not_flooded(
    directory: Path, stations: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = stations
    two.away = True
    async with stamped(directory) as (log, running):
        for number in range(3):
            await log.append_published([b"%d" % number])
            await until(lambda: running.status["one"].tally.size == log.tree_size)
        monkeypatch.setattr(stamper, "PACE", 0.2)
        two.away = False
        await until(lambda: running.status["two"].tally.stamped > 0)
        began = time.monotonic()
        await until(lambda: running.status["two"].tally.waiting == 0)
        assert time.monotonic() - began > 0.3
    assert len(verified(directory, one, two)) == 6


async def test_a_liar_is_away(
    directory: Path, stations: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that does not verify, be it an old one, is not kept."""
    one, two = stations
    kept = list[bytes]()

    async def replay(request: bytes) -> bytes:
        kept.append(await Station.stamp(two, request))
        return kept[0]

    monkeypatch.setattr(two, "stamp", replay)
    async with stamped(directory) as (log, running):
        await log.append_published([b"one"])
        await until(lambda: running.status["two"].tally.stamped == 1)
        await log.append_published([b"two"])
        await until(lambda: running.status["two"].failures > 2)
        assert "Nonce mismatch" in running.status["two"].last_error
        await until(lambda: running.status["one"].tally.size == 2)
    assert verified(directory, one, two) == {("one", 1), ("one", 2), ("two", 1)}


@pytest.mark.parametrize("behind", [stamper.MAX_EARLY + 60, 20 * 365 * 86_400.0])
async def test_a_stamp_from_before_its_checkpoint_is_refused(
    directory: Path, stations: tuple[Station, Station], behind: float
) -> None:
    """It would be the earliest of its authority for all entries, for ever."""
    one, two = stations
    ahead = behind
    async with clocked(directory, lambda: time.time() + ahead) as (log, running):
        await log.append_published([b"one"])
        status = running.status["two"]
        await until(lambda: status.failures > 2)
        assert re.match("two: stamped at .* size 1 was there at .*wrong", status.last_error)
        assert status.tally.stamped == 0
        assert status.tally.waiting == 1
        # It was ours that was wrong; what was queued with it is stamped all the same.
        ahead = 0
        await until(lambda: status.tally.stamped == 1)
        assert status.last_error == ""
    assert ("two", 1) in verified(directory, one, two)


@pytest.mark.parametrize("off", [stamper.MAX_EARLY - 60, -1e6])
async def test_a_clock_that_is_behind_a_little_or_ahead_is_nothing(
    directory: Path, stations: tuple[Station, Station], off: float
) -> None:
    async with clocked(directory, lambda: time.time() + off) as (log, running):
        await log.append_published([b"one"])
        await until(lambda: {each.tally.stamped for each in running.status.values()} == {1})
        assert not any(status.failures for status in running.status.values())
    assert len(verified(directory, *stations)) == 2


async def test_a_disk_that_is_full_for_a_while(
    directory: Path, stations: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {"queue": 2, "keep": 3}
    for name in ("queue", "keep"):
        real = getattr(StampStore, name)

        def refuse(store: StampStore, *args: object, real: object = real, name: str = name) -> None:
            if failing[name]:
                failing[name] -= 1
                raise StampError("database or disk is full")
            real(store, *args)  # type: ignore[operator]

        monkeypatch.setattr(StampStore, name, refuse)
    async with stamped(directory) as (log, running):
        await log.append_published([b"one"])
        await until(lambda: all(s.tally.stamped == 1 for s in running.status.values()))
    assert failing == {"queue": 0, "keep": 0}
    assert verified(directory, *stations) == {("one", 1), ("two", 1)}


async def test_what_nobody_foresaw_ends_no_stamping(
    directory: Path, stations: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, and tried again, later and later; log and other authority go on."""
    one, two = stations
    tries: list[float] = []
    odd = True

    async def oddly(request: bytes) -> bytes:
        return b"odd" if odd else await Station.stamp(two, request)

    def verify(answer: bytes, *given: Any, **more: Any) -> StampTime:
        if answer == b"odd":
            tries.append(time.monotonic())
            raise RecursionError("too deep")
        return verify_stamp(answer, *given, **more)

    monkeypatch.setattr(two, "stamp", oddly)
    monkeypatch.setattr(stamper, "verify_stamp", verify)
    monkeypatch.setattr(stamper, "MAX_PAUSE", 0.3)
    with capture_logs() as logs:
        async with stamped(directory) as (log, running):
            status = running.status["two"]
            for number in range(3):
                await log.append_published([b"%d" % number])
                await until(lambda: running.status["one"].tally.size == log.tree_size)
            await until(lambda: len(tries) > 5)
            assert status.failures >= 5
            assert status.last_error == "a mistake in this program: RecursionError"
            assert status.tally.waiting == 3
            odd = False
            await until(lambda: status.tally.stamped == 3)
            assert status.last_error == ""
    assert tries[5] - tries[4] > 0.25 > 0.15 > tries[1] - tries[0]
    told = [each for each in logs if each["log_level"] == "critical"]
    assert [(each["event"], each["authority"]) for each in told] == [("no time-stamp", "two")]
    assert isinstance(told[0]["exc_info"], RecursionError)
    assert len(verified(directory, one, two)) == 6


async def test_a_mistake_in_the_schedule_is_one_for_a_while(
    directory: Path, stations: tuple[Station, Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, mistakes = StampStore.newest, 4

    def broken(store: StampStore) -> Due | None:
        nonlocal mistakes
        if mistakes:
            mistakes -= 1
            raise RuntimeError("a mistake")
        return real(store)

    monkeypatch.setattr(StampStore, "newest", broken)
    with capture_logs() as logs:
        async with stamped(directory) as (log, running):
            for number in range(3):
                await log.append_published([b"%d" % number])
            assert log.sequencer.refusal is None
            await until(lambda: all(s.tally.size == 3 for s in running.status.values()))
    told = [each["event"] for each in logs if each["log_level"] == "critical"]
    assert told == ["no checkpoint queued to be stamped"] * 4


async def test_a_disk_that_hangs_holds_up_no_append(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, goes_on = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hanging.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(StampStore, "queue", hang)
    async with stamped(directory) as (log, _):
        try:
            await log.append_published([b"first"])
            await until(hanging.is_set)
            async with asyncio.timeout(20):
                for number in range(20):
                    await log.append_published([b"%d" % number])
        finally:
            goes_on.set()


async def test_leaving_does_not_wait_for_an_authority(directory: Path, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read(-1)

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        stations = [Station(tmp_path / name, name=name) for name in ("mute", "deaf")]
        for station in stations:
            port = server.sockets[0].getsockname()[1]
            station.url = f"http://127.0.0.1:{port}/{station.name}"
        (directory / "timestamps.toml").write_text(settings_of(*stations, interval=INTERVAL))
        async with asyncio.timeout(10):
            async with stamped(directory) as (log, _):
                await log.append_published([b"one"])
                await asked.wait()
                await log.append_published([b"two"])
    assert verified(directory, *stations) == set()


async def test_no_settings(directory: Path) -> None:
    (directory / "timestamps.toml").unlink()
    async with (
        Log.opened(directory) as log,
        time_stampers() as connect,
        stamping(directory, log, connect) as running,
    ):
        assert running is None
    assert not (directory / "stamps.db").exists()


# ---- kill -9 ----

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.audit.test_stamper import stamped
from tlog.audit.stamp_store import StampStore

keep = StampStore.keep
def killed(store, *args):
    if sys.argv[2] == "after":
        keep(store, *args)
    if sys.argv[2] == "within":
        store._db.execute("PRAGMA cache_spill = 1")
        store._db.execute("BEGIN IMMEDIATE")
        store._db.execute("DELETE FROM waiting")
        store._db.execute("CREATE TABLE spill AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
                          " SELECT i + 1 FROM n WHERE i < 20000) SELECT i, randomblob(400) FROM n")
    os.kill(os.getpid(), signal.SIGKILL)
StampStore.keep = killed

async def main():
    async with stamped(Path(sys.argv[1])) as (log, _):
        await log.append_published([b"one"])
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_kill_9_between_token_and_store(
    directory: Path, stations: tuple[Station, Station], when: str
) -> None:
    one, two = stations
    two.away = True
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CHILD, str(directory), when],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.returncode == -signal.SIGKILL
    assert len(one.asked) == 1
    assert (directory / "stamps.db-journal").exists() is (when == "within")
    async with stamped(directory) as (log, running):
        assert log.tree_size == 1
        assert running.status["one"].tally.stamped == (when == "after")
        assert running.status["one"].tally.waiting == (when != "after")
        await until(lambda: running.status["one"].tally.stamped == 1)
        await log.append_published([b"two"])
        await until(lambda: running.status["one"].tally.size == 2)
    assert verified(directory, one) == {("one", 1), ("one", 2)}
    assert len(one.asked) == (2 if when == "after" else 3)
