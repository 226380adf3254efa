"""`.tlog-proof` files: a receipt that verifies offline, for ever. SPEC tlog-proof."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tlog.merkle.errors import MerkleError
from tlog.merkle.hashing import HASH_SIZE, leaf_hash
from tlog.merkle.verify import verify_inclusion
from tlog.notes.checkpoint import (
    Checkpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    parse_unverified,
)
from tlog.notes.codec import (
    check_integer,
    decode_base64,
    decode_hash,
    decode_utf8,
    encode_base64,
    parse_decimal,
    shown,
)
from tlog.notes.errors import NoteError
from tlog.notes.keys import VerifierKey
from tlog.notes.note import MAX_NOTE_SIZE

MAX_HASHES = 63  # levels above the leaves of a tree of less than 2^63 entries
MAX_EXTRA_SIZE = 64 * 1024

_HEADER = "c2sp.org/tlog-proof@v1"
# The lines before the empty one: the header, the extra data in base64, the index, the hashes.
_MAX_HEAD_SIZE = 128 + (MAX_EXTRA_SIZE + 2) // 3 * 4 + MAX_HASHES * 45
MAX_PROOF_SIZE = _MAX_HEAD_SIZE + MAX_NOTE_SIZE


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Entry `index` is in the tree of `checkpoint`: claimed, not verified.

    `hashes` is the inclusion proof from the leaf's sibling upwards, 32 bytes each; `checkpoint`
    the signed note, byte for byte as the log published it. SPEC tlog-proof: "Applications MUST
    NOT implicitly trust the extra data, as it is not authenticated."
    """

    index: int
    hashes: tuple[bytes, ...] = field(repr=False)
    checkpoint: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        check_integer(self.index, "index")
        if len(self.hashes) > MAX_HASHES:
            raise NoteError(f"a proof of {len(self.hashes)} hashes, the limit is {MAX_HASHES}")
        if any(len(element) != HASH_SIZE for element in self.hashes):
            raise NoteError(f"a hash of an inclusion proof must have {HASH_SIZE} bytes")
        if self.extra is not None and len(self.extra) > MAX_EXTRA_SIZE:
            raise NoteError(f"extra data of {len(self.extra)} bytes, the limit is {MAX_EXTRA_SIZE}")
        parse_unverified(self.checkpoint)

    def encode(self) -> bytes:
        """The file's bytes; `parse_proof` is the exact inverse."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(map(encode_base64, self.hashes))
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint


def parse_proof(data: bytes) -> TlogProof:
    """Read a `.tlog-proof` file of at most `MAX_PROOF_SIZE` bytes, verifying nothing.

    Raises:
        NoteError: not a proof in its one canonical encoding, or too large.
    """
    if len(data) > MAX_PROOF_SIZE:
        raise NoteError(f"a proof of {len(data)} bytes, the limit is {MAX_PROOF_SIZE}")
    # SPEC tlog-proof: "After the inclusion proof lines and an empty line, the checkpoint issued by
    # the log is included verbatim". The checkpoint has an empty line of its own: this is the first.
    head, empty_line, checkpoint = data.partition(b"\n\n")
    if not empty_line:
        raise NoteError("a proof without an empty line before its checkpoint")
    if len(head) > _MAX_HEAD_SIZE or head.count(b"\n") > 2 + MAX_HASHES:
        raise NoteError(f"a proof of more than {MAX_HASHES} hashes, or too much extra data")
    lines = decode_utf8(head, "proof").split("\n")
    number = 1
    try:
        if lines[0] != _HEADER:
            raise NoteError(f"{shown(lines[0])} is not {_HEADER!r}")
        number += 1
        extra = None
        if lines[1:] and lines[1].startswith("extra "):
            extra = decode_base64(lines[1].removeprefix("extra "))
            number += 1
        if not lines[number - 1 :] or not lines[number - 1].startswith("index "):
            raise NoteError("expected `index` and the index of the entry")
        index = parse_decimal(lines[number - 1].removeprefix("index "))
        hashes = []
        for line in lines[number:]:
            number += 1
            hashes.append(decode_hash(line))
    except NoteError as error:
        raise NoteError(f"proof, line {number}: {error}") from None
    return TlogProof(index, tuple(hashes), checkpoint, extra)


def verify_proof(
    proof: TlogProof, entry: bytes, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> VerifiedCheckpoint:
    """Verify that the log of `vkeys` contains exactly `entry` (the entry itself, not its hash).

    `vkeys` and `origin` as in `open_checkpoint`. Raises NoteError when it is not proven.
    """
    return verify_proof_hash(proof, leaf_hash(entry), vkeys, origin=origin)


def verify_proof_hash(
    proof: TlogProof, leaf_hash: bytes, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> VerifiedCheckpoint:
    """As `verify_proof`, for a verifier that has the 32-byte leaf hash of the entry."""
    verified = open_checkpoint(proof.checkpoint, vkeys, origin=origin)
    check_inclusion(proof, leaf_hash, verified.checkpoint)
    return verified


def check_inclusion(proof: TlogProof, leaf_hash: bytes, checkpoint: Checkpoint) -> None:
    """The last step: the proof binds `leaf_hash` to the root hash of a *verified* checkpoint."""
    if proof.index >= checkpoint.size:
        raise NoteError(f"index {proof.index} is not in a tree of {checkpoint.size} entries")
    try:
        verify_inclusion(
            index=proof.index,
            size=checkpoint.size,
            leaf_hash=leaf_hash,
            root_hash=checkpoint.root_hash,
            proof=proof.hashes,
        )
    except MerkleError as error:
        raise NoteError(f"the entry is not proven to be in the log: {error}") from error
