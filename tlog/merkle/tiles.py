"""Tile geometry, tile paths and entry bundles (tlog-tiles.md).

A tile is eight levels of the tree, stored as the row of hashes at its foot. Hash i of tile
(level, index) is the root of the complete subtree of 256**level leaves number index * 256 + i.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tlog.merkle.errors import MerkleError
from tlog.merkle.hashing import HASH_SIZE, node_hashes

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_SIZE
MAX_LEVEL: Final = 63
MAX_TREE_SIZE: Final = (1 << 63) - 1
MAX_TILE_INDEX: Final = MAX_TREE_SIZE >> TILE_HEIGHT
MAX_ENTRY_SIZE: Final = 65535

# SPEC tlog-tiles: "`<N>` is the index of the tile within the level. It MUST be a non-negative
# integer encoded into zero-padded 3-digit path elements. All but the last path element MUST
# begin with an `x`." A leading x000 is padding that no encoder writes: one index, one path.
_INDEX: Final = r"(?!x000/)((?:x[0-9]{3}/){0,5}[0-9]{3})"
# SPEC tlog-tiles: "`<W>` is the width of the tile, a decimal ASCII integer between 1 and 255,
# with no additional leading zeroes."
_WIDTH: Final = r"(?:\.p/([1-9][0-9]{0,2}))?"
# SPEC tlog-tiles: "`<L>` is the “level” of the tile, and MUST be a decimal ASCII integer
# between 0 and 63, with no additional leading zeroes."
_TILE_PATH: Final = re.compile(rf"tile/(0|[1-9][0-9]?)/{_INDEX}{_WIDTH}")
_ENTRIES_PATH: Final = re.compile(rf"tile/entries/{_INDEX}{_WIDTH}")


class Tile(NamedTuple):
    """The first `width` hashes of the tile at (level, index); width 256 is the full tile."""

    level: int
    index: int  # type: ignore[assignment]  # shadows tuple.index, which means nothing here
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The tile's path below the log's prefix, such as `tile/0/x001/x234/067.p/12`."""
        return tile_path(self.level, self.index, self.width)


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile below the log's prefix (tlog-tiles.md, Merkle Tree).

    Raises:
        MerkleError: the level, index or width is out of bounds.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise MerkleError(f"tile level {level} is not in 0..{MAX_LEVEL}")
    return f"tile/{level}/{_index_path(index, width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of an entry bundle below the log's prefix (tlog-tiles.md, Log entries).

    Raises:
        MerkleError: the index or width is out of bounds.
    """
    return f"tile/entries/{_index_path(index, width)}"


def parse_tile_path(path: str) -> Tile:
    """The one tile whose path this is: the strict inverse of `tile_path`.

    Raises:
        MerkleError: the path is not exactly what `tile_path` gives for some tile.
    """
    match = _TILE_PATH.fullmatch(path)
    if match is None or int(match[1]) > MAX_LEVEL:
        raise MerkleError(
            f"{path[:80]!r} is not a tile path: expected tile/<L>/<N>[.p/<W>] with L in"
            f" 0..{MAX_LEVEL}, N in groups of three digits such as x001/x234/067, W in 1..255"
        )
    return Tile(int(match[1]), *_parse_index_and_width(match[2], match[3]))


def parse_entries_path(path: str) -> tuple[int, int]:
    """The (index, width) of the one bundle whose path this is: inverse of `entries_path`.

    Raises:
        MerkleError: the path is not exactly what `entries_path` gives for some bundle.
    """
    match = _ENTRIES_PATH.fullmatch(path)
    if match is None:
        raise MerkleError(
            f"{path[:80]!r} is not an entry bundle path: expected tile/entries/<N>[.p/<W>]"
            " with N in groups of three digits such as x001/x234/067, W in 1..255"
        )
    return _parse_index_and_width(match[1], match[2])


def _index_path(index: int, width: int) -> str:
    if not 0 <= index <= MAX_TILE_INDEX:
        raise MerkleError(f"tile index {index} is not in 0..{MAX_TILE_INDEX}")
    if not 1 <= width <= TILE_WIDTH:
        raise MerkleError(f"tile width {width} is not in 1..{TILE_WIDTH}")
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def _parse_index_and_width(index_path: str, width_digits: str | None) -> tuple[int, int]:
    index = int(index_path.replace("/", "").replace("x", ""))
    if index > MAX_TILE_INDEX:
        raise MerkleError(f"tile index {index} is not in 0..{MAX_TILE_INDEX}")
    if width_digits is None:
        return index, TILE_WIDTH
    width = int(width_digits)
    if width >= TILE_WIDTH:
        raise MerkleError(
            f"partial tile width {width} is not in 1..{TILE_WIDTH - 1}; the path of a full tile"
            " has no .p/ suffix"
        )
    return index, width


def partial_width(level: int, size: int) -> int:
    """How many hashes the partial tile at a level of a tree of `size` leaves has; 0 for none.

    SPEC tlog-tiles: "The partial tile at level *l* for a tree of size *s* has
    `floor(s / 256**l) mod 256` entries."
    """
    return (size >> TILE_HEIGHT * level) % TILE_WIDTH


def tiles_of(size: int) -> Iterator[Tile]:
    """All tiles of a tree of `size` leaves, by level, then index."""
    level = 0
    while hashes := size >> TILE_HEIGHT * level:
        full, width = divmod(hashes, TILE_WIDTH)
        for index in range(full):
            yield Tile(level, index)
        # SPEC tlog-tiles: "Empty tiles MUST NOT be served."
        if width:
            yield Tile(level, full, width)
        level += 1


def expand(hashes: bytes) -> list[bytes]:
    """The nine levels of the tree inside a tile, from its foot upwards, each concatenated.

    Level h has the floor(width / 2**h) complete subtrees of 2**h of the tile's hashes: 256,
    128, ... 1 of them in a full tile; in a partial one the upper levels may have none.

    Raises:
        MerkleError: `hashes` is not 1 to 256 hashes of 32 bytes.
    """
    if not HASH_SIZE <= len(hashes) <= TILE_BYTES or len(hashes) % HASH_SIZE:
        raise MerkleError(f"a tile of {len(hashes)} bytes is not 1..{TILE_WIDTH} hashes of 32")
    levels = [hashes]
    for _ in range(TILE_HEIGHT):
        hashes = node_hashes(hashes[: len(hashes) & -(2 * HASH_SIZE)])
        levels.append(hashes)
    return levels


class _LengthPrefixes(dict[int, bytes]):
    """The uint16 prefix of each entry length seen so far: at most 65,536 of them."""

    def __missing__(self, length: int) -> bytes:
        if length > MAX_ENTRY_SIZE:
            raise MerkleError(f"an entry of {length} bytes is over the limit of {MAX_ENTRY_SIZE}")
        prefix = length.to_bytes(2, "big")
        self[length] = prefix
        return prefix


_length_prefixes = _LengthPrefixes()


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """The entry bundle of up to 256 entries, full or partial.

    SPEC tlog-tiles: "Entry bundles are sequences of big-endian uint16 length-prefixed log
    entries."

    Raises:
        MerkleError: there are over 256 entries, or one of them is over 65,535 bytes.
    """
    count = len(entries)
    if count > TILE_WIDTH:
        raise MerkleError(f"{count} entries do not fit a bundle of {TILE_WIDTH}")
    parts = [b""] * (2 * count)
    parts[0::2] = map(_length_prefixes.__getitem__, map(len, entries))
    parts[1::2] = entries
    return b"".join(parts)


def split_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle, full or partial: the inverse of `encode_bundle`.

    Raises:
        MerkleError: the bundle is cut short, or holds over 256 entries.
    """
    entries: list[bytes] = []
    end, size = 0, len(data)
    for _ in range(TILE_WIDTH):
        # A single byte is no prefix.
        if end >= size - 1:
            break
        start = end + 2
        end = start + (data[end] << 8) + data[end + 1]
        entries.append(data[start:end])
    else:
        if end < size:
            raise MerkleError(f"the bundle holds over {TILE_WIDTH} entries")
    if end != size:
        raise _cut_short(data, len(entries) - (end > size))
    return entries


def bundle_entry(data: bytes, offset: int) -> bytes:
    """Entry number `offset` (0..255) of a bundle, without splitting the rest of it.

    Raises:
        MerkleError: the bundle has no such entry, or is cut short before its end.
    """
    if not 0 <= offset < TILE_WIDTH:
        raise MerkleError(f"entry offset {offset} is not in 0..{TILE_WIDTH - 1}")
    end = 0
    try:
        for _ in range(offset + 1):
            start = end + 2
            end = start + (data[end] << 8) + data[end + 1]
    except IndexError:
        raise _cut_short(data, offset) from None
    if end > len(data):
        raise _cut_short(data, offset)
    return data[start:end]


def _cut_short(data: bytes, number: int) -> MerkleError:
    return MerkleError(
        f"the bundle is cut short: entry {number} does not end within its {len(data)} bytes"
    )
