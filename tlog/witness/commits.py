"""Heads cosigned and made durable: one trip to the disk for all that came during the last one.

The store is read in the event loop's thread; signing, writing, syncing, and reopening it after a
failure run in the executor, one at a time. What is not yet synced is never shown.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from tlog.notes import NoteSignature
from tlog.store import StoreError
from tlog.store.heads import Swap
from tlog.witness.errors import Unavailable

RECOVERY_PAUSE: Final = 1.0
"""Least seconds between two attempts to reopen a store that failed."""

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A head with its cosignatures: what is recorded and, when that is durable, what is answered.

    Attributes:
        head: as the store keeps it.
        cosignatures: of it.
    """

    head: bytes
    cosignatures: list[NoteSignature]


@dataclass(frozen=True, slots=True)
class Change:
    """A new head for a log, if the stored one still is `expected` (None: if it has none).

    `cosign` makes it, in another thread. Whatever it signs and is not recorded is dropped.
    """

    origin_hash: bytes
    expected: bytes | None
    cosign: Callable[[], Cosigned]


# What became of a change: recorded, not as expected, or never cosigned.
_Outcome = Cosigned | Exception | None
_Waiting = tuple[Change, asyncio.Future[Cosigned | None]]


class Heads(Protocol):
    """The latest head of each log: `store.heads.HeadStore`, whose promises these are."""

    def get(self, origin_hash: bytes) -> bytes | None:
        """The head last swapped in, synced or not."""

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """All (origin hash, head)."""

    def swap(self, swaps: Sequence[Swap]) -> list[bool]:
        """Replace the heads that are as expected, atomically; not durable until `sync`.

        In another thread than all but `sync` and `reopen`, one of these three at a time.
        """

    def sync(self) -> None:
        """Make durable what was swapped in before."""

    def reopen(self) -> None:
        """Start again from what is on the disk."""


class Committer:
    """Cosigns heads and makes them durable, in groups.

    Args:
        heads: the store; nobody else writes to it.
        executor: where that is done, of one thread.
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
        # What was durable before the changes that are being synced, or whose sync failed.
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

    async def commit(self, change: Change) -> Cosigned | None:
        """Cosign and record a head; it, once that is durable, or None if another was expected.

        Not to be cancelled: the caller could not know what became of it.

        Raises:
            Unavailable: it is not known to be durable.
        """
        self._check()
        future: asyncio.Future[Cosigned | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
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
        changes = [change for change, _ in group]
        try:
            self._check()
            self._before = {each.origin_hash: self._heads.get(each.origin_hash) for each in changes}
            loop = asyncio.get_running_loop()
            # One trip for all of it: going to another thread and back costs as much as two
            # Ed25519 signatures.
            outcomes = await loop.run_in_executor(self._executor, self._record, changes)
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
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _record(self, changes: Sequence[Change]) -> list[_Outcome]:
        """In the executor: sign, write, sync.

        Raises:
            StoreError: none of it is known to be durable.
        """
        outcomes = [_cosigned(change) for change in changes]
        swaps = {
            number: Swap(change.origin_hash, change.expected, outcome.head)
            for number, (change, outcome) in enumerate(zip(changes, outcomes, strict=True))
            if isinstance(outcome, Cosigned)
        }
        done = self._heads.swap(list(swaps.values()))
        self._heads.sync()
        for number, was_done in zip(swaps, done, strict=True):
            if not was_done:
                outcomes[number] = None
        return outcomes

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


def _cosigned(change: Change) -> _Outcome:
    try:
        return change.cosign()
    except Exception as error:  # noqa: BLE001  (it is that caller's alone, who gets it)
        return error


def _refuse(group: Sequence[_Waiting], message: str) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(Unavailable(message))
