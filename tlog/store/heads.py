"""Where a witness keeps the latest head that it cosigned for each log: small, many, swapped.

In DIR/db, a RocksDB database with two column families:

    state    name                value
    heads    origin hash (32)    opaque bytes, the latest head of that log

A head changes by compare-and-swap only, so that no race above can roll one back. One sync covers
every swap before it: many logs share the price of one.

Threads: one thread owns the store and calls everything. `sync` alone may run in another thread
meanwhile. `reopen` may run in another thread while the owner stays away.

Failure: as in `port`: after a write or a sync that raised, all writes and syncs are refused until
`reopen`.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rocksdict import Rdict, WriteBatch, WriteOptions

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
ORIGIN_HASH_SIZE: Final = 32
SCHEMA_VERSION: Final = b"witness 1"
_SCHEMA: Final = b"store/schema"
_FAMILIES: Final = ("state", "heads")
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Swap:
    """Replace the head of a log, if it still is `expected` (None: if it has none)."""

    origin_hash: bytes
    expected: bytes | None
    head: bytes


class HeadStore:
    """The heads of a witness, in a directory. Made by `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = path / DATABASE
        self._unusable: str | None = "it is closed"
        # Held by `sync` and by closing: RocksDB must not be closed below a running sync.
        self._open_lock = threading.Lock()
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._heads_handle: Any = None

    @classmethod
    def create(cls, path: Path) -> "HeadStore":
        """Make an empty store in a directory, which is made too if need be, and open it.

        Raises:
            StoreError: there is a database already.
        """
        store = cls(path)
        if store._database.exists():
            raise StoreError(
                f"{store._database} exists: a new witness needs a directory of its own"
            )
        store._database.mkdir(parents=True)
        store._start(create=True)
        batch = WriteBatch(raw_mode=True)
        batch.put(_SCHEMA, SCHEMA_VERSION, store._handle("state"))
        store._write(batch)
        store.sync()
        sync_directory(path)
        sync_directory(path.parent)
        return store

    @classmethod
    def open(cls, path: Path) -> "HeadStore":
        """Open the store in a directory.

        Raises:
            StoreMissing: there is no store.
            StoreLocked: another process, or another handle, has it open.
            SchemaError: it is not a store of this version, or not a witness's.
            StoreCorrupt: it is damaged.
        """
        store = cls(path)
        store.reopen()
        return store

    def reopen(self) -> None:
        """Close and open again: what is read afterwards is on the disk. May be retried.

        Raises:
            StoreFull: there is no room to open it. What was open for reading stays so.
            StoreError: it did not open. The store is closed.
        """
        if self._db is not None:
            check_room(self._database)
        self.close()
        # rocksdict would make the directory; and a database without CURRENT is an empty one.
        if not (self._database / "CURRENT").is_file():
            raise StoreMissing(f"{self._database}: no witness here: run `tlog witness init`")
        self._start(create=False)
        try:
            schema = self._get("state", _SCHEMA)
            if schema != SCHEMA_VERSION:
                raise SchemaError(
                    f"{self._database}: schema {(schema or b'none')[:16]!r}, but this program "
                    f"reads {SCHEMA_VERSION!r} only: use the version of tlog that wrote it"
                )
        except BaseException:
            self.close()
            raise

    def _start(self, *, create: bool) -> None:
        # Heads are looked up by key and written over, as a log's state is.
        options = column_family_options()["state"]
        try:
            self._db = Rdict(
                str(self._database),
                database_options(create=create),
                dict.fromkeys(_FAMILIES, options),
            )
            for name in _FAMILIES:
                self._families[name] = self._db.get_column_family(name)
            self._heads_handle = self._handle("heads")
        except Exception as error:
            self.close()
            raise self._translate(error, "not opened") from error
        self._unusable = None

    def close(self) -> None:
        """Let go of the store. Never raises; closing twice is fine."""
        with self._open_lock:
            self._unusable = self._unusable or "it is closed"
            # Each of these keeps the LOCK file locked after the database itself is closed.
            self._heads_handle = None
            for opened in (*self._families.values(), self._db):
                # Closing flushes, so it fails on a full disk; it lets go all the same.
                with contextlib.suppress(Exception):
                    if opened is not None:
                        opened.close()
            self._families.clear()
            self._db = None

    def get(self, origin_hash: bytes) -> bytes | None:
        """The head last swapped in, synced or not; None when there never was one.

        Raises:
            StoreCorrupt: it is damaged.
        """
        return self._get("heads", origin_hash)

    def swap(self, swaps: Sequence[Swap]) -> list[bool]:
        """Replace heads, all that can be in one atomic write. NOT durable until `sync`.

        Returns:
            For each swap, in order, whether it was done: whether the head was as expected,
            the swaps before it included.

        Raises:
            StoreFull, StoreCorrupt, StoreError: nothing was written; `reopen` before the next.
        """
        self._check_writable()
        current: dict[bytes, bytes | None] = {}
        done = []
        batch = WriteBatch(raw_mode=True)
        for swap in swaps:
            key = swap.origin_hash
            if len(key) != ORIGIN_HASH_SIZE:
                raise StoreError(f"an origin hash of {len(key)} bytes, not {ORIGIN_HASH_SIZE}")
            stored = current[key] if key in current else self.get(key)
            done.append(stored == swap.expected)
            current[key] = swap.head if done[-1] else stored
            if done[-1]:
                batch.put(key, swap.head, self._heads_handle)
        if any(done):
            self._write(batch)
        return done

    def sync(self) -> None:
        """Block until all that was swapped before this call survives the loss of power.

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

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """All (origin hash, head), by origin hash. The store may be written to between two steps.

        Raises:
            StoreCorrupt: it is damaged, instead of ending early.
        """
        start: bytes | None = b""
        while start is not None:
            chunk = self._scan(start)
            yield from chunk
            start = chunk[-1][0] + b"\0" if chunk else None

    def _scan(self, start: bytes) -> list[tuple[bytes, bytes]]:
        self._check_open()
        chunk: list[tuple[bytes, bytes]] = []
        try:
            iterator = self._families["heads"].iter()
            iterator.seek(start)
            while len(chunk) < _CHUNK and iterator.valid():
                chunk.append((iterator.key(), iterator.value()))
                iterator.next()
            # A damaged block looks like the end; only the status tells.
            iterator.status()
        except Exception as error:
            raise self._translate(error, f"heads not read at {start.hex()}") from error
        return chunk

    def _handle(self, family: str) -> Any:
        return self._check_open().get_column_family_handle(family)

    def _get(self, family: str, key: bytes) -> bytes | None:
        self._check_open()
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise self._translate(error, f"{family} {key.hex()} not read") from error
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
            return StoreLocked(f"{where}: another tlog witness has it open: stop that one first")
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return StoreFull(f"{where}: the disk is full: make room ({text})")
        # A file that the database knows and the disk does not is damage like any other.
        if text.startswith("Corruption: ") or "No such file or directory" in text:
            return StoreCorrupt(f"{where}: damaged: restore the newest copy ({text})")
        if text.startswith("Invalid argument: Column famil"):
            return SchemaError(f"{where}: not the tables of a witness ({text})")
        return StoreError(f"{where}: {text}")


_LOCKED: Final = re.compile(r"lock hold by current process|While lock file")

# Explicit, because `write` with sync would hold the GIL until the disk has answered.
_WRITE: Final = WriteOptions()
_WRITE.sync = False
