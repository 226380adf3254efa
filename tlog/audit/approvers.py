"""Who may say who approves: nobody alone, once two do.

An order is worth what the keys of its approvers are. So what concerns an approver, or the key of
the log's own records, the log alone records, and no registrar. Once two stand who can sign an order
together, another is registered, and the key of one rotated, only upon an order that two of them
signed; its record keeps it, as that of an erasure does.

`check` is for what comes in. What is in a log already stays what it was when it came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tlog.audit.catalogue import Catalogue
from tlog.audit.errors import EventRefused, OrderRefused
from tlog.audit.event import Draft
from tlog.audit.orders import (
    APPROVALS,
    Kind,
    Order,
    check_as_ordered,
    check_order,
    parse_document,
    read_order,
)
from tlog.audit.producers import APPROVER, REGISTERS, SERVICE, Registry
from tlog.audit.times import format_time, parse_time
from tlog.notes import VerifierKey

_REVOKED: Final = "producer.key_revoked"
_TYPES: Final = {Kind.REGISTER: "producer.registered", Kind.ROTATE: "producer.key_rotated"}


def check(
    claims: Mapping[str, Any],
    registry: Registry,
    *,
    tenant: str,
    catalogue: Catalogue,
    now: datetime,
) -> None:
    """Check that what comes in about an approver may be recorded.

    Args:
        claims: of any event, as its type has them.
        registry: as it is before the event.
        tenant: whose log it is.
        catalogue: of the claims of orders.
        now: when it came in.

    Raises:
        EventRefused: it is nobody's to say alone; or its order is not in order.
    """
    if not claims["type"].startswith(REGISTERS):
        return
    known = registry.producers.get(claims["about_producer"])
    roles = {*claims.get("roles", ()), *(known.roles if known else ())}
    service = SERVICE in registry.producers[claims["producer_id"]].roles
    # A registrar who has the log's key rotated to its own is the log.
    if roles & {APPROVER, SERVICE} and not service:
        raise EventRefused(
            "what concerns an approver, or the log's own key, only the log records: see tlog "
            "approver, and tlog records for when the server is stopped",
            field="roles" if APPROVER in claims.get("roles", ()) else "about_producer",
        )
    if "order" in claims or "approvers" in claims:
        try:
            check_ordered(claims, registry, tenant=tenant, catalogue=catalogue, now=now)
        except OrderRefused as refusal:
            raise EventRefused(str(refusal), field="order") from None
        return
    # A key that was stolen has to be stopped at once, by whoever runs the log. That may leave fewer
    # than two approvers, and then the operator registers others alone: else a lost key would end
    # all erasures, which the law demands. Whoever abuses it says so in the log, for ever.
    if APPROVER in roles and claims["type"] != _REVOKED and two_stand(registry, now):
        raise EventRefused(
            f"{APPROVALS} approvers stand, so it takes an order that {APPROVALS} of them signed: "
            "tlog approver register, or rotate, while the server runs",
            field="order",
        )


def two_stand(registry: Registry, now: datetime) -> bool:
    """Whether two approvers have keys with which they could sign an order together now."""
    names, keys = set(), set()
    for label, key in registry.keys.items():
        if APPROVER not in registry.producers[key.vkey.name].roles:
            continue
        try:
            found = registry.key(label, now=now)
        except EventRefused:
            continue
        names.add(found.name)
        keys.add(found.public_key)
    # Two names for one key are one approver, as are two keys with one name.
    return min(len(names), len(keys)) >= APPROVALS


def ordered_record(order: Order, claims: Mapping[str, Any], *, now: datetime) -> Draft:
    """The record of an order about an approver: the old key, if there is one, ends with it.

    Args:
        order: what it says.
        claims: those that the record of every order has.
        now: when it is carried out.
    """
    public = {**claims, **_about(order)}
    if order.kind is Kind.ROTATE:
        public["old_valid_until"] = format_time(now)
    return Draft(_TYPES[order.kind], public, {}, event_id=order.order_id)


def check_ordered(
    claims: Mapping[str, Any],
    registry: Registry,
    *,
    tenant: str,
    catalogue: Catalogue,
    now: datetime,
) -> list[str]:
    """Check a record about an approver against the order that it keeps.

    Args:
        claims: of the record, as its type has them.
        registry: as it was before the record.
        tenant: whose log it is.
        catalogue: of the claims of orders.
        now: when the record came in.

    Returns:
        The names of those who signed the order.

    Raises:
        OrderRefused, EventRefused: the field that is wrong.
    """
    if "order" not in claims:
        raise OrderRefused("approved by whom? The order is missing", field="approvers")
    document = parse_document(claims["order"].encode("ascii"))
    order = read_order(document, catalogue)
    if _TYPES.get(order.kind) != claims["type"]:
        raise OrderRefused(f"it orders another thing: {order.kind}", field="kind")
    approvers = check_order(document, order, registry, tenant=tenant, now=now)
    # A time that nobody ordered would have a key outlive, or await, what was approved.
    ordered = {"event_id": order.order_id, "approvers": approvers, **_about(order)}
    check_as_ordered(claims, {"valid_from": None, "valid_until": None, **ordered})
    if order.kind is Kind.ROTATE:
        about = registry.producers.get(claims["about_producer"])
        if about is None or APPROVER not in about.roles:
            raise OrderRefused("no approver: use tlog records rotate-key", field="about_producer")
        if parse_time(claims["old_valid_until"], field="old_valid_until") > now:
            raise OrderRefused("the old key ends with the record", field="old_valid_until")
    return approvers


def _about(order: Order) -> dict[str, Any]:
    """The claims of a record that its order gives word for word."""
    name = VerifierKey.parse(order.vkey).name
    about = {"about_producer": name, "vkey": order.vkey, "reason": order.reason}
    if order.kind is Kind.REGISTER:
        return {**about, "roles": [APPROVER]}
    return {**about, "old_vkey": order.old_vkey}
