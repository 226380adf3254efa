"""Cases: what the log says of each request, from its receipt to its answer. Pure.

A case is read from public claims alone, so that its deadlines and its place in a report outlive
the erasure of its subject, and can be reckoned again by whoever has the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from tlog.audit.calendar import FIRST_YEAR, LAST_YEAR

OPT_OUTS: Final = frozenset({"opt_out_sale_share", "limit_spi", "opt_out_admt"})
RECEIVED: Final = "request.received"
WITHDRAWN: Final = "request.withdrawn"
DENIED: Final = "request.denied"
PARTIALLY_DENIED: Final = "request.partially_denied"
FULFILLED: Final = "request.fulfilled"
APPLIED: Final = "optout.applied"
_DONE: Final = frozenset({FULFILLED, APPLIED})


class Outcome(StrEnum):
    """What became of a request."""

    FULFILLED = "fulfilled"
    PARTIAL = "fulfilled in part"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """What deadlines and reports need of one event.

    Attributes:
        index: of its leaf.
        request_id: empty if it belongs to no request.
        occurred_at: as its producer says, with a time zone.
        received_at: when the log had it, with a time zone.
        claims: the public ones.
    """

    index: int
    type: str
    request_id: str
    occurred_at: datetime
    received_at: datetime
    claims: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A claim that is a string; empty if there is none."""
        value = self.claims.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Case:
    """One request.

    Attributes:
        events: all that name it, by the time that they tell, then by index.
        receipt: the earliest receipt; None if the log has none.
        answers: what told the consumer whether the request was complied with.
        findings: what is odd about it, in words.
    """

    request_id: str
    events: tuple[CaseEvent, ...]
    receipt: CaseEvent | None
    answers: tuple[CaseEvent, ...]
    findings: tuple[str, ...]

    @property
    def request_type(self) -> str:
        """What was asked for; empty without a receipt."""
        return self.receipt.text("request_type") if self.receipt else ""

    @property
    def channel(self) -> str:
        """How it was asked for; empty without a receipt."""
        return self.receipt.text("channel") if self.receipt else ""

    @property
    def located(self) -> CaseEvent | None:
        """The event that tells the jurisdiction: the first one that names any."""
        return next((event for event in self.events if event.text("jurisdiction")), None)

    @property
    def jurisdiction(self) -> str:
        """Where it is from, as far as any event tells; empty if none does."""
        return self.located.text("jurisdiction") if self.located else ""

    def first(self, kind: str) -> CaseEvent | None:
        """The first event of a type."""
        return next((event for event in self.events if event.type == kind), None)

    @property
    def decision(self) -> CaseEvent | None:
        """The answer that stands: the last one.

        But a fulfilment after a partial denial does the part that was not denied (11 CCR
        7022(f)), and leaves the denial as it is.
        """
        standing: CaseEvent | None = None
        for answer in self.answers:
            if standing is None or standing.type != PARTIALLY_DENIED or answer.type not in _DONE:
                standing = answer
        return standing

    @property
    def outcome(self) -> Outcome:
        """What became of it, as far as the log says."""
        if (decision := self.decision) is not None:
            return _OUTCOMES[decision.type]
        return Outcome.UNANSWERED if self.first(WITHDRAWN) is None else Outcome.WITHDRAWN


_OUTCOMES: Final = {
    FULFILLED: Outcome.FULFILLED,
    APPLIED: Outcome.FULFILLED,
    PARTIALLY_DENIED: Outcome.PARTIAL,
    DENIED: Outcome.DENIED,
}


def read_cases(events: Iterable[CaseEvent]) -> list[Case]:
    """The cases, in the order in which the log first names them.

    Events without a request are left out; those of a year that nobody can mean are set aside, and
    the case says so.
    """
    found: dict[str, list[CaseEvent]] = {}
    for event in sorted(events, key=lambda event: event.index):
        if event.request_id:
            found.setdefault(event.request_id, []).append(event)
    return [_case(request_id, of_it) for request_id, of_it in found.items()]


def _case(request_id: str, named: list[CaseEvent]) -> Case:
    findings = []
    events = []
    for event in named:
        years = (event.occurred_at.year, event.received_at.year)
        if min(years) >= FIRST_YEAR and max(years) <= LAST_YEAR:
            events.append(event)
        else:
            findings.append(
                f"entry {event.index} is of {years[0]}, recorded in {years[1]}, and is set aside: "
                "correct the clock, and record it again"
            )
    events.sort(key=lambda event: (event.occurred_at, event.index))
    receipts = [event for event in events if event.type == RECEIVED]
    if not receipts:
        findings.append("its receipt is not in the log: it has no deadlines, and is in no report")
        return Case(request_id, tuple(events), None, (), tuple(findings))
    receipt, *again = receipts
    findings += [f"entry {event.index} receives it again" for event in again]
    opted_out = receipt.text("request_type") in OPT_OUTS
    answers = tuple(event for event in events if _answers(event, opted_out=opted_out))
    findings += [
        f"entry {event.index}, {event.type}, is dated before the receipt"
        for event in events
        if event.occurred_at < receipt.occurred_at
    ]
    return Case(request_id, tuple(events), receipt, answers, tuple(findings))


def _answers(event: CaseEvent, *, opted_out: bool) -> bool:
    """An opt-out is carried out by its application; one that names a system is but a step."""
    if event.type == APPLIED:
        return opted_out and not event.text("system")
    return event.type in _OUTCOMES
