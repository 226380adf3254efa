"""What a monitor remembers of one log.

That is its last verified head, how far its entries were read, which alarms stand, and what of them
nobody was told yet. Without it, whoever kills the monitor at the right moment would make a rollback
or an alarm forgotten. The file has a digest over it, so that a damaged one is refused and not held
against the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlog.client.errors import VerificationError
from tlog.client.sealed import SealedFile, edge_fields, read_edge
from tlog.client.verification import Head
from tlog.client.verifier import Verifier
from tlog.merkle import RightEdge

FORMAT = "tlog monitor state 1"
# Two dozen alarms that nobody could be told, each with two signed heads as evidence.
MAX_FILE_SIZE = 8 << 20

Event = Mapping[str, object]
"""Something to tell, as a JSON object."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of one log. A value: each step makes a new one.

    Attributes:
        since: when the log was first watched, in seconds since the Epoch.
        head: the last head that was verified and follows from all those before it.
        fresh: when `head` was last known to be the log's newest.
        edge: the entries that were read and whose findings were delivered: their right edge.
        alarms: those that stand, by kind, with the time at which each was raised.
        untold: what was raised or cleared and is not delivered yet, in order.
    """

    since: float
    head: Head | None = None
    fresh: float = 0.0
    edge: RightEdge = field(default_factory=RightEdge)
    alarms: Mapping[str, float] = field(default_factory=dict)
    untold: tuple[Event, ...] = ()


class WatchFile:
    """`Watched` in a JSON file of its own, and a lock file beside it. All methods raise StateError.

    Args:
        path: where.
        verifier: with what its head is verified again.
    """

    def __init__(self, path: Path, verifier: Verifier) -> None:
        self._file = SealedFile(
            path,
            what="the monitor's state",
            format=FORMAT,
            limit=MAX_FILE_SIZE,
            busy="stop the other monitor, or give this one a --state of its own",
            lost="Restore it from a copy, or remove it: what the log has shown before is then "
            "forgotten",
        )
        self._verifier = verifier

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else uses the state meanwhile. Killed, the process lets go of it."""
        return self._file.held()

    def load(self) -> Watched | None:
        """What was saved last; None when nothing was."""
        try:
            return self._file.load(self._read)
        except VerificationError as error:
            raise self._file.error(
                f"has a head that the keys given now do not verify ({error}): give those of the "
                "log, or this log a --state of its own"
            ) from None

    def save(self, watched: Watched) -> None:
        """Replace it, durably and as one step."""
        head = watched.head
        self._file.save(
            {
                "since": watched.since,
                "head": None if head is None else head.note.decode(),
                "fresh": watched.fresh,
                **edge_fields(watched.edge),
                "alarms": dict(watched.alarms),
                "untold": list(watched.untold),
            }
        )

    def _read(self, fields: dict[str, Any]) -> Watched:
        note = fields["head"]
        head = None if note is None else self._verifier.weigh(note.encode())[0]
        return Watched(
            since=float(fields["since"]),
            head=head,
            fresh=float(fields["fresh"]),
            edge=read_edge(fields),
            alarms=dict(fields["alarms"]),
            untold=tuple(fields["untold"]),
        )
