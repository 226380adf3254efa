"""What a witness remembers of a log, and what it hands on when something contradicts that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from tlog.merkle import EMPTY_ROOT
from tlog.notes import Checkpoint, Note, NoteSignature, parse_checkpoint, parse_note
from tlog.notes.codec import check_integer, decode_utf8
from tlog.witness.errors import Unavailable

_TIMESTAMP_SIZE = 8


@dataclass(frozen=True, slots=True)
class CosignedHead:
    """The latest checkpoint that the witness cosigned for a log.

    Stored as the timestamp (u64, big-endian) and then the note.

    Attributes:
        timestamp: that of the cosignatures, in seconds since the Epoch.
        checkpoint: what was cosigned.
        note: its text with the log's verified signatures and the witness's cosignatures.
    """

    timestamp: int
    checkpoint: Checkpoint
    note: bytes

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, signatures: Sequence[NoteSignature], *, timestamp: int
    ) -> Self:
        """The head with these signatures, encoded anew."""
        note = Note(checkpoint.body(), tuple(signatures)).encode()
        return cls(timestamp, checkpoint, note)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            Unavailable: it is damaged.
        """
        note = stored[_TIMESTAMP_SIZE:]
        try:
            timestamp = int.from_bytes(stored[:_TIMESTAMP_SIZE], "big")
            check_integer(timestamp, "timestamp")
            # The signatures are most of a note, and were verified before they were stored.
            text = decode_utf8(note[: note.rindex(b"\n\n") + 1], "a stored head")
            return cls(timestamp, parse_checkpoint(text), note)
        except ValueError as error:  # NoteError is one
            raise Unavailable(
                f"a stored head is damaged: restore the newest copy: {error}"
            ) from None

    def encode(self) -> bytes:
        """What the store keeps."""
        return self.timestamp.to_bytes(_TIMESTAMP_SIZE, "big") + self.note

    def signatures(self) -> tuple[NoteSignature, ...]:
        """The log's and the witness's."""
        return parse_note(self.note).signatures


def contradicts(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether no log that only appends could sign both, whatever a proof says.

    Two root hashes for one size; or a size of 0 with another root than that of the empty tree,
    which contradicts every head.
    """
    return (first.size == second.size and first.root_hash != second.root_hash) or any(
        head.size == 0 and head.root_hash != EMPTY_ROOT for head in (first, second)
    )


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """Two heads, both signed by the log, of which the second was refused.

    Attributes:
        origin: of both.
        stored: note of the head that the witness has cosigned, its cosignatures included.
        submitted: note of the other, with the log's verified signatures only.
        contradiction: they contradict each other (`contradicts`): a split view, and proof of it.
            Else the submitter gave no valid proof, and somebody else may have one.
    """

    origin: str
    stored: bytes
    submitted: bytes
    contradiction: bool


class OnInconsistent(Protocol):
    """Who keeps the evidence.

    Called before the request is answered, while no other request for the log is decided: what it
    does about the log, freezing it for one, is seen by the next. Anybody can replay what a log
    has signed, so it MUST recognise a pair that it has, and bound what it keeps. What it raises is
    reported and changes no answer.
    """

    async def __call__(self, inconsistency: Inconsistency, /) -> None:
        """Take note of two heads."""
