"""Many logs at once: an alarm within one interval, and nothing lost, whoever hangs or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.http_log import HttpLog, signed
from tests.client.tiled import VERIFIER, numbered
from tlog.client import DeliveryError, Monitor, Rule, StateError, Watch, WatchFile
from tlog.client import monitor as monitoring
from tlog.remote import open_source

ENTRIES = numbered(600)
RULE = Rule.parse("tens", regex=r"entry \d*0$")
INTERVAL = 0.1


class Sink:
    """Remembers what it got; fails as long as it is told to, or hangs."""

    def __init__(self, name: str = "sink") -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.fails: Callable[[dict[str, Any]], bool] = lambda event: False
        self.hangs = False
        self.asked = 0

    async def send(self, event: bytes) -> None:
        assert b"\n" not in event
        self.asked += 1
        fields = json.loads(event)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails(fields):
            raise DeliveryError("not\nnow")
        self.events.append(fields)

    def matches(self, log: str = "log") -> list[int]:
        return [e["index"] for e in self.events if e["event"] == "match" and e["log"] == log]

    def alarms(self, log: str = "log") -> list[str]:
        return [
            ("" if event["event"] == "alarm" else "-") + event["kind"]
            for event in self.events
            if event["event"] != "match" and event["log"] == log
        ]


@contextlib.asynccontextmanager
async def monitored(
    directory: Path, found: Sink, alarms: Sink, **urls: str
) -> AsyncIterator[Monitor]:
    async with contextlib.AsyncExitStack() as stack:
        watches = []
        for name, url in urls.items():
            source = open_source(url)
            stack.push_async_callback(source.aclose)
            file = WatchFile(directory / f"{name}.json", VERIFIER)
            watches.append(Watch(name, source, VERIFIER, file, rules=[RULE], stale_after=3600))
        yield Monitor(watches, sinks={"tens": [found]}, alarms=[alarms], interval=INTERVAL)


@contextlib.asynccontextmanager
async def running(monitor: Monitor) -> AsyncIterator[None]:
    task = asyncio.create_task(monitor.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object], seconds: float = 10.0) -> float:
    """Wait until it holds; how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come to hold in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


@pytest.fixture
def served() -> Iterator[HttpLog]:
    with HttpLog(ENTRIES[:300]) as log:
        yield log


@pytest.fixture
def found() -> Sink:
    return Sink("found")


@pytest.fixture
def alarms() -> Sink:
    return Sink("alarms")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.client.walk.PAUSES", (0.01,))
    monkeypatch.setattr(monitoring, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(monitoring, "LONGEST_PAUSE", 0.05)


@pytest.mark.parametrize(
    ("kind", "misbehave"),
    [
        ("rollback", lambda log: log.show(ENTRIES[:200])),
        ("fork", lambda log: log.show([b"forged", *ENTRIES[1:500]])),
        ("stale", lambda log: log.show(ENTRIES[:400], signed(ENTRIES[:400], at=1_700_000_000))),
        ("signature", lambda log: log.show(ENTRIES[:400], b"nonsense")),
    ],
)
async def test_an_alarm_within_one_interval(
    tmp_path: Path,
    served: HttpLog,
    found: Sink,
    alarms: Sink,
    kind: str,
    misbehave: Callable[[HttpLog], None],
) -> None:
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor, running(monitor):
        await until(lambda: len(found.matches()) == 30)
        misbehave(served)
        # The look itself, and this machine's other work, come on top of the interval.
        assert await until(lambda: alarms.alarms() == [kind]) < INTERVAL + 1.0
        served.show(ENTRIES)
        await until(lambda: alarms.alarms() == [kind, f"-{kind}"])
        await until(lambda: found.matches() == list(range(0, 600, 10)))


async def test_a_log_that_hangs_keeps_no_other(
    tmp_path: Path, served: HttpLog, found: Sink, alarms: Sink
) -> None:
    with HttpLog(ENTRIES[:5]) as hanging:
        hanging.hang.set()
        urls = {"hangs": hanging.url, "log": served.url}
        async with monitored(tmp_path, found, alarms, **urls) as monitor, running(monitor):
            await until(lambda: len(found.matches()) == 30)
            served.show(ENTRIES[:299])
            await until(lambda: alarms.alarms() == ["rollback"])
            assert monitor.watches[0].reached is None
        hanging.hang.clear()


async def test_a_sink_that_hangs_keeps_no_alarm(
    tmp_path: Path, served: HttpLog, found: Sink, alarms: Sink
) -> None:
    found.hangs = True
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor, running(monitor):
        await until(lambda: found.asked)
        served.show(ENTRIES[:299])
        await until(lambda: alarms.alarms() == ["rollback"])
        served.show(ENTRIES)
        await until(lambda: alarms.alarms() == ["rollback", "-rollback"])
    # What it had in its hands is found again by the next one.
    found.hangs = False
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor, running(monitor):
        await until(lambda: found.matches() == list(range(0, 600, 10)))


async def test_what_is_refused_is_sent_again_in_order(
    tmp_path: Path, served: HttpLog, found: Sink, alarms: Sink
) -> None:
    refusals = 0

    def every_other(event: dict[str, Any]) -> bool:
        nonlocal refusals
        refusals += 1
        return bool(refusals % 2)

    found.fails = alarms.fails = every_other
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor, running(monitor):
        await until(lambda: found.matches() == list(range(0, 300, 10)))
        served.show(ENTRIES[:299])
        await until(lambda: alarms.alarms() == ["rollback"])
        assert not any(monitor.undelivered.values())
        alarms.fails = lambda event: True
        served.show(ENTRIES)
        await until(lambda: monitor.undelivered["alarms"] > 3)
        assert [event["event"] for event in monitor.watches[0].watched.untold] == ["cleared"]


async def test_a_state_that_cannot_be_written_ends_the_monitor(
    tmp_path: Path, served: HttpLog, found: Sink, alarms: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor:
        running = asyncio.create_task(monitor.run())
        await until(lambda: len(found.matches()) == 30)

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tlog.client.sealed.replace_file", full)
        served.show(ENTRIES)
        with pytest.raises(StateError, match="No space left"):
            await asyncio.wait_for(running, 10)


async def test_once(
    tmp_path: Path, served: HttpLog, found: Sink, alarms: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor:
        await monitor.once()
    served.show(ENTRIES[:299])
    found.fails = alarms.fails = lambda event: True
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor:
        with pytest.raises(DeliveryError):
            await monitor.once()
    told = [each.getMessage() for each in caplog.records if each.name == "tlog.client.monitor"]
    assert set(told) == {"not delivered to alarms, trying again: not\N{REPLACEMENT CHARACTER}now"}
    assert alarms.alarms() == []
    alarms.fails = lambda event: False
    async with monitored(tmp_path, found, alarms, log=served.url) as monitor:
        await monitor.once()
    assert alarms.alarms() == ["rollback"]
    assert found.matches() == list(range(0, 300, 10))
