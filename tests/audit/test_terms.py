"""The file that says how a tenant reckons."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tlog.audit.calendar import CalendarError, california
from tlog.audit.deadlines import Terms
from tlog.audit.terms import MAX_FILE_SIZE, load_terms


def loaded(directory: Path, text: str) -> Terms:
    path = directory / "calendar.toml"
    path.write_text(text)
    return load_terms(path)


def test_an_empty_file_says_what_no_file_does(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == Terms()


def test_every_setting_counts(tmp_path: Path) -> None:
    terms = loaded(
        tmp_path,
        """time_zone = "America/Denver"
        country = "US"
        subdivision = "CO"
        ignored = ["Frances Xavier Cabrini Day"]
        closed = [2026-12-24]
        at_risk_days = 9
        roll_over = true
        """,
    )
    assert (str(terms.zone), terms.margin, terms.roll_over) == ("America/Denver", 9, True)
    assert terms.calendar.place == "US-CO"
    assert not terms.calendar.is_business_day(date(2026, 12, 24))
    assert terms.calendar.is_business_day(date(2026, 10, 5))
    assert terms.calendar.version != california().version


def test_other_places_keep_their_own_holidays(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'country = "DE"').calendar.place == "DE"
    assert loaded(tmp_path, 'subdivision = "CO"').calendar.ignored == frozenset()
    none = loaded(tmp_path, 'country = ""').calendar
    assert none.is_business_day(date(2026, 12, 25))
    susan = date(2026, 2, 15) if date(2026, 2, 15).weekday() < 5 else date(2027, 2, 15)
    assert none.is_business_day(susan)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("more = 1", "calendar.toml: more: Extra inputs"),
        ("closed = 7", "calendar.toml: closed: "),
        ("closed = [2026-02-30]", "calendar.toml: "),
        ('time_zone = "Mars/Olympus"', "time_zone: 'Mars/Olympus' is no time zone"),
        ('time_zone = "../../etc/passwd"', "is no time zone"),
        ('country = "XX"', "calendar.toml: country: "),
        ('subdivision = "XX"', "calendar.toml: "),
        ('country = ""\nignored = ["Christmas Day"]', "country: without a country"),
        ('ignored = ["Nobody Day"]', "'Nobody Day' is no holiday of US-CA"),
        ("at_risk_days = -1", "margin: 0 to 3660 days"),
        ("at_risk_days = 1.5", "at_risk_days: "),
        ("[" * 20_000, "calendar.toml: "),
        ("#" * (MAX_FILE_SIZE + 1), f"longer than {MAX_FILE_SIZE} bytes"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CalendarError) as raised:
        loaded(tmp_path, text)
    assert says in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CalendarError, match=r"calendar\.toml cannot be read: No such file"):
        load_terms(tmp_path / "calendar.toml")
