"""The RocksDB driver of a log.

In DIR: `db/` is the RocksDB database, `HEAD` the marker. Column families, integers big-endian:

    state       name                               value
    tiles       level u8, index u64                up to 256 hashes, each write over the last
    bundles     index u64                          entry bundle of 256 entries
    tail        entry index u64                    an entry of the bundle that is not full yet
    leaf_index  leaf hash (32), entry index u64    empty

The entry index stands in the key of `leaf_index`, so that a run of them is written blindly.
This family lags behind the others: `store/indexed` in `state` says below which entry it is whole.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Any, Final

from rocksdict import AccessType, Options, Rdict, WriteBatch

from tlog.merkle.hashing import HASH_SIZE
from tlog.merkle.tiles import TILE_WIDTH, encode_bundle, entries_path, tile_path
from tlog.store import marker
from tlog.store.database import DATABASE, Database
from tlog.store.disk import sync_directory
from tlog.store.errors import SchemaError, StoreCorrupt, StoreError, StoreMissing
from tlog.store.leaf_index import LeafIndex
from tlog.store.options import column_family_options, uncached_options
from tlog.store.port import Commit

SCHEMA_VERSION: Final = b"1"

MARKER: Final = "HEAD"

# Names of this driver in `state`; callers cannot put names under this prefix.
_OWN: Final = "store/"
_SCHEMA: Final = b"store/schema"
_TREE_SIZE: Final = b"store/tree_size"
_INDEXED: Final = b"store/indexed"

_U64: Final = Struct(">Q")
_TILE_KEY: Final = Struct(">BQ")


class RocksStore(Database):
    """A log's storage in a directory: a `LogStore`. Made by `create` or `open`."""

    _OWNER = "tlog server"
    _MISSING = "no log here: run `tlog init`"
    _DAMAGED = "run `tlog fsck`"

    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__(path, read_only=read_only)
        self._leaves: LeafIndex | None = None
        self._leaves_damage = ""
        self._size = 0

    @classmethod
    def create(cls, path: Path) -> "RocksStore":
        """Make an empty store in a directory, which is made too if need be, and open it.

        Raises:
            StoreError: there is a store, a part of one, or a marker already.
        """
        database = path / DATABASE
        for occupied in (database, path / MARKER):
            if occupied.exists():
                raise StoreError(
                    f"{occupied} exists: a new log needs a directory of its own. If this is what"
                    " an interrupted `tlog init` left, remove it"
                )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        database.mkdir(mode=0o700)
        store = cls(path, read_only=False)
        store._start(create=True)
        batch = WriteBatch(raw_mode=True)
        batch.put(_SCHEMA, SCHEMA_VERSION, store._handles["state"])
        batch.put(_TREE_SIZE, _U64.pack(0), store._handles["state"])
        batch.put(_INDEXED, _U64.pack(0), store._handles["state"])
        store._write(batch)
        store._load_index()
        store.sync()
        sync_directory(path)
        sync_directory(path.parent)
        return store

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "RocksStore":
        """Open the store in a directory.

        With `read_only` nothing that is stored is changed, no lock is taken, and all writes are
        refused; run it beside no writer, for that is what `StoreView` is for.

        Raises:
            StoreMissing: there is no store.
            StoreLocked: another process, or another handle, has it open.
            SchemaError: it is not a store of this version.
            StoreCorrupt: it is damaged.
        """
        store = cls(path, read_only=read_only)
        store.reopen()
        return store

    def _family_options(self) -> Mapping[str, Options]:
        return column_family_options()

    def _load(self) -> None:
        self._size = self._check_schema()
        self._load_index()

    def _check_schema(self) -> int:
        schema = self._get("state", _SCHEMA, "the schema version")
        size = self._get("state", _TREE_SIZE, "the tree size")
        if schema is None or size is None:
            raise SchemaError(
                f"{self._database}: a RocksDB database, but no store of tlog, or one that `tlog"
                " init` did not finish: if it is the latter, remove it and run `tlog init` again"
            )
        if schema != SCHEMA_VERSION or len(size) != _U64.size:
            raise SchemaError(
                f"{self._database}: schema version {schema[:16]!r}, but this program reads"
                f" {SCHEMA_VERSION!r} only: use the version of tlog that wrote it"
            )
        return int.from_bytes(size, "big")

    def _load_index(self) -> None:
        """Take the leaf hashes that are not in the index on the disk from their tiles.

        If a tile is damaged, the store opens all the same, for fsck to look at.
        """
        stored = self._get("state", _INDEXED, "the size of the leaf index")
        indexed = int.from_bytes(stored or b"", "big")
        db, family = self._check_open(), "leaf_index"
        leaves = LeafIndex(db, self._families[family], self._handles[family], indexed)
        try:
            for tile in range(indexed // TILE_WIDTH, -(-self._size // TILE_WIDTH)):
                begin = max(indexed, tile * TILE_WIDTH)
                hashes = self.read_tile(0, tile)[: (self._size - tile * TILE_WIDTH) * HASH_SIZE]
                leaves.add(begin, hashes[begin % TILE_WIDTH * HASH_SIZE :])
        except StoreError as error:
            self._leaves_damage = f"no leaf index, because {error}"
        else:
            self._leaves = leaves

    def _forget(self) -> None:
        self._leaves = None

    def tree_size(self) -> int:
        """See `LogStore.tree_size`."""
        return self._size

    def read_tile(self, level: int, index: int) -> bytes:
        """See `LogStore.read_tile`."""
        key = _TILE_KEY.pack(level, index)
        tile = self._get("tiles", key, f"tile {level}/{index}")
        if tile is None:
            raise StoreMissing(f"{self._database}: there is no {tile_path(level, index)}")
        return tile

    def read_bundle(self, index: int, width: int) -> bytes:
        """See `LogStore.read_bundle`."""
        begin = index * TILE_WIDTH
        if not 1 <= width <= TILE_WIDTH or not 0 <= begin <= self._size - width:
            raise StoreMissing(
                f"{self._database}: bundle {index} has no {width} entries in a tree of {self._size}"
            )
        if begin + TILE_WIDTH > self._size:
            return encode_bundle(self._read_tail(begin, begin + width))
        bundle = self._get("bundles", _U64.pack(index), f"bundle {index}")
        if bundle is None:
            raise StoreCorrupt(f"{self._database}: {entries_path(index)} is gone: run `tlog fsck`")
        if width == TILE_WIDTH:
            return bundle
        end = 0
        for _ in range(width):
            end += 2 + int.from_bytes(bundle[end : end + 2], "big")
        return bundle[:end]

    def _read_tail(self, begin: int, end: int) -> list[bytes]:
        self._check_open()
        keys: Any = [_U64.pack(index) for index in range(begin, end)]
        try:
            entries: Any = self._families["tail"].get(keys)
        except Exception as error:
            what = f"an entry in {begin}..{end - 1} not read"
            raise self._translate(error, what) from error
        present: list[bytes] = [entry for entry in entries if entry is not None]
        if len(present) != len(keys):
            index = begin + entries.index(None)
            raise StoreCorrupt(f"{self._database}: entry {index} is gone: run `tlog fsck`")
        return present

    def find(self, leaf_hashes: Sequence[bytes], *, below: int) -> list[int | None]:
        """See `LogStore.find`."""
        index = self._index()
        try:
            return index.find(leaf_hashes, below=below)
        except Exception as error:
            raise self._translate(error, "leaf_index not read") from error

    def get_state(self, name: str) -> bytes | None:
        """See `LogStore.get_state`."""
        return self._get("state", _state_key(name), f"state {name!r}")

    def put_state(self, mapping: Mapping[str, bytes]) -> None:
        """See `LogStore.put_state`."""
        batch = WriteBatch(raw_mode=True)
        self._check_writable()
        for name, value in mapping.items():
            batch.put(_state_key(name), value, self._handles["state"])
        self._write(batch)

    def commit(self, commit: Commit) -> None:
        """See `LogStore.commit`."""
        self._check_writable()
        commit.check(self._size)
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        handles = self._handles
        family = handles["tiles"]
        for tile, data in commit.tiles:
            put(_TILE_KEY.pack(tile.level, tile.index), data, family)
        self._put_entries(batch, commit)
        put(_INDEXED, _U64.pack(self._index().indexed), handles["state"])
        put(_TREE_SIZE, _U64.pack(commit.size), handles["state"])
        self._write(batch)
        self._size = commit.size
        self._index().add(commit.begin, commit.leaf_hashes)

    def _put_entries(self, batch: WriteBatch, commit: Commit) -> None:
        """Turn appended entries into full bundles, which replace the tail, and a new tail."""
        tail = self._handles["tail"]
        begin = commit.begin
        offset = begin % TILE_WIDTH
        entries = commit.entries
        if offset + len(entries) >= TILE_WIDTH:
            stored = range(begin - offset, begin)
            entries = [*self._read_tail(stored.start, stored.stop), *entries]
            begin = stored.start
            for index in stored:
                batch.delete(_U64.pack(index), tail)
            full = len(entries) - len(entries) % TILE_WIDTH
            for start in range(0, full, TILE_WIDTH):
                key = _U64.pack((begin + start) // TILE_WIDTH)
                bundle = encode_bundle(entries[start : start + TILE_WIDTH])
                batch.put(key, bundle, self._handles["bundles"])
            begin += full
            entries = entries[full:]
        for index, entry in enumerate(entries, begin):
            batch.put(_U64.pack(index), entry, tail)

    def _flush(self, db: Rdict) -> None:
        # Taken before the flush: what joins a run after it began is not durable yet.
        due = self._index().due
        super()._flush(db)
        if due is not None:
            self._index().spill(due)

    def write_out(self) -> None:
        """Move what is in memory to tables, so that a view has next to nothing to replay.

        Blocks, for ten seconds at most. Any thread may call it; durability never needs it.

        Raises:
            StoreError: the store refuses writes, or they fail.
        """
        with self._open_lock:
            self._check_writable()
            try:
                # In the background, for a flush that is waited for holds the GIL.
                for family in self._families.values():
                    family.flush(False)
            except Exception as error:
                raise self._translate(error, "not written out") from error
        for _ in range(1000):
            if not self._flushing():
                return
            time.sleep(0.01)

    def _flushing(self) -> bool:
        with self._open_lock:
            self._check_open()
            count = [
                family.property_int_value("rocksdb.num-immutable-mem-table")
                for family in self._families.values()
            ]
        return any(count)

    def read_marker(self) -> bytes | None:
        """See `LogStore.read_marker`."""
        return marker.read_marker(self.path / MARKER)

    def write_marker(self, marker_bytes: bytes) -> None:
        """See `LogStore.write_marker`."""
        if self._read_only:
            raise StoreError(f"{self.path / MARKER}: not written: the store is open read-only")
        marker.write_marker(self.path / MARKER, marker_bytes)

    def stats(self) -> dict[str, int]:
        """See `LogStore.stats`."""
        self._check_open()
        files = [file for file in self._database.iterdir() if file.is_file()]
        figures = {
            "tree_size": self._size,
            "disk_bytes": sum(file.stat().st_size for file in files),
            "disk_files": len(files),
        }
        for name, family in self._families.items():
            keys = family.property_int_value("rocksdb.estimate-num-keys")
            figures[f"{name}_keys_estimate"] = keys or 0
        figures["memtable_bytes"] = sum(
            family.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
            for family in self._families.values()
        )
        return figures

    def _index(self) -> LeafIndex:
        self._check_open()
        if self._leaves is None:
            raise StoreCorrupt(self._leaves_damage)
        return self._leaves


class StoreView(RocksStore):
    """What the disk holds of a store at this moment, to be read beside its writer, uncached.

    All of it is of one moment, but for the marker and the leaf index, which may be of another.

    Args:
        path: the directory of the store.
        scratch: a directory for RocksDB's own messages.

    Raises:
        As `RocksStore.open`.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        super().__init__(path, read_only=True)
        self._scratch = scratch
        self.reopen()

    def _connect(self, *, create: bool) -> Rdict:
        options, families = uncached_options()
        access = AccessType.secondary(str(self._scratch))
        return Rdict(str(self._database), options, families, access)


def _state_key(name: str) -> bytes:
    if not name or name.startswith(_OWN):
        raise StoreError(f"{name!r} is not a name for state: it is empty or begins with {_OWN!r}")
    return name.encode()
