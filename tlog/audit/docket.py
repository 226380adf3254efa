"""The docket: the requests that a records log tells of, and how each of their deadlines stands.

Read from the log's leaves alone, as far as nobody has read them yet, whenever it is asked. What is
kept in memory: of an open request its events, of all others where they stand, and so of what other
events name as theirs, a ticket for which data was looked at. Public claims only: there is nothing
personal in it, so that it outlives every erasure, and who looks at it reads no personal data.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from sys import intern
from typing import Any, Final

from tlog.audit.calendar import day_of
from tlog.audit.cases import (
    APPLIED,
    DENIED,
    FULFILLED,
    PARTIALLY_DENIED,
    RECEIVED,
    WITHDRAWN,
    Case,
    CaseEvent,
    Outcome,
    read_cases,
)
from tlog.audit.codec import decode_base64url
from tlog.audit.deadlines import Deadline, Status, Terms, find_deadlines
from tlog.audit.errors import EventRefused
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import parse_leaf
from tlog.audit.times import parse_time
from tlog.log import Log
from tlog.merkle import TILE_WIDTH, split_bundle

# What deadlines and reports read of an event.
_CLAIMS: Final = frozenset(
    {
        "request_type",
        "channel",
        "jurisdiction",
        "system",
        "reason",
        "extended_until",
        "denial_basis",
        "exemption",
    }
)
# Events that may end a request, with those before them.
_TURNS: Final = frozenset({RECEIVED, FULFILLED, APPLIED, DENIED, PARTIALLY_DENIED, WITHDRAWN})
_OPEN: Final = frozenset({Status.DUE, Status.AT_RISK, Status.LATE})
_REQUEST: Final = "request."
_NEVER: Final = 1 << 32
_NONE: Final = array("Q")
# Requests between two turns of the event loop.
_STEP: Final = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and its deadlines as of a look; what is most urgent comes first.

    Attributes:
        case: the request.
        received: the day of its receipt; None if the log has none.
        deadlines: those that are open, or all of a request that was asked for by its name.
    """

    case: Case
    received: date | None
    deadlines: tuple[Deadline, ...]

    @property
    def urgency(self) -> tuple[int, str]:
        """Sorts requests: by the days that are left; last come those without a deadline."""
        left = [each.days_left for each in self.deadlines if each.days_left is not None]
        return min(left, default=_NEVER), self.case.request_id


@dataclass(slots=True)
class _Open:
    """A request that nothing has ended yet, and with how many events to look whether one has."""

    events: list[CaseEvent] = field(default_factory=list)
    look_at: int = 1


class Docket:
    """The requests of one records log. Belongs to the event loop that it is used on.

    Args:
        log: the log, open.
        terms: how deadlines are reckoned.

    Attributes:
        size: how many entries were read so far.
    """

    def __init__(self, log: Log, terms: Terms) -> None:
        self.terms = terms
        self.size = 0
        self._log = log
        self._open: dict[str, _Open] = {}
        self._ended: set[str] = set()
        self._entries: dict[str, array[int]] = {}
        self._turn = asyncio.Lock()

    async def catch_up(self) -> int:
        """Read what the log has got since; how many entries that makes.

        Raises:
            StoreError: the log cannot be read.
        """
        async with self._turn:
            end = self._log.sequencer.edge.size
            while self.size < end:
                for entry in self._bundle(self.size // TILE_WIDTH, end)[self.size % TILE_WIDTH :]:
                    if (event := read_case_event(entry, self.size)) is not None:
                        self._take(event)
                    self.size += 1
                await asyncio.sleep(0)
            return self.size

    def _bundle(self, number: int, end: int) -> list[bytes]:
        width = min(TILE_WIDTH, end - number * TILE_WIDTH)
        return split_bundle(self._log.reader.encoded_bundle(number, width))

    def _take(self, event: CaseEvent) -> None:
        name = event.request_id
        entries = self._entries.get(name)
        if entries is None:
            entries = self._entries[name] = array("Q")
        if (request := self._open.get(name)) is not None:
            request.events.append(event)
        elif event.type.startswith(_REQUEST) and name not in self._ended:
            request = self._open[name] = _Open([*self._read(entries), event])
        entries.append(event.index)
        if request is None:
            return  # it has ended, or is none
        if event.type in _TURNS and len(request.events) >= request.look_at:
            if _ended(request.events):
                del self._open[name]
                self._ended.add(name)
            else:
                request.look_at = 2 * len(request.events)

    async def standings(self, now: datetime) -> list[Standing]:
        """The open requests at a time, which has a zone, the most urgent first.

        Raises:
            StoreError: as `catch_up`.
            CalendarError: as `find_deadlines`.
        """
        await self.catch_up()
        found = []
        for number, request in enumerate(list(self._open.values())):
            (case,) = read_cases(request.events)
            if case.outcome is Outcome.UNANSWERED and _is_request(case):
                found.append(self._standing(case, now, is_open))
            if number % _STEP == _STEP - 1:
                await asyncio.sleep(0)
        return sorted(found, key=lambda standing: standing.urgency)

    async def standing(self, request_id: str, now: datetime) -> Standing | None:
        """One request, open or not, with all of its deadlines; None if the log has none such.

        Raises:
            StoreError, CalendarError: as `standings`.
        """
        await self.catch_up()
        if (entries := self._entries.get(request_id)) is None:
            return None
        (case,) = read_cases(self._read(entries))
        return self._standing(case, now, lambda _: True)

    def _standing(self, case: Case, now: datetime, wanted: Callable[[Deadline], bool]) -> Standing:
        receipt = case.receipt
        received = None if receipt is None else day_of(receipt.occurred_at, self.terms.zone)
        deadlines = filter(wanted, find_deadlines(case, self.terms, now=now))
        return Standing(case, received, tuple(sorted(deadlines, key=_days_left)))

    async def entries(self, request_id: str, start: int = 0) -> list[int]:
        """The entries of all records that name a request, in order; but for the first `start`.

        Raises:
            StoreError: as `catch_up`.
        """
        await self.catch_up()
        return list(self._entries.get(request_id, _NONE)[start:])

    async def events(self) -> tuple[list[CaseEvent], int]:
        """All events that belong to requests, and the size of the log that has them.

        Raises:
            StoreError: as `catch_up`.
        """
        size = await self.catch_up()
        entries = sorted(index for each in self._entries.values() for index in each)
        events: list[CaseEvent] = []
        for start in range(0, len(entries), TILE_WIDTH):
            events += self._read(entries[start : start + TILE_WIDTH])
            await asyncio.sleep(0)
        return events, size

    def _read(self, entries: Iterable[int]) -> Iterator[CaseEvent]:
        bundle: Sequence[bytes] = ()
        at = -1
        for index in entries:
            number, offset = divmod(index, TILE_WIDTH)
            if number != at:
                bundle, at = self._bundle(number, self.size), number
            event = read_case_event(bundle[offset], index)
            assert event is not None  # noqa: S101 -- it was one when it was read first
            yield event


def is_open(deadline: Deadline) -> bool:
    """Whether something is to be done for it yet, be it too late."""
    return deadline.entry is None and deadline.status in _OPEN


def read_case_event(entry: bytes, index: int) -> CaseEvent | None:
    """What deadlines and reports need of an entry; None if it belongs to no request.

    Its signature is not verified again: the log takes none in that was not.
    """
    try:
        if _names_no_request(entry):
            return None
        leaf = parse_leaf(entry)
        payload = read_payload(parse_jws(leaf.jws))
        request_id, kind = payload.get("request_id"), payload.get("type")
        if not isinstance(request_id, str) or not request_id or not isinstance(kind, str):
            return None
        occurred_at = parse_time(str(payload.get("occurred_at")), field="occurred_at")
    except EventRefused:
        return None
    claims: dict[str, Any] = {name: value for name, value in payload.items() if name in _CLAIMS}
    return CaseEvent(index, intern(kind), request_id, occurred_at, leaf.received_at, claims)


def _names_no_request(entry: bytes) -> bool:
    """Whether that is plain to see: of most entries it is, at a tenth of the labour."""
    _, _, rest = entry.partition(b".")
    payload = decode_base64url(rest.partition(b".")[0].decode("ascii", "replace"), field="payload")
    return b"request_id" not in payload and b"\\" not in payload  # which may spell it otherwise


def _days_left(deadline: Deadline) -> int:
    return _NEVER if deadline.days_left is None else deadline.days_left


def _is_request(case: Case) -> bool:
    """What is of no year that anybody can mean is no event of the case."""
    return any(event.type.startswith(_REQUEST) for event in case.events)


def _ended(events: Sequence[CaseEvent]) -> bool:
    (case,) = read_cases(events)
    return case.outcome is not Outcome.UNANSWERED
