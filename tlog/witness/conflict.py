"""Conflicts: proof that a log signed heads which no log that only appends could have signed.

A conflict is one text file that convinces somebody who has only the log's public keys. Three
kinds, each absolute:

    same-size       two heads of one size with different root hashes
    inconsistent    heads of sizes a < b, and a consistency proof from a to b that does lead to
                    the root hash of the second, but from another root than the log signed for a
    empty-tree      one head of size 0 without the root hash of the empty tree

A proof that does not verify is never evidence, because anybody can write one. The proof of
`inconsistent` verifies: what hashes to the second root determines the root of the first `a`
entries, and the log signed something else for them.

The format, in lines that each end in a newline, is a header and then the heads as signed notes
(SPEC signed-note), each after an empty line:

    tlog-conflict@v1
    <kind>
    root <base64>       inconsistent only: the root of the first a entries of the second head
    <base64>            inconsistent only: the hashes of the proof, one a line

Heads are ordered: by size, and of one size by root hash. A checkpoint has no empty line, so a
note has exactly one, and empty lines take the file apart.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MerkleError,
    ProofError,
    consistency_ranges,
    node_hash,
    verify_consistency,
)
from tlog.notes import (
    MAX_NOTE_SIZE,
    Algorithm,
    Checkpoint,
    Note,
    NoteError,
    VerifierKey,
    open_checkpoint,
    parse_unverified,
)
from tlog.notes.codec import decode_hash, decode_utf8, encode_base64, shown
from tlog.witness import rules
from tlog.witness.errors import WitnessError

HEADER: Final = "tlog-conflict@v1"
MAX_PROOF: Final = 64
MAX_CONFLICT_SIZE: Final = 2 * MAX_NOTE_SIZE + 4096
"""Bytes of a conflict: two notes, and a header of at most 67 lines of 45 bytes."""

_ROOT: Final = "root "


class ConflictError(WitnessError):
    """What is given is no conflict, or not proven to be one. The message says why."""


class ConflictKind(StrEnum):
    """What contradicts what."""

    SAME_SIZE = "same-size"
    INCONSISTENT = "inconsistent"
    EMPTY_TREE = "empty-tree"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict, well-formed. Its signatures and proof are claimed until `verify_conflict`.

    Attributes:
        kind: which of the three.
        heads: signed notes: two in their order, or the one of size 0.
        root: `inconsistent` only: the root hash of as many first entries of the second head as
            the first head has.
        proof: `inconsistent` only: the consistency proof from there to the second head.
    """

    kind: ConflictKind
    heads: tuple[bytes, ...]
    root: bytes | None = None
    proof: tuple[bytes, ...] = ()

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """What the heads say."""
        return tuple(_parse_head(head) for head in self.heads)

    @property
    def origin(self) -> str:
        """Of the log that signed the heads."""
        return self.checkpoints()[0].origin

    @property
    def digest(self) -> str:
        """Names what is contradicted, 32 hex digits: signatures and proof do not change it."""
        lines = [self.kind.value]
        for head in self.checkpoints():
            lines += (head.origin, str(head.size), encode_base64(head.root_hash))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @property
    def summary(self) -> str:
        """One line for people."""
        first, *rest = self.checkpoints()
        said = f"size {first.size} with root {encode_base64(first.root_hash)}"
        who = f"the log {shown(first.origin)} signed"
        if self.kind is ConflictKind.EMPTY_TREE:
            return f"{who} {said}, which is not the root of an empty tree"
        second = rest[0]
        other = f"size {second.size} with root {encode_base64(second.root_hash)}"
        if self.root is None:
            return f"{who} {said}, and also {other}: a split view"
        return (
            f"{who} {said}, and also {other}, of which the first {first.size} entries have the "
            f"root {encode_base64(self.root)}: history was changed"
        )

    def encode(self) -> bytes:
        """The file; `parse_conflict` is its exact inverse."""
        lines = [HEADER, self.kind.value]
        if self.root is not None:
            lines.append(_ROOT + encode_base64(self.root))
            lines += map(encode_base64, self.proof)
        return b"".join(("\n".join(lines).encode(), b"\n", *(b"\n" + head for head in self.heads)))

    @classmethod
    def between(cls, first: bytes, second: bytes) -> Self:
        """The conflict of two heads that contradict each other whatever a proof says.

        Args:
            first: a signed note.
            second: another.

        Raises:
            ConflictError: they do not contradict each other.
        """
        for head in (first, second):
            checkpoint = _parse_head(head)
            if checkpoint.size == 0 and checkpoint.root_hash != EMPTY_ROOT:
                return cls._checked(ConflictKind.EMPTY_TREE, (head,))
        heads = tuple(sorted((first, second), key=lambda head: _parse_head(head).root_hash))
        return cls._checked(ConflictKind.SAME_SIZE, heads)

    @classmethod
    def inconsistent(
        cls, older: bytes, newer: bytes, *, root: bytes, proof: Sequence[bytes]
    ) -> Self:
        """The conflict of two heads and a proof that leads to the newer from another `root`.

        Raises:
            ConflictError: it does not, or the root is that of the older head.
        """
        return cls._checked(ConflictKind.INCONSISTENT, (older, newer), root, tuple(proof))

    @classmethod
    def _checked(
        cls,
        kind: ConflictKind,
        heads: tuple[bytes, ...],
        root: bytes | None = None,
        proof: tuple[bytes, ...] = (),
    ) -> Self:
        conflict = cls(kind, heads, root, proof)
        _check_contradiction(conflict)
        return conflict


def parse_conflict(data: bytes) -> Conflict:
    """Read a conflict and check that its heads contradict each other. Nothing says who signed it.

    Raises:
        ConflictError: malformed, too large, or no contradiction.
    """
    if len(data) > MAX_CONFLICT_SIZE:
        raise ConflictError(f"a conflict of {len(data)} bytes, the limit is {MAX_CONFLICT_SIZE}")
    # At most two notes, each of a text and its signatures.
    header, *parts = data.split(b"\n\n", 5)
    heads = []
    for text, signatures in zip(parts[::2], parts[1::2], strict=False):
        heads.append(text + b"\n\n" + signatures + b"\n")
    if len(parts) not in (2, 4):
        raise ConflictError("not a conflict: it needs a header, then one or two signed notes")
    heads[-1] = heads[-1][:-1]  # nothing follows it
    try:
        first, *lines = decode_utf8(header, "header").split("\n")
        if first != HEADER or not lines:
            raise ConflictError(f"not a conflict: line 1 is {shown(first)}, not {HEADER}")
        name, *hashes = lines
        if name not in set(ConflictKind):
            raise ConflictError(f"line 2: {shown(name)} is not a kind of conflict")
        root, proof = _parse_proof(hashes)
    except NoteError as error:
        raise ConflictError(f"not a conflict: {error}") from None
    conflict = Conflict(ConflictKind(name), tuple(heads), root, proof)
    _check_contradiction(conflict)
    return conflict


def verify_conflict(
    data: bytes, vkeys: Sequence[VerifierKey], *, origin: str | None = None
) -> Conflict:
    """Verify a conflict offline, with nothing but the keys of the log.

    Args:
        data: the file.
        vkeys: of the log.
        origin: of the log, if its keys are not named so.

    Returns:
        The conflict with the signatures of `vkeys` only.

    Raises:
        ConflictError: it is not proven; the message says what is wrong.
    """
    conflict = parse_conflict(data)
    for vkey in vkeys:
        if vkey.algorithm is Algorithm.ED25519_COSIGNATURE:
            raise ConflictError(f"{vkey.label} is the key of a witness: give the log's keys")
    heads = []
    for number, head in enumerate(conflict.heads, 1):
        try:
            verified = open_checkpoint(head, vkeys, origin=origin)
        except NoteError as error:
            raise ConflictError(f"head {number} is not signed by the log: {error}") from None
        signatures = tuple(rules.verified_signatures(verified))
        heads.append(Note(verified.checkpoint.body(), signatures).encode())
    return Conflict(conflict.kind, tuple(heads), conflict.root, conflict.proof)


def prefix_root(prefix: int, old_size: int, new_size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root hash of the first `prefix` entries, as a consistency proof between sizes shows it.

    It is worth what the proof is: nothing until that, or another one, was verified with it.

    Returns:
        None when the proof does not show it, or is not one between these sizes.
    """
    try:
        ranges = consistency_ranges(old_size, new_size)
    except MerkleError:
        return None
    if len(ranges) != len(proof) or any(len(element) != HASH_SIZE for element in proof):
        return None
    known = dict(zip(ranges, proof, strict=True))

    def root_of(begin: int, end: int) -> bytes | None:
        if (found := known.get((begin, end))) is not None or end - begin == 1:
            return found
        # RFC 9162 2.1.1: "k be the largest power of two smaller than n"
        middle = begin + (1 << (end - begin - 1).bit_length() - 1)
        # What is not shown at the left is not asked for at the right: a descent, not a search.
        if (left := root_of(begin, middle)) is None:
            return None
        right = root_of(middle, end)
        return None if right is None else node_hash(left, right)

    return root_of(0, prefix)


def _parse_proof(lines: Sequence[str]) -> tuple[bytes | None, tuple[bytes, ...]]:
    if not lines:
        return None, ()
    if len(lines) > MAX_PROOF + 1:
        raise ConflictError(f"a proof of {len(lines) - 1} hashes, the limit is {MAX_PROOF}")
    if not lines[0].startswith(_ROOT):
        raise ConflictError(f"line 3: {shown(lines[0])} is not `root <base64>`")
    return decode_hash(lines[0].removeprefix(_ROOT)), tuple(map(decode_hash, lines[1:]))


def _parse_head(head: bytes) -> Checkpoint:
    try:
        return parse_unverified(head).checkpoint
    except NoteError as error:
        raise ConflictError(f"not a signed head: {error}") from None


def _check_contradiction(conflict: Conflict) -> None:
    heads = conflict.checkpoints()
    inconsistent = conflict.kind is ConflictKind.INCONSISTENT
    if len({head.origin for head in heads}) != 1:
        raise ConflictError("the heads are of different logs")
    if len(heads) != (1 if conflict.kind is ConflictKind.EMPTY_TREE else 2):
        raise ConflictError(f"{len(heads)} heads do not make a conflict of {conflict.kind}")
    if inconsistent != (conflict.root is not None):
        raise ConflictError("a root and a proof belong to `inconsistent`, and to nothing else")
    if conflict.kind is ConflictKind.EMPTY_TREE:
        if heads[0].size != 0 or heads[0].root_hash == EMPTY_ROOT:
            raise ConflictError("the head is not of size 0 with another root than the empty tree's")
        return
    first, second = heads
    if conflict.root is None:
        if first.size != second.size:
            raise ConflictError(f"the heads have different sizes, {first.size} and {second.size}")
        if first.root_hash >= second.root_hash:
            raise ConflictError("the root hashes are the same, or not in order")
        return
    # From size 0, and between equal sizes, a proof shows nothing.
    if not 0 < first.size < second.size:
        raise ConflictError(f"sizes {first.size} and {second.size} are not increasing from 1")
    if conflict.root == first.root_hash:
        raise ConflictError("the proof leads from the root that the log signed: no contradiction")
    try:
        verify_consistency(
            old_size=first.size,
            new_size=second.size,
            old_root=conflict.root,
            new_root=second.root_hash,
            proof=conflict.proof,
        )
    except ProofError as error:
        raise ConflictError(f"the proof proves nothing: {error}") from None
