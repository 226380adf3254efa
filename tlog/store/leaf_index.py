"""Which entry has a leaf hash: derived from the level-0 tiles, so it may be written late.

The newest leaf hashes are in memory only. When there are enough of them they go to the disk as
one run, a portion with each sync, without a write-ahead log. What a crash takes from memory, the
tiles still have: the state of the store says below which entry the index is on the disk.

In RocksDB a key is a leaf hash (32) and an entry index (u64), big-endian; its value is empty.
Thus a run is written blindly although a leaf may come twice, and its first index is one seek.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Final

from rocksdict import ColumnFamily, Rdict, RdictIter, ReadOptions, WriteBatch, WriteOptions

from tlog.merkle.hashing import HASH_SIZE

RUN: Final = 1 << 16
"""Entries that go to the disk together: up to 15 MiB of memory, and there may be two runs."""

# What one sync writes of a run: so little that it is not felt, but all of it within so many
# syncs, so that runs go faster than they come.
_PORTION: Final = 1 << 13
_PORTIONS: Final = 8
# `write` holds the GIL: others get it between two batches.
_BATCH: Final = 1 << 11

_HASH: Final = Struct(f"{HASH_SIZE}s")
_KEY: Final = Struct(f">{HASH_SIZE}sQ")
_U64: Final = Struct(">Q")

_NO_WAL: Final = WriteOptions()
_NO_WAL.disable_wal = True  # type: ignore[method-assign, assignment]  # a property in truth


class _Run:
    """Leaf hashes of consecutive entries, as they were committed."""

    def __init__(self) -> None:
        self.count = 0
        self.commits: list[tuple[int, bytes]] = []
        self._firsts: dict[bytes, int] = {}
        self._known = 0

    def add(self, begin: int, leaf_hashes: bytes) -> None:
        self.commits.append((begin, leaf_hashes))
        self.count += len(leaf_hashes) // HASH_SIZE

    def firsts(self) -> dict[bytes, int]:
        """The lowest index of each leaf hash. Made when asked for: many logs never ask."""
        keep_first = self._firsts.setdefault
        for begin, leaf_hashes in self.commits[self._known :]:
            for index, (leaf_hash,) in enumerate(_HASH.iter_unpack(leaf_hashes), begin):
                keep_first(leaf_hash, index)
        self._known = len(self.commits)
        return self._firsts

    def leaves(self) -> Iterator[tuple[bytes, int]]:
        for begin, leaf_hashes in self.commits:
            for index, (leaf_hash,) in enumerate(_HASH.iter_unpack(leaf_hashes), begin):
                yield leaf_hash, index


class _Spill:
    """A run on its way to the disk, which it is on when all is `written` and flushed."""

    def __init__(self, run: _Run, end: int) -> None:
        self.run = run
        self.end = end
        self.rest = run.leaves()
        self.portion = max(_PORTION, -(-run.count // _PORTIONS))
        self.written = False
        # The disk before this run: to read the memtable, which is not sorted, is to sort it.
        self.view: RdictIter | None = None


class LeafIndex:
    """The leaf index of an open store. Errors are rocksdict's own.

    Threads: the owner of the store calls everything but `spill`, which is for whoever syncs.

    Args:
        db: the database.
        family: the column family of the index.
        handle: the same, for batches.
        indexed: all entries below it are in the column family; the caller adds the others.
    """

    def __init__(self, db: Rdict, family: Rdict, handle: ColumnFamily, indexed: int) -> None:
        self.indexed = indexed
        self._db = db
        self._family = family
        self._handle = handle
        self._recent = _Run()
        self._spill: _Spill | None = None

    def add(self, begin: int, leaf_hashes: bytes) -> None:
        """Add the leaf hashes, concatenated, of the entries from `begin` on, once written."""
        if self._recent.count >= RUN and self._spill is None:
            self._spill = _Spill(self._recent, begin)
            self._recent = _Run()
        self._recent.add(begin, leaf_hashes)

    @property
    def due(self) -> _Spill | None:
        """The run that is to be spilled."""
        return self._spill

    def spill(self, due: _Spill) -> None:
        """Take a run a step further to the disk.

        All its entries MUST be durable: a key may not outlive the entry that it points at.
        """
        if due.view is None:
            due.view = self._iterator()
        if not due.written:
            self._write_portion(due)
        elif not self._in_memtables():
            # In this order: who finds no spill any more finds its keys on the disk.
            self.indexed = due.end
            self._spill = None

    def _write_portion(self, due: _Spill) -> None:
        pack = _U64.pack
        for _ in range(0, due.portion, _BATCH):
            batch = WriteBatch(raw_mode=True)
            batch.set_default_column_family(self._handle)
            for leaf_hash, index in islice(due.rest, _BATCH):
                batch[leaf_hash + pack(index)] = b""
            if batch.is_empty():
                due.written = True
                # In the background: nobody waits for a run.
                self._family.flush(False)
                break
            self._db.write(batch, _NO_WAL)

    def _in_memtables(self) -> bool:
        count = self._family.property_int_value
        return bool(
            count("rocksdb.num-immutable-mem-table")
            or count("rocksdb.num-entries-active-mem-table")
        )

    def find(self, leaf_hashes: Sequence[bytes], *, below: int) -> list[int | None]:
        """For each leaf hash, the lowest index that has it, if that is < `below`."""
        # First what is spilled, then the disk: it leaves memory only when it is there.
        spill = self._spill
        iterator = (spill and spill.view) or self._iterator()
        spilled = spill.run.firsts() if spill else {}
        recent = self._recent.firsts()
        seek, valid, key = iterator.seek, iterator.valid, iterator.key
        found: list[int | None] = []
        for leaf_hash in leaf_hashes:
            seek(leaf_hash)
            index: int | None = None
            if valid():
                prefix, first = _KEY.unpack(key())
                if prefix == leaf_hash:
                    index = first
            else:
                # A damaged block looks like the end; only the status tells.
                iterator.status()
            if index is None:
                index = spilled.get(leaf_hash)
                if index is None:
                    index = recent.get(leaf_hash)
            found.append(index if index is not None and index < below else None)
        return found

    def _iterator(self) -> RdictIter:
        options = ReadOptions()
        # Confined to the prefix, a seek asks the prefix bloom filters first.
        options.set_prefix_same_as_start(True)
        return self._family.iter(options)
