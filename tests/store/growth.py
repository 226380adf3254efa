"""Grows a store the way the log does, and knows what it must then hold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from rocksdict import ReadOptions

from tlog.merkle.hashing import HASH_SIZE, leaf_hash, leaf_hashes
from tlog.merkle.tiles import TILE_WIDTH, encode_bundle
from tlog.merkle.tree import RightEdge
from tlog.store import Commit, LogStore, RocksStore, leaf_index


def numbered(begin: int, end: int, size: int = 24) -> list[bytes]:
    return [b"entry %d " % index + b"." * size for index in range(begin, end)]


def step(edge: RightEdge, entries: Sequence[bytes]) -> tuple[RightEdge, Commit]:
    hashes = leaf_hashes(entries)
    grown, tiles = edge.extend(hashes)
    return grown, Commit(edge.size, grown.size, tiles, entries, hashes)


def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the leaf index go to the disk after hundreds of entries instead of many thousands."""
    monkeypatch.setattr(leaf_index, "RUN", 300)
    monkeypatch.setattr(leaf_index, "_PORTION", 100)
    monkeypatch.setattr(leaf_index, "_BATCH", 37)


def spill(store: RocksStore) -> None:
    """Sync until no run is on its way to the disk."""
    end = time.monotonic() + 10
    while store._index().due:
        assert time.monotonic() < end
        store.sync()


def in_memory(store: RocksStore) -> list[tuple[bytes, int]]:
    """What the leaf index has in memory only, or too: by hash, then index."""
    index = store._index()
    runs = [index._recent, *((index.due.run,) if index.due else ())]
    return sorted(leaf for run in runs for leaf in run.leaves())


def on_disk(store: RocksStore) -> list[tuple[bytes, int]]:
    """What the leaf index has on the disk."""
    options = ReadOptions()
    options.set_total_order_seek(True)
    iterator = store._families["leaf_index"].iter(options)
    iterator.seek_to_first()
    keys = []
    while iterator.valid():
        keys.append(iterator.key())
        iterator.next()
    # A damaged block looks like the end; only the status tells.
    iterator.status()
    return [(key[:HASH_SIZE], int.from_bytes(key[HASH_SIZE:], "big")) for key in keys]


def index_rows(store: RocksStore) -> list[tuple[bytes, int]]:
    """All of the leaf index. Before a run has left memory, it may be on the disk too."""
    return sorted({*in_memory(store), *on_disk(store)})


@dataclass
class Model:
    """What a store holds, as plain Python values."""

    entries: list[bytes] = field(default_factory=list)
    edge: RightEdge = field(default_factory=RightEdge)

    def grow(self, store: LogStore, entries: Sequence[bytes]) -> None:
        edge, commit = step(self.edge, entries)
        store.commit(commit)
        self.edge = edge
        self.entries += entries

    def leaves(self) -> list[tuple[bytes, int]]:
        """What the leaf index is to hold."""
        return sorted((leaf_hash(entry), index) for index, entry in enumerate(self.entries))

    def check(self, store: LogStore) -> None:
        size = len(self.entries)
        assert store.tree_size() == size
        assert RightEdge.load(size, store.read_tile) == self.edge
        for begin in range(0, size, TILE_WIDTH):
            expected = self.entries[begin : begin + TILE_WIDTH]
            index = begin // TILE_WIDTH
            assert store.read_bundle(index, len(expected)) == encode_bundle(expected)
            assert store.read_tile(0, index) == leaf_hashes(expected)
        firsts = {entry: index for index, entry in reversed(list(enumerate(self.entries)))}
        hashes = [leaf_hash(entry) for entry in firsts]
        assert store.find(hashes, below=size) == list(firsts.values())
