"""Reading a tree from its tiles, through a cache of expanded ones."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from tlog.merkle.errors import MerkleError, ProofError
from tlog.merkle.hashing import HASH_SIZE, join_peaks
from tlog.merkle.proofs import (
    Range,
    consistency_ranges,
    is_subtree,
    subtree_consistency_ranges,
)
from tlog.merkle.tiles import (
    MAX_TREE_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    expand,
)
from tlog.merkle.tree import decompose

# How many leaves each subtree has whose root is one of the 8 lower levels of a tile, by the
# tile's level. (The root of the tile itself is at the foot of one above.)
_WIDTHS: Final = tuple(
    tuple(1 << height for height in range(foot, foot + TILE_HEIGHT))
    for foot in range(0, MAX_TREE_SIZE.bit_length(), TILE_HEIGHT)
)

Rows: TypeAlias = dict[int, bytes]
"""An expanded tile: by the width of subtrees in leaves, their hashes, concatenated."""


class TileCache:
    """The tiles of one log used last, each with its inner levels: 16 KiB for a full tile.

    Good for all sizes of the log: a full tile never changes, and partial ones are told apart by
    their width. Threads may share it.

    Args:
        read_tile: gives a tile's hashes, exactly width * 32 bytes. Its own errors pass through.
        capacity: the number of tiles to keep.
    """

    def __init__(self, read_tile: Callable[[Tile], bytes], *, capacity: int = 4096) -> None:
        self._read_tile = read_tile
        self.expanded: Final = lru_cache(maxsize=capacity)(self._expand)

    def _expand(self, level: int, index: int, width: int) -> Rows:
        tile = Tile(level, index, width)
        hashes = self._read_tile(tile)
        if len(hashes) != width * HASH_SIZE:
            raise ProofError(
                f"{tile.path}: the tile has {len(hashes)} bytes: expected {width * HASH_SIZE}"
            )
        return dict(zip(_WIDTHS[level], expand(hashes), strict=False))


class TileNodeReader:
    """The NodeReader of a tree of `size` leaves over the tiles of its log.

    It serves the proofs of every size up to its own, yet reads only tiles of its own size, the
    full ones and those of `partial_width`.

    SPEC tlog-tiles: "Clients MUST NOT fetch arbitrary partial tiles without verifying a
    checkpoint with a size that requires their existence". That size is this reader's.

    Raises:
        MerkleError: not 0 <= size < 2**63.
    """

    def __init__(self, cache: TileCache, size: int) -> None:
        if not 0 <= size <= MAX_TREE_SIZE:
            raise MerkleError(f"tree size {size} is not in 0..2**63 - 1")
        self.size: Final = size
        self._expanded = cache.expanded
        # One ragged range begins at each peak but the last: never over 63.
        self._ragged: dict[int, bytes] = {}

    def range_hashes(self, ranges: Sequence[Range]) -> list[bytes]:
        """MTH(D[begin:end]) for each range, in the order asked for.

        Raises:
            MerkleError: a range is not a valid subtree, or reaches over the size.
            ProofError: a tile does not have the length it was asked for.
        """
        hashes = []
        rows: Rows = {}
        tile_index = shift = 0
        for begin, end in ranges:
            width = end - begin
            # The ranges of a proof climb through one tile before they enter the next.
            if width not in rows or begin >> shift != tile_index:
                level = (width - 1).bit_length()
                if width != 1 << level:
                    hashes.append(self._ragged_hash(begin, end))
                    continue
                tile_level = level // TILE_HEIGHT
                shift = TILE_HEIGHT * (tile_level + 1)
                tile_index = begin >> shift
                rows = self._tile(tile_level, tile_index)
            start = (begin - (tile_index << shift)) // width * HASH_SIZE
            subtree_hash = rows[width][start : start + HASH_SIZE]
            if begin & width - 1 or not subtree_hash:
                raise MerkleError(f"[{begin}, {end}) is not a subtree at size {self.size}")
            hashes.append(subtree_hash)
        return hashes

    def _tile(self, level: int, index: int) -> Rows:
        """The expanded tile, as wide as it is in the tree of this size."""
        full, width = divmod(self.size >> TILE_HEIGHT * level, TILE_WIDTH)
        if 0 <= index < full:
            return self._expanded(level, index, TILE_WIDTH)
        if index == full and width:
            return self._expanded(level, index, width)
        raise MerkleError(f"a tree of size {self.size} has no tile {index} at level {level}")

    def _ragged_hash(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) for a subtree that is not complete.

        Kept for end = size, since nearly every proof in this tree has one of these.
        """
        if end == self.size and begin in self._ragged:
            return self._ragged[begin]
        if not is_subtree(begin, end):
            raise MerkleError(f"[{begin}, {end}) is not a subtree")
        peaks = decompose(begin, end)
        ragged_hash = join_peaks(
            self.range_hashes([(i << level, i + 1 << level) for level, i in peaks])
        )
        if end == self.size:
            self._ragged[begin] = ragged_hash
        return ragged_hash


def consistency_tiles(old_size: int, new_size: int) -> list[Tile]:
    """Which tiles of the tree of `new_size` the consistency proof of two sizes is read from.

    For whoever has to fetch them first. It depends on the sizes alone.

    Raises:
        MerkleError: not 0 <= old_size <= new_size < 2**63.
    """
    return _tiles_of(consistency_ranges(old_size, new_size), new_size)


def subtree_consistency_tiles(start: int, end: int, size: int) -> list[Tile]:
    """Which tiles of the tree of `size` a subtree consistency proof is read from.

    Raises:
        MerkleError: [start, end) is not a valid subtree, or not 0 <= end <= size < 2**63.
    """
    return _tiles_of(subtree_consistency_ranges(start, end, size), size)


def _tiles_of(ranges: Sequence[Range], size: int) -> list[Tile]:
    needed: list[Tile] = []

    def note_down(tile: Tile) -> bytes:
        needed.append(tile)
        return bytes(tile.width * HASH_SIZE)

    TileNodeReader(TileCache(note_down), size).range_hashes(ranges)
    return needed
