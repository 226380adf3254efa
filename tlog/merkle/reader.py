"""Reading a tree from its tiles, through a cache of expanded ones."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from tlog.merkle.errors import MerkleError, ProofError
from tlog.merkle.hashing import HASH_SIZE, join_peaks
from tlog.merkle.tiles import (
    MAX_TREE_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    expand,
)
from tlog.merkle.tree import Node, decompose

# How many nodes of a height there are in a tile, less one.
_INDEX_MASKS: Final = tuple((TILE_WIDTH >> height) - 1 for height in range(TILE_HEIGHT))


class TileCache:
    """The tiles of one log used last, each with its inner levels: 16 KiB for a full tile.

    Good for all sizes of the log: a full tile never changes, and partial ones are told apart by
    their width. Threads may share it.

    Args:
        read_tile: gives a tile's hashes, exactly width * 32 bytes. Its own errors pass through.
        capacity: the number of tiles to keep.
    """

    def __init__(self, read_tile: Callable[[Tile], bytes], *, capacity: int = 2048) -> None:
        self._read_tile = read_tile
        self.expanded: Final = lru_cache(maxsize=capacity)(self._expand)

    def _expand(self, level: int, index: int, width: int) -> list[bytes]:
        tile = Tile(level, index, width)
        hashes = self._read_tile(tile)
        if len(hashes) != width * HASH_SIZE:
            raise ProofError(
                f"{tile.path}: the tile has {len(hashes)} bytes: expected {width * HASH_SIZE}"
            )
        return expand(hashes)


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

    def nodes(self, nodes: Sequence[Node]) -> list[bytes]:
        """The hashes of complete subtrees, in the order asked for.

        Raises:
            MerkleError: a node is not a complete subtree of this tree.
            ProofError: a tile does not have the length it was asked for.
        """
        hashes = []
        foot = tile_index = -1
        levels: list[bytes] = []
        for level, index in nodes:
            height = level % TILE_HEIGHT
            above = index >> (TILE_HEIGHT - height)
            # The nodes of a proof climb through one tile before they enter the next.
            if above != tile_index or level - height != foot:
                foot, tile_index = level - height, above
                levels = self._tile(foot // TILE_HEIGHT, tile_index)
            start = (index & _INDEX_MASKS[height]) * HASH_SIZE
            subtree_hash = levels[height][start : start + HASH_SIZE]
            if not subtree_hash:
                raise MerkleError(f"node {level}/{index} is not complete at size {self.size}")
            hashes.append(subtree_hash)
        return hashes

    def _tile(self, level: int, index: int) -> list[bytes]:
        """The expanded tile, as wide as it is in the tree of this size."""
        if level >= 0 and index >= 0:
            full, width = divmod(self.size >> TILE_HEIGHT * level, TILE_WIDTH)
            if index < full:
                return self._expanded(level, index, TILE_WIDTH)
            if index == full and width:
                return self._expanded(level, index, width)
        raise MerkleError(f"a tree of size {self.size} has no tile {index} at level {level}")

    def ragged(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) for a subtree of the tree of `end` leaves that is not complete.

        Kept for end = size, since nearly every proof in this tree has one of these.

        Raises:
            MerkleError: the range is empty or reaches over the size.
            ProofError: a tile does not have the length it was asked for.
        """
        if end != self.size:
            return self._join(begin, end)
        if begin not in self._ragged:
            self._ragged[begin] = self._join(begin, end)
        return self._ragged[begin]

    def _join(self, begin: int, end: int) -> bytes:
        return join_peaks(self.nodes(decompose(begin, end)))
