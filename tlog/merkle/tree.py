"""The growing tree: complete subtrees, compact ranges, and the right edge that appends extend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tlog.merkle.errors import MerkleError, ProofError
from tlog.merkle.hashing import EMPTY_ROOT, HASH_SIZE, fold, join_peaks, node_hash, node_hashes
from tlog.merkle.tiles import (
    MAX_TREE_SIZE,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    partial_width,
)


class Node(NamedTuple):
    """The complete subtree of the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int  # type: ignore[assignment]  # shadows tuple.index, which means nothing here


def decompose(begin: int, end: int) -> list[Node]:
    """The fewest complete subtrees that cover [begin, end), left to right: a compact range.

    There are O(log(end - begin)) of them. For begin = 0 they are the peaks whose hashes,
    folded from the right, give MTH(D[0:end]) (RFC 6962 section 2.1).

    Raises:
        MerkleError: not 0 <= begin <= end.
    """
    if not 0 <= begin <= end:
        raise MerkleError(f"[{begin}, {end}) is not a range of leaves")
    nodes = []
    while begin < end:
        # The largest subtree that starts at `begin` and ends by `end`.
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return nodes


class CompactRange:
    """The hashes of decompose(begin, end), grown on the right one leaf or one range at a time.

    For whoever holds leaf hashes but no tiles. The state is logarithmic: `hashes` has one hash
    for each node of decompose(begin, end).
    """

    __slots__ = ("begin", "end", "hashes")

    def __init__(self, begin: int = 0) -> None:
        self.begin = begin
        self.end = begin
        self.hashes: list[bytes] = []

    def append(self, leaf_hash: bytes) -> None:
        """Extend [begin, end) by the leaf at `end`."""
        self._push(0, leaf_hash)

    def merge(self, right: "CompactRange") -> None:
        """Extend [begin, end) by the adjacent range [end, right.end).

        Raises:
            MerkleError: the ranges are not adjacent.
        """
        if right.begin != self.end:
            raise MerkleError(
                f"[{right.begin}, {right.end}) does not follow [{self.begin}, {self.end})"
            )
        nodes = decompose(right.begin, right.end)
        for node, subtree_hash in zip(nodes, list(right.hashes), strict=True):
            self._push(node.level, subtree_hash)

    def root(self) -> bytes:
        """MTH(D[0:end]); EMPTY_ROOT when the range is empty (RFC 6962 section 2.1).

        Raises:
            MerkleError: the range does not begin at leaf 0.
        """
        if self.begin:
            raise MerkleError(f"[{self.begin}, {self.end}) has no root: it does not begin at 0")
        return join_peaks(self.hashes) if self.hashes else EMPTY_ROOT

    def _push(self, level: int, subtree_hash: bytes) -> None:
        """Add the complete subtree of 2**level leaves at `end`, joining what becomes complete."""
        index = self.end >> level
        self.end += 1 << level
        # A left sibling inside the range is the last hash: nothing larger could contain it.
        while index & 1 and (index - 1) << level >= self.begin:
            subtree_hash = node_hash(self.hashes.pop(), subtree_hash)
            level += 1
            index >>= 1
        self.hashes.append(subtree_hash)


@dataclass(frozen=True, slots=True)
class RightEdge:
    """The partial tiles of a tree of `size` leaves: all that appending to it needs.

    partials[level] is the concatenated hashes of the partial tile at that level, b"" where the
    level ends in a full tile. A value: whoever extends it keeps the old edge until the new
    tiles are durable, and drops the new one if they never are.
    """

    size: int = 0
    partials: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MerkleError(f"tree size {self.size} is not in 0..2**63 - 1")
        widths = [len(partial) for partial in self.partials]
        expected = [HASH_SIZE * width for width in _partial_widths(self.size)]
        if widths != expected:
            raise MerkleError(
                f"the partial tiles of size {self.size} have {expected} bytes, not {widths}"
            )

    @classmethod
    def load(cls, size: int, read: Callable[[int, int], bytes]) -> "RightEdge":
        """The right edge of a stored tree of `size` leaves.

        `read(level, index)` gives a stored tile. It may be longer than the tree of this size
        needs, since a partial tile is a prefix of the tile that grew from it. The hashes are
        taken on trust: compare `root()` with a signed root hash.

        Raises:
            ProofError: a tile is too short.
        """
        partials = []
        for level, width in enumerate(_partial_widths(size)):
            stored = b""
            if width:
                tile = Tile(level, size >> TILE_HEIGHT * (level + 1), width)
                stored = read(tile.level, tile.index)
                if len(stored) < width * HASH_SIZE:
                    raise ProofError(
                        f"{tile.path}: the stored tile has {len(stored)} bytes, but a tree of"
                        f" size {size} needs {width * HASH_SIZE}: the store is damaged, or older"
                        " than this tree size"
                    )
            partials.append(stored[: width * HASH_SIZE])
        return cls(size, tuple(partials))

    def extend(self, leaf_hashes: bytes) -> tuple["RightEdge", list[tuple[Tile, bytes]]]:
        """Append n leaf hashes (n * 32 bytes): the new edge, and every tile that changed.

        The tiles come by level, then index: those that are now full, and the new partial one.
        The cost is that of the new hashes: only a tile that becomes full is hashed into the
        level above.

        Raises:
            MerkleError: `leaf_hashes` is no multiple of 32, or the tree would reach 2**63.
        """
        count, remainder = divmod(len(leaf_hashes), HASH_SIZE)
        if remainder:
            raise MerkleError(f"{len(leaf_hashes)} bytes of leaf hashes are not a multiple of 32")
        tiles: list[tuple[Tile, bytes]] = []
        partials = list(self.partials)
        hashes = leaf_hashes
        level = 0
        while hashes:
            if level == len(partials):
                partials.append(b"")
            row = partials[level] + hashes
            index = self.size >> TILE_HEIGHT * (level + 1)
            full = len(row) - len(row) % TILE_BYTES
            for start in range(0, full, TILE_BYTES):
                tiles.append((Tile(level, index), row[start : start + TILE_BYTES]))
                index += 1
            partials[level] = partial = row[full:]
            if partial:
                tiles.append((Tile(level, index, len(partial) // HASH_SIZE), partial))
            # SPEC tlog-tiles: partial tiles "MUST NOT be hashed into a tile at the level above".
            hashes = _tile_roots(row[:full])
            level += 1
        return RightEdge(self.size + count, tuple(partials)), tiles

    def root(self) -> bytes:
        """MTH(D[0:size]), the root hash; EMPTY_ROOT for size 0 (RFC 6962 section 2.1)."""
        if not self.size:
            return EMPTY_ROOT
        # What a level leaves over is the ragged last hash of the level above.
        ragged = b""
        for partial in self.partials:
            ragged = fold(partial + ragged)
        return ragged


def _tile_roots(full_tiles: bytes) -> bytes:
    hashes = full_tiles
    while len(hashes) * TILE_WIDTH > len(full_tiles):
        hashes = node_hashes(hashes)
    return hashes


def _partial_widths(size: int) -> list[int]:
    levels = -(-size.bit_length() // TILE_HEIGHT)
    return [partial_width(level, size) for level in range(levels)]
