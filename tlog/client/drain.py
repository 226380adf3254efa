"""From the spool to the server: in order, each event until it is answered for.

An answer that is lost, a server that is away or too busy: the same events are sent again, for as
long as it takes. An event that can never be recorded is set aside in the spool's `refused.jsonl`,
and told. A refusal that concerns the producer, not the event, holds everything back instead: the
events stay where they are until somebody registers the key, or corrects the address. But what an
old key signed, and came too late for it, does not hold back what the new one signs.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import grpc

from tlog.audit.jws import parse_jws
from tlog.audit.sdjwt import split
from tlog.client.errors import ClientError, Refused, VerificationError, printable
from tlog.client.frames import Frame
from tlog.client.spool import Spool
from tlog.client.transport import FIRST_PAUSE

BATCH_EVENTS: Final = 256
BATCH_BYTES: Final = 1 << 20
LONGEST_PAUSE: Final = 30.0
TIDY_SECONDS: Final = 5.0
"""How often delivered events are taken off the disk: not one by one, which would cost an fsync."""
# The fields of refusals that concern the producer.
_KEY, _TENANT = "jws.header.kid", "tenant"
_TOO_LARGE = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an event stands.

    Attributes:
        index: of its entry; of the first one, if it had been recorded before.
        duplicate: it had been recorded before.
        conflict: another event with its id had been.
    """

    index: int
    duplicate: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """Why the server does not record an event.

    Attributes:
        field: what was wrong with it; empty if it was no one claim.
    """

    field: str
    reason: str


Outcome = Recorded | Declined


class EventSink(Protocol):
    """Where events go. One thread delivers; `close` may come from another."""

    def deliver(self, events: Sequence[str]) -> Sequence[Outcome]:
        """Record events, and say what became of each, in order.

        Raises:
            ClientError: it is not known. The same events will come again.
        """

    def close(self) -> None:
        """End a delivery that is under way, and take no more."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that the server refused for good; it is in the spool's `refused.jsonl`."""

    seq: int
    declined: Declined


class Drain:
    """A thread that delivers what is in a spool.

    Args:
        spool: closed by the caller, after the drain.
        sink: closed by the drain.
        kid: label of the key that signs now.
        on_refused: told of each event that is set aside, on the drain's thread.
    """

    def __init__(
        self,
        spool: Spool,
        sink: EventSink,
        *,
        kid: str,
        on_refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        self._spool = spool
        self._sink = sink
        self._kid = kid
        self._on_refused = on_refused
        self._most = BATCH_EVENTS
        self._tidy_at = 0.0
        self._untidy: dict[str, str] = {}  # why, as it was told last
        self._stopping = threading.Event()
        self.problem = ""
        """Why nothing is delivered at the moment; empty while all is well."""
        self._thread = threading.Thread(target=self._run, name="tlog-drain", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is under way is cut short, and will be delivered again."""
        self._stopping.set()
        self._spool.wake()
        self._sink.close()
        self._thread.join()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  (whatever it is, the events are still there)
                if self._stopping.is_set():
                    return
                self._failed(error)
                wanted = error.retry_after if isinstance(error, Refused) else None
                jitter = random.uniform(0.5, 1)  # noqa: S311
                self._stopping.wait(max(wanted or 0.0, pause * jitter))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause, self.problem = FIRST_PAUSE, ""

    def _step(self) -> None:
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_SECONDS
            self._try("tidy", self._spool.tidy)
        if self._spool.wait(TIDY_SECONDS) and (frames := self._spool.peek(self._most, BATCH_BYTES)):
            self._deliver(frames)

    def _try(self, what: str, call: Callable[[], None]) -> None:
        """No delivery waits for the disk: on one that is full, that is what makes room."""
        problem = ""
        try:
            call()
        except Exception as error:  # noqa: BLE001  (whatever it is, the next call tries again)
            problem = _problem_of(error)
        if problem and problem != self._untidy.get(what):
            _log.warning("delivered events stay in the spool: %s", printable(problem))
        self._untidy[what] = problem

    def _deliver(self, frames: Sequence[Frame]) -> None:
        try:
            outcomes = self._sink.deliver([frame.data.decode("ascii") for frame in frames])
        except Refused as refusal:
            # The halves find out whose fault it is, or are small enough.
            if refusal.code in _TOO_LARGE and refusal.retry_after is None and len(frames) > 1:
                self._most = len(frames) // 2
                return
            raise
        if len(outcomes) != len(frames):
            raise VerificationError("echo", f"{len(outcomes)} answers for {len(frames)} events")
        self._most = BATCH_EVENTS
        self._settle(frames, outcomes)

    def _settle(self, frames: Sequence[Frame], outcomes: Sequence[Outcome]) -> None:
        refused = []
        held = None
        settled = 0
        for frame, outcome in zip(frames, outcomes, strict=True):
            if isinstance(outcome, Declined):
                if self._holds(frame, outcome):
                    held = outcome
                    break
                refused.append((frame, outcome))
            settled += 1
        if refused:
            self._spool.set_aside(b"".join(_line(*each) for each in refused))
        if settled:
            self._try("advance", partial(self._spool.advance, frames[:settled]))
        for frame, outcome in refused:
            reason, kept = printable(outcome.reason), self._spool.refused
            _log.error("event %d is refused: %s. It is in %s", frame.number, reason, kept)
        if self._on_refused is not None:
            for frame, outcome in refused:
                self._on_refused(Refusal(frame.number, outcome))
        if held is not None:
            raise ClientError(
                f"nothing of this producer is recorded: {held.field}: {held.reason}. The events "
                "wait in the spool"
            )

    def _holds(self, frame: Frame, outcome: Declined) -> bool:
        """Whether the events after this one would fare no better."""
        if outcome.field != _KEY:
            return outcome.field == _TENANT
        jws, _ = split(frame.data.decode("ascii"))
        return parse_jws(jws).kid == self._kid

    def _failed(self, error: Exception) -> None:
        problem = _problem_of(error)
        if problem != self.problem:
            waiting = self._spool.waiting
            _log.warning("%d events wait in the spool: %s", waiting, printable(problem))
        self.problem = problem


def _problem_of(error: Exception) -> str:
    """What it says; of what is not ours its type and where it arose: it may quote an event."""
    if isinstance(error, (ClientError, OSError)) and (text := str(error)):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _line(frame: Frame, outcome: Declined) -> bytes:
    fields = {
        "seq": frame.number,
        "field": outcome.field,
        "reason": outcome.reason,
        "event": frame.data.decode("ascii"),
    }
    return json.dumps(fields).encode() + b"\n"
