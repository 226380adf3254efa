"""Work that goes on to its end, whether or not anybody still waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deeds:
    """What is under way: a caller that goes away leaves nothing half done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Begin it, and wait for it as long as we may."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, deed: asyncio.Future[Any]) -> None:
        self._running.discard(deed)
        if not deed.cancelled():
            deed.exception()  # unheard, if nobody waits for it any more

    async def ended(self) -> None:
        """Wait until all that was begun is done."""
        if self._running:
            await asyncio.wait(self._running)


async def to_its_end(work: Awaitable[T]) -> T:
    """Wait for work; a caller that is called off, even twice, leaves no sooner than it is done.

    So what the caller holds for it, such as a turn, is held as long as it goes on.
    """
    task = asyncio.ensure_future(work)
    called_off: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            called_off = error
    if called_off is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # unheard: nobody waits for it any more
    raise called_off


async def in_thread(call: Callable[[], T]) -> T:
    """Call it in a thread; a caller that is called off leaves no sooner than the thread is done."""
    return await to_its_end(asyncio.get_running_loop().run_in_executor(None, call))
