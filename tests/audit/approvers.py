"""Two approvers, and orders as short as they can be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.audit.producer import ALICE, SHOP, TENANT, signer_of
from tlog.audit.orders import Document, Kind, new_order
from tlog.audit.producers import Producer, ProducerKey, Registry
from tlog.notes import Signer

DPO, CISO, COUNSEL = signer_of("dpo", 21), signer_of("ciso", 22), signer_of("counsel", 23)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def order(kind: Kind = Kind.ERASE, *signers: Signer, **changes: Any) -> Document:
    """An order about Alice, signed by the officer and the counsel unless others are given."""
    now = changes.pop("now", None) or datetime.now(UTC)
    values: dict[str, Any] = {"tenant": TENANT, "reason": "asked", "lifetime": timedelta(days=7)}
    match kind:
        case Kind.ERASE:
            values |= {"subject": ALICE, "request_id": "R-1"}
        case Kind.PLACE:
            values |= {"hold_id": "H-1"} | ({} if "request_id" in changes else {"subject": ALICE})
        case Kind.RELEASE:
            values |= {"hold_id": "H-1"}
    made = new_order(kind, now=now, **(values | changes))
    for signer in signers or (DPO, CISO):
        made = made.approved(signer)
    return made


def registry(*approvers: Signer) -> Registry:
    """Who approves; the shop only records."""
    people = [(each, "approver") for each in approvers or (DPO, CISO)] + [(SHOP, "recorder")]
    return Registry(
        {each.vkey.name: Producer(frozenset({role})) for each, role in people},
        {each.vkey.label: ProducerKey(each.vkey, LONG_AGO) for each, _ in people},
    )
