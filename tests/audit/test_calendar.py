"""Business days and months, against a calendar that is counted day by day."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.producer import CATALOGUE
from tlog.audit.calendar import Calendar, CalendarError, add_months, california, day_of
from tlog.audit.personal import find_personal

# Civil days off of California in 2026 and 2027, written out.
CLOSED_2026 = ["01-01", "01-19", "02-16", "03-31", "05-25", "06-19", "07-03", "09-07", "11-11"]
CLOSED_2026 += ["11-26", "11-27", "12-25"]
CLOSED_2027 = ["01-01", "01-18", "02-15", "03-31", "05-31", "06-18", "07-05", "09-06", "10-29"]
CLOSED_2027 += ["11-11", "11-25", "11-26", "12-24", "12-31"]  # before: Diwali
CLOSED = {date.fromisoformat(f"2026-{day}") for day in CLOSED_2026} | {
    date.fromisoformat(f"2027-{day}") for day in CLOSED_2027
}
DAYS = st.dates(date(2026, 1, 1), date(2027, 11, 1))
CALIFORNIA = california()


@settings(max_examples=60, deadline=None)
@given(DAYS, st.integers(1, 40))
def test_business_days_are_those_that_are_counted_one_by_one(start: date, count: int) -> None:
    day, left = start, count
    while left:
        day += timedelta(days=1)
        left -= day.weekday() < 5 and day not in CLOSED
    assert CALIFORNIA.add_business_days(start, count) == day


def test_every_day_of_two_years() -> None:
    day = date(2026, 1, 1)
    while day.year < 2028:
        assert CALIFORNIA.is_business_day(day) == (day.weekday() < 5 and day not in CLOSED), day
        day += timedelta(days=1)


@settings(max_examples=60, deadline=None)
@given(st.dates(date(2018, 1, 1), date(2097, 12, 31)), st.integers(1, 20))
def test_a_later_start_never_ends_earlier(start: date, count: int) -> None:
    end = CALIFORNIA.add_business_days(start, count)
    assert CALIFORNIA.is_business_day(end)
    assert CALIFORNIA.add_business_days(start + timedelta(days=1), count) >= end
    assert CALIFORNIA.next_business_day(end) == end


def test_a_day_with_two_names_is_open_only_if_both_are_ignored() -> None:
    both = date(2027, 2, 15)  # Presidents' Day, and Susan B. Anthony Day
    one = {"Susan B. Anthony Day"}
    assert not Calendar("US", "CA", ignored=frozenset(one)).is_business_day(both)
    two = frozenset(one | {"Presidents' Day"})
    assert Calendar("US", "CA", ignored=two).is_business_day(both)


def test_to_ignore_a_holiday_is_to_ignore_it_when_it_is_observed() -> None:
    calendar = Calendar("US", "CA", ignored=frozenset({"New Year's Day"}))
    assert calendar.is_business_day(date(2027, 12, 31))
    assert not CALIFORNIA.is_business_day(date(2027, 12, 31))


def test_the_version_tells_all_settings_apart_and_may_be_recorded() -> None:
    calendars = [
        CALIFORNIA,
        Calendar("US", "CA"),
        Calendar("US"),
        Calendar(),
        Calendar(closed=frozenset({date(2026, 1, 2)})),
        Calendar(closed=frozenset({date(2026, 1, 2), date(2026, 1, 5)})),
        Calendar("DE", "BY"),
    ]
    versions = {calendar.version for calendar in calendars}
    assert len(versions) == len(calendars)
    check = CATALOGUE.claims["calendar_version"].check
    assert check is not None
    for version in versions:
        assert find_personal(check("calendar_version", version)) is None
    assert california().version == CALIFORNIA.version


@pytest.mark.parametrize(
    ("country", "subdivision", "ignored", "said"),
    [
        ("XX", "", set(), "country: Country XX not available"),
        ("US", "QQ", set(), "does not have subdivision QQ"),
        ("LK", "", set(), "leave `country` empty and give the closed days"),
        ("GW", "", set(), "leave `country` empty"),
        ("US", "CA", {"Susan Anthony Day"}, "'Susan Anthony Day' is no holiday of US-CA"),
        ("US", "CA", {"Christmas Day", "Boxing Day"}, "'Boxing Day' is no holiday of US-CA"),
        ("", "CA", set(), "without a country there are no holidays"),
        ("", "", {"Christmas Day"}, "without a country there are no holidays"),
    ],
)
def test_refused(country: str, subdivision: str, ignored: set[str], said: str) -> None:
    with pytest.raises(CalendarError, match=said):
        Calendar(country, subdivision, ignored=frozenset(ignored))


def test_a_calendar_without_business_days_is_no_endless_loop() -> None:
    start = date(2026, 1, 1)
    closed = frozenset(start + timedelta(days=i) for i in range(3700))
    with pytest.raises(CalendarError, match="closed: no business day in the ten years"):
        Calendar(closed=closed).add_business_days(start, 1)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-11-23", 12, "2027-11-23"),
        ("2028-02-29", 12, "2029-02-28"),
        ("2027-02-28", 12, "2028-02-28"),
        ("2026-12-31", 2, "2027-02-28"),
        ("2027-12-31", 2, "2028-02-29"),
        ("2026-12-31", 12, "2027-12-31"),
        ("2026-10-31", 1, "2026-11-30"),
        ("2026-11-30", 1, "2026-12-30"),
    ],
)
def test_months(start: str, months: int, end: str) -> None:
    assert add_months(date.fromisoformat(start), months) == date.fromisoformat(end)


def test_a_day_is_that_of_the_zone() -> None:
    time = datetime.fromisoformat("2026-03-03T07:59:59Z")
    assert day_of(time, ZoneInfo("America/Los_Angeles")) == date(2026, 3, 2)
    assert day_of(time, ZoneInfo("Pacific/Kiritimati")) == date(2026, 3, 3)
    assert day_of(time, ZoneInfo("Pacific/Pago_Pago")) == date(2026, 3, 2)
