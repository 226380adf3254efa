"""What is done upon an order: to a subject's key, to a hold, or to the key of an approver.

    order ──verify──▶ holds? ──▶ record in the log ──▶ the deed ──▶ receipt

The record comes first, durable, and obliges to the deed (`obligations`): after a kill between the
two, the next start does it before anything else. So no key is destroyed without a record, and none
that a record says is destroyed is there once the log takes records again. An order has one record,
with the order's id as that of the event: who submits it again gets the receipt again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from tlog.audit.approvers import ordered_record
from tlog.audit.claims import event_id_bytes
from tlog.audit.errors import EventRefused, Held, OrderRefused
from tlog.audit.event import Draft
from tlog.audit.obligations import DESTROYED, PLACED, RECENT, RELEASED
from tlog.audit.orders import (
    Document,
    Kind,
    Order,
    check_order,
    kept_payload,
    parse_document,
    read_order,
)
from tlog.audit.outcomes import Outcomes
from tlog.audit.rebuild import State, known_rows
from tlog.audit.survey import Said, claims_at, erased_at, holds_on, survey
from tlog.audit.tokens import canonical
from tlog.log import Overloaded

if TYPE_CHECKING:
    from tlog.audit.records import Records

_FEW: Final = 64
"""Records of a request that may be left to read while nobody else records."""

_log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is read for an erasure while others record: all but the last few records.

    A person may have very many, and so may a request.

    Attributes:
        said: by records of the subject; see `survey`.
    """

    outcomes: Outcomes
    said: dict[bytes, Said] = field(default_factory=dict)


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
    ahead = _Ahead(Outcomes(records, order.request_id))
    if order.kind is Kind.ERASE:
        async with records.alone() as state:
            # For an order that is refused, or was carried out, nothing is looked through.
            if (receipt := _recorded(records, document, order)) is None:
                _approvers(records, state, document, order)
        if receipt is None:
            await _read_ahead(records, order, ahead)
    async with records.alone() as state:
        receipt = _recorded(records, document, order)
        if receipt is None:
            receipt = await _carried_out(records, state, document, order, ahead)
    # Whoever gets a receipt may believe that it is so; the second time as well.
    await records.shred()
    return receipt


async def _read_ahead(records: Records, order: Order, ahead: _Ahead) -> None:
    key = records.vault.find_subject(canonical(order.subject)) if order.subject else None
    if key is not None:
        for _ in range(2):  # the second time what came meanwhile, which is little
            await survey(records, key.key_id, ahead.said)
    while await ahead.outcomes.catch_up() > _FEW:
        pass


def _approvers(records: Records, state: State, document: Document, order: Order) -> list[str]:
    return check_order(document, order, state.registry, tenant=records.tenant, now=records.clock())


async def _carried_out(
    records: Records, state: State, document: Document, order: Order, ahead: _Ahead
) -> Receipt:
    approvers = _approvers(records, state, document, order)
    claims = {"reason": order.reason, "approvers": approvers, "order": document.kept()}
    match order.kind:
        case Kind.ERASE:
            deed = await _erase(records, state, order, claims, ahead)
        case Kind.PLACE:
            deed = _place(state, order, claims)
        case Kind.RELEASE:
            deed = _release(state, order, claims)
        case Kind.REGISTER | Kind.ROTATE:
            deed = ordered_record(order, claims, now=records.clock())
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
        _, claims = claims_at(records, index)
        if claims["producer_id"] != records.service or "order" not in claims:
            continue
        if kept_payload(claims["order"]) != document.payload:
            raise OrderRefused(f"entry {index} is that of another order", field="order_id")
        return _receipt(records, index, order, repeated=True)
    if rows:
        raise OrderRefused("an event has this id: make the order anew", field="order_id")
    return None


def _receipt(records: Records, index: int, order: Order, *, repeated: bool = False) -> Receipt:
    leaf, claims = claims_at(records, index)
    days = timedelta(days=records.limits.backup_days)
    complete_by = leaf.received_at + days if claims["type"] == DESTROYED else None
    return Receipt(
        order, index, leaf.received_at, repeated=repeated, claims=claims, complete_by=complete_by
    )


async def _erase(
    records: Records, state: State, order: Order, claims: dict[str, Any], ahead: _Ahead
) -> Draft | Receipt:
    if not order.subject:
        raise OrderRefused("whom? The disclosure of the subject is missing", field="subject")
    key = records.vault.find_subject(canonical(order.subject))
    if key is None:
        index = erased_at(records.vault, order.subject)
        if index is None:
            return Receipt(order, None)
        return replace(_receipt(records, index, order), erased_before=True)
    seen = await survey(records, key.key_id, ahead.said)
    if held := holds_on(records, state, key.key_id, seen, order.request_id):
        raise Held(f"held by {', '.join(held)}: release that first (tlog hold release)")
    _pace(records, state)
    claims |= {
        "request_id": order.request_id,
        "key_id": key.key_id.hex(),
        "key_sha256": key.digest.hex(),
        "count": seen.parts,
    }
    if seen.recipients:
        claims["recipients"] = list(seen.recipients)
    await ahead.outcomes.catch_up()
    if results := ahead.outcomes.lines():
        claims["system_results"] = list(results)
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
