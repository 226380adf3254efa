r"""The bodies of add-checkpoint and sign-subtree (SPEC tlog-witness), read strictly and written.

    old 20852014                        subtree 8 13
    <consistency proof, a line a hash>  <subtree root hash>
                                        <subtree consistency proof, a line a hash>
    <checkpoint, to the end>
                                        <checkpoint, to the end>

The checkpoint stays bytes here: whose it is, and whether it is one, is the witness's to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tlog.merkle import HASH_SIZE
from tlog.notes import NoteError
from tlog.notes.codec import (
    check_integer,
    decode_hash,
    decode_utf8,
    encode_base64,
    parse_decimal,
    shown,
)
from tlog.witness.errors import BadRequest

MAX_BODY_SIZE: Final = 256 * 1024
MAX_PROOF_HASHES: Final = 63
"""SPEC tlog-witness: "The client MUST NOT send more than 63 consistency proof lines."."""

_HASH_LINE: Final = 45  # 32 bytes in base64, and the newline
_FIRST_LINE: Final = len("subtree ") + 19 + 1 + 19 + 1


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of add-checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The body; `parse_add_checkpoint` gives this value again.

        Raises:
            BadRequest: more than 63 hashes, or what is not a size or a hash.
        """
        check_sizes(self.old_size)
        return _encode([f"old {self.old_size}"], self.proof, self.note)


@dataclass(frozen=True, slots=True)
class SignSubtree:
    """The body of sign-subtree."""

    start: int
    end: int
    root_hash: bytes
    proof: tuple[bytes, ...]
    note: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The body; `parse_sign_subtree` gives this value again. Raises as `AddCheckpoint`'s."""
        check_sizes(self.start, self.end)
        check_hashes((self.root_hash,), "subtree hash")
        lines = [f"subtree {self.start} {self.end}", encode_base64(self.root_hash)]
        return _encode(lines, self.proof, self.note)


def parse_add_checkpoint(body: bytes, *, max_size: int = MAX_BODY_SIZE) -> AddCheckpoint:
    """Read the body of add-checkpoint, of at most `max_size` bytes.

    Raises:
        BadRequest: anything else than the one encoding of an `AddCheckpoint`.
    """
    lines, note = _split(body, max_size)
    # SPEC tlog-witness: "The old size line MUST consist of the string `old`, a single space
    # (0x20), and the tree size of the previous checkpoint encoded as an ASCII decimal with no
    # leading zeroes (unless the size is zero, in which case the encoding MUST be `0`)."
    (old_size,) = _sizes(lines[0], "old", count=1)
    return AddCheckpoint(old_size, _hashes(lines, 1), note)


def parse_sign_subtree(body: bytes, *, max_size: int = MAX_BODY_SIZE) -> SignSubtree:
    """Read the body of sign-subtree, of at most `max_size` bytes.

    Raises:
        BadRequest: anything else than the one encoding of a `SignSubtree`.
    """
    lines, note = _split(body, max_size)
    # SPEC tlog-witness: "The subtree range line MUST consist of the string `subtree`, a single
    # space (0x20), the subtree start encoded as an ASCII decimal with no leading zeroes (unless
    # start is zero, in which case the encoding MUST be `0`), a single space (0x20), and the
    # subtree end encoded as an ASCII decimal with no leading zeroes."
    start, end = _sizes(lines[0], "subtree", count=2)
    if len(lines) < 2:
        raise BadRequest("the subtree hash line is missing")
    root_hash, *proof = _hashes(lines, 1, limit=MAX_PROOF_HASHES + 1)
    return SignSubtree(start, end, root_hash, tuple(proof), note)


def check_sizes(*sizes: int) -> None:
    """Refuse what is not a tree size, 0 to 2^63 - 1, with BadRequest."""
    try:
        for size in sizes:
            check_integer(size, "size")
    except NoteError as error:
        raise BadRequest(str(error)) from None


def check_hashes(hashes: Sequence[bytes], what: str) -> None:
    """Refuse more than 63 of them, or what is not 32 bytes long, with BadRequest."""
    if len(hashes) > MAX_PROOF_HASHES:
        raise BadRequest(f"{len(hashes)} hashes of {what}, the limit is {MAX_PROOF_HASHES}")
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise BadRequest(f"a {what} of {len(value)} bytes, it needs {HASH_SIZE}")


def _split(body: bytes, max_size: int) -> tuple[list[str], bytes]:
    """The lines before the first empty one, and the bytes after it."""
    if len(body) > max_size:
        raise BadRequest(f"a body of {len(body)} bytes, the limit is {max_size}")
    head = body[: _FIRST_LINE + (MAX_PROOF_HASHES + 1) * _HASH_LINE + 1]
    end = head.find(b"\n\n")
    if end < 0:
        raise BadRequest(
            "no empty line (a lone newline) between the proof and the checkpoint, after at most "
            f"{MAX_PROOF_HASHES} proof lines"
        )
    try:
        return decode_utf8(head[:end], "request").split("\n"), body[end + 2 :]
    except NoteError as error:
        raise BadRequest(str(error)) from None


def _sizes(line: str, word: str, *, count: int) -> list[int]:
    first, *numbers = line.split(" ")
    if first != word or len(numbers) != count:
        raise BadRequest(f"line 1: expected `{word}` and {count} size(s), not {shown(line)}")
    try:
        return [parse_decimal(number) for number in numbers]
    except NoteError as error:
        raise BadRequest(f"line 1: {error}") from None


def _hashes(
    lines: Sequence[str], begin: int, *, limit: int = MAX_PROOF_HASHES
) -> tuple[bytes, ...]:
    if (count := len(lines) - begin) > limit:
        raise BadRequest(f"{count} hash lines, the limit is {limit}")
    hashes = []
    for number, line in enumerate(lines[begin:], begin + 1):
        try:
            hashes.append(decode_hash(line))
        except NoteError as error:
            raise BadRequest(f"line {number}: {error}") from None
    return tuple(hashes)


def _encode(lines: list[str], proof: Sequence[bytes], note: bytes) -> bytes:
    check_hashes(proof, "consistency proof")
    lines.extend(map(encode_base64, proof))
    return "\n".join(lines).encode() + b"\n\n" + note
