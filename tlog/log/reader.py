"""The read path: entries and proofs out of the stored tiles and bundles.

Every method takes the tree size that it answers for. A stored tile may have grown beyond that
size; it is read as it was, by truncation.
"""

from __future__ import annotations

from functools import lru_cache, partial

from tlog.log.errors import EntryNotFound, InvalidRequest, OutOfRange
from tlog.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    Tile,
    TileCache,
    TileNodeReader,
    bundle_entry,
    consistency_proof,
    inclusion_proof,
    inclusion_ranges,
    split_bundle,
    subtree_consistency_proof,
)
from tlog.store import LogStore


class Reader:
    """Answers for one store. Threads may share it."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        cache = TileCache(self.tile)
        # Nearly all requests are for the latest sizes; a reader keeps what its size has in common.
        self._nodes = lru_cache(maxsize=64)(partial(TileNodeReader, cache))
        self._above = lru_cache(maxsize=4096)(self._path_above)

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile, `tile.width` times 32 bytes (or fewer if fewer are stored).

        Raises:
            StoreMissing: there is no such tile.
        """
        return self._store.read_tile(tile.level, tile.index)[: tile.width * HASH_SIZE]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """RFC 6962, section 2.1.1.

        Raises:
            OutOfRange: the tree of that size has no such entry.
        """
        _check_index(index, size)
        tile, offset = divmod(index, TILE_WIDTH)
        if (tile + 1) * TILE_WIDTH > size:
            return inclusion_proof(index, size, self._nodes(size))
        # The entries of a full tile share the path above it: most of the proof in a large tree.
        start = index - offset
        below = [
            (start + begin, start + end) for begin, end in inclusion_ranges(offset, TILE_WIDTH)
        ]
        return self._nodes(size).range_hashes(below) + self._above(tile, size)

    def _path_above(self, tile: int, size: int) -> list[bytes]:
        start = tile * TILE_WIDTH
        return subtree_consistency_proof(start, start + TILE_WIDTH, size, self._nodes(size))

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962, section 2.1.2; empty when the old size is 0.

        Raises:
            InvalidRequest: the old size is above the new one.
        """
        if old_size > new_size:
            raise InvalidRequest(
                f"old size {old_size} is above new size {new_size}", field="old_size"
            )
        return consistency_proof(old_size, new_size, self._nodes(new_size))

    def entry(self, index: int, size: int) -> bytes:
        """One entry.

        Raises:
            OutOfRange: the tree of that size has no such entry.
        """
        _check_index(index, size)
        bundle, offset = divmod(index, TILE_WIDTH)
        return bundle_entry(self._store.read_bundle(bundle, offset + 1), offset)

    def bundle(self, index: int, size: int) -> tuple[list[bytes], list[bytes]]:
        """The entries of one bundle, as far as the tree of that size has them.

        Returns:
            The entries, and the subtree consistency proof from them to the tree.

        Raises:
            OutOfRange: the tree of that size has no such bundle.
        """
        start = index * TILE_WIDTH
        _check_index(start, size)
        end = min(start + TILE_WIDTH, size)
        entries = split_bundle(self._store.read_bundle(index, end - start))
        return entries, subtree_consistency_proof(start, end, size, self._nodes(size))

    def encoded_bundle(self, index: int, width: int) -> bytes:
        """The first `width` entries of a bundle, encoded as in tlog-tiles.md.

        Raises:
            StoreMissing: there are not as many.
        """
        return self._store.read_bundle(index, width)

    def index_of(self, leaf_hash: bytes, size: int) -> int:
        """Index of the first entry with this leaf hash.

        Raises:
            EntryNotFound: the tree of that size has none.
        """
        (index,) = self._store.find([leaf_hash], below=size)
        if index is None:
            raise EntryNotFound(
                f"no entry of the {size} published ones has leaf hash {leaf_hash.hex()}: check the "
                "bytes that were hashed, or ask again after the next checkpoint",
                field="leaf_hash",
            )
        return index


def _check_index(index: int, size: int) -> None:
    if index >= size:
        raise OutOfRange(
            f"index {index} is not below tree size {size}: ask for a smaller one, or again after "
            "the next checkpoint",
            field="index",
        )
