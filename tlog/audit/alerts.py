"""Alerts: which deadlines somebody is to be told of, once for each stage. Pure.

A stage is so many days before the last day, as the tenant sets it, or `late`. What an alert says
is public: a request's name, what is to be done, and by when; nothing of whom it is about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from tlog.audit.codec import dump_json
from tlog.audit.deadlines import Deadline, Status
from tlog.audit.docket import Standing, is_open

LATE: Final = "late"
_ID: Final = 32


class AlertSink(Protocol):
    """Whom alerts are told. `name` is how it is spoken of, and what is remembered of it."""

    name: str

    async def send(self, event: bytes) -> None:
        """Tell one, a JSON object on one line; bounded in time.

        Raises:
            AlertError: it is not known to have arrived. It is told again, under the same `id`.
        """


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to tell.

    Attributes:
        id: the same whenever, and however often, this stage of this deadline is told.
        fields: what is told, the id too.
    """

    id: str
    fields: dict[str, Any]

    def event(self) -> bytes:
        """What is told, as JSON on one line."""
        return dump_json(self.fields)


def alerts_of(
    standings: Iterable[Standing], *, tenant: str, log: str, warn: Collection[int]
) -> Iterator[Alert]:
    """What is to be told of the open requests, the most urgent first.

    Args:
        standings: the open requests.
        tenant: whose they are.
        log: the name of their log.
        warn: on how many days before the last one.
    """
    for standing in standings:
        for deadline in standing.deadlines:
            if is_open(deadline) and (stage := _stage(deadline, warn)):
                yield _alert(standing, deadline, stage, tenant, log)


def _stage(deadline: Deadline, warn: Collection[int]) -> str:
    """The stage that it is in; empty before the first one."""
    if deadline.status is Status.LATE:
        return LATE
    left = deadline.days_left or 0
    reached = [days for days in warn if left <= days]
    return f"{min(reached)} days before" if reached else ""


def _alert(standing: Standing, deadline: Deadline, stage: str, tenant: str, log: str) -> Alert:
    case, rule = standing.case, deadline.rule
    # An extension moves the last day, and makes it another deadline.
    known = [tenant, case.request_id, rule.duty, rule.source, str(deadline.due), stage]
    named = sha256(dump_json(known)).hexdigest()[:_ID]
    return Alert(
        named,
        {
            "event": "deadline",
            "id": named,
            "tenant": tenant,
            "log": log,
            "request_id": case.request_id,
            "request_type": case.request_type,
            "jurisdiction": case.jurisdiction,
            "duty": rule.duty,
            "stage": stage,
            "due": str(deadline.due),
            "days_left": deadline.days_left,
            "received": str(deadline.received),
            "entry": None if case.receipt is None else case.receipt.index,
            "basis": deadline.basis,
            "calendar_version": deadline.calendar_version,
        },
    )
