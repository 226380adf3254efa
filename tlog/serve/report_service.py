"""ReportService: requests, reports and exports. No rules live here.

Whoever may ask the server may ask for requests and reports without a purpose: no personal data is
opened for them. An export has one, and is recorded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import grpc

from tlog.audit import AuditError, EventRefused
from tlog.audit.calendar import FIRST_YEAR, LAST_YEAR, day_of
from tlog.audit.deeds import in_thread
from tlog.audit.export_formats import Format
from tlog.audit.exporting import Disclosing, Order, export
from tlog.audit.reading import Access
from tlog.audit.report import CountedBy, make_report
from tlog.audit.report_formats import MAX_REPORT, check_size, to_csv, to_html, to_json
from tlog.audit.search import Query
from tlog.audit.times import parse_time
from tlog.audit.vault import VaultDamaged
from tlog.log import InvalidRequest, Unavailable
from tlog.serve.callers import caller_of
from tlog.serve.errors import REFUSALS, rich_status
from tlog.serve.handlers import Context
from tlog.serve.sending import PIECE, Outbox, send
from tlog.serve.tenants import Tenants
from tlog.v1 import reports_pb2 as pb

if TYPE_CHECKING:
    from tlog.audit.deadlines import Deadline
    from tlog.audit.docket import Docket, Standing
    from tlog.audit.report import Report

MAX_PAGE: Final = 1000
_PAGE: Final = 100
# Names in a filter; there are no more types of requests, and no more states and countries.
_MAX_NAMES: Final = 256
_MAX_NAME: Final = 80
_MAX_DISCLOSED: Final = 64
_FORMATS: Final = {
    pb.EXPORT_FORMAT_CSV: Format.CSV,
    pb.EXPORT_FORMAT_JSONL: Format.JSONL,
    pb.EXPORT_FORMAT_OCSF: Format.OCSF,
    pb.EXPORT_FORMAT_CLOUDEVENTS: Format.CLOUDEVENTS,
}
REPORT_REFUSALS: Final = (*REFUSALS, AuditError)
_DAYS: Final = re.compile(r"-?[0-9]{1,10}")


class ReportService:
    """The gRPC face of requests and reports. One coroutine for each method of `reports.proto`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        # A report is made in memory, of all requests of its log.
        self._turn = asyncio.Lock()
        self._outbox = Outbox(2 * MAX_REPORT)

    async def ListRequests(
        self, request: pb.ListRequestsRequest, context: Context
    ) -> pb.ListRequestsResponse:
        docket = self._tenants.get(request.log).docket
        _check(request)
        after = _position(request.page_token)
        now = datetime.now(UTC)
        try:
            found = await _standings(docket, request, now)
        except AuditError as error:
            raise Unavailable(f"the deadlines cannot be reckoned: {error}") from None
        urgent = [_most_urgent(each) for each in found]
        rest = [each for each in found if after is None or each.urgency > after]
        page = rest[: request.page_size or _PAGE]
        return pb.ListRequestsResponse(
            requests=map(_standing, page),
            next_page_token=_token(page[-1]) if len(page) < len(rest) else "",
            total=len(found),
            late=urgent.count(pb.DEADLINE_STATUS_LATE),
            at_risk=urgent.count(pb.DEADLINE_STATUS_AT_RISK),
            tree_size=docket.size,
            today=str(day_of(now, docket.terms.zone)),
            time_zone=str(docket.terms.zone),
            calendar_version=docket.terms.calendar.version,
        )

    async def MakeReport(self, request: pb.MakeReportRequest, context: Context) -> None:
        docket = self._tenants.get(request.log).docket
        if not FIRST_YEAR <= request.year <= LAST_YEAR:
            raise InvalidRequest(f"a year of {FIRST_YEAR} to {LAST_YEAR}", field="year")
        _check_names("jurisdictions", request.jurisdictions)
        write = {
            pb.REPORT_FORMAT_JSON: to_json,
            pb.REPORT_FORMAT_CSV: to_csv,
            pb.REPORT_FORMAT_HTML: to_html,
        }.get(request.format)
        if write is None:
            raise InvalidRequest("JSON, CSV or HTML", field="format")
        with ExitStack() as held:
            async with self._turn:
                room = held.enter_context(self._outbox.room(MAX_REPORT))
                data = await _report(docket, request, write)
            room.keep(len(data))
            pieces = (
                pb.MakeReportResponse(data=data[start : start + PIECE])
                for start in range(0, len(data), PIECE)
            )
            await send(context, pieces, size=len(data))

    async def Export(self, request: pb.ExportRequest, context: Context) -> None:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        order = _order(request)
        async with aclosing(export(records, access, order)) as pieces:
            async for piece in pieces:
                for start in range(0, max(len(piece.data), 1), PIECE):
                    data = piece.data[start : start + PIECE]
                    last = start + PIECE >= len(piece.data)
                    done = piece.done if last else 0
                    await context.write(pb.ExportResponse(data=data, done=done, total=piece.total))


async def _report(
    docket: Docket, request: pb.MakeReportRequest, write: Callable[[Report], str]
) -> bytes:
    answered = request.counted_by == pb.COUNTED_BY_ANSWERED
    events, size = await docket.events()

    def made() -> bytes:
        report = make_report(
            events,
            request.year,
            size=size,
            zone=docket.terms.zone,
            counted_by=CountedBy.ANSWERED if answered else CountedBy.RECEIVED,
            jurisdictions=request.jurisdictions,
        )
        check_size(report)
        return write(report).encode()

    return await in_thread(made)


def _order(request: pb.ExportRequest) -> Order:
    form = _FORMATS.get(request.format)
    if form is None:
        raise InvalidRequest("CSV, JSON Lines, OCSF or CloudEvents", field="format")
    _check_names("types", request.types)
    if len(request.disclose) > _MAX_DISCLOSED or not all(
        1 <= len(n) <= 80 for n in request.disclose
    ):
        raise InvalidRequest(f"at most {_MAX_DISCLOSED} names of claims", field="disclose")
    query = Query(
        subject=request.subject,
        types=tuple(request.types),
        request_id=request.of_request,
        producer=request.producer,
        outcome=request.outcome,
        since=parse_time(request.since, field="since") if request.since else None,
        until=parse_time(request.until, field="until") if request.until else None,
    )
    disclosing = Disclosing(frozenset(request.disclose), everything=request.disclose_all)
    return Order(query, disclosing, form, request.recipient)


def report_status(error: Exception) -> grpc.Status:
    """A refusal in gRPC."""
    if isinstance(error, VaultDamaged):
        return rich_status(error, grpc.StatusCode.DATA_LOSS)
    if isinstance(error, EventRefused):
        return rich_status(InvalidRequest(str(error), field=error.field))
    return rich_status(error)


def _check(request: pb.ListRequestsRequest) -> None:
    if request.page_size > MAX_PAGE:
        raise InvalidRequest(f"at most {MAX_PAGE}", field="page_size")
    _check_names("request_types", request.request_types)
    _check_names("jurisdictions", request.jurisdictions)
    _check_count("statuses", request.statuses)


def _token(last: Standing) -> str:
    days, request_id = last.urgency
    return f"{days} {request_id}"


def _position(token: str) -> tuple[int, str] | None:
    """The urgency of the last request that was told; whatever has changed, none is told twice."""
    if not token:
        return None
    days, _, request_id = token.partition(" ")
    if not _DAYS.fullmatch(days):
        raise InvalidRequest("not one that was given out", field="page_token")
    return int(days), request_id


def _check_names(field: str, names: Sequence[str]) -> None:
    _check_count(field, names)
    if any(len(name) > _MAX_NAME for name in names):
        raise InvalidRequest(f"names of at most {_MAX_NAME} characters", field=field)


def _check_count(field: str, values: Sequence[object]) -> None:
    if len(values) > _MAX_NAMES:
        raise InvalidRequest(f"at most {_MAX_NAMES}", field=field)


async def _standings(
    docket: Docket, request: pb.ListRequestsRequest, now: datetime
) -> list[Standing]:
    if request.request_id:
        one = await docket.standing(request.request_id, now)
        every = [] if one is None else [one]
    else:
        every = await docket.standings(now)
    types, statuses = set(request.request_types), set(request.statuses)
    places = {place.upper() for place in request.jurisdictions}
    days = request.within_days if request.HasField("within_days") else None
    return [
        each
        for each in every
        if (not types or each.case.request_type in types)
        and (not places or each.case.jurisdiction.upper() in places)
        and (not statuses or any(_status(one) in statuses for one in each.deadlines))
        and (days is None or each.urgency[0] <= days)
    ]


def _most_urgent(standing: Standing) -> pb.DeadlineStatus.ValueType:
    said = {_status(each) for each in standing.deadlines if each.entry is None}
    for status in (pb.DEADLINE_STATUS_LATE, pb.DEADLINE_STATUS_AT_RISK):
        if status in said:
            return status
    return pb.DEADLINE_STATUS_UNSPECIFIED


def _status(deadline: Deadline) -> pb.DeadlineStatus.ValueType:
    return pb.DeadlineStatus.Value(f"DEADLINE_STATUS_{deadline.status.name}")


def _standing(standing: Standing) -> pb.RequestStanding:
    case = standing.case
    return pb.RequestStanding(
        request_id=case.request_id,
        request_type=case.request_type,
        channel=case.channel,
        jurisdiction=case.jurisdiction,
        received=str(standing.received) if standing.received else "",
        entry=None if case.receipt is None else case.receipt.index,
        outcome=case.outcome,
        deadlines=map(_deadline, standing.deadlines),
        findings=case.findings,
    )


def _deadline(deadline: Deadline) -> pb.RequestDeadline:
    return pb.RequestDeadline(
        duty=deadline.rule.duty,
        status=_status(deadline),
        due=str(deadline.due),
        days_left=deadline.days_left,
        length=f"{deadline.rule.length} {deadline.rule.unit}",
        basis=deadline.basis,
        on="" if deadline.on is None else str(deadline.on),
        entry=deadline.entry,
        notes=deadline.notes,
        recorded_late=deadline.recorded_late,
    )
