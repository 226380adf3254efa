"""A RocksDB database in a directory, with the traps of rocksdict that every driver would step into.

In DIR: `db/` is the database. A driver is a subclass: it knows its column families and its schema.

Threads: one thread owns the store and calls everything. `sync` alone may run in another thread
meanwhile, and where a driver says so its writes, one at a time, while the owner only reads.
`reopen` may run in another thread while the owner stays away.

Failure: after a write or a sync that raised, all writes and syncs are refused until `reopen`.
"""

import contextlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from rocksdict import (
    AccessType,
    ColumnFamily,
    DbClosedError,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from tlog.store.disk import check_room
from tlog.store.errors import (
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
)
from tlog.store.options import database_options

DATABASE: Final = "db"

_LOCKED: Final = re.compile(r"lock hold by current process|While lock file")

# Explicit, because `write` with sync would hold the GIL until the disk has answered.
_WRITE: Final = WriteOptions()
_WRITE.sync = False


class Database:
    """What all drivers share: open, close, read, write, sync, and typed errors."""

    _OWNER: ClassVar[str]
    """Who has it open when it is locked, such as "tlog server"."""
    _MISSING: ClassVar[str]
    """What to say where there is none."""
    _DAMAGED: ClassVar[str]
    """What to do when it is damaged."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._database = path / DATABASE
        self._read_only = read_only
        self._unusable: str | None = "it is closed"
        # Held by `sync` and by closing: RocksDB must not be closed below a running sync.
        # Reentrant, for those that reopen while they hold it.
        self._open_lock = threading.RLock()
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, ColumnFamily] = {}

    def _family_options(self) -> Mapping[str, Options]:
        """The options of each column family."""
        raise NotImplementedError

    def _load(self) -> None:
        """Check the schema, and read what the driver keeps in memory."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Close and open again: what is read afterwards is on the disk. May be retried.

        Raises:
            StoreFull: there is no room to open it. What was open for reading stays so.
            StoreError: it did not open. The store is closed.
        """
        with self._open_lock:
            if self._db is not None and not self._read_only:
                check_room(self._database)
            self.close()
            # rocksdict would make the directory; and a database without CURRENT is an empty one.
            if not (self._database / "CURRENT").is_file():
                raise StoreMissing(f"{self._database}: {self._MISSING}")
            self._start(create=False)
            try:
                self._load()
            except BaseException:
                self.close()
                raise

    def _start(self, *, create: bool) -> None:
        try:
            self._db = self._connect(create=create)
            for name in self._family_options():
                self._families[name] = self._db.get_column_family(name)
                self._handles[name] = self._db.get_column_family_handle(name)
        except Exception as error:
            self.close()
            raise self._translate(error, "not opened") from error
        self._unusable = "it was opened read-only" if self._read_only else None

    def _connect(self, *, create: bool) -> Rdict:
        access = AccessType.read_write()
        if self._read_only:
            # The default refuses a database with a log to replay, that is, every live one.
            access = AccessType.read_only(error_if_log_file_exist=False)
        options = database_options(create=create)
        return Rdict(str(self._database), options, dict(self._family_options()), access)

    def close(self) -> None:
        """Let go of the store, so that it can be opened again at once. Never raises.

        What was synced is safe, the rest is not promised. Closing twice is fine.
        """
        with self._open_lock:
            self._unusable = self._unusable or "it is closed"
            # Each of these keeps the LOCK file locked after the database itself is closed.
            self._forget()
            self._handles.clear()
            for opened in (*self._families.values(), self._db):
                # Closing flushes, so it fails on a full disk; it lets go all the same.
                with contextlib.suppress(Exception):
                    if opened is not None:
                        opened.close()
            self._families.clear()
            self._db = None

    def sync(self) -> None:
        """Block until all that was written before this call survives the loss of power.

        Raises:
            StoreFull, StoreCorrupt, StoreError: durable or not, nobody knows: `reopen`.
        """
        with self._open_lock:
            db = self._check_writable()
            try:
                self._flush(db)
            except Exception as error:
                raise self._poison(error) from error

    def _flush(self, db: Rdict) -> None:
        # The one write call that lets go of the GIL; `write` with sync does not.
        db.flush_wal(True)

    def _forget(self) -> None:
        """Drop the driver's own iterators and handles."""

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
        if _LOCKED.search(text):
            return StoreLocked(f"{where}: another {self._OWNER} has it open: stop that one first")
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return StoreFull(f"{where}: the disk is full: make room ({text})")
        # A file that the database knows and the disk does not is damage like any other.
        if text.startswith("Corruption: ") or "No such file or directory" in text:
            return StoreCorrupt(f"{where}: damaged: {self._DAMAGED} ({text})")
        if text.startswith("Invalid argument: Column famil"):
            return SchemaError(f"{where}: not the tables of a {self._OWNER} ({text})")
        if isinstance(error, DbClosedError):
            return StoreError(f"{where}: the store is closed")
        return StoreError(f"{where}: {text}")
