"""What an application says of a request, and how the hooks record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tlog.client.producer import Producer, Subject

NO_ANSWER: Final = {"answer": "none"}
"""Details of a request that the application ended without one: nobody knows what it did."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be recorded of one request.

    Attributes:
        type: of the event, as in the catalogue.
        claims: beside those that the hook knows: the action, the outcome, the resource, details.
        subjects: whom it is about.
    """

    type: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    subjects: Sequence[Subject] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a hook saw of a request.

    Attributes:
        action: public, and never made of what a caller sent, but for the name of a method.
        resource: personal: what was asked for.
        began: when.
    """

    action: str
    resource: str
    began: datetime


def record(
    producer: Producer, act: Act, seen: Seen, outcome: str, details: Mapping[str, Any]
) -> None:
    """Record it; what the application says goes before what the hook saw.

    Raises:
        EventRefused, SpoolError: it is not recorded.
    """
    claims: dict[str, Any] = {
        "action": seen.action,
        "resource": seen.resource,
        "outcome": outcome,
        "details": dict(details),
        **act.claims,
    }
    producer.record(act.type, subjects=act.subjects, occurred_at=seen.began, **claims)


def outcome_of_status(status: int) -> str:
    """The outcome of an HTTP status."""
    if status < 400:
        return "success"
    return "denied" if status in (401, 403) else "failure"


def method_of(name: str) -> str:
    """The name of an HTTP method, if it is one; a caller may send any word."""
    return name if name in _METHODS else "other"


_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"}
)
