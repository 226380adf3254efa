"""Before a log signs anything: is what the disk holds what was signed?

Three witnesses of the past are compared: the tree in the store, the last signed head in the store,
and the copy of that head in the marker file, which lies outside the database. An old copy of the
database, put back, contradicts the marker; a damaged one contradicts the signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlog.log.errors import StateRefused
from tlog.log.head import Head
from tlog.log.publisher import PUBLISHED, SIGNED
from tlog.log.reader import Reader
from tlog.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    MerkleError,
    RightEdge,
    Tile,
    leaf_hashes,
    split_bundle,
)
from tlog.notes import NoteError, VerifierKey, open_checkpoint
from tlog.store import LogStore, StoreMissing

MARKER = "the marker file HEAD"


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log's state, proven against its last signed head."""

    edge: RightEdge
    signed: Head | None
    published: Head | None


def recover(
    store: LogStore, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> Recovered:
    """Read the right edge of the tree and prove it against the last signed head.

    Re-hashes the last entry bundle of the signed tree and every entry after it.

    Args:
        store: the log's.
        vkeys: those that sign its heads, all of them.
        origin: of the log, where the keys are not named as it: those of its mirror.

    Raises:
        StateRefused: rolled back, damaged, signed by other keys, or a file is missing.
        StoreError: the store cannot be read.
    """
    signed = read_head(store.get_state(SIGNED), vkeys, SIGNED, origin=origin)
    marker = read_head(store.read_marker(), vkeys, MARKER, origin=origin)
    published = read_head(store.get_state(PUBLISHED), vkeys, PUBLISHED, origin=origin)
    size = store.tree_size()
    if signed is None:
        if marker is not None:
            raise StateRefused(_rollback("has no signed head", marker))
        if size or published is not None:
            raise StateRefused(f"the store has {size} entries but no signed head: it is damaged")
        return Recovered(RightEdge(), None, None)
    if marker is None:
        raise StateRefused(
            f"{MARKER} is missing. Put back the newest checkpoint that this log has published "
            "(an auditor or a witness has it) as HEAD in the log's directory"
        )
    if marker.size > min(signed.size, size):
        raise StateRefused(_rollback(f"ends at size {min(signed.size, size)}", marker))
    if size < signed.size:
        raise StateRefused(
            f"the store has {size} entries but signed a head of size {signed.size}: entries are "
            "lost. Restore the newest copy"
        )
    if published is not None and published.size > signed.size:
        raise StateRefused(
            f"the published head (size {published.size}) is newer than the signed one "
            f"(size {signed.size}): the store is damaged"
        )
    try:
        for head, name in ((marker, MARKER), (published, PUBLISHED), (signed, SIGNED)):
            if head is not None:
                _check_root(store, head, name)
        return Recovered(_rehash(store, signed.size), signed, published)
    except (MerkleError, StoreMissing) as error:
        raise StateRefused(f"the tree is damaged: {error}. Run: tlog fsck DIR") from None


def read_head(
    note: bytes | None, vkeys: Sequence[VerifierKey], name: str, *, origin: str | None = None
) -> Head | None:
    """Parse a stored head and verify the log's own signatures on it, all of them.

    Raises:
        StateRefused: it is not a checkpoint of this log.
    """
    if note is None:
        return None
    try:
        verified = open_checkpoint(note, vkeys, origin=origin or vkeys[0].name)
    except NoteError as error:
        raise StateRefused(f"{name} is not a checkpoint signed by this log: {error}") from None
    # A flipped bit in a signature's name makes it one of somebody else.
    signed_by = {vkey for vkey, _ in verified.signed_by}
    if missing := [vkey.label for vkey in vkeys if vkey not in signed_by]:
        raise StateRefused(f"{name} has no signature of {' and '.join(missing)}: it is damaged")
    return Head(verified.checkpoint, note)


def _check_root(store: LogStore, head: Head, name: str) -> None:
    root = RightEdge.load(head.size, store.read_tile).root()
    if root != head.checkpoint.root_hash:
        raise StateRefused(
            f"the tree is not what was signed: at size {head.size} {name} has root "
            f"{head.checkpoint.root_hash.hex()}, the stored tiles give {root.hex()}. "
            "Run: tlog fsck DIR"
        )


def _rehash(store: LogStore, signed_size: int) -> RightEdge:
    """Compare entries with tiles from the last signed bundle on; return the stored edge."""
    size = store.tree_size()
    reader = Reader(store)
    for index in range(max(signed_size - 1, 0) // TILE_WIDTH, -(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        hashes = leaf_hashes(split_bundle(store.read_bundle(index, width)))
        if hashes != (stored := reader.tile(Tile(0, index, width))):
            raise StateRefused(f"{first_difference(index, hashes, stored)}. Run: tlog fsck DIR")
    # Above the leaves, what lies after the signed head is built again and compared.
    edge = RightEdge.load(signed_size, store.read_tile)
    for index in range(signed_size // TILE_WIDTH, -(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        done = edge.size - index * TILE_WIDTH
        edge, _ = edge.extend(reader.tile(Tile(0, index, width))[done * HASH_SIZE :])
    if edge != (stored_edge := RightEdge.load(size, store.read_tile)):
        raise StateRefused(
            f"the tiles above the entries after size {signed_size} are not what the entries give "
            f"(root {edge.root().hex()}, stored {stored_edge.root().hex()}). Run: tlog fsck DIR"
        )
    return edge


def first_difference(bundle: int, hashes: bytes, stored: bytes) -> str:
    """Name the first entry of a bundle whose leaf hash is not the one in its tile."""
    for start in range(0, max(len(hashes), len(stored)), HASH_SIZE):
        if hashes[start : start + HASH_SIZE] != stored[start : start + HASH_SIZE]:
            break
    return (
        f"entry {bundle * TILE_WIDTH + start // HASH_SIZE} does not hash to the leaf in "
        f"{Tile(0, bundle, max(1, len(stored) // HASH_SIZE)).path}"
    )


def _rollback(what: str, marker: Head) -> str:
    return (
        f"rollback: the store {what}, but a head of size {marker.size} was signed ({MARKER}). "
        "An old copy of the database was put back; signing it would fork the log. Restore the "
        "newest copy"
    )
