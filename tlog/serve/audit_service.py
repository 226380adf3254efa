"""AuditService: translates between `tlog.v1` messages and the records layer. No rules live here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from tlog.audit import EventRefused
from tlog.log import InvalidRequest, Unavailable
from tlog.serve.errors import rich_status
from tlog.serve.handlers import Context
from tlog.serve.tenants import Tenants
from tlog.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from tlog.audit.records import Outcome

# What is refused is cheap to send, and each answer to it costs hundreds of bytes.
MAX_EVENTS = 4096


class AuditService:
    """The gRPC face of a server's records. One coroutine for each method of `audit.proto`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def Record(self, request: pb.RecordRequest, context: Context) -> pb.RecordResponse:
        records = self._tenants.get(request.log)
        if not 1 <= (count := len(request.events)) <= MAX_EVENTS:
            raise InvalidRequest(f"{count} events: send 1 to {MAX_EVENTS} at once", field="events")
        outcomes = await records.accept(list(request.events))
        return pb.RecordResponse(outcomes=map(_outcome, outcomes))


def audit_status(error: Exception) -> grpc.Status:
    """A refusal as `rich_status` says it, but for one that leaves open what was taken.

    Events may be sent again whatever became of them; so that is UNAVAILABLE, which says to.
    """
    unknown = isinstance(error, Unavailable)
    return rich_status(error, grpc.StatusCode.UNAVAILABLE if unknown else None)


def _outcome(outcome: Outcome) -> pb.RecordOutcome:
    if isinstance(outcome, EventRefused):
        refused = pb.RefusedEvent(field=_text(outcome.field), reason=_text(str(outcome)))
        return pb.RecordOutcome(refused=refused)
    recorded = pb.RecordedEvent(
        index=outcome.index, duplicate=outcome.duplicate, conflict=outcome.conflict
    )
    return pb.RecordOutcome(recorded=recorded)


def _text(said: str) -> str:
    """What quotes an event as text that can be sent: JSON can spell out what UTF-8 cannot."""
    return said.encode("utf-8", "backslashreplace").decode()
