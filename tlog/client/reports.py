"""What the law asks to be known of requests, in the words of the server of their log.

Nothing of it is signed. Whoever does not believe it has the entries that each figure names, and
reckons again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Literal

from tlog.client.errors import VerificationError, printable
from tlog.client.service import RecordsService
from tlog.v1 import reports_pb2 as pb

Status = Literal["met", "due", "at risk", "late", "waiting", "not applicable", ""]
"""How a deadline stands."""
ReportFormat = Literal["json", "csv", "html"]
ExportFormat = Literal["csv", "jsonl", "ocsf", "cloudevents"]
CountedBy = Literal["received", "answered"]

_STATUSES: dict[pb.DeadlineStatus.ValueType, Status] = {
    pb.DEADLINE_STATUS_MET: "met",
    pb.DEADLINE_STATUS_DUE: "due",
    pb.DEADLINE_STATUS_AT_RISK: "at risk",
    pb.DEADLINE_STATUS_LATE: "late",
    pb.DEADLINE_STATUS_WAITING: "waiting",
    pb.DEADLINE_STATUS_NOT_APPLICABLE: "not applicable",
}
_NUMBERS = {name: number for number, name in _STATUSES.items()}
_FORMATS = {
    "json": pb.REPORT_FORMAT_JSON,
    "csv": pb.REPORT_FORMAT_CSV,
    "html": pb.REPORT_FORMAT_HTML,
}
_EXPORTS = {
    "csv": pb.EXPORT_FORMAT_CSV,
    "jsonl": pb.EXPORT_FORMAT_JSONL,
    "ocsf": pb.EXPORT_FORMAT_OCSF,
    "cloudevents": pb.EXPORT_FORMAT_CLOUDEVENTS,
}
_COUNTED_BY = {"received": pb.COUNTED_BY_RECEIVED, "answered": pb.COUNTED_BY_ANSWERED}


@dataclass(frozen=True, slots=True)
class Deadline:
    """One deadline of a request: see `RequestDeadline` in reports.proto."""

    duty: str
    status: Status
    due: str
    days_left: int | None
    length: str
    basis: str
    on: str
    entry: int | None
    notes: tuple[str, ...]
    recorded_late: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A request and its deadlines: see `RequestStanding` in reports.proto."""

    request_id: str
    request_type: str
    channel: str
    jurisdiction: str
    received: str
    entry: int | None
    outcome: str
    deadlines: tuple[Deadline, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requests:
    """One page of requests: see `ListRequestsResponse` in reports.proto."""

    requests: tuple[Request, ...]
    next_page_token: str
    total: int
    late: int
    at_risk: int
    tree_size: int
    today: str
    time_zone: str
    calendar_version: str


class Reports(RecordsService):
    """Requests and reports of one records log."""

    SERVICE = pb.DESCRIPTOR.services_by_name["ReportService"].full_name

    async def requests(
        self,
        *,
        request_id: str = "",
        types: Sequence[str] = (),
        jurisdictions: Sequence[str] = (),
        statuses: Sequence[Status] = (),
        within_days: int | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> Requests:
        """The open requests, the most urgent first; with `request_id`, that one, open or not."""
        request = pb.ListRequestsRequest(
            log=self._log,
            request_id=request_id,
            request_types=types,
            jurisdictions=jurisdictions,
            statuses=[_NUMBERS[status] for status in statuses],
            within_days=within_days,
            page_size=page_size,
            page_token=page_token,
        )
        answer = await self._transport.read("ListRequests", request, pb.ListRequestsResponse)
        return Requests(
            tuple(map(_request, answer.requests)),
            answer.next_page_token,
            answer.total,
            answer.late,
            answer.at_risk,
            answer.tree_size,
            printable(answer.today),
            printable(answer.time_zone),
            printable(answer.calendar_version),
        )

    def report(
        self,
        year: int,
        *,
        format: ReportFormat,  # noqa: A002  (as the option is called)
        jurisdictions: Sequence[str] = (),
        counted_by: CountedBy = "received",
    ) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """The metrics of a year by 11 CCR 7102, piece by piece, with the entries of each figure."""
        request = pb.MakeReportRequest(
            log=self._log,
            year=year,
            jurisdictions=jurisdictions,
            counted_by=_COUNTED_BY[counted_by],
            format=_FORMATS[format],
        )
        return aclosing(self._pieces(request))

    async def _pieces(self, request: pb.MakeReportRequest) -> AsyncGenerator[bytes, None]:
        answers = self._transport.messages(
            "MakeReport", request, pb.MakeReportResponse, patience=self._timeout
        )
        async with aclosing(answers):
            async for answer in answers:
                yield answer.data

    async def export(
        self,
        write: Callable[[bytes], object],
        *,
        format: ExportFormat,  # noqa: A002  (as the option is called)
        purpose: str,
        request_id: str = "",
        recipient: str = "",
        disclose: Sequence[str] = (),
        disclose_all: bool = False,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
        **selection: str | Sequence[str],
    ) -> int:
        """Have records given out; see `ExportRequest` in reports.proto.

        Args:
            write: gets the bytes.
            format: how they are written.
            purpose: what it is for; it is recorded, with who asked.
            request_id: the request it is for, if it is for one.
            recipient: who gets it; needed if anything is disclosed.
            disclose: names of personal claims that are shown.
            disclose_all: show all that can be opened.
            progress: is told how many records have come, and how many there are.
            selection: subject, types, of_request, producer, outcome, since, until.

        Returns:
            How many records there were.
        """
        request = pb.ExportRequest(
            log=self._log,
            purpose=purpose,
            request_id=request_id,
            format=_EXPORTS[format],
            recipient=recipient,
            disclose=disclose,
            disclose_all=disclose_all,
            **selection,  # type: ignore[arg-type]
        )
        done = total = -1
        answers = self._transport.messages(
            "Export", request, pb.ExportResponse, patience=self._timeout
        )
        async with aclosing(answers):
            async for answer in answers:
                write(answer.data)
                total = answer.total
                done = max(done, answer.done)
                progress(done, total)
        if total < 0 or done != total:
            raise VerificationError("message", f"{max(done, 0)} of {max(total, 0)} records came")
        return total


def _request(answer: pb.RequestStanding) -> Request:
    return Request(
        printable(answer.request_id),
        printable(answer.request_type),
        printable(answer.channel),
        printable(answer.jurisdiction),
        printable(answer.received),
        answer.entry if answer.HasField("entry") else None,
        printable(answer.outcome),
        tuple(map(_deadline, answer.deadlines)),
        tuple(map(printable, answer.findings)),
    )


def _deadline(answer: pb.RequestDeadline) -> Deadline:
    return Deadline(
        printable(answer.duty),
        _STATUSES.get(answer.status, ""),
        printable(answer.due),
        answer.days_left if answer.HasField("days_left") else None,
        printable(answer.length),
        printable(answer.basis),
        printable(answer.on),
        answer.entry if answer.HasField("entry") else None,
        tuple(map(printable, answer.notes)),
        answer.recorded_late,
    )
