"""Verification of proofs, with nothing to trust but the roots (RFC 9162 section 2.1).

These functions take what strangers send. They return nothing when a proof holds, and raise
ProofError otherwise; lengths are bounded before anything is hashed.
"""

from collections.abc import Sequence
from typing import Final

from tlog.merkle.errors import ProofError
from tlog.merkle.hashing import EMPTY_ROOT, HASH_SIZE, node_hash
from tlog.merkle.proofs import is_subtree
from tlog.merkle.tiles import MAX_TREE_SIZE

# A tree of size below 2**63 has at most 63 levels above its leaves; a consistency proof may
# begin with one hash more, that of its seed.
_MAX_PROOF: Final = 64


def verify_inclusion(
    *, index: int, size: int, leaf_hash: bytes, root_hash: bytes, proof: Sequence[bytes]
) -> None:
    """Check that leaf `index` of the tree with this size and root has this leaf hash.

    RFC 9162 section 2.1.3.2.

    Raises:
        ProofError: it is not proven.
    """
    _check_hash("root hash", root_hash)
    if root_from_inclusion(index, size, leaf_hash, proof) != root_hash:
        raise ProofError(
            f"the inclusion proof of leaf {index} does not lead to the root hash of size {size}"
        )


def root_from_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> bytes:
    """The root hash of the tree of `size` leaves that an inclusion proof leads to.

    RFC 9162 section 2.1.3.2, up to the comparison. It proves nothing until the result is
    compared with a root hash that is trusted.

    Raises:
        ProofError: the index is not in the tree, or the proof is malformed for it.
    """
    _check_sizes(size, "leaf index", index, size - 1)
    _check_hash("leaf hash", leaf_hash)
    _check_proof(proof)
    first, second = index, size - 1
    root = leaf_hash
    for element in proof:
        # RFC 9162 2.1.3.2: "If sn is 0, then stop the iteration and fail the proof verification."
        if not second:
            raise ProofError(f"the inclusion proof of leaf {index} in size {size} is too long")
        if first & 1 or first == second:
            root = node_hash(element, root)
            # A ragged right edge: skip the levels at which this subtree has no sibling.
            shift = _trailing_zeros(first)
            first >>= shift
            second >>= shift
        else:
            root = node_hash(root, element)
        first >>= 1
        second >>= 1
    if second:
        raise ProofError(f"the inclusion proof of leaf {index} in size {size} is too short")
    return root


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree is an extension of the old one, whose leaves are its first leaves.

    RFC 9162 section 2.1.4.2. From size 0 and between equal sizes there is nothing to prove: the
    proof must be empty, and the root hash of size 0 must be EMPTY_ROOT.

    Raises:
        ProofError: it is not proven.
    """
    _check_sizes(new_size, "old size", old_size, new_size)
    _check_hash("old root hash", old_root)
    _check_hash("new root hash", new_root)
    _check_proof(proof)
    if old_size not in (0, new_size):
        verify_subtree_consistency(
            start=0, end=old_size, size=new_size, subtree_root=old_root, root=new_root, proof=proof
        )
        return
    if proof:
        raise ProofError(
            f"the consistency proof from size {old_size} to {new_size} must be empty, but has"
            f" {len(proof)} hashes"
        )
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ProofError("the old root hash is not that of the empty tree, although its size is 0")
    if old_size == new_size and old_root != new_root:
        raise ProofError(f"two different root hashes for one tree size, {new_size}: a split view")


def verify_subtree_consistency(
    *,
    start: int,
    end: int,
    size: int,
    subtree_root: bytes,
    root: bytes,
    proof: Sequence[bytes],
) -> None:
    """Check that the leaves [start, end) of the tree with this root have this subtree root.

    draft-ietf-plants-merkle-tree-certs section 4.4; with start = 0 it is RFC 9162 section
    2.1.4.2. One walk from the subtree's right edge up to the root computes both hashes.

    Raises:
        ProofError: it is not proven, or [start, end) is not a valid subtree of the tree.
    """
    _check_sizes(size, "subtree end", end, size)
    if not is_subtree(start, end):
        raise ProofError(f"[{start}, {end}) is not a valid subtree")
    _check_hash("subtree root hash", subtree_root)
    _check_hash("root hash", root)
    _check_proof(proof)

    # The first and last node of the subtree, and the last of the tree, level by level.
    first, last, tree_last = start, end - 1, size - 1
    # Up to the seed: the largest subtree that ends where [start, end) does and lies inside it.
    if last == tree_last:
        shift = (first ^ last).bit_length()
    else:
        shift = min((first ^ last).bit_length(), _trailing_zeros(~last))
    first, last, tree_last = first >> shift, last >> shift, tree_last >> shift

    elements = iter(proof)
    # When the seed is the whole subtree its hash is at hand, else the proof begins with it.
    seed = subtree_root if first == last else next(elements, None)
    if seed is None:
        raise ProofError(f"the consistency proof of [{start}, {end}) in size {size} is too short")
    subtree_hash = tree_hash = seed
    for element in elements:
        if not tree_last:
            raise ProofError(
                f"the consistency proof of [{start}, {end}) in size {size} is too long"
            )
        if last & 1 or last == tree_last:
            if first < last:
                subtree_hash = node_hash(element, subtree_hash)
            tree_hash = node_hash(element, tree_hash)
            shift = _trailing_zeros(last)
            first, last, tree_last = first >> shift, last >> shift, tree_last >> shift
        else:
            tree_hash = node_hash(tree_hash, element)
        first, last, tree_last = first >> 1, last >> 1, tree_last >> 1
    if tree_last:
        raise ProofError(f"the consistency proof of [{start}, {end}) in size {size} is too short")
    if subtree_hash != subtree_root:
        raise ProofError(f"the consistency proof does not lead to the hash of [{start}, {end})")
    if tree_hash != root:
        raise ProofError(f"the consistency proof does not lead to the root hash of size {size}")


def _trailing_zeros(number: int) -> int:
    """The number of zero bits below the lowest one bit; 0 for 0."""
    return (number & -number).bit_length() - 1 if number else 0


def _check_sizes(size: int, what: str, number: int, last: int) -> None:
    if not 0 <= size <= MAX_TREE_SIZE:
        raise ProofError(f"tree size {size} is not in 0..2**63 - 1")
    if not 0 <= number <= last:
        raise ProofError(f"{what} {number} is not in 0..{last}, in a tree of size {size}")


def _check_hash(what: str, value: bytes) -> None:
    if len(value) != HASH_SIZE:
        raise ProofError(f"the {what} has {len(value)} bytes: expected {HASH_SIZE}")


def _check_proof(proof: Sequence[bytes]) -> None:
    if len(proof) > _MAX_PROOF:
        raise ProofError(f"the proof has {len(proof)} hashes: the limit is {_MAX_PROOF}")
    for number, element in enumerate(proof):
        _check_hash(f"proof element {number}", element)
