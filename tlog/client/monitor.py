"""Many logs watched at once: when to look, and how what is found reaches those who must know."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from tlog.client.errors import ClientError, printable
from tlog.client.rules import Rule
from tlog.client.watch import Watch
from tlog.client.watchfile import Event

LEAST_PATIENCE = 10.0
"""Seconds that a log has to answer, however short the interval is."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
ONCE_ATTEMPTS = 4

_log = logging.getLogger(__name__)


class DeliveryError(ClientError):
    """An event did not reach whom it was for. The message says why."""


class Sink(Protocol):
    """Where events go. `name` is how it is spoken of."""

    name: str

    async def send(self, event: bytes) -> None:
        """Deliver an event, one JSON object on one line; bounded in time.

        Raises:
            DeliveryError: it did not arrive. It will be sent again.
        """


class Monitor:
    """Follows logs, each in its own tasks: one that hangs, or a sink that does, holds up no other.

    Whatever is found, and every alarm, is delivered to each of its sinks at least once, also when
    the process is killed at any moment: its receivers know a repetition by the event's id.

    Args:
        watches: the logs. Their files are held by the caller.
        sinks: for each rule by name, where what it finds goes.
        alarms: where alarms go, of all logs.
        interval: seconds between two looks at a log.

    Attributes:
        undelivered: for each sink, how often in a row it failed.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        *,
        sinks: Mapping[str, Sequence[Sink]],
        alarms: Sequence[Sink],
        interval: float,
    ) -> None:
        self.watches = watches
        self.undelivered: Counter[str] = Counter()
        self._sinks = sinks
        self._alarms = alarms
        self._interval = interval
        self._attempts: int | None = None

    async def run(self) -> None:
        """Follow the logs until cancelled.

        Raises:
            StateError: what was found cannot be written down, so that it is not relied on.
        """
        tasks = [
            asyncio.create_task(work)
            for watch in self.watches
            for work in (self._follow(watch), self._tell(watch))
        ]
        try:
            # The first that ends has failed.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def once(self) -> None:
        """Look at every log once, read what is new, and deliver all of it.

        Raises:
            StateError: as in `run`.
            DeliveryError: a sink failed several times; what it did not get, it gets the next time.
        """
        self._attempts = ONCE_ATTEMPTS
        results = await asyncio.gather(*map(self._round, self.watches), return_exceptions=True)
        for failed in filter(None, results):
            raise failed

    async def _round(self, watch: Watch) -> None:
        await watch.check(patience=max(self._interval, LEAST_PATIENCE))
        await watch.read(self._deliver)
        while watch.watched.untold:
            await self._tell_first(watch)

    async def _follow(self, watch: Watch) -> None:
        """Look at the head, time and again; entries are read beside that, as long as it takes."""
        reading: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        try:
            while True:
                due = loop.time() + self._interval
                await watch.check(patience=max(self._interval, LEAST_PATIENCE))
                if reading is None or reading.done():
                    if reading is not None:
                        reading.result()
                    reading = asyncio.create_task(watch.read(self._deliver))
                await asyncio.sleep(due - loop.time())
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _tell(self, watch: Watch) -> None:
        while True:
            await watch.untold.wait()
            await self._tell_first(watch)

    async def _tell_first(self, watch: Watch) -> None:
        await self._send(watch.watched.untold[0], self._alarms)
        watch.told()

    async def _deliver(self, rule: Rule, event: Event) -> None:
        await self._send(event, self._sinks[rule.name])

    async def _send(self, event: Event, sinks: Sequence[Sink]) -> None:
        line = json.dumps(event, ensure_ascii=False).encode()
        await asyncio.gather(*(self._send_to(sink, line) for sink in sinks))

    async def _send_to(self, sink: Sink, line: bytes) -> None:
        """Send until it arrives: nothing after it is delivered before."""
        pause = FIRST_PAUSE
        while True:
            try:
                await sink.send(line)
            except DeliveryError as error:
                self.undelivered[sink.name] += 1
                if self.undelivered[sink.name] == self._attempts:
                    raise
                reason = printable(str(error))
                _log.warning("not delivered to %s, trying again: %s", sink.name, reason)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.undelivered[sink.name] = 0
                return
