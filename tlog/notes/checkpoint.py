"""Checkpoints: the signed tree head of a log. SPEC tlog-checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlog.merkle.hashing import EMPTY_ROOT, HASH_SIZE
from tlog.notes.codec import (
    check_integer,
    check_text,
    decode_hash,
    encode_base64,
    encode_utf8,
    parse_decimal,
    shown,
)
from tlog.notes.cosignature import cosign, verify_cosignature
from tlog.notes.errors import NoteError
from tlog.notes.keys import Algorithm, Signer, VerifierKey, check_name, check_origin
from tlog.notes.note import (
    MAX_NOTE_SIZE,
    Note,
    NoteSignature,
    known_signatures,
    parse_note,
    sign_text,
    verify_text,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says: the log `origin` has `size` entries, with this 32-byte root hash.

    `extensions` are lines without their newlines; we read them and never write them.
    """

    origin: str
    size: int
    root_hash: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_origin(self.origin)
        check_integer(self.size, "tree size")
        if len(self.root_hash) != HASH_SIZE:
            raise NoteError(f"a root hash of {len(self.root_hash)} bytes, not {HASH_SIZE}")
        # SPEC tlog-checkpoint: "Extension lines, if any, MUST be non-empty."
        for line in self.extensions:
            if not line or "\n" in line:
                raise NoteError(f"the extension line {shown(line)} is not one non-empty line")
            check_text(line, "extension line")
            encode_utf8(line, "extension line")

    def body(self) -> str:
        """The note text; `parse_checkpoint` is its exact inverse."""
        lines = (self.origin, str(self.size), encode_base64(self.root_hash), *self.extensions)
        return "\n".join(lines) + "\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the note text of a checkpoint. The caller bounds its length (`parse_note` does).

    Raises:
        NoteError: not a checkpoint in its one canonical encoding; size 2^63 or more.
    """
    if not text.endswith("\n"):
        raise NoteError("a checkpoint must end in a newline")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        # SPEC tlog-checkpoint: "a sequence of at least three non-empty lines"
        raise NoteError("a checkpoint needs at least three lines, none of them empty")
    origin, size, root_hash, *extensions = lines
    try:
        return Checkpoint(origin, parse_decimal(size), decode_hash(root_hash), tuple(extensions))
    except NoteError as error:
        raise NoteError(f"checkpoint of {shown(origin)}: {error}") from None


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint as it came. Nothing in it is verified."""

    checkpoint: Checkpoint
    note: Note


def parse_unverified(data: bytes, *, max_size: int = MAX_NOTE_SIZE) -> SignedCheckpoint:
    """Read a signed checkpoint without verifying a signature: anybody can have written it."""
    note = parse_note(data, max_size=max_size)
    return SignedCheckpoint(parse_checkpoint(note.text), note)


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint that `signed_by` vouch for: each key once, with its (newest) timestamp.

    A timestamp is in seconds since the Epoch; None for a plain Ed25519 signature. `note` is the
    whole note, lines of unknown keys included.
    """

    checkpoint: Checkpoint
    note: Note
    signed_by: tuple[tuple[VerifierKey, int | None], ...]


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[Signer], *, timestamp: int) -> bytes:
    """Sign as the log: the bytes of a note with one signature line per signer, in their order.

    The caller MUST have proven the checkpoint consistent with every one it signed before.
    Ed25519 (0x01) keys sign the text; ML-DSA-44 (0x06) keys make a cosignature of the whole tree
    at `timestamp` (seconds since the Epoch, not 0).

    Raises:
        NoteError: an origin or key name that other software could not read back, extension lines,
            a size of 0 with another root than the empty tree's, a witness's key (0x04).
    """
    check_name(checkpoint.origin)
    if checkpoint.extensions:
        raise NoteError("a checkpoint with extension lines is not signed: nobody can audit them")
    if checkpoint.size == 0 and checkpoint.root_hash != EMPTY_ROOT:
        raise NoteError("the root hash of an empty tree is SHA-256 of nothing")
    if len({signer.vkey for signer in signers}) != len(signers):
        raise NoteError("the same key is asked to sign one checkpoint twice")
    text = checkpoint.body()
    signatures: list[NoteSignature] = []
    for signer in signers:
        # SPEC tlog-checkpoint: "The log's key name in its signature line SHOULD match the origin".
        if signer.vkey.name != checkpoint.origin:
            raise NoteError(
                f"key {signer.vkey.label} does not sign for the origin {checkpoint.origin!r}: "
                "a log's keys are named as its origin"
            )
        if signer.vkey.algorithm is Algorithm.MLDSA44:
            signatures.append(cosign(checkpoint, signer, timestamp=timestamp))
        else:
            signatures.append(sign_text(text, signer))
    return Note(text, tuple(signatures)).encode()


def open_checkpoint(
    data: bytes, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> VerifiedCheckpoint:
    """Verify a signed checkpoint with the keys of its log.

    With `origin`, the checkpoint must be of that log and any one of `vkeys` is enough: give the
    keys of that log only. Without, the log's key is the one named as the origin, as is usual, and
    `vkeys` may hold the keys of many logs and witnesses. For a quorum of witnesses: `Policy`.

    When only ML-DSA-44 keys vouch for it, the verified checkpoint has no `extensions`, because
    those signatures do not cover them.

    Raises:
        NoteError: malformed; of another origin; not signed by the log; or a signature of any of
            `vkeys` does not verify (SPEC signed-note: "If a signature from a known key fails to
            verify, clients SHOULD reject the whole note").
    """
    return verify_checkpoint(parse_unverified(data), vkeys, origin=origin)


def verify_checkpoint(
    signed: SignedCheckpoint, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> VerifiedCheckpoint:
    """What `open_checkpoint` does, with a checkpoint that was read before.

    Raises:
        NoteError: as there.
    """
    checkpoint, note = signed.checkpoint, signed.note
    if origin is not None and checkpoint.origin != origin:
        raise NoteError(f"a checkpoint of {shown(checkpoint.origin)}, wanted one of {origin!r}")
    verified: dict[VerifierKey, int | None] = {}
    for vkey, signature in known_signatures(note, vkeys):
        if vkey.algorithm is Algorithm.ED25519:
            verify_text(note.text, vkey, signature)
            verified[vkey] = None
        else:
            timestamp = verify_cosignature(checkpoint, vkey, signature)
            verified[vkey] = max(timestamp, verified.get(vkey) or 0)
    # SPEC tlog-proof: "the checkpoint is signed by a log public key configured for that origin".
    # Else one log of several could sign in the name of another.
    if not any(origin is not None or vkey.name == checkpoint.origin for vkey in verified):
        known = ", ".join(vkey.label for vkey in vkeys[:4]) or "none"
        found = ", ".join(shown(signature.label) for signature in note.signatures[:4])
        raise NoteError(
            f"the checkpoint of {shown(checkpoint.origin)} is not signed by a known key of that "
            f"log: its signatures are of {found}; the keys given are {known}"
        )
    if all(vkey.algorithm is Algorithm.MLDSA44 for vkey in verified):
        # SPEC tlog-cosignature: "checkpoint extension lines are not included in the signed message
        # for ML-DSA-44 cosignatures, and no statement is made about them".
        checkpoint = replace(checkpoint, extensions=())
    return VerifiedCheckpoint(checkpoint, note, tuple(verified.items()))
