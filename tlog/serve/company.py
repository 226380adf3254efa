"""Calls that come in parallel are answered together.

What a small unary answer costs is mostly waking threads and sockets, here and at the client;
answers that go out together share it (a quarter of the work with 256 calls in flight, measured).
"""

from __future__ import annotations

import asyncio
from typing import Final

LINGER: Final = 0.004


class Company:
    """A call waits for as much company as the last ones had, but seconds no longer than `linger`.

    As appends do it in the sequencer: whoever comes in parallel meets; a lone caller never waits.
    """

    def __init__(self, linger: float = LINGER) -> None:
        self._linger = linger
        self._expected = 1
        self._joined = 0
        self._turn = asyncio.Event()
        self._due: asyncio.Handle | None = None

    async def gather(self) -> None:
        """Return together with the others that wait here."""
        self._joined += 1
        if self._joined == self._expected:
            if self._due is not None:
                self._due.cancel()
            # Not at once: those of the same turn of the loop come along, and company may grow.
            self._due = asyncio.get_running_loop().call_soon(self._go)
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(self._linger, self._go)
        await self._turn.wait()

    def _go(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        self._expected, self._joined, self._due = self._joined, 0, None
        turn.set()
