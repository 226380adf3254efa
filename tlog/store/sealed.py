"""Where keys and sealed bytes live: a database whose values can be truly deleted.

In DIR/db, a RocksDB database of its own, apart from any log's, with the column families that its
owner names. Values are opaque here.

RocksDB keeps what was deleted: in its write-ahead log, in tables that hold the older value, and in
the manifest, which names the first and the last key of each table. `shred` is the deletion that
leaves nothing: see there.

Threads and failure: as in `heads`.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rocksdict import (
    BottommostLevelCompaction,
    CompactOptions,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from tlog.store.disk import check_room, sync_directory
from tlog.store.errors import (
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
)
from tlog.store.options import column_family_options, database_options

DATABASE: Final = "db"
SCHEMA_VERSION: Final = b"vault 1"
_SCHEMA: Final = b"store/schema"
_STATE: Final = "state"
_CHUNK: Final = 1024

Put = tuple[str, bytes, bytes | None]
"""Family, key, and value; None deletes."""


class SealedStore:
    """Families of keys and values, in a directory. Made by `create` or `open`.

    `state` is one of them, always.
    """

    def __init__(self, path: Path, families: Sequence[str]) -> None:
        self.path = path
        self._names = tuple(dict.fromkeys((_STATE, *families)))
        self._database = path / DATABASE
        self._unusable: str | None = "it is closed"
        # Held by `sync` and by closing: RocksDB must not be closed below a running sync.
        self._open_lock = threading.RLock()
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, families: Sequence[str]) -> "SealedStore":
        """Make an empty store in a directory, which is made too if need be, and open it.

        Raises:
            StoreError: there is a database already.
        """
        store = cls(path, families)
        if store._database.exists():
            raise StoreError(f"{store._database} exists: a vault needs a directory of its own")
        store._database.mkdir(parents=True, mode=0o700)
        store._start(create=True)
        store.write([(_STATE, _SCHEMA, SCHEMA_VERSION)])
        store.sync()
        sync_directory(path)
        sync_directory(path.parent)
        return store

    @classmethod
    def open(cls, path: Path, families: Sequence[str]) -> "SealedStore":
        """Open the store in a directory.

        Raises:
            StoreMissing: there is no store.
            StoreLocked: another process, or another handle, has it open.
            SchemaError: it is not a store of this version, or not a vault.
            StoreCorrupt: it is damaged.
        """
        store = cls(path, families)
        store.reopen()
        return store

    def reopen(self) -> None:
        """Close and open again: what is read afterwards is on the disk. May be retried.

        Raises:
            StoreFull: there is no room to open it. What was open for reading stays so.
            StoreError: it did not open. The store is closed.
        """
        with self._open_lock:
            if self._db is not None:
                check_room(self._database)
            self.close()
            # rocksdict would make the directory; a database without CURRENT is an empty one.
            if not (self._database / "CURRENT").is_file():
                raise StoreMissing(f"{self._database}: no vault here: run `tlog records init`")
            self._start(create=False)
            schema = self.get(_STATE, _SCHEMA)
            if schema != SCHEMA_VERSION:
                self.close()
                raise SchemaError(
                    f"{self._database}: schema {(schema or b'none')[:16]!r}, but this program "
                    f"reads {SCHEMA_VERSION!r} only: use the version of tlog that wrote it"
                )

    def _start(self, *, create: bool) -> None:
        try:
            self._db = Rdict(
                str(self._database),
                database_options(create=create),
                dict.fromkeys(self._names, _options()),
            )
            for name in self._names:
                self._families[name] = self._db.get_column_family(name)
                self._handles[name] = self._db.get_column_family_handle(name)
        except Exception as error:
            self.close()
            raise self._translate(error, "not opened") from error
        self._unusable = None

    def close(self) -> None:
        """Let go of the store. Never raises; closing twice is fine."""
        with self._open_lock:
            self._unusable = self._unusable or "it is closed"
            # Each of these keeps the LOCK file locked after the database itself is closed.
            self._handles.clear()
            for opened in (*self._families.values(), self._db):
                # Closing flushes, so it fails on a full disk; it lets go all the same.
                with contextlib.suppress(Exception):
                    if opened is not None:
                        opened.close()
            self._families.clear()
            self._db = None

    @property
    def writable(self) -> bool:
        """Whether no write failed since it was opened."""
        return self._unusable is None

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of a key, synced or not; None if it has none.

        Raises:
            StoreCorrupt: it is damaged.
        """
        self._check_open()
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise self._translate(error, f"{family} {key.hex()} not read") from error
        return value

    def write(self, puts: Iterable[Put]) -> None:
        """Put and delete all of it, or nothing. NOT durable until `sync`.

        Raises:
            StoreFull, StoreCorrupt, StoreError: nothing was written; `reopen` before the next.
        """
        db = self._check_writable()
        batch = WriteBatch(raw_mode=True)
        handles = self._handles
        for family, key, value in puts:
            if value is None:
                batch.delete(key, handles[family])
            else:
                batch.put(key, value, handles[family])
        try:
            db.write(batch, _WRITE)
        except Exception as error:
            raise self._poison(error) from error

    def sync(self) -> None:
        """Block until all that was written before this call survives the loss of power.

        Raises:
            StoreFull, StoreCorrupt, StoreError: durable or not, nobody knows: `reopen`.
        """
        with self._open_lock:
            db = self._check_writable()
            try:
                # The one write call that lets go of the GIL; `write` with sync does not.
                db.flush_wal(True)
            except Exception as error:
                raise self._poison(error) from error

    def items(self, family: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key has a prefix, by key. Written to between two steps is fine.

        Raises:
            StoreCorrupt: it is damaged, instead of ending early.
        """
        start: bytes | None = prefix
        while start is not None:
            chunk = self._scan(family, start, prefix)
            yield from chunk
            start = chunk[-1][0] + b"\0" if len(chunk) == _CHUNK else None

    def _scan(self, family: str, start: bytes, prefix: bytes) -> list[tuple[bytes, bytes]]:
        self._check_open()
        chunk: list[tuple[bytes, bytes]] = []
        try:
            iterator = self._families[family].iter()
            iterator.seek(start)
            while len(chunk) < _CHUNK and iterator.valid() and iterator.key().startswith(prefix):
                chunk.append((iterator.key(), iterator.value()))
                iterator.next()
            # A damaged block looks like the end; only the status tells.
            iterator.status()
        except Exception as error:
            raise self._translate(error, f"{family} not read at {start.hex()}") from error
        return chunk

    def shred(self, puts: Iterable[Put], ranges: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Write as `write` does; on return the older values are in no file of the database.

        The ranges (family to first and last key, both included) are compacted down to the last
        level, by force: without it RocksDB moves a table with all that is deleted in it. Then the
        database is opened anew, which empties the write-ahead log, and writes a new manifest: the
        old one names the first and the last key of each table that ever was. Blocks, so run it
        beside no other call; after a crash on the way call it again, with the same ranges.

        Raises:
            StoreFull, StoreCorrupt, StoreError: as `write` and `reopen`.
        """
        self.write(puts)
        with self._open_lock:
            self._check_writable()
            options = CompactOptions()
            options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
            try:
                for name, (first, last) in ranges.items():
                    self._families[name].compact_range(first, last + b"\0", options)
            except Exception as error:
                raise self._poison(error) from error
            self.reopen()

    def _check_open(self) -> Rdict:
        if self._db is None:
            raise StoreError(f"{self._database}: the store is closed")
        return self._db

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
        where = f"{self._database}: {what}"
        if "lock hold by current process" in text or "While lock file" in text:
            return StoreLocked(f"{where}: another tlog server has it open: stop that one first")
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return StoreFull(f"{where}: the disk is full: make room ({text})")
        # A file that the database knows and the disk does not is damage like any other.
        if text.startswith("Corruption: ") or "No such file or directory" in text:
            return StoreCorrupt(f"{where}: damaged: restore the newest copy ({text})")
        if text.startswith("Invalid argument: Column famil"):
            return SchemaError(f"{where}: not the tables of a vault ({text})")
        return StoreError(f"{where}: {text}")


def _options() -> Options:
    # Keys and sealed parts are looked up by key and written over, as a log's state is.
    return column_family_options()["state"]


# Explicit, because `write` with sync would hold the GIL until the disk has answered.
_WRITE: Final = WriteOptions()
_WRITE.sync = False
