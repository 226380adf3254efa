"""Records as they can still be read: of the leaf in the log, and the parts in the vault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from tlog.audit.claims import event_id_bytes
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.vault import Part, Vault
from tlog.log import Log
from tlog.merkle import leaf_hash

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it can still be read.

    Attributes:
        index: of its entry.
        leaf: as in the log.
        payload: of its JWS: the public claims, and the digests.
        parts: what is said of all subjects, then of each.
    """

    index: int
    leaf: Leaf
    payload: dict[str, object]
    parts: Sequence[Part]


def read_stored(log: Log, vault: Vault, index: int) -> StoredRecord:
    """See `Records.read`."""
    entry = log.reader.entry(index, log.sequencer.edge.size)
    leaf = parse_leaf(entry)
    payload = read_payload(parse_jws(leaf.jws))
    parts = vault.open_parts(payload, event_id_bytes(payload["event_id"]), leaf_hash(entry))
    if any(part.missing for part in parts):
        _log.error(
            "what was sealed is not in the vault, and nothing in the log says why: restore the "
            "newest copy, and ask who took it",
            log=log.name,
            index=index,
        )
    return StoredRecord(index, leaf, payload, parts)
