"""Deadlines: by which date a request must be confirmed and answered, and whether it was. Pure.

The rules are data. What was not read in a source is marked so, and is a setting of the tenant's
that it may change, never the law; `Rule.basis` says which. The rules hold for every request of
their types, wherever the consumer lives: a business that reckons others otherwise gives its own.

Day 0 is the date of the receipt, in the tenant's time zone; verification stops no clock. Nothing
here is legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from tlog.audit.calendar import (
    FIRST_YEAR,
    LAST_YEAR,
    MAX_DAYS,
    Calendar,
    CalendarError,
    add_months,
    california,
    day_of,
)
from tlog.audit.cases import DENIED, WITHDRAWN, Case, CaseEvent
from tlog.audit.errors import EventRefused
from tlog.audit.times import parse_time

ACKNOWLEDGED: Final = "request.acknowledged"
EXTENDED: Final = "request.extended"
_ASKED: Final = "request.verification_requested"
_VERIFIED: Final = "request.verified"
_KNOW_DELETE_CORRECT: Final = frozenset({"know_categories", "know_specific", "delete", "correct"})
_OPT_OUT: Final = frozenset({"opt_out_sale_share"})


class Unit(StrEnum):
    """What the length of a deadline is counted in."""

    BUSINESS_DAYS = "business days"
    CALENDAR_DAYS = "calendar days"
    MONTHS = "months"


class Duty(StrEnum):
    """What has to happen by a date; of `WAIT`, what must not happen up to it."""

    CONFIRM = "confirm receipt"
    ANSWER = "answer"
    WAIT = "do not ask to opt back in"


class Status(StrEnum):
    """How a deadline stands."""

    MET = "met"
    DUE = "due"
    AT_RISK = "at risk"
    LATE = "late"
    WAITING = "waiting"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Rule:
    """One deadline of the requests of some types.

    Attributes:
        length: in units, counted from the day after the receipt.
        source: where it stands.
        confirmed: whether it was read there; if not, it is but a setting.
        longest: calendar days from the receipt with an extension; 0 if there is none.
        drop: whether it is for requests that came through DROP, and no others.
        since: the first receipt that it is for.
    """

    duty: Duty
    request_types: frozenset[str]
    length: int
    unit: Unit
    source: str
    confirmed: bool = True
    longest: int = 0
    drop: bool = False
    since: date = date.min

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_DAYS or not 0 <= self.longest <= MAX_DAYS:
            raise CalendarError(f"1 to {MAX_DAYS} {self.unit}", field="length")

    @property
    def basis(self) -> str:
        """The source; if it was not read there, that this is a setting."""
        if self.confirmed:
            return self.source
        return f"a setting of this tenant, after {self.source} (unconfirmed)"


RULES: Final = (
    Rule(Duty.CONFIRM, _KNOW_DELETE_CORRECT, 10, Unit.BUSINESS_DAYS, "11 CCR 7021(a)"),
    Rule(Duty.ANSWER, _KNOW_DELETE_CORRECT, 45, Unit.CALENDAR_DAYS, "11 CCR 7021(b)", longest=90),
    Rule(Duty.ANSWER, _OPT_OUT, 15, Unit.BUSINESS_DAYS, "11 CCR 7026(f)"),
    Rule(Duty.ANSWER, frozenset({"limit_spi"}), 15, Unit.BUSINESS_DAYS, "11 CCR 7027(g)"),
    Rule(
        Duty.WAIT,
        _OPT_OUT,
        12,
        Unit.MONTHS,
        "11 CCR 7026(k), Civ. Code 1798.135(c)(4)",
        confirmed=False,
    ),
    Rule(
        Duty.ANSWER,
        frozenset({"delete"}),
        45,
        Unit.CALENDAR_DAYS,
        "Civ. Code 1798.99.86(c)-(d)",
        drop=True,
        since=date(2026, 8, 1),
    ),
    Rule(
        Duty.ANSWER,
        frozenset({"opt_out_admt"}),
        15,
        Unit.BUSINESS_DAYS,
        "11 CCR 7221",
        confirmed=False,
        since=date(2027, 1, 1),
    ),
    Rule(
        Duty.ANSWER,
        frozenset({"access_admt"}),
        45,
        Unit.CALENDAR_DAYS,
        "11 CCR 7222",
        confirmed=False,
        since=date(2027, 1, 1),
    ),
    Rule(
        Duty.CONFIRM,
        frozenset({"portability"}),
        10,
        Unit.BUSINESS_DAYS,
        "11 CCR 7021(a), as a request to know",
        confirmed=False,
    ),
    Rule(
        Duty.ANSWER,
        frozenset({"portability"}),
        45,
        Unit.CALENDAR_DAYS,
        "11 CCR 7021(b), as a request to know",
        confirmed=False,
        longest=90,
    ),
)
"""The deadlines of the CCPA. To opt in, a request has none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a tenant reckons.

    Attributes:
        zone: where days begin and end.
        margin: calendar days: what is due in fewer, or as many, is at risk.
        roll_over: whether a day that is none of business moves the end of any deadline to the next
            one that is. A setting, not read in a source: without it no date is shown too late.
    """

    zone: tzinfo = field(default_factory=lambda: ZoneInfo("America/Los_Angeles"))
    calendar: Calendar = field(default_factory=california)
    rules: tuple[Rule, ...] = RULES
    margin: int = 5
    roll_over: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= MAX_DAYS:
            raise CalendarError(f"0 to {MAX_DAYS} days", field="margin")


@dataclass(frozen=True, slots=True)
class Deadline:
    """One deadline of one request, on the day that it was looked at.

    Attributes:
        received: day 0.
        due: the last day on which it is met; of a wait, its last day.
        status: as of that look.
        on: the day on which it was met, or ended otherwise; None while it is open.
        entry: the leaf that says so; None while it is open.
        recorded_late: whether the log had that leaf only after the due day: that it ended in time,
            is then the word of its producer alone.
        days_left: from the look to the due day, below 0 when that has gone by; None when it ended.
        notes: what moved it, or did not, and why.
        calendar_version: which calendar business days were counted with.
    """

    request_id: str
    rule: Rule
    received: date
    due: date
    status: Status
    on: date | None
    entry: int | None
    recorded_late: bool
    days_left: int | None
    notes: tuple[str, ...]
    calendar_version: str

    @property
    def basis(self) -> str:
        """What it rests on: the source, and what of it is a setting of the tenant's."""
        if self.rule.unit is not Unit.BUSINESS_DAYS:
            return self.rule.basis
        return f"{self.rule.basis}; business days as this tenant sets them: {self.calendar_version}"


def find_deadlines(case: Case, terms: Terms, *, now: datetime) -> list[Deadline]:
    """The deadlines of a case at a time, which has a zone; none without a receipt.

    Raises:
        CalendarError: the tenant's calendar has no business day where one is needed.
    """
    if case.receipt is None:
        return []
    today = day_of(now, terms.zone)
    rules = [rule for rule in terms.rules if case.request_type in rule.request_types]
    # A type that DROP has no rule for keeps its own, however it came.
    drop = case.channel == "drop" and any(rule.drop for rule in rules)
    return [
        _deadline(case, case.receipt, rule, terms, today) for rule in rules if rule.drop == drop
    ]


def _deadline(case: Case, receipt: CaseEvent, rule: Rule, terms: Terms, today: date) -> Deadline:
    received = day_of(receipt.occurred_at, terms.zone)
    due, notes = _due(case, rule, received, terms)
    ended: CaseEvent | None = None
    recorded_late = False
    if received < rule.since:
        status = Status.NOT_APPLICABLE
        notes.append(f"for requests received from {rule.since} on")
    elif rule.duty is Duty.WAIT:
        status, ended = _wait(case, due, today)
    else:
        status, ended = _duty(case, rule.duty, due, terms.zone)
        if ended is None:
            status = _open(due, today, terms.margin)
            if status is not Status.DUE and rule.longest:
                notes += _unverified(case, rule)
        elif (
            status is not Status.LATE and (recorded := day_of(ended.received_at, terms.zone)) > due
        ):
            recorded_late = True
            notes.append(f"entry {ended.index} was recorded on {recorded}, after the last day")
    is_open = ended is None and status is not Status.NOT_APPLICABLE
    return Deadline(
        case.request_id,
        rule,
        received,
        due,
        status,
        on=None if ended is None else day_of(ended.occurred_at, terms.zone),
        entry=None if ended is None else ended.index,
        recorded_late=recorded_late,
        days_left=(due - today).days if is_open else None,
        notes=tuple(notes),
        calendar_version=terms.calendar.version,
    )


def _due(case: Case, rule: Rule, received: date, terms: Terms) -> tuple[date, list[str]]:
    """The last day, and what is to be said of the extensions."""
    notes: list[str] = []
    match rule.unit:
        case Unit.BUSINESS_DAYS:
            due = terms.calendar.add_business_days(received, rule.length)
        case Unit.MONTHS:
            due = add_months(received, rule.length)
        case Unit.CALENDAR_DAYS:
            due = received + timedelta(days=rule.length)
    if rule.longest:
        due, notes = _extended(case, rule, received, due, terms.zone)
    if terms.roll_over and rule.duty is not Duty.WAIT:
        last, due = due, terms.calendar.next_business_day(due)
        if due != last:
            notes.append(f"rolled over from {last}, as this tenant sets it")
    return due, notes


def _extended(
    case: Case, rule: Rule, received: date, first: date, zone: tzinfo
) -> tuple[date, list[str]]:
    """11 CCR 7021(b): with notice and a reason, both within the first period."""
    latest = received + timedelta(days=rule.longest)
    due, notes = first, []
    for event in case.events:
        if event.type != EXTENDED:
            continue
        given, asked = day_of(event.occurred_at, zone), _until(event, zone)
        name = f"the extension of entry {event.index}"
        if given > first:
            day = (given - received).days
            notes.append(f"{name} is void: notice was given on day {day}, after {rule.length}")
        elif not event.text("reason").strip():
            notes.append(f"{name} is void: it gives no reason")
        elif asked is None:
            notes.append(f"{name} is void: it does not say until when")
        else:
            due = max(due, min(asked, latest))
            over = f", and day {rule.longest} is the last" if asked > latest else ""
            notes.append(f"{name} asks for {asked}{over}")
            if (recorded := day_of(event.received_at, zone)) > first:
                notes.append(f"entry {event.index} was recorded on {recorded}, after {first}")
    return due, notes


def _until(event: CaseEvent, zone: tzinfo) -> date | None:
    try:
        time = parse_time(event.text("extended_until"), field="extended_until")
    except EventRefused:
        return None
    if not FIRST_YEAR <= time.year <= LAST_YEAR:  # no zone has a date for some of them
        return date.max if time.year > LAST_YEAR else None
    return day_of(time, zone)


def _duty(case: Case, duty: Duty, due: date, zone: tzinfo) -> tuple[Status, CaseEvent | None]:
    """How a duty ended, and by what; by nothing while it is open.

    11 CCR 7021(a): what was granted or denied already needs no confirmation.
    """
    answer, withdrawn = (case.answers or (None,))[0], case.first(WITHDRAWN)
    if duty is Duty.CONFIRM:
        fulfils, frees = case.first(ACKNOWLEDGED), _earlier(answer, withdrawn)
    else:
        fulfils, frees = answer, withdrawn
    if fulfils is not None and day_of(fulfils.occurred_at, zone) <= due:
        return Status.MET, fulfils
    if frees is not None and day_of(frees.occurred_at, zone) <= due:
        return Status.NOT_APPLICABLE, frees
    return Status.LATE, _earlier(fulfils, frees)


def _wait(case: Case, due: date, today: date) -> tuple[Status, CaseEvent | None]:
    decision = case.decision
    ended = case.first(WITHDRAWN) if decision is None else decision
    if ended is not None and ended.type in (WITHDRAWN, DENIED):
        return Status.NOT_APPLICABLE, ended
    return (Status.WAITING if today <= due else Status.NOT_APPLICABLE), None


def _open(due: date, today: date, margin: int) -> Status:
    left = (due - today).days
    if left < 0:
        return Status.LATE
    return Status.AT_RISK if left <= margin else Status.DUE


def _earlier(one: CaseEvent | None, other: CaseEvent | None) -> CaseEvent | None:
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda event: (event.occurred_at, event.index))


def _unverified(case: Case, rule: Rule) -> list[str]:
    """11 CCR 7021(b): who cannot be verified in time may be denied; it is not done by itself."""
    if case.first(_ASKED) is None or case.first(_VERIFIED) is not None:
        return []
    return [f"not verified: if it is not within {rule.length} days, it may be denied"]
