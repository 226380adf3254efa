"""Where keys and sealed bytes live: a database whose values can be truly deleted.

In DIR/db, a RocksDB database of its own, apart from any log's, with the column families that its
owner names. Values are opaque here.

RocksDB keeps what was deleted: in its write-ahead log, in tables that hold the older value, and in
the manifest, which names the first and the last key of each table. `shred` is the deletion that
leaves nothing: see there.

Threads and failure: as in `database`.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rocksdict import BottommostLevelCompaction, CompactOptions, Options, WriteBatch

from tlog.store.database import Database
from tlog.store.disk import sync_directory
from tlog.store.errors import SchemaError, StoreError
from tlog.store.options import column_family_options

SCHEMA_VERSION: Final = b"vault 1"
_SCHEMA: Final = b"store/schema"
_SHREDDING: Final = b"store/shredding"
_STATE: Final = "state"
_CHUNK: Final = 1024

Put = tuple[str, bytes, bytes | None]
"""Family, key, and value; None deletes."""


class SealedStore(Database):
    """Families of keys and values, in a directory. Made by `create` or `open`.

    `state` is one of them, always.
    """

    _OWNER = "tlog server"
    _MISSING = "no vault here: run `tlog records init`"
    _DAMAGED = "restore the newest copy"

    def __init__(self, path: Path, families: Sequence[str]) -> None:
        super().__init__(path)
        # RocksDB must not be closed below a compaction.
        self._compacting = threading.Lock()
        self._names = tuple(dict.fromkeys((_STATE, *families)))

    @classmethod
    def create(cls, path: Path, families: Sequence[str]) -> "SealedStore":
        """Make an empty store in a directory, which is made too if need be, and open it.

        Raises:
            StoreError: there is a database already.
        """
        store = cls(path, families)
        if store._database.exists():
            raise StoreError(f"{store._database} exists: a vault needs a directory of its own")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        store._database.mkdir(mode=0o700)
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
        try:
            store.finish_shred()
        except BaseException:
            store.close()
            raise
        return store

    def _family_options(self) -> Mapping[str, Options]:
        # Keys and sealed parts are looked up by key and written over, as a log's state is.
        return dict.fromkeys(self._names, column_family_options()["state"])

    def _load(self) -> None:
        schema = self.get(_STATE, _SCHEMA)
        if schema != SCHEMA_VERSION:
            raise SchemaError(
                f"{self._database}: schema {(schema or b'none')[:16]!r}, but this program "
                f"reads {SCHEMA_VERSION!r} only: use the version of tlog that wrote it"
            )

    @property
    def writable(self) -> bool:
        """Whether no write failed since it was opened."""
        return self._unusable is None

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of a key, synced or not; None if it has none.

        Raises:
            StoreCorrupt: it is damaged.
        """
        return self._get(family, key, f"{family} {key.hex()}")

    def write(self, puts: Iterable[Put]) -> None:
        """Put and delete all of it, or nothing. NOT durable until `sync`.

        Raises:
            StoreFull, StoreCorrupt, StoreError: nothing was written; `reopen` before the next.
        """
        self._check_writable()
        batch = WriteBatch(raw_mode=True)
        handles = self._handles
        for family, key, value in puts:
            if value is None:
                batch.delete(key, handles[family])
            else:
                batch.put(key, value, handles[family])
        self._write(batch)

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
        old one names the first and the last key of each table that ever was.

        It has three steps, for whoever has something else to do meanwhile. A crash between them,
        or a failure, is made good by `finish_shred`, which `open` calls.

        Raises:
            StoreFull, StoreCorrupt, StoreError: as `write` and `reopen`.
        """
        self.begin_shred(puts, ranges)
        self.finish_shred()

    def begin_shred(self, puts: Iterable[Put], ranges: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Write, and what is to be compacted with it: so no crash forgets it.

        It may be begun again, with more, before it is compacted.
        """
        due = json.loads(self.get(_STATE, _SHREDDING) or b"{}")
        for name, (first, last) in ranges.items():
            before = due.get(name, [first.hex(), last.hex()])
            due[name] = [min(before[0], first.hex()), max(before[1], last.hex())]
        self.write([*puts, (_STATE, _SHREDDING, json.dumps(due).encode())])

    @property
    def shredding(self) -> bytes | None:
        """What was begun, and not ended; None if nothing."""
        return self.get(_STATE, _SHREDDING)

    def compact_shredded(self, begun: bytes) -> None:
        """The long step: may run in another thread, beside all but `close` and `reopen`."""
        with self._compacting:
            self._check_writable()
            options = CompactOptions()
            options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
            try:
                for name, (first, last) in json.loads(begun).items():
                    self._families[name].compact_range(
                        bytes.fromhex(first), bytes.fromhex(last) + b"\0", options
                    )
            except Exception as error:
                raise self._poison(error) from error

    def end_shred(self, begun: bytes) -> None:
        """Open the database anew: the log and the manifest of what was is gone.

        What was begun meanwhile stays to be done.
        """
        self.reopen()
        if self.shredding == begun:
            self.write([(_STATE, _SHREDDING, None)])

    def finish_shred(self) -> None:
        """Finish what was begun."""
        while (begun := self.shredding) is not None:
            self.compact_shredded(begun)
            self.end_shred(begun)

    def close(self) -> None:
        """As that of any database; it waits for what is being compacted."""
        with self._compacting:
            super().close()
