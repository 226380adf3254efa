"""The scrubber: re-hashes the whole log as it lies on the disk, again and again, beside its work.

A bit that flips in an old entry is then found within an interval, not years later by whoever
needs the entry: named, and the log stops rather than sign on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import structlog

from tlog.log.errors import StateRefused
from tlog.log.fsck import FsckReport, fsck
from tlog.notes import VerifierKey
from tlog.store import LogStore, StoreError

FIRST_PAUSE = 60.0
# After each bundle it rests as many times as long as the bundle took: a tenth of one processor.
REST = 9.0

View = Callable[[], AbstractContextManager[LogStore]]
"""Opens what the disk holds at that moment, to be read by another thread beside the writer."""

_log = structlog.get_logger(__name__)


class Scrubber:
    """Scrubs one log until cancelled.

    Args:
        view: opens the log's store beside its writer.
        vkeys: the log's verifier keys.
        name: of the log, for messages.
        interval: seconds from one scrub to the next.
        clock: POSIX time.

    Attributes:
        finished_at: when a scrub last found the whole log in order, POSIX time; 0 for never.
    """

    def __init__(
        self,
        view: View,
        vkeys: Sequence[VerifierKey],
        *,
        name: str,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self.finished_at = 0.0
        self._view = view
        self._vkeys = vkeys
        self._name = name
        self._interval = interval
        self._clock = clock

    async def run(self) -> None:
        """Scrub at each interval.

        Raises:
            StateRefused: the log is damaged; the message names the first place.
        """
        await asyncio.sleep(min(FIRST_PAUSE, self._interval))
        while True:
            try:
                report = await self._scrub()
            except StoreError as error:
                # Damage would be in a report: the disk is full, say. The next one may do better.
                _log.error("not scrubbed", log=self._name, reason=str(error))
            else:
                if report.problems:
                    raise StateRefused(
                        f"a scrub found damage: {report.problems[0]}. Run: tlog fsck DIR"
                    )
                self.finished_at = self._clock()
                _log.info("scrubbed", log=self._name, size=report.size)
            await asyncio.sleep(self._interval)

    async def _scrub(self) -> FsckReport:
        stop = threading.Event()
        scrub = asyncio.get_running_loop().run_in_executor(None, self._scrub_in_thread, stop)
        try:
            return await asyncio.shield(scrub)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([scrub])
            scrub.exception()  # that it was stopped is no news
            raise

    def _scrub_in_thread(self, stop: threading.Event) -> FsckReport:
        began = time.monotonic()

        def rest(_: int) -> None:
            nonlocal began
            if stop.wait(REST * (time.monotonic() - began)):
                raise _StoppedError
            began = time.monotonic()

        with self._view() as view:
            return fsck(view, self._vkeys, beside_writer=True, progress=rest)


class _StoppedError(Exception):
    """Nobody waits for the scrub any more."""
