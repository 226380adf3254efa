"""Days as the law counts them: in one time zone, as dates, the first one left out.

What a business day is, 11 CCR 7001 to 7028 do not say: Monday to Friday without holidays is a
setting of the tenant's, and so is which holidays. Hence a calendar has a version, that stands
beside every date that was reckoned with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from hashlib import sha256
from typing import Final

import holidays
from holidays.version import __version__ as holidays_version

from tlog.audit.codec import dump_json
from tlog.audit.errors import AuditError

FIRST_YEAR: Final = 2018
LAST_YEAR: Final = 2097
"""Years of the events that are reckoned with: another one comes from a clock that is wrong."""
MAX_DAYS: Final = 3660
_OBSERVED: Final = " (observed)"
_SATURDAY: Final = 5
_DAY: Final = timedelta(days=1)


class CalendarError(AuditError, ValueError):
    """A calendar that cannot be used."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which days are business days: Monday to Friday, without the holidays of a place.

    Attributes:
        country: ISO 3166-1, as the package `holidays` has it; empty for no holidays but `closed`.
        subdivision: of the country, such as a state; empty for none.
        closed: further days without business.
        ignored: names of holidays on which business goes on.

    Raises:
        CalendarError: no such place, or no holiday of that name there.
    """

    country: str = ""
    subdivision: str = ""
    closed: frozenset[date] = frozenset()
    ignored: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.country and (self.subdivision or self.ignored):
            raise CalendarError("without a country there are no holidays", field="country")
        for year in (FIRST_YEAR, LAST_YEAR):
            self._holidays(year)
        unknown, year = self.ignored, FIRST_YEAR
        while unknown and year <= LAST_YEAR:
            unknown, year = unknown.difference(*self._holidays(year).values()), year + 1
        if unknown:
            raise CalendarError(f"{min(unknown)!r} is no holiday of {self.place}", field="ignored")

    def _holidays(self, year: int) -> Mapping[date, frozenset[str]]:
        return _holidays(self.country, self.subdivision, year) if self.country else {}

    @property
    def place(self) -> str:
        """The country and its part, like `US-CA`."""
        return "-".join(filter(None, (self.country, self.subdivision))) or "none"

    @property
    def version(self) -> str:
        """The package, its release, the place, and a digest of the tenant's own settings."""
        own = {
            "closed": sorted(day.isoformat() for day in self.closed),
            "ignored": sorted(self.ignored),
        }
        digest = sha256(dump_json(own)).hexdigest()[:8]
        return f"holidays {holidays_version} {self.place} {digest}"

    def is_business_day(self, day: date) -> bool:
        """Whether business is done on a day."""
        if day.weekday() >= _SATURDAY or day in self.closed:
            return False
        return self._holidays(day.year).get(day, self.ignored) <= self.ignored

    def next_business_day(self, day: date) -> date:
        """The day itself, or the first business day after it.

        Raises:
            CalendarError: the settings close all days for ten years.
        """
        for _ in range(MAX_DAYS):
            if self.is_business_day(day):
                return day
            day += _DAY
        raise CalendarError(f"no business day in the ten years before {day}", field="closed")

    def add_business_days(self, start: date, count: int) -> date:
        """The last of so many business days, of which the first is after the day of the start.

        Raises:
            CalendarError: as `next_business_day`.
        """
        day = start
        for _ in range(count):
            day = self.next_business_day(day + _DAY)
        return day


def california() -> Calendar:
    """The calendar of those who set none.

    Schools keep Susan B. Anthony Day, offices do not: it is a business day. A holiday on a Saturday
    closes the Friday before it, as it does federal offices (5 U.S.C. 6103(b)); the state's own law
    says so of November 11 alone (Government Code, section 6701). Who goes by that sets the days.
    """
    return Calendar("US", "CA", ignored=frozenset({"Susan B. Anthony Day"}))


def add_months(start: date, months: int) -> date:
    """The day of the same number so many months later, or the last day of that month."""
    years, month = divmod(start.month - 1 + months, 12)
    first = date(start.year + years, month + 1, 1)
    return min(first + (start.day - 1) * _DAY, _last_of_month(first))


def day_of(time: datetime, zone: tzinfo) -> date:
    """The date that clocks in a zone show at a time that has a zone of its own."""
    return time.astimezone(zone).date()


def _last_of_month(first: date) -> date:
    return (first + 31 * _DAY).replace(day=1) - _DAY


@lru_cache(maxsize=4096)
def _holidays(country: str, subdivision: str, year: int) -> Mapping[date, frozenset[str]]:
    try:
        found = holidays.country_holidays(
            country, subdiv=subdivision or None, years=year, expand=False, language="en_US"
        )
    except NotImplementedError as error:
        raise CalendarError(str(error), field="country") from None
    if not found.start_year <= year <= found.end_year:
        raise CalendarError(
            f"`holidays` knows {country} from {found.start_year} to {found.end_year}, and "
            f"{FIRST_YEAR} to {LAST_YEAR} are needed: leave `country` empty and give the closed "
            "days",
            field="country",
        )
    return {
        day: frozenset(name.removesuffix(_OBSERVED) for name in found.get_list(day))
        for day in found
    }
