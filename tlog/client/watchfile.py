"""What a monitor remembers of one log.

That is its last verified head, how far its entries were read, which alarms stand, and what of them
nobody was told yet. Without it, whoever kills the monitor at the right moment would make a rollback
or an alarm forgotten. The file has a digest over it, so that a damaged one is refused and not held
against the log.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlog.client.errors import StateError, VerificationError
from tlog.client.files import replace_file
from tlog.client.verification import Head
from tlog.client.verifier import Verifier
from tlog.merkle import MerkleError, RightEdge

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
    """`Watched` in a JSON file of its own, with a lock file beside it.

    Args:
        path: where.
        verifier: with what its head is verified again: a policy may have changed.
    """

    def __init__(self, path: Path, verifier: Verifier) -> None:
        self._path = path
        self._verifier = verifier

    def __str__(self) -> str:
        return str(self._path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else uses the state meanwhile. Killed, the process lets go of it.

        Raises:
            StateError: somebody does, or it cannot be locked.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._error(f"cannot be locked: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise self._error(
                "is in use by another monitor: stop it, or give this one a --state of its own"
            ) from None
        try:
            yield
        finally:
            os.close(lock)

    def load(self) -> Watched | None:
        """What was saved last; None when nothing was.

        Raises:
            StateError: it cannot be read, or is damaged.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from None
        try:
            return self._parse(data)
        except VerificationError as error:
            raise self._error(
                f"has a head that the keys given now do not verify ({error}): give those of the "
                "log, or this log a --state of its own"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            raise self._error(
                f"is damaged ({what}). Restore it from a copy, or remove it: what the log has "
                "shown before is then forgotten"
            ) from None

    def save(self, watched: Watched) -> None:
        """Replace it, durably and as one step.

        Raises:
            StateError: it cannot be written.
        """
        try:
            replace_file(self._path, _encode(watched))
        except OSError as error:
            raise self._error(f"cannot be written: {error.strerror}") from None

    def _parse(self, data: bytes) -> Watched:
        if len(data) > MAX_FILE_SIZE:
            raise ValueError(f"longer than {MAX_FILE_SIZE} bytes")
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(f"not of the format {FORMAT!r}")
        if fields.pop("sha256", None) != _digest(fields):
            raise ValueError("its digest does not fit")
        try:
            partials = tuple(base64.b64decode(row, validate=True) for row in fields["partials"])
            edge = RightEdge(fields["size"], partials)
        except MerkleError as error:
            raise ValueError(str(error)) from None
        note = fields["head"]
        return Watched(
            since=fields["since"],
            head=None if note is None else self._verifier.weigh(note.encode())[0],
            fresh=fields["fresh"],
            edge=edge,
            alarms=fields["alarms"],
            untold=tuple(fields["untold"]),
        )

    def _error(self, what: str) -> StateError:
        return StateError(f"the monitor's state {self._path} {what}")


def _encode(watched: Watched) -> bytes:
    fields: dict[str, Any] = {
        "since": watched.since,
        "head": None if watched.head is None else watched.head.note.decode(),
        "fresh": watched.fresh,
        "size": watched.edge.size,
        "partials": [base64.b64encode(row).decode() for row in watched.edge.partials],
        "alarms": dict(watched.alarms),
        "untold": list(watched.untold),
    }
    written = {"format": FORMAT, **fields, "sha256": _digest(fields)}
    return json.dumps(written, indent=1, ensure_ascii=False).encode() + b"\n"


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
