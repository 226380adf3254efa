"""What is done upon an order: a subject's key is destroyed, a hold is placed or released.

    order ──verify──▶ holds? ──▶ record in the log ──▶ the deed ──▶ receipt

The record comes first, durable, and obliges to the deed (`obligations`): after a kill between the
two, the next start does it before anything else. So no key is destroyed without a record, and none
that a record says is destroyed is there once the log takes records again. An order has one record,
with the order's id as that of the event: who submits it again gets the receipt again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from tlog.audit.catalogue import TokenClass
from tlog.audit.claims import check_identifier, event_id_bytes
from tlog.audit.errors import EventRefused, Held, OrderRefused
from tlog.audit.event import Draft, read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.obligations import DESTROYED, PLACED, RECENT, RELEASED, Hold, erased_key
from tlog.audit.orders import (
    Document,
    Kind,
    Order,
    check_order,
    kept_payload,
    parse_document,
    read_order,
)
from tlog.audit.rebuild import State, known_rows
from tlog.audit.tokens import canonical, make_token
from tlog.log import EntryNotFound, Overloaded

if TYPE_CHECKING:
    from tlog.audit.records import Records

_STEP: Final = 64
_MAX_RECIPIENTS: Final = 64

_log = structlog.get_logger(__name__)


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
    """

    parts: int = 0
    types: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    shared: int = 0
    recipients: Sequence[str] = ()
    requests: frozenset[str] = frozenset()
    others: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Standing:
    """A hold that stands, for people.

    Attributes:
        index: of the entry that placed it.
        request_id: what it holds; empty if it holds a subject.
    """

    hold_id: str
    index: int
    request_id: str
    reason: str
    approvers: Sequence[str]
    placed_at: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    """What an erasure would do, without doing it.

    Attributes:
        key_id: whose key would be destroyed; empty if there is none.
        erased_at: index of the entry that says that the subject was erased before; None if never.
        holds: why it would be refused.
    """

    key_id: bytes
    survey: Survey
    erased_at: int | None
    holds: Sequence[str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an order.

    Attributes:
        order: what it says; the subject is left out.
        index: of its record; of the erasure's before it, if the subject was erased; None if there
            was nothing to do.
        repeated: it was carried out before.
        erased_before: another order did it.
        claims: of the record; empty if there was nothing to do.
        complete_by: when no copy of the vault is left that may hold the key.
    """

    order: Order
    index: int | None
    recorded_at: datetime | None = None
    repeated: bool = False
    erased_before: bool = False
    claims: dict[str, Any] = field(default_factory=dict)
    complete_by: datetime | None = None


async def submit(records: Records, data: bytes) -> Receipt:
    """Carry out an order, once. It goes on to its end if the caller goes away.

    Raises:
        OrderRefused, EventRefused: the field that is wrong; nothing is recorded.
        Held: by which holds; nothing is recorded.
        Overloaded: too many erasures in an hour.
        LogError, StoreError: it is not known whether it is carried out. Submit it again.
    """
    document = parse_document(data)
    order = read_order(document, records.catalogue)
    return await records.deeds.do(_submit(records, document, order))


async def _submit(records: Records, document: Document, order: Order) -> Receipt:
    async with records.alone() as state:
        receipt = _recorded(records, document, order)
        if receipt is None:
            receipt = await _carried_out(records, state, document, order)
    # Whoever gets a receipt may believe that it is so; the second time as well.
    await records.shred()
    return receipt


async def _carried_out(records: Records, state: State, document: Document, order: Order) -> Receipt:
    approvers = check_order(
        document, order, state.registry, tenant=records.tenant, now=records.clock()
    )
    claims = {"reason": order.reason, "approvers": approvers, "order": document.kept()}
    match order.kind:
        case Kind.ERASE:
            deed = await _erase(records, state, order, claims)
        case Kind.PLACE:
            deed = _place(state, order, claims)
        case Kind.RELEASE:
            deed = _release(state, order, claims)
    if isinstance(deed, Receipt):
        return deed
    try:
        index = await records.record_alone(deed)
    except EventRefused as refusal:
        raise OrderRefused(f"its record is refused: {refusal}", field=refusal.field) from None
    return _receipt(records, index, order)


def _recorded(records: Records, document: Document, order: Order) -> Receipt | None:
    """The receipt of an order that has its record."""
    rows = records.vault.store.get("events", event_id_bytes(order.order_id)) or b""
    for index, _ in known_rows(rows):
        _, claims = _read(records, index)
        if claims["producer_id"] != records.service or "order" not in claims:
            continue
        if kept_payload(claims["order"]) != document.payload:
            raise OrderRefused(f"entry {index} is that of another order", field="order_id")
        return _receipt(records, index, order, repeated=True)
    if rows:
        raise OrderRefused("an event has this id: make the order anew", field="order_id")
    return None


def _receipt(records: Records, index: int, order: Order, *, repeated: bool = False) -> Receipt:
    leaf, claims = _read(records, index)
    days = timedelta(days=records.limits.backup_days)
    complete_by = leaf.received_at + days if claims["type"] == DESTROYED else None
    return Receipt(
        order, index, leaf.received_at, repeated=repeated, claims=claims, complete_by=complete_by
    )


def _read(records: Records, index: int) -> tuple[Leaf, dict[str, Any]]:
    """A record, and its public claims."""
    leaf = parse_leaf(records.log.reader.entry(index, records.log.sequencer.edge.size))
    return leaf, read_payload(parse_jws(leaf.jws))


async def _erase(
    records: Records, state: State, order: Order, claims: dict[str, Any]
) -> Draft | Receipt:
    if not order.subject:
        raise OrderRefused("whom? The disclosure of the subject is missing", field="subject")
    key = records.vault.find_subject(canonical(order.subject))
    if key is None:
        index = erased_at(records, order.subject)
        if index is None:
            return Receipt(order, None)
        return replace(_receipt(records, index, order), erased_before=True)
    survey = await _survey(records, key.key_id)
    if held := _holds(records, state, key.key_id, survey, order.request_id):
        raise Held(f"held by {', '.join(held)}: release that first (tlog hold release)")
    _pace(records, state)
    claims |= {
        "request_id": order.request_id,
        "key_id": key.key_id.hex(),
        "key_sha256": key.digest.hex(),
        "count": survey.parts,
    }
    if survey.recipients:
        claims["recipients"] = list(survey.recipients)
    # The subject's token makes the record found; its identifier is sealed under the key that goes.
    return Draft(DESTROYED, claims, {}, [{"id": order.subject}], event_id=order.order_id)


def _pace(records: Records, state: State) -> None:
    """Whoever would erase everybody is stopped, and raised."""
    now, limit = records.clock(), records.limits.erasures_per_hour
    recent = state.obligations.recent(now)
    if len(recent) < limit:
        return
    records.counters.erasures_stopped += 1
    _log.critical("mass erasure stopped", tenant=records.tenant, hour=len(recent), limit=limit)
    wait = (recent[-limit] + RECENT - now).total_seconds()
    raise Overloaded(
        f"{len(recent)} erasures within an hour, the limit is {limit} (erasures_per_hour in "
        "records.toml)",
        retry_after=max(1.0, wait),
    )


def _place(state: State, order: Order, claims: dict[str, Any]) -> Draft:
    if (hold := state.obligations.holds.get(order.hold_id)) is not None:
        raise OrderRefused(f"it stands since entry {hold.index}", field="hold_id")
    claims |= {"hold_id": order.hold_id}
    if order.request_id:
        return Draft(PLACED, claims | {"request_id": order.request_id}, {}, event_id=order.order_id)
    if not order.subject:
        raise OrderRefused("whom? The disclosure of the subject is missing", field="subject")
    return Draft(PLACED, claims, {}, [{"id": order.subject}], event_id=order.order_id)


def _release(state: State, order: Order, claims: dict[str, Any]) -> Draft:
    if order.hold_id not in state.obligations.holds:
        raise OrderRefused("no such hold stands: see tlog hold list", field="hold_id")
    return Draft(RELEASED, claims | {"hold_id": order.hold_id}, {}, event_id=order.order_id)


def erased_at(records: Records, subject: str) -> int | None:
    """The entry that says that a subject was erased; None if none does, or no more."""
    identifier, found = canonical(subject), None
    for epoch in records.vault.epochs():
        if (secret := records.vault.find_epoch(epoch)) is None:
            continue
        token = make_token(
            secret, TokenClass.EVIDENCE, epoch=epoch, field="subject", identifier=identifier
        )
        if (row := records.vault.store.get("state", erased_key(token))) is not None:
            found = max(found or 0, int.from_bytes(row, "big"))
    return found


async def preview(records: Records, subject: str, request_id: str = "") -> Preview:
    """What an erasure would do. Opens nothing, records nothing, changes nothing.

    Raises:
        EventRefused: it is no identifier.
        LogError, StoreError: it cannot be told now.
    """
    check_identifier("subject", subject)
    async with records.alone() as state:
        pass
    key = records.vault.find_subject(canonical(subject))
    before = erased_at(records, subject)
    if key is None:
        return Preview(b"", Survey(), before, ())
    survey = await _survey(records, key.key_id)
    holds = _holds(records, state, key.key_id, survey, request_id)
    return Preview(key.key_id, survey, before, holds)


async def _survey(records: Records, key_id: bytes) -> Survey:
    """Look through all that a key opens; in steps, and by what is public."""
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
        if leaf_hash in seen or (claims := _claims_of(records, leaf_hash)) is None:
            continue
        seen.add(leaf_hash)
        kind = records.catalogue.types.get((claims["type"], claims["schema_version"]))
        types[claims["type"]] += 1
        classes[claims.get("retention_class") or (kind.retention if kind else "unknown")] += 1
        recipients.update([*claims.get("recipients", ()), *_if_there(claims, "recipient")])
        requests.update(_if_there(claims, "request_id"))
    return Survey(
        parts,
        types,
        classes,
        shared,
        _bounded(sorted(recipients)),
        frozenset(requests),
        frozenset(others - {key_id}),
    )


def _if_there(claims: dict[str, Any], name: str) -> list[str]:
    return [claims[name]] if name in claims else []


def _bounded(recipients: Sequence[str]) -> Sequence[str]:
    """As many as a claim may list; that there are more is said."""
    if len(recipients) <= _MAX_RECIPIENTS:
        return recipients
    kept = recipients[: _MAX_RECIPIENTS - 1]
    return (*kept, f"and {len(recipients) - len(kept)} more, in the subject's records")


def _claims_of(records: Records, leaf_hash: bytes) -> dict[str, Any] | None:
    size = records.log.sequencer.edge.size
    try:
        return _read(records, records.log.reader.index_of(leaf_hash, size))[1]
    except EntryNotFound:
        return None  # its round has not come to the log, or never will


def _holds(
    records: Records, state: State, key_id: bytes, survey: Survey, request_id: str
) -> list[str]:
    """The holds that keep a key: on its subject, on a request, on others that share something."""
    requests = survey.requests | {request_id}
    keys = survey.others | {key_id}
    return [
        name
        for name, hold in sorted(state.obligations.holds.items())
        if (hold.request_id in requests if hold.request_id else held_key(records, hold) in keys)
    ]


def held_key(records: Records, hold: Hold) -> bytes | None:
    """The id of the key of the subject that a hold is on: its record has a part under it."""
    owners = records.vault.owners(hold.part)
    return owners[0] if owners else None


async def standing(records: Records) -> list[Standing]:
    """All holds that stand.

    Raises:
        LogError, StoreError: it cannot be told now.
    """
    async with records.alone() as state:
        holds = sorted(state.obligations.holds.items())
    found = []
    for hold_id, hold in holds:
        leaf, claims = _read(records, hold.index)
        found.append(
            Standing(
                hold_id,
                hold.index,
                hold.request_id,
                claims.get("reason", ""),
                claims.get("approvers", ()),
                leaf.received_at,
            )
        )
    return found
