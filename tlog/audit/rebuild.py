"""The state that is derived from the log: producers, obligations, which event ids are where.

A snapshot in the vault says how far the log was read; a start reads the rest again, and verifies
it again. Without a snapshot it reads the whole log: nothing of this state is kept only here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import structlog

from tlog.audit.claims import event_id_bytes
from tlog.audit.codec import dump_json, load_json
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws, verify_jws
from tlog.audit.leaf import parse_leaf
from tlog.audit.obligations import OBLIGING, Obligations, Obliging
from tlog.audit.producers import Registry
from tlog.audit.shredding import Shredding
from tlog.audit.times import parse_time
from tlog.audit.vault import (
    KEY_ID_SIZE,
    MERGED,
    MERGED_KNOWN,
    Vault,
    merged_row,
    part_key,
    split_part,
)
from tlog.log import EntryNotFound, Log
from tlog.merkle import HASH_SIZE, TILE_WIDTH, leaf_hash, split_bundle
from tlog.notes import VerifierKey
from tlog.store.sealed import Put, SealedStore

ROW_SIZE: Final = 40
"""Of a row of an event id: index u64, SHA-256 of what is signed."""
_SNAPSHOT: Final = b"snapshot"
_SECOND: Final = 2
"""The number of the part of a record's second subject: what has none merges nobody."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class State:
    """What is known after `size` entries of the log.

    Attributes:
        saved: the size of the snapshot that is stored.
    """

    registry: Registry
    obligations: Obligations = field(default_factory=Obligations)
    size: int = 0
    saved: int = 0

    def snapshot(self) -> Put:
        """To be written with, or after, the rows of all entries below `size`."""
        self.saved = self.size
        made = {"registry": self.registry.made(), "obligations": self.obligations.made()}
        return "state", _SNAPSHOT, self.size.to_bytes(8, "big") + dump_json(made)


def index_row(index: int, content: bytes) -> bytes:
    """The row of an event."""
    return index.to_bytes(8, "big") + content


def known_rows(rows: bytes) -> list[tuple[int, bytes]]:
    """The (index, content) of an event id, first to last."""
    return [
        (int.from_bytes(rows[at : at + 8], "big"), rows[at + 8 : at + ROW_SIZE])
        for at in range(0, len(rows), ROW_SIZE)
    ]


def load_state(store: SealedStore, root: VerifierKey) -> State:
    """The state of the last snapshot, or that before the first entry.

    Args:
        store: the vault's.
        root: the first key of the service, which is known by configuration.
    """
    row = store.get("state", _SNAPSHOT)
    if row is None:
        return State(Registry.of_service(root, since=_BEGINNING))
    size = int.from_bytes(row[:8], "big")
    made = load_json(row[8:], field="snapshot")
    return State(
        Registry.of(made["registry"]), Obligations.of(made["obligations"]), size, saved=size
    )


async def replay(state: State, log: Log, vault: Vault) -> None:
    """Take in what the log has beyond the state, and settle what was under way.

    Raises:
        AuditError: the log is behind the vault.
        StoreError: the vault cannot be written.
    """
    store, size = vault.store, log.sequencer.edge.size
    if state.size > size:
        raise AuditError(
            f"the vault knows {state.size} entries, the log has {size}: one of them was restored "
            "from an old copy. Restore the newest copy of the log"
        )
    if store.get("state", MERGED_KNOWN) is None:
        await _find_merged(log, store)
    pending = {key[16:]: key for key, _ in store.items("pending")}
    while state.size < size:
        bundle, skip = divmod(state.size, TILE_WIDTH)
        width = min(TILE_WIDTH, size - bundle * TILE_WIDTH)
        puts: dict[bytes, bytes] = {}
        for entry in split_bundle(log.reader.encoded_bundle(bundle, width))[skip:]:
            _replay_entry(state, store, entry, puts)
            state.size += 1
            if (key := pending.pop(leaf_hash(entry), None)) is not None:
                store.write([("pending", key, None)])
        store.write([("events", key, row) for key, row in puts.items()])
        await asyncio.sleep(0)
    orphans = Shredding(vault)
    for hashed, key in pending.items():
        # The log itself is asked again: no part that belongs to a leaf may be taken for an orphan.
        if _find(log, hashed, size) is None:
            orphans.discard(key)
        orphans.puts.append(("pending", key, None))
    orphans.drop_unneeded()
    if orphans.ranges:
        store.begin_shred(orphans.puts, orphans.ranges)
    else:
        store.write(orphans.puts)
    if state.size > state.saved:
        store.write([state.snapshot()])


async def _find_merged(log: Log, store: SealedStore) -> None:
    """Put down whom records merge, in a vault of before there was a row for each of these."""
    size = log.sequencer.edge.size
    for number, (row, _) in enumerate(store.items("by_subject")):
        if number % TILE_WIDTH == 0:
            await asyncio.sleep(0)
        record = row[KEY_ID_SIZE:-1]
        if row[-1] < _SECOND or (index := _find(log, record[-HASH_SIZE:], size)) is None:
            continue
        if read_payload(parse_jws(parse_leaf(log.reader.entry(index, size)).jws))["type"] != MERGED:
            continue
        for part, sealed in store.items("parts", record):
            for owner in split_part(sealed)[0]:
                if store.get("by_subject", owner + part) is not None:  # nobody who was erased
                    store.write([("state", merged_row(owner, record), b"")])
    store.write([("state", MERGED_KNOWN, b"")])


def _replay_entry(state: State, store: SealedStore, entry: bytes, puts: dict[bytes, bytes]) -> None:
    """One entry, verified as when it came in."""
    try:
        leaf = parse_leaf(entry)
        jws = parse_jws(leaf.jws)
        verify_jws(jws, state.registry.key(jws.kid, now=leaf.received_at))
        payload = read_payload(jws)
        event_id = event_id_bytes(payload["event_id"])
        rows = puts.get(event_id) or store.get("events", event_id) or b""
        occurred_at = parse_time(payload["occurred_at"], field="occurred_at")
        state.registry.apply(payload, occurred_at=occurred_at, received_at=leaf.received_at)
        if payload["type"] in OBLIGING:
            part = part_key(event_id, leaf_hash(entry), 1) if payload.get("subjects") else b""
            # An epoch's key that an older copy lacks is made anew: it makes other tokens.
            tokens = [t for t in leaf.tokens if store.get("epochs", t.epoch.encode()) is not None]
            record = Obliging(payload, tokens, part, leaf.received_at)
            store.write(state.obligations.apply(record, state.size))
    except (EventRefused, LookupError, TypeError, ValueError) as error:
        _log.warning("an entry is no record", index=state.size, problem=str(error))
        return
    if all(index != state.size for index, _ in known_rows(rows)):
        puts[event_id] = rows + index_row(state.size, sha256(jws.signing_input).digest())


def _find(log: Log, hashed: bytes, size: int) -> int | None:
    try:
        return log.reader.index_of(hashed, size)
    except EntryNotFound:
        return None
