"""The indexer: keeps the search index where the log is, beside its work.

The log is the truth, so the index may lag, and a kill takes nothing that is not read again. On
opening, and whenever it turns out to be damaged, it is held against the tree: what is of another
log, ahead of this one, or of another past, is made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from tlog.audit.errors import AuditError
from tlog.audit.index import Index, IndexDamaged, Place, TooSlow, Wanted, Window
from tlog.audit.verifying import Verifiers
from tlog.log import Log
from tlog.merkle import TILE_WIDTH, ProofError, RightEdge, Tile
from tlog.store import StoreError

if TYPE_CHECKING:
    from tlog.audit.records import Records

WINDOW: Final = 4 * TILE_WIDTH
"""Entries that are taken in at once."""
LINGER: Final = 0.02
"""Seconds for more to come, before a window is made of less, when nobody waits for it."""
_RETRY: Final = 5.0

_log = structlog.get_logger(__name__)


class Indexer:
    """The index of one log. Make it with `indexing`; one event loop runs it.

    Attributes:
        size: how many entries of the log it has.
    """

    def __init__(
        self, directory: Path, log: Log, *, grew: asyncio.Event, workers: Verifiers | None
    ) -> None:
        self._directory = directory
        self._log = log
        self._grew = grew
        self._damage = ""
        self._hurry = asyncio.Event()
        self._workers = workers
        # Slow searches have a thread of their own, so that they hold up each other alone.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"tlog-search-{log.name}")
        self._slow_reader = ThreadPoolExecutor(1, thread_name_prefix=f"tlog-slow-{log.name}")
        self._grown = asyncio.Condition()
        self._index = open_index(directory, log)
        self._slow_index = Index(directory)
        self.size = self._index.size

    def close(self) -> None:
        """Finish what is under way, and close it."""
        self._reader.shutdown()
        self._slow_reader.shutdown()
        self._index.close()
        self._slow_index.close()

    async def find(self, wanted: Wanted) -> list[Place]:
        """See `Index.find`."""
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(TooSlow):
                return await loop.run_in_executor(
                    self._reader, lambda: self._index.find(wanted, quick=True)
                )
            return await loop.run_in_executor(
                self._slow_reader, lambda: self._slow_index.find(wanted)
            )
        except IndexDamaged as error:
            self._damage = str(error)
            self._grew.set()
            raise

    async def caught_up(self, size: int, *, patience: float) -> int:
        """Wait until it has so many entries; how many it has, when patience ends before."""
        if self.size < size:
            self._hurry.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience), self._grown:
                    await self._grown.wait_for(lambda: self.size >= size)
        return self.size

    async def follow(self) -> None:
        """Take in what the log has, and gets, until cancelled."""
        while True:
            self._grew.clear()
            try:
                if self._damage:
                    await self._make_anew()
                elif self.size == self._log.sequencer.edge.size:
                    await self._grew.wait()
                    # Not `wait_for`: it may swallow a cancellation (before Python 3.12).
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LINGER):
                            await self._hurry.wait()
                    self._hurry.clear()
                    continue
                await self._take_in()
            except IndexDamaged as error:
                self._damage = str(error)
            except (AuditError, ProofError, StoreError) as error:
                _log.error("not indexed", log=self._log.name, reason=str(error))
                await asyncio.sleep(_RETRY)
            except Exception as error:  # noqa: BLE001 -- a mistake in the program ends no searches
                _log.critical("not indexed", log=self._log.name, exc_info=error)
                await asyncio.sleep(_RETRY)
            else:
                async with self._grown:
                    self._grown.notify_all()

    async def _take_in(self) -> None:
        """The next window of entries."""
        log, begin, bundles = self._log, self.size, []
        at = begin - begin % TILE_WIDTH
        end = min(at + WINDOW, log.sequencer.edge.size)
        for start in range(at, end, TILE_WIDTH):
            bundles.append(
                log.reader.encoded_bundle(start // TILE_WIDTH, min(TILE_WIDTH, end - start))
            )
        window = Window(self._directory, log.origin, begin, bundles, _root(log, end))
        await (asyncio.to_thread(window) if self._workers is None else self._workers.run(window))
        self.size = end

    async def _make_anew(self) -> None:
        _log.warning("the search index is made anew", log=self._log.name, why=self._damage)

        def swap() -> None:
            self._index.close()
            self._slow_index.close()
            Index.remove(self._directory)
            self._index, self._slow_index = Index(self._directory), Index(self._directory)

        # Between two searches, and two slow ones.
        await asyncio.get_running_loop().run_in_executor(
            self._slow_reader, lambda: self._reader.submit(swap).result()
        )
        self._damage, self.size = "", 0


def open_index(directory: Path, log: Log) -> Index:
    """The index in a log's directory, made anew if it is not this log's.

    Raises:
        AuditError: it cannot be opened, nor made.
    """
    index = None
    try:
        index = Index(directory)
        _reconcile(index, log)
    except IndexDamaged as error:
        _log.warning("the search index is made anew", log=log.name, why=str(error))
        if index is not None:
            index.close()
        Index.remove(directory)
        index = Index(directory)
    return index


async def reindex(
    directory: Path, log: Log, *, progress: Callable[[int, int], None] = lambda done, size: None
) -> int:
    """Make the index of a log anew, which must not be served meanwhile.

    Args:
        directory: of the log.
        log: opened.
        progress: is told how many entries are done, of how many.

    Returns:
        The entries that were read.

    Raises:
        AuditError, StoreError: it cannot be made.
    """
    Index.remove(directory)
    indexer = Indexer(directory, log, grew=asyncio.Event(), workers=None)
    try:
        size = log.sequencer.edge.size
        while indexer.size < size:
            await indexer._take_in()
            progress(indexer.size, size)
        return size
    finally:
        indexer.close()


@contextlib.asynccontextmanager
async def indexing(directory: Path, records: Records) -> AsyncIterator[None]:
    """Keep the index of a records log, and let its records be found, while inside.

    Raises:
        AuditError: there can be no index.
    """
    workers = records.workers
    indexer = Indexer(directory, records.log, grew=records.grew, workers=workers)
    task = asyncio.create_task(indexer.follow(), name=f"{records.log.name}-indexer")
    records.index = indexer
    try:
        yield
    finally:
        records.index = None
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(indexer.close)


def _reconcile(index: Index, log: Log) -> None:
    size = log.sequencer.edge.size
    if not index.size:
        return
    if index.origin != log.origin:
        raise IndexDamaged(f"it is that of {index.origin[:255]!r}")
    if index.size > size:
        raise IndexDamaged(f"it has {index.size} entries, the log {size}")
    try:
        root = _root(log, index.size)
    except ProofError as error:
        raise IndexDamaged(str(error)) from None
    if root != index.root:
        raise IndexDamaged(f"its {index.size} entries are not those of the log")
    index.check()


def _root(log: Log, size: int) -> bytes:
    """The root hash of the tree of the first `size` entries."""
    return RightEdge.load(size, lambda level, at: log.reader.tile(Tile(level, at))).root()
