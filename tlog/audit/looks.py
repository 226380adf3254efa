"""The time of a look for what is past its time: of a clock that may be wrong, now or before.

A clock that is set years ahead would destroy everything for good; one that was behind for a moment,
what came in meanwhile; and a look at such a time is to hold up none of those after it for years.

So a look trusts its clock by no more than a day at once. A clock that is further off, ahead or
behind, is told of with each look, and believed once it has kept to its time for as long as it is
off, at most 31 days; until then time passes as it does by the clock, from the look before.

And what came in behind a look did not come in before the time of that look. Such a mark stays if
there is an entry that says otherwise: its retention counts from the mark. In the vault, under
`LOOKED`:

    {"clock": what the clock said at the last look, "kept": seconds for which it has kept to what is
     not believed, "marks": [[first index, time], …]}

All marks but the last, which is that of the last look, are of entries that say otherwise.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import structlog

from tlog.audit.codec import dump_json, load_json
from tlog.audit.retained import RULES, STEP, entries, leaf_of
from tlog.audit.times import format_time, parse_time
from tlog.store.sealed import Put

if TYPE_CHECKING:
    from tlog.audit.records import Records

LOOKED: Final = b"expiry/looked"
LEAP: Final = timedelta(days=1)
"""By how much a clock may be off the look before, and is trusted."""
FAR: Final = timedelta(days=31)
"""For how long a clock that is off keeps to its time, at most, until it is believed."""
_NONE: Final = timedelta()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the looks of before leave; the fields are those of the row.

    Attributes:
        marks: by index and by time; none if there was no look yet.
    """

    clock: datetime
    kept: timedelta = _NONE
    marks: tuple[tuple[int, datetime], ...] = ()

    def since(self, index: int, received_at: datetime) -> datetime:
        """From when on the retention of an entry counts."""
        at = bisect_right(self.marks, index, key=itemgetter(0))
        return max(received_at, self.marks[at - 1][1]) if at else received_at

    def next(self, clock: datetime, size: int, *, leap: timedelta = LEAP) -> Looks:
        """After a look at this time, when the log has so many entries."""
        before, kept = self.time, _NONE
        off, step = clock - before, clock - self.clock
        if abs(off) <= leap:
            return self._at(max(before, clock), clock, kept, size)
        if (self.clock > before) == (clock > before):
            kept = self.kept
        kept += min(max(step, _NONE), LEAP)
        if kept >= min(abs(off), FAR):
            return self._at(clock, clock, _NONE, size)
        passed = step if _NONE <= step <= LEAP else _NONE  # if it jumped, nobody knows
        return self._at(before + passed, clock, kept, size)

    @property
    def time(self) -> datetime:
        """The time of the last look."""
        return self.marks[-1][1] if self.marks else self.clock

    def _at(self, time: datetime, clock: datetime, kept: timedelta, size: int) -> Looks:
        # A clock that is believed shows marks that are after it to be wrong.
        marks = tuple(mark for mark in self.marks if mark[1] <= time)
        if not marks or marks[-1][1] < time:
            marks += ((size, time),)
        return Looks(clock, kept, marks)


def looks_of(records: Records) -> Looks:
    """What the looks of before leave."""
    row = records.vault.store.get("state", LOOKED)
    if row is None:
        return Looks(records.clock())
    if not row.startswith(b"{"):  # written before there were marks
        return Looks(parse_time(row.decode(), field="looked"))
    made = load_json(row, field="looked")
    marks = [(index, parse_time(time, field="marks")) for index, time in made["marks"]]
    clock = parse_time(made["clock"], field="clock")
    return Looks(clock, timedelta(seconds=made["kept"]), tuple(marks))


def _row(looks: Looks) -> bytes:
    made = {
        "clock": format_time(looks.clock),
        "kept": int(looks.kept.total_seconds()),
        "marks": [[index, format_time(time)] for index, time in looks.marks],
    }
    return dump_json(made)


async def look(records: Records, *, leap: timedelta = LEAP) -> datetime:
    """The time of this look, which is put down.

    Args:
        records: the tenant's.
        leap: by how much the clock may be off the look before, and is trusted.

    Raises:
        LogError, StoreError: it is not put down.
    """
    store = records.vault.store
    async with records.alone():  # what comes in after this has a later time, if the clock is right
        before, clock = looks_of(records), records.clock()
        size = records.log.sequencer.edge.size
    looks = before.next(clock, size, leap=leap)
    if abs(off := clock - looks.time) > leap:
        tell = _log.critical if abs(off) > FAR else _log.warning
        tell(
            "the clock is far from the last look for what is past its time: is it right?",
            tenant=records.tenant,
            days=off.days,
        )
    marks = looks.marks
    moved = bool(before.marks) and before.marks[-1:] == marks[-2:-1]
    if moved and not await _is_denied(records, *marks[-2], size):
        looks = replace(looks, marks=(*marks[:-2], marks[-1]))
    puts: list[Put] = [("state", LOOKED, _row(looks))]
    if looks.time < before.time:  # what counts from a mark that was wrong
        puts.append(("state", RULES, None))
    async with records.alone():
        store.write(puts)
    return min(clock, looks.time)


async def _is_denied(records: Records, first: int, time: datetime, size: int) -> bool:
    """Whether one of these entries says that it came in before this time."""
    for index, entry in entries(records.log, first, size):
        if index % STEP == 0:
            await asyncio.sleep(0)
        leaf = leaf_of(entry)
        if leaf is not None and leaf.received_at < time:
            return True
    return False
