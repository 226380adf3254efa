"""`tlog requests`: what is due, at risk, late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit
from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Server, server_options

if TYPE_CHECKING:
    from tlog.client.reports import Deadline, Request, Requests, Status

_STATUSES = ("late", "at-risk", "due")
_PAGE = 1000


@click.command(
    cls=Verb,
    examples=(
        "tlog requests",
        "tlog requests --status late --status at-risk",
        "tlog requests --within 10 --type delete --jurisdiction US-CA",
        "tlog requests --request R-1",
        "tlog requests --json | jq -r 'select(.deadlines[].status == \"late\") | .request_id'",
    ),
)
@click.option("--request", "request_id", default="", help="This one, open or not.")
@click.option("--type", "types", multiple=True, help="Requests of a type. Repeatable.")
@click.option("--jurisdiction", "jurisdictions", multiple=True, help="Such as US-CA. Repeatable.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(_STATUSES),
    help="Requests with a deadline that stands so. Repeatable.",
)
@click.option(
    "--within",
    metavar="DAYS",
    type=click.IntRange(0, 3660),
    help="Requests with something due in so many days, or late.",
)
@server_options
@output_option
async def requests(
    *,
    request_id: str,
    types: tuple[str, ...],
    jurisdictions: tuple[str, ...],
    statuses: tuple[str, ...],
    within: int | None,
    server: Server,
    out: Output,
) -> Exit:
    """List the open requests by urgency: what is late, at risk, due, and by which clock.

    Exits with 5 when a request that is listed is late with something, and with 0 otherwise, so
    that a script may ask. Dates are those of the tenant's calendar, whose version is shown.

    Deadlines are reckoned from the public claims of the records. No personal data is read, so that
    no purpose is asked for; and they stand after an erasure. Not legal advice.
    """
    from tlog.client.reports import Reports

    asked: list[Status] = ["at risk" if each == "at-risk" else each for each in statuses]  # type: ignore[misc]
    late = False
    async with Reports(server.target, log=server.log) as client:
        token = ""
        while True:
            page = await client.requests(
                request_id=request_id,
                types=types,
                jurisdictions=jurisdictions,
                statuses=asked,
                within_days=within,
                page_size=_PAGE,
                page_token=token,
            )
            if request_id and not page.total:
                raise CommandError(f"no request {request_id} that is asked for is in the log")
            late = late or page.late > 0
            for request in page.requests:
                out.result("\n".join(_lines(request)), **asdict(request))
            token = page.next_page_token
            if not token:
                break
    _tell(page, out)
    return Exit.LATE if late else Exit.OK


def _tell(page: Requests, out: Output) -> None:
    out.hint(
        f"{page.total} requests, {page.late} late, {page.at_risk} at risk, on {page.today} "
        f"in {page.time_zone}; calendar: {page.calendar_version}; {page.tree_size} entries read"
    )


def _lines(request: Request) -> Iterator[str]:
    head = [request.request_id, request.request_type or "no receipt", request.jurisdiction]
    if request.received:
        head.append(f"received {request.received} by {request.channel}, entry {request.entry}")
    if request.outcome != "unanswered":
        head.append(request.outcome)
    yield "  ".join(filter(None, head))
    for deadline in request.deadlines:
        yield f"  {_state(deadline)}  {deadline.duty} by {deadline.due}: {deadline.length}"
        yield f"{'':17}{deadline.basis}"
        yield from (f"{'':17}{note}" for note in deadline.notes)
    yield from (f"  ! {finding}" for finding in request.findings)


def _state(deadline: Deadline) -> str:
    word = deadline.status.upper() if deadline.status == "late" else deadline.status
    days = f"{deadline.days_left:+d} d" if deadline.days_left is not None else deadline.on
    return f"{word:8} {days:>6}"
