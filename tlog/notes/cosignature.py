"""Timestamped cosignatures of checkpoints and subtrees. SPEC tlog-cosignature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlog.merkle.hashing import HASH_SIZE
from tlog.notes.codec import check_integer
from tlog.notes.errors import NoteError
from tlog.notes.keys import Algorithm, Signer, VerifierKey, check_origin
from tlog.notes.note import NoteSignature

if TYPE_CHECKING:  # a log signs its checkpoint with a cosignature, so that module imports this one
    from tlog.notes.checkpoint import Checkpoint

_TIMESTAMP_SIZE = 8


@dataclass(frozen=True, slots=True)
class Subtree:
    """The leaves [start, end) of a log, and the root hash of the tree over them."""

    origin: str
    start: int
    end: int
    root_hash: bytes

    def __post_init__(self) -> None:
        check_origin(self.origin)
        check_integer(self.end, "subtree end")
        # Only the empty tree of a fresh log is an empty range.
        if not (0 <= self.start < self.end or self.start == self.end == 0):
            raise NoteError(f"the subtree [{self.start}, {self.end}) is empty or reversed")
        if len(self.root_hash) != HASH_SIZE:
            raise NoteError(f"a root hash of {len(self.root_hash)} bytes, not {HASH_SIZE}")


def cosign(checkpoint: Checkpoint, signer: Signer, *, timestamp: int) -> NoteSignature:
    """Cosign the tree of `checkpoint` with an Ed25519 cosignature (0x04) or ML-DSA-44 (0x06) key.

    The caller MUST have verified that the tree is consistent with every tree it cosigned before,
    and that it is the largest of them, at `timestamp` (seconds since the Epoch).
    """
    # SPEC tlog-witness: "The cosignature MUST NOT omit the timestamp, i.e. the timestamp MUST NOT
    # be zero."
    if timestamp == 0:
        raise NoteError("a checkpoint is cosigned at a time: the timestamp must not be 0")
    return _sign(signer, timestamp, _message(checkpoint, signer.vkey, timestamp))


def verify_cosignature(checkpoint: Checkpoint, vkey: VerifierKey, signature: NoteSignature) -> int:
    """Verify a cosignature by `vkey` and give its timestamp.

    The timestamp is in seconds since the Epoch; 0, which only ML-DSA-44 cosigners may use, means
    that this need not be the largest tree the cosigner had seen.
    """
    timestamp, bare = _split(vkey, signature)
    if not vkey.verifies(bare, _message(checkpoint, vkey, timestamp)):
        raise NoteError(f"the cosignature of {vkey.label} does not verify")
    return timestamp


def cosign_subtree(subtree: Subtree, signer: Signer, *, timestamp: int = 0) -> NoteSignature:
    """Cosign a subtree with an ML-DSA-44 (0x06) key.

    The caller MUST have verified that it is consistent with every tree it cosigned before.
    """
    return _sign(signer, timestamp, _subtree_message(subtree, signer.vkey, timestamp))


def verify_subtree_cosignature(
    subtree: Subtree, vkey: VerifierKey, signature: NoteSignature
) -> int:
    """Verify what `cosign_subtree` made and give its timestamp (0: none)."""
    timestamp, bare = _split(vkey, signature)
    if not vkey.verifies(bare, _subtree_message(subtree, vkey, timestamp)):
        raise NoteError(f"the subtree cosignature of {vkey.label} does not verify")
    return timestamp


def _message(checkpoint: Checkpoint, vkey: VerifierKey, timestamp: int) -> bytes:
    check_integer(timestamp, "timestamp")
    if vkey.algorithm is Algorithm.ED25519_COSIGNATURE:
        # SPEC tlog-cosignature: "two newline (U+000A) terminated lines (one header line and one
        # timestamp line) followed by the whole note body of the cosigned checkpoint".
        return f"cosignature/v1\ntime {timestamp}\n{checkpoint.body()}".encode()
    # SPEC tlog-cosignature: "If signing a checkpoint, it [start] MUST be zero", end is its size.
    tree = Subtree(checkpoint.origin, 0, checkpoint.size, checkpoint.root_hash)
    return _subtree_message(tree, vkey, timestamp)


def _subtree_message(subtree: Subtree, vkey: VerifierKey, timestamp: int) -> bytes:
    # SPEC tlog-cosignature: struct cosigned_message, serialized as in RFC 8446 section 3.
    if vkey.algorithm is not Algorithm.MLDSA44:
        raise NoteError(f"{vkey.label} is a {vkey.algorithm.name} key, which cannot sign this")
    check_integer(timestamp, "timestamp")
    if subtree.start and timestamp:
        # SPEC tlog-cosignature: "If start is not zero, timestamp MUST be zero."
        raise NoteError("the timestamp of a subtree that does not start at 0 must be 0")
    cosigner, origin = vkey.name.encode(), subtree.origin.encode()
    return b"".join(
        (
            b"subtree/v1\n\0",
            bytes([len(cosigner)]) + cosigner,
            timestamp.to_bytes(8, "big"),
            bytes([len(origin)]) + origin,
            subtree.start.to_bytes(8, "big"),
            subtree.end.to_bytes(8, "big"),
            subtree.root_hash,
        )
    )


def _sign(signer: Signer, timestamp: int, message: bytes) -> NoteSignature:
    stamped = timestamp.to_bytes(_TIMESTAMP_SIZE, "big") + signer.sign(message)
    return NoteSignature(signer.vkey.name, signer.vkey.key_id, stamped)


def _split(vkey: VerifierKey, signature: NoteSignature) -> tuple[int, bytes]:
    if (signature.name, signature.key_id) != (vkey.name, vkey.key_id):
        raise NoteError(f"the signature is of {signature.label}, not of {vkey.label}")
    stamp, bare = signature.signature[:_TIMESTAMP_SIZE], signature.signature[_TIMESTAMP_SIZE:]
    if len(bare) != vkey.algorithm.signature_size:
        raise NoteError(
            f"the cosignature of {vkey.label} has {len(signature.signature)} bytes, "
            f"not {_TIMESTAMP_SIZE + vkey.algorithm.signature_size}"
        )
    return int.from_bytes(stamp, "big"), bare
