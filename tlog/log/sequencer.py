"""The write path: entries go in, are put in order, and come back with an index once durable.

One task owns the tree. While it commits one pool, the next one fills, so a busy log commits in
groups without being told to, and an idle one commits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from typing import Any

import structlog

from tlog.log.config import LogConfig
from tlog.log.errors import (
    InvalidRequest,
    LogError,
    Overloaded,
    ShuttingDown,
    StateRefused,
    Unavailable,
)
from tlog.merkle import HASH_SIZE, RightEdge, leaf_hashes
from tlog.store import Commit, LogStore, StoreCorrupt, StoreError, StoreFull

# One commit runs on the event loop: this bounds how long it may keep others waiting.
COMMIT_ENTRIES = 8192
COMMIT_BYTES = 16 << 20
# A pool this large gains nothing from waiting for more company.
LINGER_BELOW = 1024
RECOVERY_PAUSE = 1.0

_log = structlog.get_logger(__name__)


class _Pool:
    """Entries that will be committed together, and the future that tells their indices."""

    __slots__ = ("callers", "entries", "placed", "size_bytes")

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.size_bytes = 0
        self.callers = 0
        self.placed: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        # A pool whose callers have all gone away may fail unheard.
        self.placed.add_done_callback(lambda done: done.cancelled() or done.exception())

    def has_room(self, count: int, size_bytes: int) -> bool:
        """Whether a batch fits; an empty pool takes any batch, which is bounded by its own."""
        return not self.entries or (
            len(self.entries) + count <= COMMIT_ENTRIES
            and self.size_bytes + size_bytes <= COMMIT_BYTES
        )


class Accepted:
    """Entries that were accepted. Await it for one index each, once they are durable.

    Indices are consecutive unless duplicates were resolved. Awaiting raises Unavailable when the
    disk refused: the entries are then not known to be appended. Giving up does not take the
    entries back: they may be appended all the same.
    """

    __slots__ = ("_count", "_offset", "_placed")

    def __init__(self, placed: asyncio.Future[Sequence[int]], offset: int, count: int) -> None:
        self._placed = placed
        self._offset = offset
        self._count = count

    def __await__(self) -> Generator[Any, None, Sequence[int]]:
        # Shielded: one caller that gives up must not cancel the future all the others wait for.
        placed = yield from asyncio.shield(self._placed).__await__()
        return placed[self._offset : self._offset + self._count]


class Sequencer:
    """Puts entries in order and makes them durable.

    Args:
        store: where the log lives; the sequencer is its only writer of entries.
        edge: right edge of the tree as stored.
        config: limits.
        executor: where blocking calls run.
        reload: reads the right edge anew after the store was reopened, and proves it against the
            last signed head. Raises StateRefused when it is not what was signed.
        integrated: called after each commit that grew the tree.
    """

    def __init__(
        self,
        store: LogStore,
        edge: RightEdge,
        config: LogConfig,
        *,
        executor: Executor,
        reload: Callable[[], RightEdge],
        integrated: Callable[[], None],
    ) -> None:
        self._store = store
        # The tip is written, the edge is durable; they differ while a commit is synced.
        self._tip = self._edge = edge
        self._config = config
        self._executor = executor
        self._reload = reload
        self._integrated = integrated
        self._pools: deque[_Pool] = deque()
        self._pending_entries = 0
        self._pending_bytes = 0
        self._pace = 100_000.0  # entries a second; corrected by every commit
        self._wake = asyncio.Event()
        self._refusal: LogError | None = None
        self._closing = False
        # Under load a commit waits for as much company as the last one had.
        self._company = 1
        self._gathered = asyncio.Event()

    @property
    def edge(self) -> RightEdge:
        """The right edge of the tree, as far as it is durable."""
        return self._edge

    @property
    def refusal(self) -> LogError | None:
        """Why the log takes no entries now; None when it does."""
        return ShuttingDown("the log is shutting down") if self._closing else self._refusal

    @property
    def halted(self) -> bool:
        """Whether the store is not to be written to: a write failed, or the state is wrong."""
        return self._refusal is not None

    @property
    def pending(self) -> int:
        """How many entries were accepted and wait to become durable."""
        return self._pending_entries

    def submit(self, entries: Sequence[bytes]) -> Accepted:
        """Accept entries, all or none, behind all that were accepted before.

        Returns:
            What to await for their indices.

        Raises:
            InvalidRequest: no entries, too many, or one too long.
            Overloaded: too much is waiting already; nothing was taken.
            Unavailable: the log does not take entries now.
        """
        if (refusal := self.refusal) is not None:
            raise refusal.with_traceback(None)  # one instance for many: let no tracebacks pile up
        size_bytes = check_entries(entries, self._config)
        count = len(entries)
        # An idle log takes any batch, so that a small bound delays but never forbids.
        if self._pending_entries and (
            self._pending_entries + count > self._config.max_pending_entries
            or self._pending_bytes + size_bytes > self._config.max_pending_bytes
        ):
            raise Overloaded(
                f"{self._pending_entries} entries wait to be committed: come back later",
                retry_after=max(0.05, self._pending_entries / self._pace),
            )
        if not self._pools or not self._pools[-1].has_room(count, size_bytes):
            self._pools.append(_Pool())
        pool = self._pools[-1]
        pool.entries.extend(entries)
        pool.size_bytes += size_bytes
        pool.callers += 1
        if pool.callers >= self._company or len(pool.entries) >= LINGER_BELOW:
            self._gathered.set()
        self._pending_entries += count
        self._pending_bytes += size_bytes
        self._wake.set()
        return Accepted(pool.placed, len(pool.entries) - count, count)

    async def run(self) -> None:
        """Commit pools until closed and drained. Runs as the one task that owns the tree.

        While one commit is on its way to the disk, the next is hashed and written.
        """
        syncing: asyncio.Task[None] | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pools:
                await self._linger()
                written = self._write(self._pools.popleft())
                if syncing is not None:
                    await syncing
                syncing = asyncio.create_task(self._sync(*written)) if written else None
            if self._refusal is not None or self._closing:
                if syncing is not None:
                    await syncing
                await self._recover()
            if self._closing and not self._pools:
                return

    def close(self) -> None:
        """Take nothing new; `run` returns when everything accepted is durable."""
        self._closing = True
        self._wake.set()

    def stop(self, refusal: StateRefused) -> None:
        """Take nothing ever again: what the log is cannot be trusted. Only a restart helps."""
        self._refusal = refusal
        self._wake.set()

    def halt(self, error: StoreError) -> None:
        """Take nothing until the store has been reopened and proven, because a write failed."""
        if self._refusal is None:
            self._refusal = _refusal_for(error)
            _log.error("log halted", reason=str(self._refusal))
        self._wake.set()

    async def _linger(self) -> None:
        """Give those who were in the last commit a few milliseconds to join this one too.

        One sync then serves them all. A lone caller never waits.
        """
        pool = self._pools[0]
        if pool.callers < self._company and len(pool.entries) < LINGER_BELOW and not self._closing:
            self._gathered.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gathered.wait(), self._config.linger)
        self._company = pool.callers

    def _write(self, pool: _Pool) -> tuple[_Pool, Sequence[int], RightEdge] | None:
        """Make a pool's entries part of the tree, not durable yet; None when that failed."""
        started = time.monotonic()
        try:
            if self._refusal is not None:
                raise self._refusal.with_traceback(None)
            placed = self._integrate(pool.entries)
        except StoreError as error:
            self.halt(error)
            self._fail(pool, _refusal_for(error))
        except LogError as error:
            self._fail(pool, error)
        except BaseException:
            # An unknown state is fatal: whoever waits is told, and only a restart recovers.
            self.stop(StateRefused("the log stopped after an internal error: restart it"))
            for waiting in (pool, *self._pools):
                self._fail(waiting, Unavailable("the log stopped: restart it"))
            raise
        else:
            took = max(time.monotonic() - started, 1e-6)
            self._pace += 0.1 * (len(pool.entries) / took - self._pace)
            return pool, placed, self._tip
        return None

    def _integrate(self, entries: list[bytes]) -> Sequence[int]:
        """Hash the entries, extend the tree, write both. Gives the indices."""
        begin = self._tip.size
        hashes = leaf_hashes(entries)
        placed: Sequence[int] = range(begin, begin + len(entries))
        if self._config.dedup:
            entries, hashes, placed = self._resolve_duplicates(entries, hashes)
            if not entries:
                return placed
        edge, tiles = self._tip.extend(hashes)
        self._store.commit(
            Commit(begin=begin, size=edge.size, tiles=tiles, entries=entries, leaf_hashes=hashes)
        )
        self._tip = edge
        return placed

    async def _sync(self, pool: _Pool, placed: Sequence[int], edge: RightEdge) -> None:
        """Make what was written durable. Only then are the entries appended, and is it said."""
        try:
            if self._refusal is not None:
                raise self._refusal.with_traceback(None)
            await asyncio.get_running_loop().run_in_executor(self._executor, self._store.sync)
        except StoreError as error:
            self.halt(error)
            self._fail(pool, _refusal_for(error))
        except LogError as error:
            self._fail(pool, error)
        else:
            self._edge = edge
            self._done(pool)
            pool.placed.set_result(placed)
            self._integrated()

    def _fail(self, pool: _Pool, error: LogError) -> None:
        self._done(pool)
        pool.placed.set_exception(error)

    def _done(self, pool: _Pool) -> None:
        self._pending_entries -= len(pool.entries)
        self._pending_bytes -= pool.size_bytes

    def _resolve_duplicates(
        self, entries: list[bytes], hashes: bytes
    ) -> tuple[list[bytes], bytes, list[int]]:
        """Drop entries that are in the tree already or came twice; say where each one stands."""
        size = self._tip.size
        split = [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]
        fresh: dict[bytes, int] = {}
        kept: list[bytes] = []
        placed: list[int] = []
        stored = self._store.find(split, below=size)
        for entry, leaf, index in zip(entries, split, stored, strict=True):
            if index is None:
                index = fresh.get(leaf)  # noqa: PLW2901
            if index is None:
                index = fresh[leaf] = size + len(kept)  # noqa: PLW2901
                kept.append(entry)
            placed.append(index)
        return kept, b"".join(fresh), placed

    async def _recover(self) -> None:
        """After a failed write: reopen, prove the state against the signed head, resume."""
        while isinstance(self._refusal, Unavailable) and not self._closing:
            await asyncio.sleep(RECOVERY_PAUSE)
            try:
                self._tip = self._edge = await asyncio.get_running_loop().run_in_executor(
                    self._executor, self._reload
                )
            except StateRefused as error:
                _log.critical("log stays halted", reason=str(error))
                self._refusal = error
            except StoreError as error:
                self._refusal = _refusal_for(error)
            else:
                self._refusal = None
                _log.info("log resumed", size=self._edge.size)
                self._integrated()


def check_entries(entries: Sequence[bytes], config: LogConfig) -> int:
    """Check a batch against the log's limits.

    Returns:
        The bytes of all the entries together.

    Raises:
        InvalidRequest: no entries, too many, or one too long; the message names which.
    """
    if not entries:
        raise InvalidRequest("no entries: an append needs at least one", field="entries")
    if len(entries) > config.max_batch_entries:
        raise InvalidRequest(
            f"{len(entries)} entries in one batch: this log takes at most "
            f"{config.max_batch_entries}; send several batches",
            field="entries",
        )
    lengths = list(map(len, entries))
    if (longest := max(lengths)) > config.max_entry_size:
        worst = lengths.index(longest)
        raise InvalidRequest(
            f"entry {worst} is {longest} bytes long: this log takes at most "
            f"{config.max_entry_size}; append a hash of it, or split it",
            field=f"entries[{worst}]",
        )
    return sum(lengths)


def _refusal_for(error: StoreError) -> LogError:
    if isinstance(error, StoreCorrupt):
        return StateRefused(f"the log's store is damaged: {error}. Run: tlog fsck DIR")
    if isinstance(error, StoreFull):
        return Unavailable(f"the log's disk is full: {error}. Free some space; appends then resume")
    return Unavailable(f"the log's store refused to write: {error}")
