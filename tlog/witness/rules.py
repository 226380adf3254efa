"""The checks of tlog-witness, in its order, as pure functions: what is given, what is refused.

Each raises the refusal that the specification names, and returns nothing that was not verified.
"""

from collections.abc import Sequence

from tlog.merkle import (
    EMPTY_ROOT,
    ProofError,
    is_subtree,
    verify_consistency,
    verify_subtree_consistency,
)
from tlog.notes import (
    Checkpoint,
    NoteError,
    NoteSignature,
    SignedCheckpoint,
    Subtree,
    VerifiedCheckpoint,
    VerifierKey,
    parse_unverified,
    verify_checkpoint,
)
from tlog.notes.codec import shown
from tlog.witness.errors import BadRequest, BadSignature, SizeConflict, Unprocessable


def parse(note: bytes) -> SignedCheckpoint:
    """Read a checkpoint; BadRequest when it is not one."""
    try:
        return parse_unverified(note)
    except NoteError as error:
        raise BadRequest(f"not a checkpoint: {error}") from None


def verify(signed: SignedCheckpoint, vkeys: Sequence[VerifierKey]) -> VerifiedCheckpoint:
    """Verify a checkpoint with keys that are trusted for its origin.

    Raises:
        BadSignature: as the specification says.
    """
    # SPEC tlog-witness: "The witness MUST verify the checkpoint signature against the public
    # key(s) it trusts for the checkpoint origin, and it MUST ignore signatures from unknown keys.
    # [...] The witness MUST respond with a "403 Forbidden" HTTP status code if either no
    # signature from a trusted key for the origin is present, or a signature line's key name and
    # ID match a trusted key but the signature itself fails to verify".
    try:
        return verify_checkpoint(signed, vkeys, origin=signed.checkpoint.origin)
    except NoteError as error:
        raise BadSignature(str(error)) from None


def verified_signatures(verified: VerifiedCheckpoint) -> list[NoteSignature]:
    """The signatures that were verified, one of each key."""
    labels = [vkey.label for vkey, _ in verified.signed_by]
    found = {signature.label: signature for signature in verified.note.signatures}
    return [found[label] for label in labels]


def check_old_size(old_size: int, checkpoint: Checkpoint) -> None:
    """Refuse to go back."""
    # SPEC tlog-witness: "The old size MUST be equal to or lower than the checkpoint size.
    # Otherwise, the witness MUST respond with a "400 Bad Request" HTTP status code."
    if old_size > checkpoint.size:
        raise BadRequest(
            f"the old size {old_size} is larger than the checkpoint's, {checkpoint.size}"
        )


def check_follows(
    stored: Checkpoint | None, checkpoint: Checkpoint, *, old_size: int, proof: Sequence[bytes]
) -> None:
    """Refuse a checkpoint that is not proven to follow from the latest cosigned one.

    Raises:
        SizeConflict, Unprocessable: as the specification says.
    """
    # SPEC tlog-witness: "The witness MUST check that the old size matches the size of the latest
    # checkpoint it cosigned for the checkpoint's origin (or zero if it never cosigned a
    # checkpoint for that origin). If it doesn't match, the witness MUST respond with a "409
    # Conflict" HTTP status code."
    size = 0 if stored is None else stored.size
    if old_size != size:
        raise SizeConflict(
            f"the old size is {old_size}, the latest checkpoint cosigned has {size}", size=size
        )
    # SPEC tlog-witness: "A checkpoint of size zero MUST have the root hash of the empty tree
    # [...]. Otherwise, the witness MUST respond with a "422 Unprocessable Entity""
    if checkpoint.size == 0 and checkpoint.root_hash != EMPTY_ROOT:
        raise Unprocessable("a checkpoint of size 0 without the root hash of the empty tree")
    # SPEC tlog-witness: "If the proof is not empty when the old size is zero, or if a Merkle
    # Consistency Proof doesn't verify, the witness MUST respond with a "422 Unprocessable Entity"
    # HTTP status code. If the old size matches the checkpoint size, the witness MUST check that
    # the root hashes are also identical. If they don't match, [...] "422 Unprocessable Entity""
    try:
        verify_consistency(
            old_size=size,
            new_size=checkpoint.size,
            old_root=EMPTY_ROOT if stored is None else stored.root_hash,
            new_root=checkpoint.root_hash,
            proof=proof,
        )
    except ProofError as error:
        raise Unprocessable(str(error)) from None


def check_subtree(checkpoint: Checkpoint, subtree: Subtree, proof: Sequence[bytes]) -> None:
    """Refuse a subtree that is not proven to be one of the checkpoint's tree.

    Raises:
        BadRequest, Unprocessable: as the specification says.
    """
    # SPEC tlog-witness: "The half-open interval `[start, end)` MUST be a valid subtree [...], and
    # end MUST be less than or equal to the checkpoint size. If the request is invalid according
    # to the rules above, the witness MUST respond with a "400 Bad Request" HTTP status code."
    if not is_subtree(subtree.start, subtree.end) or subtree.end > checkpoint.size:
        raise BadRequest(
            f"[{subtree.start}, {subtree.end}) is not a subtree of a tree of {checkpoint.size}"
        )
    # SPEC tlog-witness: "If the Merkle Consistency Proof doesn't verify, the witness MUST respond
    # with a "422 Unprocessable Entity" HTTP status code."
    try:
        verify_subtree_consistency(
            start=subtree.start,
            end=subtree.end,
            size=checkpoint.size,
            subtree_root=subtree.root_hash,
            root=checkpoint.root_hash,
            proof=proof,
        )
    except ProofError as error:
        raise Unprocessable(str(error)) from None


def parse_subtree(origin: str, start: int, end: int, root_hash: bytes) -> Subtree:
    """A subtree as it was asked for; BadRequest when it cannot be one."""
    try:
        return Subtree(origin, start, end, root_hash)
    except NoteError as error:
        raise BadRequest(shown(str(error))) from None
