"""How a tenant reckons its deadlines: a file that `calendar` in `records.toml` names.

    time_zone = "America/Los_Angeles"    # in which days begin and end
    country = "US"                       # whose holidays are none of business; "" for no holidays
    subdivision = "CA"
    ignored = ["Susan B. Anthony Day"]   # holidays on which business goes on
    closed = [2026-12-24]                # further days without business
    at_risk_days = 5                     # what is due in as many calendar days is at risk
    roll_over = false                    # whether the end of a deadline moves to a business day

All of it is a setting of the tenant's; what is left out is as above, but for `closed`.
"""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError

from tlog.audit.calendar import Calendar, CalendarError, california
from tlog.audit.deadlines import Terms

MAX_FILE_SIZE: Final = 64 * 1024


class _TermsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    time_zone: str = "America/Los_Angeles"
    country: str = "US"
    subdivision: str | None = None
    ignored: frozenset[str] | None = None
    closed: frozenset[date] = frozenset()
    at_risk_days: int = 5
    roll_over: bool = False


def load_terms(path: Path) -> Terms:
    """Read the file.

    Raises:
        CalendarError: it is missing, or says something that is not understood.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise CalendarError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_SIZE:
        raise CalendarError(f"{path} is longer than {MAX_FILE_SIZE} bytes")
    try:
        return _terms(_TermsFile.model_validate(tomllib.loads(data.decode())))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CalendarError(f"{path}: {field}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
        raise CalendarError(f"{path}: {error}") from None


def _terms(said: _TermsFile) -> Terms:
    usual = california()
    subdivision = said.subdivision
    if subdivision is None:
        subdivision = usual.subdivision if said.country == usual.country else ""
    ignored = said.ignored
    if ignored is None:
        at_home = (said.country, subdivision) == (usual.country, usual.subdivision)
        ignored = usual.ignored if at_home else frozenset()
    try:
        zone = ZoneInfo(said.time_zone)
    except (LookupError, OSError, ValueError):
        raise CalendarError(f"{said.time_zone!r:.80} is no time zone", field="time_zone") from None
    calendar = Calendar(said.country, subdivision, closed=said.closed, ignored=ignored)
    return Terms(zone=zone, calendar=calendar, margin=said.at_risk_days, roll_over=said.roll_over)
