"""What an auditor remembers of one log: how far it got, and every head it was shown.

Without it an audit could not tell a log that was rolled back or forked since the last one. The file
names a head as audited only when all of its tree was found whole; what it holds has a digest over
it, so that a damaged file is refused and not held against the log.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tlog.client.errors import StateError
from tlog.client.files import replace_file
from tlog.client.verification import Head
from tlog.merkle import MerkleError, RightEdge
from tlog.notes import NoteError, parse_unverified

FORMAT = "tlog audit state 1"
# Two notes, and eight levels of at most 255 hashes.
MAX_FILE_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the audit of a log got.

    Attributes:
        head: the newest head that was verified and follows from all those before it.
        edge: the entries that were re-hashed: the right edge of their tree. Not larger than `head`.
        audited: the last head whose tree was found whole, None before the first.
    """

    head: Head
    edge: RightEdge
    audited: Head | None = None


class AuditState(Protocol):
    """Keeps the progress of one audit. All methods raise StateError."""

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else uses the state meanwhile."""

    def load(self) -> Progress | None:
        """The progress; None when there is none yet."""

    def save(self, progress: Progress) -> None:
        """Replace it, durably and as one step."""


class MemoryAudit:
    """Progress that lasts as long as the process."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def held(self) -> contextlib.AbstractContextManager[None]:
        """See `AuditState.held`."""
        return contextlib.nullcontext()

    def load(self) -> Progress | None:
        """See `AuditState.load`."""
        return self._progress

    def save(self, progress: Progress) -> None:
        """See `AuditState.save`."""
        self._progress = progress


class AuditFile:
    """Progress in a JSON file of its own, with a lock file beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """See `AuditState.held`. Killed, the process lets go of it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._error(f"cannot be locked: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise self._error(
                "is in use by another audit: wait for it, or give this one a --state of its own"
            ) from None
        finally:
            os.close(lock)

    def load(self) -> Progress | None:
        """See `AuditState.load`."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from None
        try:
            return _parse(data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            raise self._error(
                f"is damaged ({what}). Restore it from a copy, or remove it and audit the whole "
                "log anew: what it has shown before is then forgotten"
            ) from None

    def save(self, progress: Progress) -> None:
        """See `AuditState.save`."""
        try:
            replace_file(self._path, _encode(progress))
        except OSError as error:
            raise self._error(f"cannot be written: {error.strerror}") from None

    def _error(self, what: str) -> StateError:
        return StateError(f"the audit state {self._path} {what}")


def _encode(progress: Progress) -> bytes:
    audited = progress.audited
    fields = {
        "head": progress.head.note.decode(),
        "audited": None if audited is None else audited.note.decode(),
        "size": progress.edge.size,
        "partials": [base64.b64encode(row).decode() for row in progress.edge.partials],
    }
    written = {"format": FORMAT, **fields, "sha256": _digest(fields)}
    return json.dumps(written, indent=1, ensure_ascii=False).encode() + b"\n"


def _parse(data: bytes) -> Progress:
    if len(data) > MAX_FILE_SIZE:
        raise ValueError(f"longer than {MAX_FILE_SIZE} bytes")
    fields = json.loads(data)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise ValueError(f"not of the format {FORMAT!r}")
    if fields.pop("sha256", None) != _digest(fields):
        raise ValueError("its digest does not fit")
    try:
        partials = tuple(base64.b64decode(row, validate=True) for row in fields["partials"])
        head, edge = _head(fields["head"]), RightEdge(fields["size"], partials)
        audited = None if fields["audited"] is None else _head(fields["audited"])
    except (NoteError, MerkleError) as error:
        raise ValueError(str(error)) from None
    if edge.size > head.size or (edge.size == head.size and edge.root() != head.root_hash):
        raise ValueError("its hashes are not those of its head")
    return Progress(head, edge, audited)


def _head(note: str) -> Head:
    """A head that was verified when it was written down, maybe under another policy."""
    data = note.encode()
    return Head(parse_unverified(data).checkpoint, data)


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
