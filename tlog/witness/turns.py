"""One request at a time for each log, and a bound on how many wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from tlog.witness.errors import TooManyRequests

MAX_WAITING_PER_LOG: Final = 128
MAX_WAITING: Final = 8192


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    requests: int = 0


class Turns:
    """A lock for each log that has a request, nothing for the others."""

    def __init__(self) -> None:
        self._queues: dict[bytes, _Queue] = {}
        self._requests = 0

    @contextlib.asynccontextmanager
    async def of(self, key: bytes) -> AsyncIterator[None]:
        """Wait for the turn of this log.

        Raises:
            TooManyRequests: too many wait already, for this log or for all.
        """
        queue = self._queues.setdefault(key, _Queue())
        if queue.requests >= MAX_WAITING_PER_LOG or self._requests >= MAX_WAITING:
            if not queue.requests:
                del self._queues[key]
            raise TooManyRequests(
                f"{queue.requests} requests for this log and {self._requests} in all wait: the "
                f"limits are {MAX_WAITING_PER_LOG} and {MAX_WAITING}",
                retry_after=1.0,
            )
        queue.requests += 1
        self._requests += 1
        try:
            async with queue.lock:
                yield
        finally:
            self._requests -= 1
            queue.requests -= 1
            if not queue.requests:
                del self._queues[key]
