"""Re-hash a whole log, offline, and name what is wrong.

Entries are the truth here: from them every leaf hash, every tile and every root is computed again
and held against what is stored and what was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlog.log.errors import StateRefused
from tlog.log.head import Head
from tlog.log.publisher import PUBLISHED, SIGNED
from tlog.log.startup import MARKER, first_difference, read_head
from tlog.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    MerkleError,
    RightEdge,
    Tile,
    leaf_hashes,
    split_bundle,
)
from tlog.notes import VerifierKey
from tlog.store import LogStore, StoreError

MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check found.

    Attributes:
        size: entries in the store.
        signed_size: entries under the last signed head.
        root_hash: root of the tree of all the entries, None if they could not all be read.
        problems: one line each, the first in the log first; empty when all is well.
    """

    size: int
    signed_size: int
    root_hash: bytes | None
    problems: tuple[str, ...]


def fsck(
    store: LogStore,
    vkeys: Sequence[VerifierKey],
    *,
    beside_writer: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> FsckReport:
    """Check every entry, bundle, tile, head and leaf index of a log.

    Args:
        store: the log's store; it is only read.
        vkeys: the log's verifier keys.
        beside_writer: the store is a view of one that is written to: the marker and the leaf
            index, which may be of another moment, are left out.
        progress: told how many entries have been checked.
    """
    return _Fsck(store, vkeys, beside_writer=beside_writer).run(progress)


class _Fsck:
    def __init__(
        self, store: LogStore, vkeys: Sequence[VerifierKey], *, beside_writer: bool
    ) -> None:
        self._store = store
        self._beside_writer = beside_writer
        self._size = store.tree_size()
        self._problems: list[str] = []
        self._heads = self._read_heads(vkeys)

    def run(self, progress: Callable[[int], None]) -> FsckReport:
        edge = RightEdge()
        self._check_heads(edge, b"")
        for index in range(-(-self._size // TILE_WIDTH)):
            hashes = self._check_bundle(index)
            if hashes is None or len(self._problems) >= MAX_PROBLEMS:
                return self._report(None)
            self._check_heads(edge, hashes)
            edge, tiles = edge.extend(hashes)
            for tile, data in tiles:
                if tile.width == TILE_WIDTH and tile.level > 0:
                    self._check_tile(tile, data)
            progress(edge.size)
        for level, partial in enumerate(edge.partials):
            if partial:
                width = len(partial) // HASH_SIZE
                self._check_tile(Tile(level, edge.size >> (8 * (level + 1)), width), partial)
        return self._report(edge.root())

    def _report(self, root: bytes | None) -> FsckReport:
        signed = self._heads.get(f"the {SIGNED} head")
        return FsckReport(
            size=self._size,
            signed_size=signed.size if signed else 0,
            root_hash=root,
            problems=tuple(self._problems),
        )

    def _read_heads(self, vkeys: Sequence[VerifierKey]) -> dict[str, Head]:
        texts = {
            f"the {SIGNED} head": self._store.get_state(SIGNED),
            f"the {PUBLISHED} head": self._store.get_state(PUBLISHED),
        }
        if not self._beside_writer:
            texts[MARKER] = self._store.read_marker()
        heads: dict[str, Head] = {}
        if not self._size and not any(texts.values()):
            return heads  # made, but never served: nothing was signed
        for name, note in texts.items():
            try:
                head = read_head(note, vkeys, name)
            except StateRefused as error:
                self._problems.append(str(error))
                continue
            if head is None:
                self._problems.append(f"{name} is missing: no head is there")
            elif head.size > self._size:
                self._problems.append(
                    f"{name} has size {head.size}, but the store has {self._size} entries: "
                    "entries are lost, or an old copy was put back"
                )
            else:
                heads[name] = head
        return heads

    def _check_heads(self, edge: RightEdge, hashes: bytes) -> None:
        """Check the heads whose trees end within the leaves that are about to be added."""
        first = edge.size + 1 if edge.size else 0
        last = edge.size + len(hashes) // HASH_SIZE
        for name, head in self._heads.items():
            if first <= head.size <= last:
                added = (head.size - edge.size) * HASH_SIZE
                root = edge.extend(hashes[:added])[0].root() if added else edge.root()
                if root != head.checkpoint.root_hash:
                    self._problems.append(
                        f"{name} (size {head.size}) has root {head.checkpoint.root_hash.hex()}, "
                        f"the entries give {root.hex()}"
                    )

    def _check_bundle(self, index: int) -> bytes | None:
        """Check one bundle against its leaf tile and the leaf index; give its leaf hashes."""
        start = index * TILE_WIDTH
        width = min(TILE_WIDTH, self._size - start)
        try:
            entries = split_bundle(self._store.read_bundle(index, width))
        except (StoreError, MerkleError) as error:
            self._problems.append(f"entry bundle {index} (entries from {start}): {error}")
            return None
        hashes = leaf_hashes(entries)
        try:
            stored = self._store.read_tile(0, index)[: width * HASH_SIZE]
            if hashes != stored:
                self._problems.append(first_difference(index, hashes, stored))
            if self._beside_writer:
                return hashes
            split = [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]
            found = self._store.find(split, below=start + width)
        except StoreError as error:
            self._problems.append(f"{Tile(0, index, width).path}: {error}")
            return hashes
        for offset, first in enumerate(found):
            if first is None or first > start + offset:
                self._problems.append(f"entry {start + offset} is not in the leaf index")
                break
        return hashes

    def _check_tile(self, tile: Tile, data: bytes) -> None:
        try:
            stored = self._store.read_tile(tile.level, tile.index)[: tile.width * HASH_SIZE]
        except StoreError as error:
            self._problems.append(f"{tile.path}: {error}")
            return
        if stored != data:
            self._problems.append(f"{tile.path} is not what the entries give")
