"""What an auditor remembers of one log: how far it got, and every head it was shown.

Without it an audit could not tell a log that was rolled back or forked since the last one. The file
names a head as audited only when all of its tree was found whole; what it holds has a digest over
it, so that a damaged file is refused and not held against the log.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tlog.client.sealed import SealedFile, edge_fields, read_edge
from tlog.client.verification import Head
from tlog.merkle import RightEdge
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
        self._file = SealedFile(
            path,
            what="the audit state",
            format=FORMAT,
            limit=MAX_FILE_SIZE,
            busy="wait for it, or give this audit a --state of its own",
            lost="Restore it from a copy, or remove it and audit the whole log anew: what it has "
            "shown before is then forgotten",
        )

    def __str__(self) -> str:
        return str(self._file.path)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """See `AuditState.held`. Killed, the process lets go of it."""
        return self._file.held()

    def load(self) -> Progress | None:
        """See `AuditState.load`."""
        return self._file.load(_read)

    def save(self, progress: Progress) -> None:
        """See `AuditState.save`."""
        audited = progress.audited
        self._file.save(
            {
                "head": progress.head.note.decode(),
                "audited": None if audited is None else audited.note.decode(),
                **edge_fields(progress.edge),
            }
        )


def _read(fields: dict[str, Any]) -> Progress:
    head, edge = _head(fields["head"]), read_edge(fields)
    audited = None if fields["audited"] is None else _head(fields["audited"])
    if edge.size > head.size or (edge.size == head.size and edge.root() != head.root_hash):
        raise ValueError("its hashes are not those of its head")
    return Progress(head, edge, audited)


def _head(note: str) -> Head:
    """A head that was verified when it was written down, maybe under another policy."""
    data = note.encode()
    try:
        return Head(parse_unverified(data).checkpoint, data)
    except NoteError as error:
        raise ValueError(str(error)) from None
