"""What goes with a subject's key, and what holds it: told by what is public.

Nothing is opened, but to know whom a hold is on where the vault is an older copy: see `keeping`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from tlog.audit.catalogue import TokenClass
from tlog.audit.codec import dump_json
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.keeping import UNTOLD, Keeping, index_of
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.obligations import erased_in, erased_key
from tlog.audit.personal import find_personal
from tlog.audit.rebuild import State
from tlog.audit.tokens import canonical, make_token
from tlog.audit.vault import Vault
from tlog.merkle import HASH_SIZE

if TYPE_CHECKING:
    from tlog.audit.records import Records

_STEP: Final = 64
_MAX_LISTED: Final = 64
_MAX_LISTED_BYTES: Final = 16 << 10
"""Of one list, as it stands in a record: with two, and an order, that still fits into an entry."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What would go with a subject's key.

    Attributes:
        parts: sealed parts, each of one record.
        types: records by type.
        classes: records by retention class.
        shared: records that say something of others as well, which goes too.
        recipients: to whom records say that the subject's data went.
        requests: of which there are records.
        others: keys of those that share something.
        merged: keys of the same person under another identifier, as records say, be it by way of a
            third one, and the entry of the last one of these.
    """

    parts: int = 0
    types: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    shared: int = 0
    recipients: Sequence[str] = ()
    requests: frozenset[str] = frozenset()
    others: frozenset[bytes] = frozenset()
    merged: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """What a record says, as far as it is surveyed: that stays, whatever becomes of its parts."""

    type: str
    retention: str
    recipients: tuple[str, ...]
    requests: tuple[str, ...]


async def survey(records: Records, key_id: bytes, known: dict[bytes, Said] | None = None) -> Survey:
    """Look through all that a key opens; in steps, and by what is public.

    Args:
        records: the tenant's.
        key_id: of the key.
        known: what records say, by leaf hash, from a look before, of which this one reads them no
            more; it gets what is read now.
    """
    known = {} if known is None else known
    types: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    recipients: set[str] = set()
    requests: set[str] = set()
    others: set[bytes] = set()
    parts = shared = 0
    seen: set[bytes] = set()
    for parts, key in enumerate(records.vault.parts_of(key_id), 1):
        if parts % _STEP == 0:
            await asyncio.sleep(0)
        owners = records.vault.owners(key)
        others.update(owners)
        shared += len(owners) > 1
        leaf_hash = key[16:48]
        if leaf_hash in seen or (said := known.get(leaf_hash) or _read(records, leaf_hash)) is None:
            continue
        known[leaf_hash] = said
        seen.add(leaf_hash)
        types[said.type] += 1
        classes[said.retention] += 1
        recipients.update(said.recipients)
        requests.update(said.requests)
    alike = records.vault.merged_with(key_id)
    merged = {each: index_of(records, record[-HASH_SIZE:]) for each, record in alike.items()}
    return Survey(
        parts,
        types,
        classes,
        shared,
        listed(sorted({*map(repeated, recipients)}), where="the subject's records"),
        frozenset(requests),
        frozenset(others - {key_id}),
        {each: index for each, index in merged.items() if index is not None},
    )


def _read(records: Records, leaf_hash: bytes) -> Said | None:
    """What a record says; None if it is not in the log yet, or never will be."""
    if (index := index_of(records, leaf_hash)) is None:
        return None
    _, claims = claims_at(records, index)
    return Said(
        claims["type"],
        records.catalogue.retention_of(claims) or "unknown",
        (*claims.get("recipients", ()), *_if_there(claims, "recipient")),
        (*_if_there(claims, "request_id"),),
    )


def _if_there(claims: dict[str, Any], name: str) -> list[str]:
    return [claims[name]] if name in claims else []


def repeated(name: str) -> str:
    """A name from a record, for another: no pattern of today may stop an erasure for a name of old.

    What seems to be personal is refused when it is recorded; a log may be older than the patterns.
    """
    return name if find_personal(name) is None else "one whose name seems to be personal"


def listed(texts: Sequence[str], *, where: str) -> Sequence[str]:
    """As many as a claim may list, and a record hold; that there are more, and where, is said."""
    ends = [*accumulate(len(dump_json(text)) for text in texts)]
    if len(texts) <= _MAX_LISTED and (not ends or ends[-1] <= _MAX_LISTED_BYTES):
        return texts
    kept = texts[: min(_MAX_LISTED - 1, bisect_right(ends, _MAX_LISTED_BYTES))]
    return (*kept, f"and {len(texts) - len(kept)} more, in {where}")


def holds_on(
    records: Records, state: State, key_id: bytes, seen: Survey, request_id: str
) -> list[str]:
    """The holds that keep a key.

    They are on its subject, under whatever identifier, on a request, or on others that share
    something. Of one that keeps it because nobody can tell whom it is on, it is said what to do.
    """
    keeping = Keeping.of(records, state.obligations.holds)
    held: set[str] = set()
    untold: set[str] = set()
    for each in seen.requests | {request_id}:
        held |= keeping.requests.get(each, frozenset())
    for key in {key_id, *seen.others}:
        known, unknown = keeping.on_key(key)
        held |= known
        untold |= unknown
    return [name if name in held else f"{name} ({UNTOLD})" for name in sorted(held | untold)]


def erased_epochs(vault: Vault) -> list[str]:
    """The epochs in which somebody was erased, as far as it is known who."""
    return [name for name in vault.epochs() if any(vault.store.items("state", erased_in(name)))]


def erased_at(vault: Vault, subject: str, epochs: Sequence[str] | None = None) -> int | None:
    """The entry that says that a subject was erased; None if none does, or no more.

    Args:
        vault: the tenant's.
        subject: who.
        epochs: what `erased_epochs` says, for whoever asks of many.
    """
    identifier, found = canonical(subject), None
    for epoch in erased_epochs(vault) if epochs is None else epochs:
        if (secret := vault.find_epoch(epoch)) is None:
            continue
        token = make_token(
            secret, TokenClass.EVIDENCE, epoch=epoch, field="subject", identifier=identifier
        )
        if (row := vault.store.get("state", erased_key(token))) is not None:
            found = max(found or 0, int.from_bytes(row, "big"))
    return found


def claims_at(records: Records, index: int) -> tuple[Leaf, dict[str, Any]]:
    """A record, and its public claims."""
    leaf = parse_leaf(records.log.reader.entry(index, records.log.sequencer.edge.size))
    return leaf, read_payload(parse_jws(leaf.jws))
