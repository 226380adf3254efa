"""The RocksDB driver. The only module that calls rocksdict, and the owner of all its traps.

In DIR: `db/` is the RocksDB database, `HEAD` the marker. Column families, integers big-endian:

    state       name                               value
    tiles       level u8, index u64                up to 256 hashes, each write over the last
    bundles     index u64                          entry bundle of 256 entries
    tail        entry index u64                    an entry of the bundle that is not full yet
    leaf_index  leaf hash (32), entry index u64    empty

The entry index stands in the key of `leaf_index`, not in its value as DESIGN section 5 has it.
This family lags behind the others: `store/indexed` in `state` says below which entry it is whole.
"""

import contextlib
import heapq
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Any, Final

from rocksdict import (
    AccessType,
    ColumnFamily,
    DbClosedError,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from tlog.merkle.hashing import HASH_SIZE
from tlog.merkle.tiles import TILE_WIDTH, encode_bundle, entries_path, tile_path
from tlog.store import marker
from tlog.store.disk import check_room, sync_directory
from tlog.store.errors import (
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
)
from tlog.store.leaf_index import LeafIndex
from tlog.store.options import column_family_options, database_options
from tlog.store.port import Commit

SCHEMA_VERSION: Final = b"1"

DATABASE: Final = "db"
MARKER: Final = "HEAD"

# Names of this driver in `state`; callers cannot put names under this prefix.
_OWN: Final = "store/"
_SCHEMA: Final = b"store/schema"
_TREE_SIZE: Final = b"store/tree_size"
_INDEXED: Final = b"store/indexed"

_U64: Final = Struct(">Q")
_TILE_KEY: Final = Struct(">BQ")


class RocksStore:
    """A log's storage in a directory: a `LogStore`. Made by `create` or `open`."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self._database = path / DATABASE
        self._read_only = read_only
        self._unusable: str | None = "it is closed"
        # Held by `sync` and by closing: RocksDB must not be closed below a running sync.
        self._open_lock = threading.Lock()
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, ColumnFamily] = {}
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
        database.mkdir(parents=True)
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
        refused; run it beside no writer.

        Raises:
            StoreMissing: there is no store.
            StoreLocked: another process, or another handle, has it open.
            SchemaError: it is not a store of this version.
            StoreCorrupt: it is damaged.
        """
        store = cls(path, read_only=read_only)
        store.reopen()
        return store

    def reopen(self) -> None:
        """See `LogStore.reopen`. While the disk is full the store stays open, to be read."""
        if self._db is not None and not self._read_only:
            check_room(self._database)
        self.close()
        # rocksdict would make the directory; and a database without CURRENT is an empty one.
        if not (self._database / "CURRENT").is_file():
            raise StoreMissing(f"{self._database}: no log here: run `tlog init`")
        self._start(create=False)
        try:
            self._size = self._check_schema()
            self._load_index()
        except BaseException:
            self.close()
            raise

    def _start(self, *, create: bool) -> None:
        access = (
            # The default refuses a database with a log to replay, that is, every live one.
            AccessType.read_only(error_if_log_file_exist=False)
            if self._read_only
            else AccessType.read_write()
        )
        families = column_family_options()
        try:
            self._db = Rdict(str(self._database), database_options(create=create), families, access)
            for name in families:
                self._families[name] = self._db.get_column_family(name)
                self._handles[name] = self._db.get_column_family_handle(name)
        except Exception as error:
            self.close()
            raise self._translate(error, "not opened") from error
        self._unusable = "it was opened read-only" if self._read_only else None

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

    def close(self) -> None:
        """See `LogStore.close`. Never raises: what was synced is safe, the rest is not promised."""
        with self._open_lock:
            self._unusable = self._unusable or "it is closed"
            # Each of these keeps the LOCK file locked after the database itself is closed.
            self._leaves = None
            self._handles.clear()
            for opened in (*self._families.values(), self._db):
                # Closing flushes, so it fails on a full disk; it lets go all the same.
                with contextlib.suppress(Exception):
                    if opened is not None:
                        opened.close()
            self._families.clear()
            self._db = None

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

    def iterate_leaf_index(self) -> Iterator[tuple[bytes, int]]:
        """All (leaf hash, entry index), by hash, then index: as many as the tree has entries.

        The store may be closed or written to between two steps.

        Raises:
            StoreCorrupt: the leaf index is damaged, instead of ending early.
        """
        last = None
        for leaf in heapq.merge(self._index().in_memory(), self._scan_leaf_index()):
            self._check_open()
            # Before a run has left memory, it may be on the disk too.
            if leaf != last:
                yield leaf
            last = leaf

    def _scan_leaf_index(self) -> Iterator[tuple[bytes, int]]:
        start = (b"", 0)
        while True:
            try:
                leaves = self._index().scan(start)
            except Exception as error:
                raise self._translate(error, f"leaf_index not read at {start[0].hex()}") from error
            yield from leaves
            if not leaves:
                return
            start = (leaves[-1][0], leaves[-1][1] + 1)

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

    def sync(self) -> None:
        """See `LogStore.sync`."""
        with self._open_lock:
            db = self._check_writable()
            # Before the flush: what joins a run after it began is not durable yet.
            due = self._index().due
            try:
                # The one write call that lets go of the GIL; `write` with sync does not.
                db.flush_wal(True)
                if due is not None:
                    self._index().spill(due)
            except Exception as error:
                raise self._poison(error) from error

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
        db = self._check_open()
        files = [file for file in self._database.iterdir() if file.is_file()]
        figures = {
            "tree_size": self._size,
            "disk_bytes": sum(file.stat().st_size for file in files),
            "disk_files": len(files),
        }
        for name, family in self._families.items():
            keys = family.property_int_value("rocksdb.estimate-num-keys")
            figures[f"{name}_keys_estimate"] = keys or 0
        memory = db.property_int_value("rocksdb.cur-size-all-mem-tables")
        figures["memtable_bytes"] = memory or 0
        return figures

    def _get(self, family: str, key: bytes, what: str) -> bytes | None:
        self._check_open()
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise self._translate(error, f"{what} not read") from error
        return value

    def _write(self, batch: WriteBatch) -> None:
        db = self._check_writable()
        try:
            db.write(batch, _WRITE)
        except Exception as error:
            raise self._poison(error) from error

    def _check_open(self) -> Rdict:
        if self._db is None:
            raise StoreError(f"{self._database}: the store is closed")
        return self._db

    def _index(self) -> LeafIndex:
        self._check_open()
        if self._leaves is None:
            raise StoreCorrupt(self._leaves_damage)
        return self._leaves

    def _check_writable(self) -> Rdict:
        if self._unusable is not None or self._db is None:
            raise StoreError(f"{self._database}: the store refuses writes: {self._unusable}")
        return self._db

    def _poison(self, error: Exception) -> StoreError:
        """Refuse all writes from now on: what the disk holds is known only after a reopen."""
        self._unusable = f"it needs reopen, because a write failed: {error}"
        return self._translate(error, "not written")

    def _translate(self, error: Exception, what: str) -> StoreError:
        """Make a typed error out of rocksdict's bare `Exception` with RocksDB's text in it."""
        text = str(error)
        if _LOCKED.search(text):
            return StoreLocked(
                f"{self._database}: {what}: another tlog server has it open: stop that one first"
            )
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return StoreFull(f"{self._database}: {what}: the disk is full: make room ({text})")
        # A file that the database knows and the disk does not is damage like any other.
        if text.startswith("Corruption: ") or "No such file or directory" in text:
            return StoreCorrupt(f"{self._database}: {what}: damaged: run `tlog fsck` ({text})")
        if text.startswith("Invalid argument: Column famil"):
            return SchemaError(f"{self._database}: {what}: not the tables of tlog ({text})")
        if isinstance(error, DbClosedError):
            return StoreError(f"{self._database}: {what}: the store is closed")
        return StoreError(f"{self._database}: {what}: {text}")


_LOCKED: Final = re.compile(r"lock hold by current process|While lock file")

# Explicit, because `write` with sync would hold the GIL until the disk has answered.
_WRITE: Final = WriteOptions()
_WRITE.sync = False


def _state_key(name: str) -> bytes:
    if not name or name.startswith(_OWN):
        raise StoreError(f"{name!r} is not a name for state: it is empty or begins with {_OWN!r}")
    return name.encode()
