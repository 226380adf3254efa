"""A sign of life: an event when nothing else was recorded for a while.

So a log in which nothing is heard of an application tells two things apart that look the same
without it: nothing happened, or nothing was recorded.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from tlog.audit import EventRefused
from tlog.client.errors import SpoolError

LONGEST: Final = 86_400.0
"""Seconds between two heartbeats, at most."""

_log = logging.getLogger(__name__)


def check_seconds(seconds: float) -> None:
    """Refuse what is no time between two heartbeats.

    Raises:
        SpoolError: it is not above 0, or longer than a day.
    """
    if not 0 < seconds <= LONGEST or math.isnan(seconds):
        raise SpoolError(f"heartbeat is {seconds:g} seconds: above 0, and at most {LONGEST:g}")


class Heartbeat:
    """A thread that beats whenever `note` was not called for so long.

    Args:
        beat: what to do, on that thread. A refusal is told, and the next beat tried in its time.
        seconds: see `check_seconds`.
    """

    def __init__(self, beat: Callable[[], object], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._last = time.monotonic()
        self._problem = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tlog-heartbeat", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Something was recorded: that is sign enough."""
        self._last = time.monotonic()

    def close(self) -> None:
        """Stop, and wait for a beat that is under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(max(0.0, self._last + self._seconds - time.monotonic())):
            if time.monotonic() - self._last >= self._seconds:
                self._last = time.monotonic()
                self._try()

    def _try(self) -> None:
        try:
            self._beat()
        except (EventRefused, SpoolError) as error:
            if (problem := str(error)) != self._problem:
                _log.warning("no heartbeat: %s", problem)
            self._problem = problem
        else:
            self._problem = ""
