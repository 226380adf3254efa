"""Where a witness keeps the latest head that it cosigned for each log: small, many, swapped.

In DIR/db, a RocksDB database with two column families:

    state    name                value
    heads    origin hash (32)    opaque bytes, the latest head of that log

A head changes by compare-and-swap only, so that no race above can roll one back. One sync covers
every swap before it: many logs share the price of one. `swap` may run in another thread, as `sync`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rocksdict import Options, WriteBatch

from tlog.store.database import Database
from tlog.store.disk import sync_directory
from tlog.store.errors import SchemaError, StoreError
from tlog.store.options import column_family_options

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


class HeadStore(Database):
    """The heads of a witness, in a directory. Made by `create` or `open`."""

    _OWNER = "tlog witness"
    _MISSING = "no witness here: run `tlog witness init`"
    _DAMAGED = "restore the newest copy"

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
        batch.put(_SCHEMA, SCHEMA_VERSION, store._handles["state"])
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

    def _family_options(self) -> Mapping[str, Options]:
        # Heads are looked up by key and written over, as a log's state is.
        return dict.fromkeys(_FAMILIES, column_family_options()["state"])

    def _load(self) -> None:
        schema = self._get("state", _SCHEMA, "the schema version")
        if schema != SCHEMA_VERSION:
            raise SchemaError(
                f"{self._database}: schema {(schema or b'none')[:16]!r}, but this program "
                f"reads {SCHEMA_VERSION!r} only: use the version of tlog that wrote it"
            )

    def get(self, origin_hash: bytes) -> bytes | None:
        """The head last swapped in, synced or not; None when there never was one.

        Raises:
            StoreCorrupt: it is damaged.
        """
        return self._get("heads", origin_hash, f"the head {origin_hash.hex()}")

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
                batch.put(key, swap.head, self._handles["heads"])
        if any(done):
            self._write(batch)
        return done

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
