"""Head changes made durable: one sync for all that came while the last one was under way.

The store is owned by the event loop's thread; only its syncs, and reopening it after a failure,
run in the executor. What is written and not yet synced is never shown.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

import structlog

from tlog.store import StoreError
from tlog.store.heads import Swap
from tlog.witness.errors import Unavailable

RECOVERY_PAUSE: Final = 1.0
"""Least seconds between two attempts to reopen a store that failed."""

_Waiting = tuple[Swap, asyncio.Future[bool]]

_logger = structlog.get_logger(__name__)


class Heads(Protocol):
    """The latest head of each log: `store.heads.HeadStore`, whose promises these are."""

    def get(self, origin_hash: bytes) -> bytes | None:
        """The head last swapped in, synced or not."""

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """All (origin hash, head)."""

    def swap(self, swaps: Sequence[Swap]) -> list[bool]:
        """Replace the heads that are as expected, atomically; not durable until `sync`."""

    def sync(self) -> None:
        """Make durable what was swapped in before. In any thread."""

    def reopen(self) -> None:
        """Start again from what is on the disk."""


class Committer:
    """Makes swaps durable in groups.

    Args:
        heads: the store; nobody else writes to it.
        executor: where syncs run.
        clock: seconds, from any beginning.
    """

    def __init__(
        self, heads: Heads, executor: Executor, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heads = heads
        self._executor = executor
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        # What was durable before the swaps that are being synced, or whose sync failed.
        self._before: dict[bytes, bytes | None] = {}
        self._failure: Unavailable | None = None
        self._retry_at = 0.0
        self._reopening = asyncio.Lock()

    @property
    def failure(self) -> str | None:
        """Why nothing can be recorded now; None when all is well."""
        return None if self._failure is None else str(self._failure)

    def read(self, origin_hash: bytes) -> bytes | None:
        """The latest durable head.

        Raises:
            Unavailable: the store cannot be read.
        """
        self._check_readable()
        if origin_hash in self._before:
            return self._before[origin_hash]
        try:
            return self._heads.get(origin_hash)
        except StoreError as error:
            raise Unavailable(f"the witness's store cannot be read: {error}") from None

    def read_all(self) -> Iterator[tuple[bytes, bytes]]:
        """All (origin hash, latest durable head); raises as `read`."""
        self._check_readable()
        try:
            for origin_hash, head in self._heads.heads():
                self._check_readable()
                durable = self._before.get(origin_hash, head)
                if durable is not None:
                    yield origin_hash, durable
        except StoreError as error:
            raise Unavailable(f"the witness's store cannot be read: {error}") from None

    async def swap(self, swap: Swap) -> bool:
        """Replace a head; True once that is durable, False if the head was not as expected.

        Not to be cancelled: the caller could not know what became of it.

        Raises:
            Unavailable: it is not known to be durable.
        """
        self._check()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((swap, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="witness-commits")
        return await future

    async def recover(self) -> None:
        """Reopen the store if it has failed; cheap when it has not.

        Raises:
            Unavailable: it still fails, or was tried a moment ago.
        """
        if self._failure is None:
            return
        async with self._reopening:
            if self._failure is None:
                return
            if self._task is not None or self._clock() < self._retry_at:
                self._check()
            self._retry_at = self._clock() + RECOVERY_PAUSE
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._heads.reopen)
            except StoreError as error:
                self._fail(error)
                self._check()
            self._failure = None
            self._before.clear()
            _logger.info("the witness's store is open again")

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while (task := self._task) is not None:
            await asyncio.wait([task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._commit(group)
        finally:
            self._task = None

    async def _commit(self, group: list[_Waiting]) -> None:
        try:
            self._check()
            swaps = [swap for swap, _ in group]
            self._before = {swap.origin_hash: self._heads.get(swap.origin_hash) for swap in swaps}
            done = self._heads.swap(swaps)
            await asyncio.get_running_loop().run_in_executor(self._executor, self._heads.sync)
        except (StoreError, Unavailable) as error:
            if isinstance(error, StoreError):
                self._fail(error)
            _refuse(group, f"not recorded: {error}")
        except BaseException as error:
            # An unknown state: what is shown from here on is what the disk says after a reopen.
            self._fail(error)
            _refuse([*group, *self._waiting], "not recorded: the witness is stopping, or ill")
            self._waiting = []
            raise
        else:
            self._before.clear()
            for (_, future), was_done in zip(group, done, strict=True):
                if not future.done():
                    future.set_result(was_done)

    def _check_readable(self) -> None:
        # After a failure, what was durable before it can be read until the store is reopened.
        if self._reopening.locked():
            raise Unavailable("the witness's store is being reopened")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _fail(self, error: BaseException) -> None:
        self._failure = Unavailable(f"the witness's store refused to write: {error}")
        _logger.error("the witness cannot record heads", reason=str(error))


def _refuse(group: Sequence[_Waiting], message: str) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(Unavailable(message))
