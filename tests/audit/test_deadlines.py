"""Deadlines, held against a table that was reckoned by hand."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.casework import happened
from tests.audit.producer import CATALOGUE
from tlog.audit import EventRefused
from tlog.audit.calendar import Calendar, CalendarError, california
from tlog.audit.cases import CaseEvent, read_cases
from tlog.audit.deadlines import RULES, Duty, Rule, Status, Terms, Unit, find_deadlines

GOLDEN = tomllib.loads(Path(__file__).with_name("golden_deadlines.toml").read_text("utf-8"))
LOS_ANGELES = ZoneInfo("America/Los_Angeles")
TERMS = Terms()
NOW = datetime(2026, 3, 10, tzinfo=LOS_ANGELES)


def terms_of(row: dict[str, Any]) -> Terms:
    closed = frozenset(row.get("closed", []))
    country = row.get("country", "US")
    default = california().ignored if country else frozenset[str]()
    ignored = frozenset(row["ignored"]) if "ignored" in row else default
    calendar = Calendar(country, "CA" if country else "", closed=closed, ignored=ignored)
    return Terms(
        zone=ZoneInfo(row.get("zone", "America/Los_Angeles")),
        calendar=calendar,
        margin=row.get("margin", 5),
        roll_over=row.get("roll_over", False),
    )


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in GOLDEN["case"]])
def test_golden(row: dict[str, Any]) -> None:
    claims = {
        "request_type": row.get("request_type", "delete"),
        "channel": row.get("channel", "webform"),
    }
    events = [happened(0, "request.received", row["received"], claims)]
    for index, (kind, at, *rest) in enumerate(row.get("events", []), 1):
        recorded = rest[1] if len(rest) > 1 else None
        events.append(happened(index, kind, at, rest[0] if rest else {}, recorded=recorded))
    (case,) = read_cases(events)
    terms = terms_of(row)
    found = find_deadlines(case, terms, now=datetime.fromisoformat(row["now"]))
    got = [
        [str(d.rule.duty), d.due, str(d.status), *([] if d.on is None else [d.on])] for d in found
    ]
    assert got == row["expect"]
    assert [note for d in found for note in d.notes] == row.get("notes", [])
    assert [str(d.rule.duty) for d in found if d.recorded_late] == row.get("recorded_late", [])
    today = datetime.fromisoformat(row["now"]).astimezone(terms.zone).date()
    for deadline in found:
        open_ = deadline.on is None and deadline.status is not Status.NOT_APPLICABLE
        assert deadline.days_left == ((deadline.due - today).days if open_ else None)
        assert (deadline.entry is None) == (deadline.on is None)
        assert deadline.calendar_version == terms.calendar.version


def test_what_was_not_read_in_a_source_is_printed_as_a_setting() -> None:
    told = {(rule.source, rule.confirmed): rule.basis for rule in RULES}
    for (source, confirmed), basis in told.items():
        assert source in basis
        assert ("(unconfirmed)" in basis and "a setting of this tenant" in basis) == (not confirmed)
    assert {source for source, confirmed in told if not confirmed} == {
        "11 CCR 7026(k), Civ. Code 1798.135(c)(4)",
        "11 CCR 7221",
        "11 CCR 7222",
        "11 CCR 7021(a), as a request to know",
        "11 CCR 7021(b), as a request to know",
    }


def test_every_type_of_the_catalogue_but_the_opt_in_has_a_deadline() -> None:
    check = CATALOGUE.claims["request_type"].check
    assert check is not None
    with pytest.raises(EventRefused) as refusal:
        check("request_type", "")
    types = str(refusal.value).removeprefix("request_type: one of ").split(", ")
    assert set(types) - {"opt_in"} == {each for rule in RULES for each in rule.request_types}


def test_what_cases_are_read_from_is_public_in_the_catalogue() -> None:
    read = {
        "request.received": ["request_id", "request_type", "channel", "jurisdiction"],
        "request.acknowledged": ["request_id"],
        "request.verification_requested": ["request_id"],
        "request.verified": ["request_id", "jurisdiction"],
        "request.extended": ["request_id", "reason", "extended_until"],
        "request.denied": ["request_id", "denial_basis", "exemption"],
        "request.partially_denied": ["request_id", "denial_basis", "exemption"],
        "request.fulfilled": ["request_id"],
        "request.withdrawn": ["request_id"],
        "optout.applied": ["request_id", "system"],
    }
    for kind, claims in read.items():
        assert CATALOGUE.types[kind, 1].public.keys() >= set(claims), kind


def test_business_days_are_printed_as_a_setting_with_their_version() -> None:
    (case,) = read_cases([receipt(0)])
    confirm, answer = find_deadlines(case, TERMS, now=NOW)
    version = TERMS.calendar.version
    assert confirm.basis == f"11 CCR 7021(a); business days as this tenant sets them: {version}"
    assert answer.basis == "11 CCR 7021(b)"


def receipt(index: int, at: str = "2026-03-02T10:00:00-08:00", kind: str = "delete") -> CaseEvent:
    return happened(index, "request.received", at, {"request_type": kind, "channel": "webform"})


def test_a_tenant_reckons_by_its_own_rules() -> None:
    rule = Rule(Duty.ANSWER, frozenset({"opt_in"}), 3, Unit.CALENDAR_DAYS, "policy 7", False)
    (case,) = read_cases([receipt(0, kind="opt_in")])
    (deadline,) = find_deadlines(case, Terms(rules=(rule,)), now=NOW)
    assert (deadline.due, deadline.status) == (date(2026, 3, 5), Status.LATE)
    assert deadline.days_left == -5
    assert deadline.basis == "a setting of this tenant, after policy 7 (unconfirmed)"


@pytest.mark.parametrize(("length", "longest"), [(0, 0), (3661, 0), (1, -1), (1, 3661)])
def test_rules_that_are_none(length: int, longest: int) -> None:
    with pytest.raises(CalendarError, match="1 to 3660 calendar days"):
        Rule(Duty.ANSWER, frozenset(), length, Unit.CALENDAR_DAYS, "policy 7", longest=longest)


def test_margins_that_are_none() -> None:
    with pytest.raises(CalendarError, match="margin: 0 to 3660 days"):
        Terms(margin=-1)


KINDS = (
    "request.acknowledged",
    "request.verification_requested",
    "request.verified",
    "request.extended",
    "request.denied",
    "request.partially_denied",
    "request.fulfilled",
    "request.withdrawn",
    "request.expired",
    "optout.applied",
    "access.read",
)
TIMES = st.datetimes(datetime(2025, 12, 1), datetime(2027, 3, 1), timezones=st.just(LOS_ANGELES))
ODD = st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)])
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(["archives", "", " ", 7]),
        "extended_until": st.sampled_from(
            ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "soon", 3, None]
        )
        | TIMES.map(lambda time: time.isoformat()),
        "system": st.sampled_from(["crm", "", 3]),
    },
)
EVENTS = st.lists(st.tuples(st.sampled_from(KINDS), TIMES | ODD, CLAIMS), max_size=8)
ZONES = st.sampled_from(["America/Los_Angeles", "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
TYPES = st.sampled_from(["delete", "opt_out_sale_share", "limit_spi", "access_admt", "none"])


@settings(max_examples=60, deadline=None)
@given(EVENTS, TYPES, st.sampled_from(["webform", "drop"]), TIMES, TIMES, ZONES, st.booleans())
def test_whatever_is_recorded(
    recorded: list[tuple[str, datetime, dict[str, Any]]],
    kind: str,
    channel: str,
    received: datetime,
    now: datetime,
    zone: str,
    roll_over: bool,
) -> None:
    claims = {"request_type": kind, "channel": channel}
    events = [happened(0, "request.received", received, claims)]
    events += [happened(i, *each) for i, each in enumerate(recorded, 1)]
    (case,) = read_cases(reversed(events))
    assert read_cases(events) == [case]
    terms = Terms(zone=ZoneInfo(zone), roll_over=roll_over)
    today = now.astimezone(terms.zone).date()
    by_index = {event.index: event for event in events}
    for deadline in find_deadlines(case, terms, now=now):
        rolled = 5 if roll_over else 0
        assert deadline.received == received.astimezone(terms.zone).date()
        if deadline.rule.unit is Unit.CALENDAR_DAYS:
            most = max(deadline.rule.length, deadline.rule.longest) + rolled
            assert deadline.rule.length <= (deadline.due - deadline.received).days <= most
        if deadline.entry is not None:
            told = by_index[deadline.entry].occurred_at.astimezone(terms.zone).date()
            assert told == deadline.on
        match deadline.status:
            case Status.MET:
                assert deadline.on is not None
                assert deadline.on <= deadline.due
            case Status.LATE:
                assert (deadline.on or today) > deadline.due
            case Status.DUE | Status.AT_RISK | Status.WAITING:
                assert deadline.on is None
                assert today <= deadline.due
                assert ((deadline.due - today).days <= 5) >= (deadline.status is Status.AT_RISK)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TIMES, TIMES), max_size=4), TIMES)
def test_only_notices_of_the_first_45_days_move_the_last_one(
    notices: list[tuple[datetime, datetime]], received: datetime
) -> None:
    def due(given_: list[tuple[datetime, datetime]]) -> date:
        events = [happened(0, "request.received", received, {"request_type": "delete"})]
        for i, (at, until) in enumerate(given_, 1):
            claims = {"reason": "archives", "extended_until": until.isoformat()}
            events.append(happened(i, "request.extended", at, claims))
        (case,) = read_cases(events)
        return find_deadlines(case, TERMS, now=NOW)[1].due

    last = received.date() + timedelta(days=45)
    in_time = [notice for notice in notices if notice[0].date() <= last]
    days = [until.date() for _, until in in_time]
    assert due(notices) == due(in_time) == min(max([last, *days]), last + timedelta(days=45))
