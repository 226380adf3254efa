"""One walk through the entries of a log: hash them, build their tiles, compare with those served.

Memory does not grow with the log. `WINDOW` bundles are in flight, fewer where that many of the
longest one seen would be over `IN_FLIGHT_BYTES`. Of the tree there is the right edge and its double
by pymerkle, 255 hashes for each of four levels at 100 million entries: 2 * 32 KiB. So with entries
of 256 bytes it is 16 * 64 KiB in flight, 1 MiB and some copies beside the 80 MiB of the
interpreter, for 100 million entries as for one (111 MiB were measured at 11.6 million); with those
of 65,535 bytes, bundles of 16 MiB, it is 64 MiB and some copies (201 MiB were measured). The most
that a server can do is to send short bundles first and then all at once long ones: 16 * 16 MiB, a
single time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from tlog.client.errors import Check, Unreachable, VerificationError, printable
from tlog.client.opinion import SecondOpinion
from tlog.client.verification import Head
from tlog.merkle import (
    HASH_SIZE,
    MAX_ENTRY_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    MerkleError,
    RightEdge,
    SourceDamaged,
    SourceError,
    SourceMissing,
    Tile,
    TileSource,
    entries_path,
    leaf_hashes,
    split_bundle,
)

WINDOW = 16
MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_SIZE)
IN_FLIGHT_BYTES = 4 * MAX_BUNDLE_BYTES
# Bundles that are put into the tree at once: hashing side by side is faster.
BATCH = 16
SAVE_SECONDS = 2.0
# Before each further attempt at something that could not be read.
PAUSES = (0.1, 0.5, 2.0)

T = TypeVar("T")


async def patiently(check: Check, ask: Callable[[], Awaitable[T]]) -> T:
    """Read something that a signed head requires. Asked again while the source is away.

    Raises:
        VerificationError: it is not there, or not what it should be.
        Unreachable: it cannot be read.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return await ask()
        except SourceMissing as error:
            raise VerificationError("missing", printable(str(error))) from None
        except SourceDamaged as error:
            raise VerificationError(check, printable(str(error))) from None
        except SourceError as error:
            if (pause := next(pauses, None)) is None:
                raise Unreachable(printable(str(error))) from None
        await asyncio.sleep(pause)


class Walk:
    """Hashes the entries of the tree of `head` from `edge` on.

    Args:
        source: where they are read.
        head: a verified head.
        edge: what was hashed before, proven to be the beginning of that tree.
        save: keeps how far the walk got.
    """

    def __init__(
        self, source: TileSource, head: Head, edge: RightEdge, *, save: Callable[[RightEdge], None]
    ) -> None:
        self._source = source
        self._head = head
        self._save = save
        # A bundle that was not full is hashed again as a whole, and must begin as it did.
        self._known = edge.partials[0] if edge.partials else b""
        begin = edge.size - edge.size % TILE_WIDTH
        self._edge = RightEdge(begin, (b"", *edge.partials[1:])) if begin else RightEdge()
        self._opinion = SecondOpinion(self._edge)

    async def run(self, progress: Callable[[int], None]) -> RightEdge:
        """Walk to the end, telling `progress` the number of entries that are done by now.

        What was done is saved every two seconds, and however else it ends than well.

        Returns:
            The right edge of the tree of the head.

        Raises:
            VerificationError: what is wrong, the first in the log first.
            Unreachable: the source cannot be read.
        """
        saved = self._edge.size
        due = time.monotonic() + SAVE_SECONDS
        try:
            async with aclosing(self._batches()) as batches:
                async for hashes in batches:
                    await self._grow(hashes)
                    progress(self._edge.size)
                    if time.monotonic() >= due and self._edge.size < self._head.size:
                        self._opinion.check(self._edge)
                        self._save(self._edge)
                        saved = self._edge.size
                        due = time.monotonic() + SAVE_SECONDS
            await self._finish()
        except BaseException:
            if saved < self._edge.size < self._head.size:
                self._save(self._edge)
            raise
        return self._edge

    async def _finish(self) -> None:
        edge, head = self._edge, self._head
        for level, partial in enumerate(edge.partials):
            if level and partial:
                index = edge.size >> TILE_HEIGHT * (level + 1)
                await self._compare(Tile(level, index, len(partial) // HASH_SIZE), partial)
        self._opinion.check(edge)
        if edge.root() != head.root_hash:
            raise VerificationError(
                "root",
                f"the {head.size} entries have the root hash {edge.root().hex()}, but the log "
                f"signed {head.root_hash.hex()}",
            )

    async def _batches(self) -> AsyncGenerator[bytes, None]:
        """The leaf hashes of a few bundles at a time, each held against its tile."""
        batch: list[bytes] = []
        async with aclosing(self._downloads()) as downloads:
            async for index, bundle, tile in downloads:
                batch.append(self._leaves(index, bundle, tile))
                if len(batch) == BATCH:
                    yield b"".join(batch)
                    batch.clear()
        if batch:
            yield b"".join(batch)

    async def _downloads(self) -> AsyncGenerator[tuple[int, bytes, bytes | None], None]:
        """The bundles with their tiles, in order; the next few are on their way meanwhile."""
        indices = iter(range(self._edge.size // TILE_WIDTH, -(-self._head.size // TILE_WIDTH)))
        pending: deque[asyncio.Task[tuple[int, bytes, bytes | None]]] = deque()
        longest, room = 1, IN_FLIGHT_BYTES // MAX_BUNDLE_BYTES
        try:
            while True:
                for index in itertools.islice(indices, max(0, room - len(pending))):
                    pending.append(asyncio.create_task(self._download(index)))
                if not pending:
                    return
                downloaded = await pending[0]
                longest = max(longest, len(downloaded[1]))
                room = max(1, min(WINDOW, IN_FLIGHT_BYTES // longest))
                yield downloaded
                pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _download(self, index: int) -> tuple[int, bytes, bytes | None]:
        width = self._width(index)
        tile = None
        if self._source.serves_tiles:
            tile = await patiently("tile", lambda: self._source.tile(Tile(0, index, width)))
        bundle = await patiently("bundle", lambda: self._source.bundle(index, width))
        return index, bundle, tile

    def _leaves(self, index: int, bundle: bytes, tile: bytes | None) -> bytes:
        """The leaf hashes of a bundle, which has all its entries and fits its tile."""
        start, width = index * TILE_WIDTH, self._width(index)
        path = entries_path(index, width)
        try:
            entries = split_bundle(bundle)
        except MerkleError as error:
            raise VerificationError("bundle", f"{path}, from entry {start} on: {error}") from None
        if len(entries) != width:
            raise VerificationError(
                "bundle",
                f"{path}, from entry {start} on: it has {len(entries)} entries, but must have "
                f"{width} in a tree of {self._head.size}",
            )
        hashes = leaf_hashes(entries)
        if start == self._edge.size and not hashes.startswith(self._known):
            entry = start + _first_difference(hashes, self._known)
            raise VerificationError(
                "consistency", f"entry {entry} in {path} is not the one that was audited before"
            )
        if tile is not None and tile != hashes:
            leaf = Tile(0, index, width).path
            if len(tile) != len(hashes):
                raise VerificationError(
                    "tile", f"{leaf} has {len(tile)} bytes, but must have {len(hashes)}"
                )
            entry = start + _first_difference(hashes, tile)
            raise VerificationError(
                "tile", f"entry {entry} in {path} does not hash to its leaf in {leaf}"
            )
        return hashes

    async def _grow(self, hashes: bytes) -> None:
        """Put leaf hashes into the tree; the tiles that are full by that are compared."""
        edge, tiles = self._edge.extend(hashes)
        self._opinion.extend(hashes)
        for tile, data in tiles:
            if tile.level and tile.width == TILE_WIDTH:
                await self._compare(tile, data)
        self._edge = edge

    async def _compare(self, tile: Tile, data: bytes) -> None:
        if not self._source.serves_tiles:
            return
        served = await patiently("tile", lambda: self._source.tile(tile))
        if served != data:
            number = _first_difference(data, served)
            raise VerificationError(
                "tile", f"{tile.path} is not what the entries give: see its hash {number}"
            )

    def _width(self, index: int) -> int:
        return min(TILE_WIDTH, self._head.size - index * TILE_WIDTH)


def _first_difference(first: bytes, second: bytes) -> int:
    """Which hash of two different rows is the first that differs."""
    shared = min(len(first), len(second))
    for start in range(0, shared, HASH_SIZE):
        if first[start : start + HASH_SIZE] != second[start : start + HASH_SIZE]:
            return start // HASH_SIZE
    return shared // HASH_SIZE
