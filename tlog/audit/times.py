"""Times as RFC 3339 has them, with an offset, and as one spelling."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from tlog.audit.errors import EventRefused

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII
)


@lru_cache(maxsize=4096)  # an event's is asked for more than once
def parse_time(text: str, *, field: str) -> datetime:
    """A time of RFC 3339, in UTC.

    Raises:
        EventRefused: another spelling, no offset, an unknown one (`-00:00`), or no such time.
    """
    if not _RFC3339.fullmatch(text):
        raise EventRefused(
            "not a time of RFC 3339 with an offset, like 2026-01-31T09:30:00Z or "
            "2026-01-31T09:30:00.5-08:00",
            field=field,
        )
    # RFC 3339, section 4.3: "-00:00" is the time in UTC of a clock whose offset nobody knows.
    if text.endswith("-00:00"):
        raise EventRefused(
            "the offset -00:00 is an unknown one: give Z or the true one", field=field
        )
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise EventRefused(f"no such time: {error}", field=field) from None


def format_time(time: datetime) -> str:
    """The one spelling that we write: UTC, microseconds, `Z`."""
    # Before it is looked up: those an hour apart are equal when clocks of their zone show the same.
    return _spelt(time.astimezone(UTC))


@lru_cache(maxsize=64)  # what comes in together has one time of receipt
def _spelt(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
