"""Signatures checked in other processes: an Ed25519 verification holds the GIL, and costs most.

While the next signatures are verified there, events whose signatures are known to be right are
read and sealed here; whoever has nothing to do but to wait verifies some here, too. Without such
processes each is verified where it is needed, one by one. The search index is written there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, InvalidStateError, ProcessPoolExecutor
from functools import lru_cache
from typing import Final, NamedTuple, Self, TypeVar

import structlog

from tlog.notes import Algorithm, VerifierKey

CHUNK: Final = 64
"""Claims that go to a process together."""
WORTHWHILE: Final = 16
"""Fewer than that are verified sooner than sent."""
_STEP: Final = 16


class Claim(NamedTuple):
    """That a signature is that of an Ed25519 key; a tuple, as it goes to other processes."""

    name: str
    public_key: bytes
    signature: bytes
    message: bytes


T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Verifiers:
    """Processes that verify. Close them when done; they end with this process, too."""

    def __init__(self, processes: int) -> None:
        # Not forked: this process has threads, and databases open.
        self._pool: ProcessPoolExecutor | None = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_follow_parent
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def start(self, claims: Sequence[Claim | None]) -> Checks:
        """Begin to verify; None is nothing to verify, and never right."""
        chunks: list[_Chunk] = []
        if self._pool is not None and len(claims) >= WORTHWHILE:
            try:
                for at in range(0, len(claims), CHUNK):
                    chunk = claims[at : at + CHUNK]
                    chunks.append((_submit(self._pool, verify_all, chunk), chunk))
            except (BrokenExecutor, RuntimeError) as error:
                self._lost(error)
        return Checks(chunks, self._lost)

    async def run(self, work: Callable[[], T]) -> T:
        """Do other work in one of the processes, or in a thread when they are gone.

        Args:
            work: can be pickled, as can what it returns and raises; may be done twice.
        """
        if self._pool is not None:
            try:
                return await asyncio.wrap_future(_submit(self._pool, work))
            except (BrokenExecutor, RuntimeError) as error:
                self._lost(error)
        return await asyncio.to_thread(work)

    def _lost(self, error: BaseException) -> None:
        if self._pool is not None:
            _log.error("the processes that verify are gone: verifying alone", problem=str(error))
            self.close()


_Chunk = tuple["Future[list[bool]]", Sequence[Claim | None]]


class Checks:
    """Verifications under way. Who has to wait for one does the last of them meanwhile."""

    def __init__(self, chunks: Sequence[_Chunk], lost: Callable[[BaseException], None]) -> None:
        self._chunks = chunks
        self._lost = lost
        self._chunk = -1
        self._right: list[bool] = []
        self._taken: dict[int, list[bool]] = {}

    def done(self, position: int) -> bool:
        """Whether `right` has not to wait."""
        chunk = position // CHUNK
        return (
            chunk in (self._chunk, *self._taken)
            or chunk >= len(self._chunks)
            or self._chunks[chunk][0].done()
        )

    async def right(self, position: int) -> bool:
        """Whether the claim at a position is known to be right; ask in ascending order.

        False says no more than that it is not known: verify it.
        """
        chunk, at = divmod(position, CHUNK)
        if chunk != self._chunk:
            self._chunk, self._right = chunk, await self._result(chunk)
        return at < len(self._right) and self._right[at]

    async def _result(self, chunk: int) -> list[bool]:
        if chunk >= len(self._chunks):
            return []
        future, _ = self._chunks[chunk]
        while not future.done() and await self._take_last(chunk):
            pass
        if chunk in self._taken:
            return self._taken.pop(chunk)
        try:
            return await asyncio.wrap_future(future)
        except BrokenExecutor as error:
            self._lost(error)
            return []

    async def _take_last(self, first: int) -> bool:
        """Verify the last of the chunks, from one on, that no process has begun."""
        for chunk in range(len(self._chunks) - 1, first - 1, -1):
            future, claims = self._chunks[chunk]
            if chunk not in self._taken and future.cancel():
                right = self._taken[chunk] = []
                for at in range(0, len(claims), _STEP):
                    right += verify_all(claims[at : at + _STEP])
                    await asyncio.sleep(0)
                return True
        return False


class _Work(Future[T]):
    """Work that may be taken back, even from a pool that breaks meanwhile.

    Before Python 3.12.1 such a pool stopped telling at the first work that was taken back: what
    stood behind it, such as the search index, was waited for without end.
    """

    def set_exception(self, exception: BaseException | None) -> None:
        with contextlib.suppress(InvalidStateError):
            super().set_exception(exception)


def _submit(pool: ProcessPoolExecutor, work: Callable[..., T], *given: object) -> Future[T]:
    """Submit work; a process that is started for it is deaf to Ctrl-C from its first moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        future = pool.submit(work, *given)
        future.__class__ = _Work
        return future
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """In a process that verifies: end when its parent does, killed or not, and never before.

    Ctrl-C reaches both of them, and the parent finishes what it accepted.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 -- it was spawned

    def follow() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=follow, name="tlog-follow", daemon=True).start()


def verify_all(claims: Sequence[Claim | None]) -> list[bool]:
    """Which of the claims are right, in whatever process this runs."""
    return [
        claim is not None
        and _key(claim.name, claim.public_key).verifies(claim.signature, claim.message)
        for claim in claims
    ]


@lru_cache(maxsize=1024)
def _key(name: str, public_key: bytes) -> VerifierKey:
    return VerifierKey(name, Algorithm.ED25519, public_key)
