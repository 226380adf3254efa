"""A log in memory that is read through `TileSource`, and can be made to lie about any byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tests.notes.keyring import LOG, LOG_ED, LOG_PQ, TIME
from tlog.client import Verifier
from tlog.merkle import (
    HASH_SIZE,
    RightEdge,
    SourceMissing,
    Tile,
    TileCache,
    TileNodeReader,
    consistency_proof,
    encode_bundle,
    entries_path,
    leaf_hashes,
)
from tlog.notes import Checkpoint, sign_checkpoint

KEYS = (LOG_ED.vkey, LOG_PQ.vkey)
VERIFIER = Verifier.with_vkeys(KEYS)


def numbered(size: int, word: bytes = b"entry") -> list[bytes]:
    return [b"%s %d" % (word, index) for index in range(size)]


@dataclass
class TiledLog:
    """A log of these entries; `lie` may change any answer, which it is told the path of."""

    entries: Sequence[bytes]
    serves_tiles: bool = True
    size: int | None = None
    lie: Callable[[str, bytes], bytes] = lambda path, answer: answer
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.edge, tiles = RightEdge().extend(leaf_hashes(self.entries))
        self.tiles = {(tile.level, tile.index): data for tile, data in tiles}
        self.size = len(self.entries) if self.size is None else self.size

    @cached_property
    def head(self) -> bytes:
        assert self.size is not None
        root = RightEdge().extend(leaf_hashes(self.entries[: self.size]))[0].root()
        return sign_checkpoint(Checkpoint(LOG, self.size, root), [LOG_ED, LOG_PQ], timestamp=TIME)

    def resources(self) -> dict[str, bytes]:
        """All tiles and bundles, by path."""
        found = {}
        for begin in range(0, len(self.entries), 256):
            entries = self.entries[begin : begin + 256]
            found[entries_path(begin // 256, len(entries))] = encode_bundle(entries)
        for (level, index), data in self.tiles.items():
            found[Tile(level, index, len(data) // HASH_SIZE).path] = data
        return found

    def _answer(self, path: str, answer: bytes) -> bytes:
        self.asked.append(path)
        return self.lie(path, answer)

    def _tile(self, tile: Tile) -> bytes:
        if (stored := self.tiles.get((tile.level, tile.index))) is None:
            raise SourceMissing(f"no {tile.path}")
        return self._answer(tile.path, stored[: tile.width * HASH_SIZE])

    def _bundle(self, index: int, width: int) -> bytes:
        entries = self.entries[256 * index :][:width]
        return self._answer(entries_path(index, width), encode_bundle(entries))

    async def checkpoint(self) -> bytes:
        return self._answer("checkpoint", self.head)

    async def tile(self, tile: Tile) -> bytes:
        assert self.serves_tiles
        return self._tile(tile)

    async def bundle(self, index: int, width: int) -> bytes:
        return self._bundle(index, width)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        tiles = TileCache(lambda tile: self.tiles[tile.level, tile.index][: tile.width * HASH_SIZE])
        hashes = consistency_proof(old_size, new_size, TileNodeReader(tiles, new_size))
        answer = self._answer("proof", b"".join(hashes))
        return [answer[at : at + HASH_SIZE] for at in range(0, len(answer), HASH_SIZE)]

    async def aclose(self) -> None:
        self.closed = True
