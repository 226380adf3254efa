"""The rules by which answers are believed: no I/O, no clock, nothing to trust but the vkeys.

Everything that a client is told passes through one of these functions. They take what strangers
send, return what is proven, and raise `VerificationError` naming the check otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tlog.client.errors import TrustError, VerificationError, invalid
from tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_ENTRY_SIZE,
    TILE_WIDTH,
    MerkleError,
    leaf_hashes,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)
from tlog.merkle.hashing import fold
from tlog.notes import (
    Algorithm,
    Checkpoint,
    NoteError,
    TlogProof,
    VerifiedCheckpoint,
    VerifierKey,
    open_checkpoint,
    parse_proof,
)


@dataclass(frozen=True, slots=True)
class Head:
    """A tree head whose signatures verified: the checkpoint, and the signed note that carries it.

    Two heads are equal when they are of the same tree, however often it was signed. `signed_by` are
    the keys that vouch for it, witnesses' too, each with the time it says, in seconds since the
    Epoch (None for a plain Ed25519 signature).
    """

    checkpoint: Checkpoint
    note: bytes = field(compare=False, repr=False)
    signed_by: tuple[tuple[VerifierKey, int | None], ...] = field(
        default=(), compare=False, repr=False
    )

    @property
    def origin(self) -> str:
        """The log's identity."""
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self.checkpoint.size

    @property
    def root_hash(self) -> bytes:
        """RFC 6962 Merkle Tree Hash, 32 bytes."""
        return self.checkpoint.root_hash


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A verified inclusion proof: leaf `index` of the tree of `tree_size` leaves has `leaf_hash`.

    `head` is the head it leads to; None when `tree_size` is not that of the last verified head,
    because then it is proven by way of a later one.
    """

    index: int
    tree_size: int
    leaf_hash: bytes
    hashes: tuple[bytes, ...] = field(repr=False)
    head: Head | None

    @property
    def proof(self) -> TlogProof | None:
        """The same as a c2sp.org/tlog-proof, which verifies offline; None without a head."""
        if self.head is None:
            return None
        return TlogProof(index=self.index, hashes=self.hashes, checkpoint=self.head.note)


def parse_vkeys(vkeys: Sequence[str | VerifierKey]) -> tuple[VerifierKey, ...]:
    """The verifier keys of one log, all of one name: its origin.

    Raises:
        TrustError: none, not vkeys, those of several logs, or a witness's.
    """
    try:
        parsed = tuple(
            vkey if isinstance(vkey, VerifierKey) else VerifierKey.parse(vkey) for vkey in vkeys
        )
    except NoteError as error:
        raise TrustError(f"not a verifier key: {error}") from None
    if not parsed:
        raise TrustError("no verifier keys: give those that `tlog init` printed")
    for vkey in parsed:
        if vkey.name != parsed[0].name:
            raise TrustError(
                f"keys of two logs, {parsed[0].name!r} and {vkey.name!r}: give those of one"
            )
        if vkey.algorithm is Algorithm.ED25519_COSIGNATURE:
            raise TrustError(f"{vkey.label} is a witness's key: give the log's own")
    return parsed


def open_head(note: bytes, vkeys: Sequence[VerifierKey]) -> Head:
    """Verify the signatures of a checkpoint: every one of `vkeys` must have signed it.

    One would be enough by the specification; but a log signs with two algorithms so that it still
    stands when one of them falls, and that helps only whoever insists on both. To depend on one
    key, pin that one.
    """
    # SPEC tlog-checkpoint: "The log's key name in its signature line SHOULD match the origin"; our
    # logs always do.
    try:
        verified = open_checkpoint(note, vkeys, origin=vkeys[0].name)
    except NoteError as error:
        raise VerificationError("signature", f"{error}") from None
    signed_by = {vkey for vkey, _ in verified.signed_by}
    if missing := [vkey.label for vkey in vkeys if vkey not in signed_by]:
        raise VerificationError(
            "signature", f"{' and '.join(missing)} has not signed the checkpoint, but must have"
        )
    return verified_head(verified, note)


def verified_head(verified: VerifiedCheckpoint, note: bytes) -> Head:
    """The head of a checkpoint whose signatures verified."""
    head = Head(verified.checkpoint, note, verified.signed_by)
    if head.size == 0 and head.root_hash != EMPTY_ROOT:
        raise VerificationError(
            "consistency", "the log signed a root hash for size 0 that is not the empty tree's"
        )
    return head


def check_follows(old: Head, new: Head, proof: Sequence[bytes]) -> None:
    """The tree of `old`, not larger than `new`, is the beginning of the tree of `new`.

    RFC 6962 section 2.1.2; between equal sizes the roots must be equal and the proof is empty.
    """
    evidence = (old.note, new.note)
    if old.origin != new.origin:
        raise VerificationError(
            "signature", f"heads of two logs, {old.origin!r} and {new.origin!r}", evidence=evidence
        )
    if old.size == new.size and old.root_hash != new.root_hash:
        raise VerificationError(
            "fork",
            f"the log signed two trees of size {new.size}, {old.root_hash.hex()} and "
            f"{new.root_hash.hex()}: a split view. Keep the evidence and show it to its auditors",
            evidence=evidence,
        )
    try:
        verify_consistency(
            old_size=old.size,
            new_size=new.size,
            old_root=old.root_hash,
            new_root=new.root_hash,
            proof=proof,
        )
    except MerkleError as error:
        raise VerificationError(
            "consistency",
            f"the head of size {new.size} is not proven to follow from that of size {old.size}: "
            f"{error}",
            evidence=evidence,
        ) from None


def check_inclusion(
    head: Head, *, index: int, leaf_hash: bytes, hashes: Sequence[bytes]
) -> Inclusion:
    """Leaf `index` of the tree of `head` has this leaf hash (RFC 6962 section 2.1.1)."""
    try:
        verify_inclusion(
            index=index,
            size=head.size,
            leaf_hash=leaf_hash,
            root_hash=head.root_hash,
            proof=hashes,
        )
    except MerkleError as error:
        raise VerificationError("inclusion", str(error)) from None
    return Inclusion(index, head.size, leaf_hash, tuple(hashes), head)


def claimed_root(*, index: int, size: int, leaf_hash: bytes, hashes: Sequence[bytes]) -> bytes:
    """The root of a tree older than the head, as an inclusion proof in it claims.

    Nobody may have signed that size. But a root that `check_past` proves to be the past of a signed
    head is the one and only root of that size, and so the inclusion proof that led to it holds.
    """
    try:
        return root_from_inclusion(index, size, leaf_hash, hashes)
    except MerkleError as error:
        raise VerificationError("inclusion", str(error)) from None


def check_past(head: Head, *, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """The first `size` leaves of the tree of `head` have this root hash."""
    try:
        verify_consistency(
            old_size=size, new_size=head.size, old_root=root, new_root=head.root_hash, proof=proof
        )
    except MerkleError as error:
        raise VerificationError(
            "consistency", f"the proof at size {size} does not lead to the signed head: {error}"
        ) from None


def check_bundle(
    head: Head, *, first: int, expected: int, entries: Sequence[bytes], proof: Sequence[bytes]
) -> None:
    """These are the entries of the whole bundle that begins at index `expected`.

    Their hashes form a subtree; draft-ietf-plants-merkle-tree-certs section 4.4 proves it part of
    the tree of `head`.
    """
    if first != expected:
        raise VerificationError("bundle", f"a bundle begins at {first}, the next is at {expected}")
    count = min(TILE_WIDTH, head.size - expected)
    if len(entries) != count:
        raise VerificationError(
            "bundle", f"the bundle at {expected} has {len(entries)} entries, it must have {count}"
        )
    if (longest := max(map(len, entries))) > MAX_ENTRY_SIZE:
        raise VerificationError("bundle", f"an entry of {longest} bytes: {MAX_ENTRY_SIZE} at most")
    try:
        verify_subtree_consistency(
            start=expected,
            end=expected + count,
            size=head.size,
            subtree_root=fold(leaf_hashes(entries)),
            root=head.root_hash,
            proof=proof,
        )
    except MerkleError as error:
        raise VerificationError(
            "bundle", f"the entries of the bundle at {expected} are not in the tree: {error}"
        ) from None


def check_echo(what: str, answered: int, asked: int) -> None:
    """The answer is to the question that was asked."""
    if answered != asked:
        raise VerificationError("echo", f"the answer is for {what} {answered}, asked was {asked}")


def open_proof(data: bytes) -> TlogProof:
    """Parse a c2sp.org/tlog-proof that a server sent; nothing in it is verified yet."""
    try:
        return parse_proof(data)
    except NoteError as error:
        raise VerificationError("message", f"not a tlog-proof: {error}") from None


def check_entry(entry: bytes, field: str = "entry") -> bytes:
    """Refuse an entry that no log takes, before it is sent."""
    if not isinstance(entry, bytes):
        raise TypeError(f"an entry is bytes, not {type(entry).__name__}")
    if len(entry) > MAX_ENTRY_SIZE:
        raise invalid(
            field,
            f"the entry is {len(entry)} bytes long, at most {MAX_ENTRY_SIZE} fit: append a hash of "
            "it, or split it",
        )
    return entry


def check_leaf_hash(leaf_hash: bytes) -> bytes:
    """Refuse what cannot be a leaf hash, before it is sent."""
    if len(leaf_hash) != HASH_SIZE:
        raise invalid("leaf_hash", f"a leaf hash has {HASH_SIZE} bytes, this one {len(leaf_hash)}")
    return leaf_hash
