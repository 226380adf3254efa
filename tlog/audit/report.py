"""The metrics of 11 CCR 7102 for one calendar year, each with the entries that make it. Pure.

And what Civ. Code 1798.99.85 asks of data brokers beyond them: the requests that came through DROP,
and the denials by the exemption that they name.

A figure names the leaves that it was counted from: those of them that a reader has proven to be in
the log give the same figure again, by this module or by hand. That nothing was left out is shown
by reading the whole log up to the tree size of the report.

What the regulation leaves open is a setting, and is printed: by which date a request belongs to a
year, and under which ground of 7102(a)(2) each basis for denial falls. Nothing here is legal
advice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo
from enum import StrEnum
from itertools import chain
from statistics import fmean, median
from typing import Final

from tlog.audit.calendar import FIRST_YEAR, LAST_YEAR, CalendarError, day_of
from tlog.audit.cases import WITHDRAWN, Case, CaseEvent, Outcome, read_cases

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "delete": frozenset({"delete"}),
    "correct": frozenset({"correct"}),
    "know": frozenset({"know_categories", "know_specific"}),
    "opt_out": frozenset({"opt_out_sale_share"}),
    "limit": frozenset({"limit_spi"}),
}
"""The types of 7102(a)(1)(A) to (E), and those of the log that make them."""

DROP: Final = "drop"
"""The requests of these types that came through DROP; they are counted by their types, too."""

CALIFORNIA: Final = frozenset({"US-CA"})


class Ground(StrEnum):
    """Why a request was denied, as 7102(a)(2) splits it."""

    NOT_VERIFIABLE = "not_verifiable"
    NOT_A_CONSUMER = "not_made_by_a_consumer"
    EXEMPT = "exempt_information"
    OTHER = "other_grounds"


GROUNDS: Final[Mapping[str, Ground]] = {
    "insuf_verification": Ground.NOT_VERIFIABLE,
    "no_match": Ground.NOT_VERIFIABLE,
    "not_a_consumer": Ground.NOT_A_CONSUMER,
    "outside_jurisdiction": Ground.NOT_A_CONSUMER,
    "exempt": Ground.EXEMPT,
    "suspected_fraud": Ground.OTHER,
    "claim_not_covered": Ground.OTHER,
    "too_many_requests": Ground.OTHER,
    "other": Ground.OTHER,
}
"""How the bases for denial are read, unless the tenant reads them otherwise."""


class CountedBy(StrEnum):
    """Which date puts a request into a year."""

    RECEIVED = "received"
    """That of its receipt: what was received then, and what became of it since."""
    ANSWERED = "answered"
    """That of the receipt for what was received, that of the answer for what was answered."""


class Population(StrEnum):
    """Whose requests are counted; the Agency may ask for the second (7102(b))."""

    ALL = "all individuals"
    CALIFORNIA = "California"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and the indices of the leaves that it was made from, in order.

    A median or mean of nothing is None.
    """

    value: int | float | None
    entries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The metrics of a year.

    Attributes:
        size: of the tree that was read.
        californian: the jurisdictions that are California.
        figures: by population, kind (a key of `KINDS`, or `DROP`), and name.
        jurisdictions: whose requests alone were counted, in capitals; empty for all.
        left_out: requests of types that 7102 does not ask for, by type.
        nowhere: requests that name no jurisdiction: among all individuals, not in California.
        findings: what is odd about the cases of the year, in words.
    """

    year: int
    zone: str
    size: int
    counted_by: CountedBy
    grounds: Mapping[str, Ground]
    californian: tuple[str, ...]
    jurisdictions: tuple[str, ...]
    figures: Mapping[Population, Mapping[str, Mapping[str, Figure]]]
    left_out: Mapping[str, Figure]
    nowhere: Figure
    findings: tuple[str, ...]


_REFUSED: Final = frozenset({Outcome.DENIED, Outcome.PARTIAL})
_OUTCOMES: Final[Mapping[str, frozenset[Outcome]]] = {
    "complied": frozenset({Outcome.FULFILLED, Outcome.PARTIAL}),
    "complied_in_part": frozenset({Outcome.PARTIAL}),
    "denied": frozenset({Outcome.DENIED}),
    "withdrawn": frozenset({Outcome.WITHDRAWN}),
    "unanswered": frozenset({Outcome.UNANSWERED}),
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One request, as it is counted.

    Attributes:
        answered: the day of its first answer.
        decided: the day of what became of it; of its receipt, while nothing did.
        basis: for the denial, in whole or in part; empty if there was none.
        exemption: that the denial names, in its own words; empty if it names none.
        placed: the leaves that put it where it is: its type, its date, its jurisdiction.
        told: those, and the leaves that tell what became of it.
    """

    case: Case
    outcome: Outcome
    received: date
    answered: date | None
    decided: date
    basis: str
    exemption: str
    placed: tuple[int, ...]
    told: tuple[int, ...]

    @property
    def days(self) -> int | None:
        """From the receipt to the first answer; None without one that can be counted."""
        if self.answered is None or self.answered < self.received:
            return None
        return (self.answered - self.received).days

    def counts(self, by: CountedBy) -> date:
        """The day that puts what became of it into a year."""
        return self.received if by is CountedBy.RECEIVED else self.decided


def make_report(
    events: Iterable[CaseEvent],
    year: int,
    *,
    size: int,
    zone: tzinfo,
    counted_by: CountedBy = CountedBy.RECEIVED,
    grounds: Mapping[str, Ground] = GROUNDS,
    californian: Collection[str] = CALIFORNIA,
    jurisdictions: Collection[str] = (),
) -> Report:
    """The report of a year from the events of the first `size` entries of the log.

    With `jurisdictions`, such as `US-CO`, of the requests that name one of these alone.

    Raises:
        CalendarError: a year without events.
    """
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise CalendarError(f"{FIRST_YEAR} to {LAST_YEAR}", field="year")
    cases = read_cases(event for event in events if event.index < size)
    only = {place.upper() for place in jurisdictions}
    if only:
        cases = [case for case in cases if case.jurisdiction.upper() in only]
    rows = [_row(case, case.receipt, zone) for case in cases if case.receipt is not None]
    home = {place.upper() for place in californian}
    populations = {
        Population.ALL: rows,
        Population.CALIFORNIA: [row for row in rows if row.case.jurisdiction.upper() in home],
    }
    received = [row for row in rows if row.received.year == year]
    asked_for = frozenset[str]().union(*KINDS.values())
    others = sorted({row.case.request_type for row in received} - asked_for)
    exemptions = sorted(
        {
            row.exemption
            for row in rows
            if row.case.request_type in asked_for and row.counts(counted_by).year == year
        }
        - {""}
    )
    return Report(
        year=year,
        zone=str(zone),
        size=size,
        counted_by=counted_by,
        grounds=grounds,
        californian=tuple(sorted(home)),
        jurisdictions=tuple(sorted(only)),
        figures={
            population: {
                kind: _figures(of_kind, year, counted_by, grounds, exemptions)
                for kind, of_kind in _by_kind(members).items()
            }
            for population, members in populations.items()
        },
        left_out={
            other: _count(row.placed for row in received if row.case.request_type == other)
            for other in others
        },
        nowhere=_count(row.placed for row in received if not row.case.jurisdiction),
        findings=tuple(_findings(cases, rows, year, zone, grounds)),
    )


def _row(case: Case, receipt: CaseEvent, zone: tzinfo) -> _Row:
    withdrawn = case.first(WITHDRAWN)
    decision = case.decision or withdrawn or receipt
    placed = {receipt.index} | ({case.located.index} if case.located else set())
    told = {answer.index for answer in case.answers} | ({withdrawn.index} if withdrawn else set())
    return _Row(
        case,
        case.outcome,
        received=day_of(receipt.occurred_at, zone),
        answered=day_of(case.answers[0].occurred_at, zone) if case.answers else None,
        decided=day_of(decision.occurred_at, zone),
        basis=decision.text("denial_basis") if case.outcome in _REFUSED else "",
        exemption=decision.text("exemption") if case.outcome in _REFUSED else "",
        placed=tuple(sorted(placed)),
        told=tuple(sorted(placed | told)),
    )


def _by_kind(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    by_kind = {
        kind: [row for row in rows if row.case.request_type in types]
        for kind, types in KINDS.items()
    }
    asked_for = chain.from_iterable(by_kind.values())
    return by_kind | {DROP: [row for row in asked_for if row.case.channel == "drop"]}


def _figures(
    rows: Sequence[_Row],
    year: int,
    counted_by: CountedBy,
    grounds: Mapping[str, Ground],
    exemptions: Sequence[str],
) -> dict[str, Figure]:
    answered = received = [row for row in rows if row.received.year == year]
    decided = [row for row in rows if row.counts(counted_by).year == year]
    if counted_by is CountedBy.ANSWERED:
        answered = [row for row in rows if row.answered and row.answered.year == year]
    figures = {"received": _count(row.placed for row in received)}
    for name, outcomes in _OUTCOMES.items():
        figures[name] = _count(
            row.told if row.answered or row.outcome is Outcome.WITHDRAWN else row.placed
            for row in decided
            if row.outcome in outcomes
        )
    counted = [row for row in answered if row.days is not None]
    days = [row.days for row in counted if row.days is not None]
    entries = _entries(row.told for row in counted)
    figures["days_median"] = Figure(median(days) if days else None, entries)
    figures["days_mean"] = Figure(round(fmean(days), 2) if days else None, entries)
    denied = [row for row in decided if row.outcome in _REFUSED]
    for ground in Ground:
        figures[f"denied_as.{ground}"] = _count(
            row.told for row in denied if grounds.get(row.basis, Ground.OTHER) is ground
        )
    for basis in grounds:
        figures[f"basis.{basis}"] = _count(row.told for row in denied if row.basis == basis)
    for exemption in exemptions:
        figures[f"exemption.{exemption}"] = _count(
            row.told for row in denied if row.exemption == exemption
        )
    figures["exemption_not_named"] = _count(
        row.told
        for row in denied
        if grounds.get(row.basis, Ground.OTHER) is Ground.EXEMPT and not row.exemption
    )
    return figures


def _count(rows: Iterable[tuple[int, ...]]) -> Figure:
    each = list(rows)
    return Figure(len(each), _entries(each))


def _entries(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted(chain.from_iterable(rows)))


def _findings(
    cases: Sequence[Case],
    rows: Sequence[_Row],
    year: int,
    zone: tzinfo,
    grounds: Mapping[str, Ground],
) -> Iterator[str]:
    for case in cases:
        if not case.events or any(day_of(e.occurred_at, zone).year == year for e in case.events):
            yield from (f"{case.request_id}: {finding}" for finding in case.findings)
    for row in rows:
        if year not in (row.received.year, row.decided.year):
            continue
        if row.answered is not None and row.days is None:
            yield f"{row.case.request_id}: answered before it was received: in no median or mean"
        if row.outcome in _REFUSED and row.basis not in grounds:
            yield (
                f"{row.case.request_id}: denied on the basis {row.basis!r}, which has no ground: "
                f"counted as {Ground.OTHER}"
            )
