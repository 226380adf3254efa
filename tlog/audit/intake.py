"""What waits to be recorded: calls, and batches of their events on the way to a round.

A batch is begun while the round before it goes on: its signatures are verified in other processes
then, and its events read while the disk is waited for. That decides nothing: what an event says is
the same whatever came before, and whether its key is valid is asked in its own round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from tlog.audit.errors import EventRefused
from tlog.audit.event import Draft
from tlog.audit.round import Incoming, Round, Seen
from tlog.audit.verifying import Checks, Claim, Verifiers
from tlog.log import LogError, Overloaded

MAX_PENDING: Final = 1 << 16
MAX_PENDING_BYTES: Final = 128 << 20
"""Of the events that wait; whatever their number, one call is taken when nobody waits."""
BATCH_BYTES: Final = 16 << 20
"""A batch has no more events when it is longer: two of them are in memory, taken apart."""
_STEP: Final = 16


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an event stands.

    Attributes:
        index: of its entry; of the first one, if it had been recorded before.
        duplicate: whether it had been.
        conflict: whether another event with its id had been: both are in the log now.
    """

    index: int
    duplicate: bool = False
    conflict: bool = False


Outcome = Recorded | EventRefused


@dataclass(slots=True, eq=False)
class _Call:
    """Events that were sent together; `taken` of them are in batches."""

    events: Sequence[str | Draft]
    answered: asyncio.Future[list[Outcome]]
    outcomes: list[Outcome] = field(default_factory=list)
    taken: int = 0


class Batch:
    """Events of one round: of each call, in turn, some."""

    def __init__(self, slices: Sequence[tuple[_Call, Sequence[str | Draft]]]) -> None:
        self.slices = slices
        self._begun = False
        self._parsed: deque[tuple[Incoming | EventRefused, Claim | None]] = deque()
        self._checks: Checks | None = None
        self._seen: deque[tuple[Incoming | EventRefused, Seen | None]] = deque()
        self._read = 0

    def begin(self, this: Round, workers: Verifiers | None) -> None:
        """Take the events apart, and have their signatures verified; once is enough.

        Args:
            this: a round, this one's or the one before: it knows the keys.
            workers: processes that verify; without them each event is verified when it is taken.
        """
        if self._begun:
            return
        self._begun = True
        parsed = [this.parse(event) for _, events in self.slices for event in events]
        claims: list[Claim | None] = [None] * len(parsed)
        if workers is not None:
            claims = [this.claim(event) for event in parsed]
            self._checks = workers.start(claims)
        self._parsed.extend(zip(parsed, claims, strict=True))

    async def read_ahead(self, this: Round) -> bool:
        """Read some more events whose signatures are right; False if there is nothing to do now."""
        count = min(_STEP, len(self._parsed))
        if self._checks is None or not count or not self._checks.done(self._read + count - 1):
            return False
        for _ in range(count):
            self._seen.append(await self._next(this))
        await asyncio.sleep(0)
        return True

    async def events(
        self, this: Round
    ) -> AsyncIterator[tuple[Incoming | EventRefused, Seen | None]]:
        """The events, and what was seen of each whose signature is known to be right."""
        while self._seen or self._parsed:
            yield self._seen.popleft() if self._seen else await self._next(this)

    async def _next(self, this: Round) -> tuple[Incoming | EventRefused, Seen | None]:
        # Whatever becomes of the wait, no event is lost, and no answer given to another.
        right = self._checks is not None and await self._checks.right(self._read)
        event, claim = self._parsed.popleft()
        self._read += 1
        if right and claim is not None and isinstance(event, tuple):
            return event, Seen(claim, this.read(*event))
        return event, None


class Intake:
    """The calls that wait, in order, and the batch that is begun ahead of its round."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._calls: deque[_Call] = deque()
        self._ahead: Batch | None = None
        self._pending = 0
        self._pending_bytes = 0

    def __bool__(self) -> bool:
        return self._ahead is not None or bool(self._calls)

    def add(self, events: Sequence[str | Draft]) -> asyncio.Future[list[Outcome]]:
        """Have events wait for a round.

        Raises:
            Overloaded: too many do.
        """
        size = sum(len(event) for event in events if isinstance(event, str))
        if self._pending and (
            self._pending + len(events) > MAX_PENDING
            or self._pending_bytes + size > MAX_PENDING_BYTES
        ):
            raise Overloaded(f"{self._pending} events wait: come back later", retry_after=1.0)
        call = _Call(events, asyncio.get_running_loop().create_future())
        call.answered.add_done_callback(partial(self._answered, size))
        self._pending += len(events)
        self._pending_bytes += size
        self._calls.append(call)
        return call.answered

    def _answered(self, size: int, done: asyncio.Future[list[Outcome]]) -> None:
        self._pending_bytes -= size
        # A call whose caller has gone away may fail unheard.
        if not done.cancelled():
            done.exception()

    def take(self) -> Batch:
        """The next batch."""
        if (batch := self._ahead) is not None:
            self._ahead = None
            return batch
        room, size, slices = self._at_once, 0, []
        while room and size < BATCH_BYTES and self._calls:
            call = self._calls[0]
            events = []
            for event in islice(call.events, call.taken, call.taken + room):
                if size >= BATCH_BYTES:
                    break
                size += len(event) if isinstance(event, str) else 0
                events.append(event)
            slices.append((call, events))
            call.taken += len(events)
            room -= len(events)
            if call.taken == len(call.events):
                self._calls.popleft()
        return Batch(slices)

    def look_ahead(self, this: Round, workers: Verifiers) -> None:
        """Begin the batch after this round's, if there is one yet."""
        if self._ahead is None and self._calls:
            batch = self.take()
            batch.begin(this, workers)
            self._ahead = batch

    async def read_ahead(self, this: Round) -> bool:
        """Go on with that batch; False if there is nothing to do now."""
        return self._ahead is not None and await self._ahead.read_ahead(this)

    def answer(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Say what became of a batch, to those whose events are all done."""
        rest = iter(outcomes)
        for call, events in batch.slices:
            call.outcomes += islice(rest, len(events))
            self._pending -= len(events)
            if len(call.outcomes) == len(call.events) and not call.answered.done():
                call.answered.set_result(call.outcomes)

    def fail(self, batch: Batch, refusal: LogError) -> None:
        """Refuse a batch, and what is begun: some of it may be of the same calls."""
        ahead, self._ahead = self._ahead, None
        slices = [*batch.slices, *(ahead.slices if ahead is not None else ())]
        for call in dict.fromkeys(call for call, _ in slices):
            if self._calls and self._calls[0] is call:
                self._calls.popleft()
            self._pending -= len(call.events) - len(call.outcomes)
            if not call.answered.done():
                call.answered.set_exception(refusal)
