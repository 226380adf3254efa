"""Records as far as their retention asks of them: read from the log, with what the vault has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from tlog.audit.catalogue import Catalogue
from tlog.audit.claims import event_id_bytes
from tlog.audit.codec import dump_json
from tlog.audit.errors import EventRefused
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.vault import part_key, split_part
from tlog.log import Log
from tlog.merkle import TILE_WIDTH, leaf_hash, split_bundle

if TYPE_CHECKING:
    from tlog.audit.records import Records

SCAN: Final = 2048
"""Entries that one batch looks through."""
STEP: Final = 64
"""Entries after which others have a turn."""
RULES: Final = b"expiry/catalogue"
"""In the vault's state: see `fingerprint`. Without it all is looked through anew."""
_RULE: Final = "the longest of the classes that keep it"


@dataclass(frozen=True, slots=True)
class Known:
    """A record, as far as its retention asks.

    Attributes:
        retention: the class that keeps it longest; empty if its type is not known any more. See
            `strays`.
        parts: the keys of those of its parts that are in the vault.
    """

    leaf: Leaf
    claims: Mapping[str, Any]
    retention: str
    parts: tuple[bytes, ...]


def entries(log: Log, first: int, until: int) -> Iterator[tuple[int, bytes]]:
    """The entries of a log, with their indices."""
    while first < until:
        bundle, skip = divmod(first, TILE_WIDTH)
        width = min(TILE_WIDTH, until - bundle * TILE_WIDTH)
        for entry in split_bundle(log.reader.encoded_bundle(bundle, width))[skip:]:
            yield first, entry
            first += 1


def leaf_of(entry: bytes) -> Leaf | None:
    """A leaf; None if the entry is no record."""
    try:
        return parse_leaf(entry)
    except EventRefused:
        return None


def known_of(records: Records, entry: bytes) -> Known | None:
    """A record; None if the entry is none."""
    try:
        leaf = parse_leaf(entry)
        claims = read_payload(parse_jws(leaf.jws))
        key = event_id_bytes(claims["event_id"]), leaf_hash(entry)
    except (EventRefused, LookupError, TypeError, ValueError):
        return None
    parts = [part_key(*key, number) for number in range(len(claims.get("subjects", ())) + 1)]
    there = [part for part in parts if records.vault.owners(part)]
    return Known(leaf, claims, records.catalogue.retention_of(claims), tuple(there))


def is_sealed(records: Records, part: bytes) -> bool:
    """Whether there is anything in a part of a record."""
    row = records.vault.store.get("parts", part)
    return row is not None and bool(split_part(row)[1])


def fingerprint(catalogue: Catalogue) -> bytes:
    """A hash of all that says when a record is past its time: the rule's name, types, classes."""
    classes = {f"{name} {version}": k.retention for (name, version), k in catalogue.types.items()}
    return sha256(dump_json([_RULE, classes, dict(catalogue.retention)])).digest()
