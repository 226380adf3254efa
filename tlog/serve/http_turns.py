"""Reads give way to appends: one event loop serves both, and readers could take all of it.

While no append waits, nothing holds a read back. While one does, all reads together get a small
share of the loop's time, and whoever asks for more waits for its turn; readers that wait for an
answer ask for nothing else meanwhile. Whoever must read fast from a busy log puts a cache before
it: nearly all that it serves is immutable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from tlog.log import Overloaded

SHARE = 0.05
# What the connection spends on a read, on parsing and buffers, beside what the application does.
CONNECTION_PART = 1.35
# Between an append's answer and its sender's next one, a log is as busy as before.
LULL_SECONDS = 0.02
# Turns are given to a few at a time: waking up costs too.
GROUP_SECONDS = 0.005
# How long to sleep without a look at whether the appends are done.
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 5.0


class ReadTurns:
    """Says when a read may go on, on one event loop.

    Args:
        appending: whether any append waits now.
    """

    def __init__(self, appending: Callable[[], bool]) -> None:
        self._appending = appending
        self._busy_until = self._free_at = time.monotonic()
        self._first = asyncio.Lock()  # those who wait get it in the order in which they came

    async def wait(self) -> None:
        """Return when it is this read's turn.

        Raises:
            Overloaded: it did not come in time.
        """
        if not self._busy():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._first:
                while True:
                    pause = self._free_at - time.monotonic()
                    if pause < GROUP_SECONDS or not self._busy():
                        return
                    await asyncio.sleep(min(pause, LOOK_SECONDS))
        except TimeoutError:
            raise Overloaded(
                "many reads wait, and appends go first: come back later, or ask a cache",
                retry_after=PATIENCE_SECONDS,
            ) from None

    def spent(self, seconds: float) -> None:
        """Count what a read took of the loop's time, or of a core beside it."""
        now = time.monotonic()
        if now < self._busy_until:
            self._free_at = max(self._free_at, now) + seconds * CONNECTION_PART / SHARE

    def _busy(self) -> bool:
        now = time.monotonic()
        if self._appending():
            self._busy_until = now + LULL_SECONDS
        return now < self._busy_until


class Metered:
    """A coroutine to await, whose time on the event loop is counted, and not that of its waits.

    Attributes:
        seconds: so much.
    """

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.seconds = 0.0
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        step = partial(self._work.send, None)
        while True:
            started = time.perf_counter()
            try:
                waits_for = step()
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            try:
                step = partial(self._work.send, (yield waits_for))
            except BaseException as error:  # noqa: BLE001  (it is the coroutine's)
                step = partial(self._work.throw, error)
