"""The port to the storage of one log: what every driver MUST keep.

The truth of a log is its tiles, its bundles and its state. The leaf index is derived.

Threads: one thread owns the store and calls everything. `sync` alone MAY run in another thread
meanwhile.

Failure: after a write or a sync that raised, nobody knows what the disk holds. A driver MUST
then refuse all further writes and syncs until `reopen` has read the state back from the disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tlog.merkle.hashing import HASH_SIZE
from tlog.merkle.tiles import MAX_ENTRY_SIZE, MAX_TREE_SIZE, Tile
from tlog.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class Commit:
    """One step of the tree from `begin` to `size` entries, whole or not at all.

    Attributes:
        begin: tree size before.
        size: tree size after.
        tiles: every tile that changed, full or partial, as `RightEdge.extend` gives them.
        entries: the size - begin appended entries, in order.
        leaf_hashes: their leaf hashes, concatenated: (size - begin) * 32 bytes.
    """

    begin: int
    size: int
    tiles: Sequence[tuple[Tile, bytes]]
    entries: Sequence[bytes]
    leaf_hashes: bytes

    def check(self, tree_size: int) -> None:
        """Refuse a commit that does not fit a tree of `tree_size` entries, or itself.

        Raises:
            StoreError: what does not fit.
        """
        count = self.size - self.begin
        if self.begin != tree_size:
            raise StoreError(f"a commit from size {self.begin} does not fit a tree of {tree_size}")
        if count <= 0 or self.size > MAX_TREE_SIZE:
            raise StoreError(f"a commit from size {self.begin} to {self.size} is not an append")
        if len(self.entries) != count:
            raise StoreError(f"{len(self.entries)} entries for {count} places in the tree")
        if len(self.leaf_hashes) != count * HASH_SIZE:
            raise StoreError(f"{len(self.leaf_hashes)} bytes of leaf hashes for {count} entries")
        if (longest := max(map(len, self.entries))) > MAX_ENTRY_SIZE:
            raise StoreError(f"an entry of {longest} bytes is over the limit of {MAX_ENTRY_SIZE}")
        for tile, data in self.tiles:
            if len(data) != tile.width * HASH_SIZE:
                raise StoreError(f"{tile.path} is given as {len(data)} bytes")


class LogStore(Protocol):
    """The storage of one log."""

    def tree_size(self) -> int:
        """The number of entries committed, synced or not. Cheap. After `reopen`: as on disk."""

    def read_tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile as stored: maybe more than asked for, so truncate.

        A driver MUST raise StoreCorrupt rather than return bytes that fail its checksum.

        Raises:
            StoreMissing: no hash of this tile was ever committed.
            StoreCorrupt: the tile is damaged.
        """

    def read_bundle(self, index: int, width: int) -> bytes:
        """The first `width` (1..256) entries of a bundle, as an entry bundle (tlog-tiles.md).

        Raises:
            StoreMissing: fewer entries than that were committed.
            StoreCorrupt: an entry is damaged or gone.
        """

    def find(self, leaf_hashes: Sequence[bytes], *, below: int) -> list[int | None]:
        """For each leaf hash, the LOWEST index that has it, if that is < `below`.

        A driver MUST NOT answer None for a hash because its index is damaged.

        Raises:
            StoreCorrupt: the leaf index is damaged.
        """

    def get_state(self, name: str) -> bytes | None:
        """The bytes last put under a name."""

    def put_state(self, mapping: Mapping[str, bytes]) -> None:
        """Put all of these names, or none. NOT durable until `sync`.

        Raises:
            StoreFull, StoreCorrupt, StoreError: not written; `reopen` before the next write.
        """

    def commit(self, commit: Commit) -> None:
        """Append to the tree: entries, tiles, leaf index and tree size, all or none.

        After a crash, a driver MUST show each commit whole or not at all, and MUST NOT show a
        commit without all those before it. NOT durable until `sync`: acknowledge nothing yet.

        Raises:
            StoreError: the commit does not fit the tree; nothing happened, the store is usable.
            StoreFull, StoreCorrupt, StoreError: not written; `reopen` before the next write.
        """

    def sync(self) -> None:
        """Block until all that was written before this call survives the loss of power.

        MUST release the GIL while it waits, and MUST be safe to call in another thread while
        the owner of the store reads and writes.

        Raises:
            StoreFull, StoreCorrupt, StoreError: durable or not, nobody knows: `reopen`.
        """

    def read_marker(self) -> bytes | None:
        """The last marker written; None when there never was one.

        Raises:
            StoreCorrupt: the marker is over 1 MiB.
        """

    def write_marker(self, marker: bytes) -> None:
        """Replace the marker, atomically and durably on return.

        The marker MUST be kept apart from the rest, so that an old copy of the rest put in
        place does not bring back the marker that went with it.

        Raises:
            StoreFull, StoreError: the old marker stands. Other writes are not affected.
        """

    def reopen(self) -> None:
        """Close, open again and read the tree size from the disk; may be retried until it works.

        Raises:
            StoreFull: there is no room to open it. What was open for reading stays so.
            StoreError: it did not open. The store is closed, and `reopen` may be called again.
        """

    def close(self) -> None:
        """Let go of the store, so that it can be opened again at once. Closing twice is fine."""

    def stats(self) -> dict[str, int]:
        """Figures for the operator: sizes in bytes, counts."""
