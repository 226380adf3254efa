"""Records as events of the Open Cybersecurity Schema Framework (OCSF) 1.3.0.

Which class and activity each type of event is, is the table below; a type that is not in it is an
API activity. What OCSF has no place for stands in `unmapped`, as it was recorded. What is personal
is in an event only as far as it is disclosed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from tlog.audit.tokens import identifier_of

VERSION: Final = "1.3.0"
ENTITY: Final = 3004
"""Entity Management, of Identity & Access Management."""
API: Final = 6003
"""API Activity, of Application Activity."""
DATASTORE: Final = 6005
"""Datastore Activity, of Application Activity."""
OTHER: Final = 99

_INFORMATIONAL, _MEDIUM = 1, 3
_TABLE: Final = 3
_STATUS: Final = {"success": 1, "failure": 2, "denied": 2, "partial": OTHER}


class Kind(NamedTuple):
    """What a type of event is to OCSF; of an entity, what it is called, and what identifies it."""

    class_uid: int
    activity_id: int
    entity: str = ""
    uid: str = ""


# Activities: of entities and APIs 1 create, 2 read, 3 update, 4 delete; of datastores 1 read,
# 2 update, 4 query, 6 create, 7 delete.
KINDS: Final[Mapping[str, Kind]] = {
    "request.received": Kind(ENTITY, 1, "privacy request", "request_id"),
    "request.acknowledged": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.verification_requested": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.verified": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.verification_failed": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.extended": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.denied": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.partially_denied": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.fulfilled": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.withdrawn": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.expired": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.appealed": Kind(ENTITY, 3, "privacy request", "request_id"),
    "request.appeal_resolved": Kind(ENTITY, 3, "privacy request", "request_id"),
    "delete.system_erased": Kind(DATASTORE, 7),
    "delete.deidentified": Kind(DATASTORE, 2),
    "delete.aggregated": Kind(DATASTORE, 2),
    "delete.processor_notified": Kind(ENTITY, 3, "privacy request", "request_id"),
    "delete.third_party_notified": Kind(ENTITY, 3, "privacy request", "request_id"),
    "delete.notice_impossible": Kind(ENTITY, 3, "privacy request", "request_id"),
    "delete.backup_deferred": Kind(ENTITY, 3, "privacy request", "request_id"),
    "delete.backup_done": Kind(DATASTORE, 7),
    "delete.suppression_added": Kind(DATASTORE, 6),
    "correct.applied": Kind(DATASTORE, 2),
    "optout.applied": Kind(ENTITY, 3, "opt-out", "request_id"),
    "optout.recipients_notified": Kind(ENTITY, 3, "opt-out", "request_id"),
    "optout.status_displayed": Kind(ENTITY, 2, "opt-out", "request_id"),
    "consent.given": Kind(ENTITY, 1, "consent", "consent_record_id"),
    "consent.refused": Kind(ENTITY, 1, "consent", "consent_record_id"),
    "consent.withdrawn": Kind(ENTITY, 4, "consent", "consent_record_id"),
    "consent.renewed": Kind(ENTITY, 3, "consent", "consent_record_id"),
    "consent.expired": Kind(ENTITY, 4, "consent", "consent_record_id"),
    "notice.published": Kind(ENTITY, 1, "privacy notice", "notice_id"),
    "access.read": Kind(DATASTORE, 1),
    "access.search": Kind(DATASTORE, 4),
    "access.export": Kind(DATASTORE, 1),
    "access.modify": Kind(DATASTORE, 2),
    "access.disclose": Kind(DATASTORE, 1),
    "disclosure.sold": Kind(API, OTHER),
    "disclosure.shared": Kind(API, OTHER),
    "disclosure.to_processor": Kind(API, OTHER),
    "retention.expired": Kind(DATASTORE, 7),
    "retention.hold_placed": Kind(ENTITY, 1, "legal hold", "hold_id"),
    "retention.hold_released": Kind(ENTITY, 4, "legal hold", "hold_id"),
    "subject.enrolled": Kind(ENTITY, 1, "data subject"),
    "subject.merged": Kind(ENTITY, 3, "data subject", "into_key_id"),
    "subject.key_created": Kind(ENTITY, 1, "key of a data subject", "key_id"),
    "subject.key_destroyed": Kind(ENTITY, 4, "key of a data subject", "key_id"),
    "subject.key_backup_expired": Kind(ENTITY, 4, "key of a data subject", "key_id"),
    "assessment.completed": Kind(ENTITY, 1, "risk assessment", "assessment_id"),
    "assessment.updated": Kind(ENTITY, 3, "risk assessment", "assessment_id"),
    "assessment.submitted": Kind(ENTITY, 3, "risk assessment", "assessment_id"),
    "audit.completed": Kind(ENTITY, 1, "cybersecurity audit", "document_sha256"),
    "audit.certified": Kind(ENTITY, 3, "cybersecurity audit", "document_sha256"),
    "policy.changed": Kind(ENTITY, 3, "policy", "policy_id"),
    "producer.registered": Kind(ENTITY, 1, "producer", "about_producer"),
    "producer.key_rotated": Kind(ENTITY, 3, "producer", "about_producer"),
    "producer.key_revoked": Kind(ENTITY, 3, "producer", "about_producer"),
    "log.read": Kind(DATASTORE, 1),
    "log.exported": Kind(DATASTORE, 1),
    "log.verified": Kind(API, 2),
    "log.gap_detected": Kind(API, OTHER),
    "log.conflict": Kind(API, OTHER),
    "log.enrolled_again": Kind(API, OTHER),
    "log.tenant_key_escrowed": Kind(ENTITY, 1, "escrow of the tenant key", "key_check"),
    "log.heartbeat": Kind(API, OTHER),
}
_ACTIONS: Final = {"insert": 6, "create": 6, "delete": 7}
"""Of `access.modify`, where its action tells more."""
_ALARMS: Final = frozenset({"log.gap_detected", "log.conflict", "log.enrolled_again"})
_PLACED: Final = frozenset({"event_id", "type", "producer_id", "producer_seq", "outcome", "action"})


def to_ocsf(
    claims: Mapping[str, Any],
    shared: Mapping[str, Any],
    *,
    occurred_at: datetime,
    received_at: datetime,
    log: str,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """One event.

    Args:
        claims: public.
        shared: what is disclosed of all subjects together.
        occurred_at: with a time zone.
        received_at: the same.
        log: the origin of the log.
        more: what else is to be said; it goes into `unmapped`.
    """
    name, producer = str(claims["type"]), str(claims["producer_id"])
    kind = KINDS.get(name, Kind(API, OTHER))
    activity = kind.activity_id
    if name == "access.modify":
        activity = _ACTIONS.get(str(claims.get("action")).lower(), activity)
    event: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": kind.class_uid // 1000,
        "class_uid": kind.class_uid,
        "type_uid": kind.class_uid * 100 + activity,
        "severity_id": _MEDIUM if name in _ALARMS else _INFORMATIONAL,
        "status_id": _STATUS.get(str(claims.get("outcome")), 0),
        "time": _milliseconds(occurred_at),
        "message": name,
        "metadata": {
            "version": VERSION,
            "product": {"name": "tlog", "vendor_name": "tlog"},
            "uid": claims["event_id"],
            "event_code": name,
            "log_name": log,
            "log_provider": producer,
            "logged_time": _milliseconds(received_at),
            "sequence": claims["producer_seq"],
        },
        "actor": _actor(producer, shared),
        "unmapped": {
            **{key: value for key, value in claims.items() if key not in _PLACED},
            **more,
        },
    }
    if kind.class_uid == ENTITY:
        event["entity"] = _entity(kind, claims)
        return event
    event["src_endpoint"] = {"svc_name": producer}
    if kind.class_uid == API:
        event["api"] = {"operation": str(claims.get("action") or name)}
    else:
        event["type_id"] = _TABLE
        event["table"] = {"name": str(claims.get("resource_type") or claims.get("system") or log)}
    return event


def _actor(producer: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The application that recorded it; who acted in it, where that is disclosed."""
    actor: dict[str, Any] = {"app_name": producer, "app_uid": producer}
    if (user := identifier_of(shared.get("actor"))) is not None:
        actor["user"] = {"uid": user}
    return actor


def _entity(kind: Kind, claims: Mapping[str, Any]) -> dict[str, Any]:
    entity = {"name": kind.entity, "type": kind.entity}
    if uid := claims.get(kind.uid):
        entity["uid"] = str(uid)
    return entity


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
