"""AuditService: translates between `tlog.v1` messages and the records layer. No rules live here."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import grpc

from tlog.audit import AuditError, EventRefused
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import encode_leaf
from tlog.audit.reading import Access
from tlog.audit.search import DEFAULT_PAGE, Query, search, show
from tlog.audit.times import format_time, parse_time
from tlog.audit.vault import Part, VaultDamaged
from tlog.log import InvalidRequest, Unavailable
from tlog.serve.callers import caller_of
from tlog.serve.errors import REFUSALS, rich_status
from tlog.serve.handlers import Context
from tlog.serve.tenants import Tenants
from tlog.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from tlog.audit.intake import Outcome
    from tlog.audit.stored import StoredRecord

AUDIT_REFUSALS: Final = (*REFUSALS, AuditError)
# What is refused is cheap to send, and each answer to it costs hundreds of bytes.
MAX_EVENTS: Final = 4096


class _MaybeTaken(Unavailable):
    """It is not known whether events were taken."""


class AuditService:
    """The gRPC face of a server's records. One coroutine for each method of `audit.proto`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def Record(self, request: pb.RecordRequest, context: Context) -> pb.RecordResponse:
        records = self._tenants.get(request.log)
        if not 1 <= (count := len(request.events)) <= MAX_EVENTS:
            raise InvalidRequest(f"{count} events: send 1 to {MAX_EVENTS} at once", field="events")
        try:
            outcomes = await records.accept(list(request.events))
        except Unavailable as error:
            raise _MaybeTaken(str(error)) from error
        return pb.RecordResponse(outcomes=map(_outcome, outcomes))

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        page = await search(
            records,
            access,
            _query(request),
            limit=request.limit or DEFAULT_PAGE,
            cursor=request.cursor,
        )
        return pb.SearchResponse(
            records=map(_found, page.records), cursor=page.cursor, complete_to=page.complete_to
        )

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.ReadResponse:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        return pb.ReadResponse(record=_found(await show(records, access, request.index)))


def audit_status(error: Exception) -> grpc.Status:
    """A refusal in gRPC.

    Events may be sent again whatever became of them; so to leave that open is UNAVAILABLE, which
    says to.
    """
    match error:
        case _MaybeTaken():
            return rich_status(error, grpc.StatusCode.UNAVAILABLE)
        case VaultDamaged():
            return rich_status(error, grpc.StatusCode.DATA_LOSS)
        case EventRefused():
            return rich_status(InvalidRequest(str(error), field=error.field))
        case AuditError():
            return rich_status(error, grpc.StatusCode.FAILED_PRECONDITION)
    return rich_status(error)


def _query(request: pb.SearchRequest) -> Query:
    return Query(
        subject=request.subject,
        actor=request.actor,
        resource=request.resource,
        resource_type=request.resource_type,
        types=tuple(request.types),
        request_id=request.of_request,
        outcome=request.outcome,
        producer=request.producer,
        since=_time(request.since, "since"),
        until=_time(request.until, "until"),
        newest_first=request.newest_first,
    )


def _time(text: str, field: str) -> datetime | None:
    return parse_time(text, field=field) if text else None


def _outcome(outcome: Outcome) -> pb.RecordOutcome:
    if isinstance(outcome, EventRefused):
        refused = pb.RefusedEvent(field=_text(outcome.field), reason=_text(str(outcome)))
        return pb.RecordOutcome(refused=refused)
    recorded = pb.RecordedEvent(
        index=outcome.index, duplicate=outcome.duplicate, conflict=outcome.conflict
    )
    return pb.RecordOutcome(recorded=recorded)


def _found(record: StoredRecord) -> pb.FoundRecord:
    return pb.FoundRecord(
        index=record.index,
        leaf=encode_leaf(record.leaf),
        received_at=format_time(record.leaf.received_at),
        payload=parse_jws(record.leaf.jws).payload().decode(),
        parts=map(_part, record.parts),
    )


def _part(part: Part) -> pb.FoundPart:
    found = pb.FoundPart(disclosures=[each.encoded for each in part.disclosures])
    if part.erasure is not None:
        found.erased.entry = part.erasure.index
        found.erased.request_id = part.erasure.request_id
    elif part.expiry is not None:
        found.expired = part.expiry
    elif part.missing:
        found.missing = True
    return found


def _text(said: str) -> str:
    """What quotes an event as text that can be sent: JSON can spell out what UTF-8 cannot."""
    return said.encode("utf-8", "backslashreplace").decode()
