"""Verification: every true proof holds, and nothing else does."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merkle.trees import leaves, mth, path, subproof, subtree_subproof, subtrees
from tlog.merkle import (
    EMPTY_ROOT,
    MerkleError,
    ProofError,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)

Proof = list[bytes]
ROOTS = [mth(leaves(size)) for size in range(71)]


def inclusion_holds(index: int, size: int, leaf: bytes, root: bytes, proof: Proof) -> bool:
    try:
        verify_inclusion(index=index, size=size, leaf_hash=leaf, root_hash=root, proof=proof)
    except ProofError:
        return False
    return True


def consistency_holds(old: int, new: int, old_root: bytes, new_root: bytes, proof: Proof) -> bool:
    try:
        verify_consistency(
            old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof
        )
    except ProofError:
        return False
    return True


def subtree_holds(
    start: int, end: int, size: int, subtree_root: bytes, root: bytes, proof: Proof
) -> bool:
    try:
        verify_subtree_consistency(
            start=start, end=end, size=size, subtree_root=subtree_root, root=root, proof=proof
        )
    except ProofError:
        return False
    return True


def flips(value: bytes) -> Iterator[bytes]:
    """The value with each of its bits flipped."""
    for bit in range(8 * len(value)):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def reshaped(proof: Proof) -> Iterator[Proof]:
    """The proof cut, extended, and with two neighbours swapped, at every place."""
    for at in range(len(proof)):
        yield proof[:at]
        yield proof[:at] + proof[at + 1 :]
        yield [*proof[:at], proof[at], *proof[at:]]
    for at in range(len(proof) + 1):
        yield [*proof[:at], bytes(32), *proof[at:]]
    for at in range(len(proof) - 1):
        yield [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]


def damaged(proof: Proof) -> Iterator[Proof]:
    """The proof reshaped, with one bit flipped in each element, and with elements of no hash."""
    yield from reshaped(proof)
    for at, element in enumerate(proof):
        bad = bytearray(element)
        bad[at * 7 % 32] ^= 1 << at % 8
        for replacement in (bytes(bad), element[:31], element + b"\0", b"", element * 2):
            yield [*proof[:at], replacement, *proof[at + 1 :]]


class TestInclusion:
    @pytest.mark.parametrize("size", range(1, 71))
    def test_every_leaf_of_every_size(self, size: int) -> None:
        for index in range(size):
            proof = path(index, leaves(size))
            leaf, root = leaves(size)[index], ROOTS[size]
            assert root_from_inclusion(index, size, leaf, proof) == root
            assert inclusion_holds(index, size, leaf, root, proof)
            for bad in damaged(proof):
                assert not inclusion_holds(index, size, leaf, root, bad)

    @pytest.mark.parametrize("size", range(1, 30))
    def test_no_other_index_and_no_other_leaf(self, size: int) -> None:
        for index in range(size):
            proof = path(index, leaves(size))
            for other in range(-1, size + 2):
                holds = inclusion_holds(other, size, leaves(size)[index], ROOTS[size], proof)
                assert holds == (other == index)
                if 0 <= other < size and other != index:
                    leaf = leaves(size)[other]
                    assert not inclusion_holds(index, size, leaf, ROOTS[size], proof)

    @pytest.mark.parametrize(("index", "size"), [(0, 1), (5, 13), (12, 13), (7, 8)])
    def test_every_bit(self, index: int, size: int) -> None:
        proof, leaf, root = path(index, leaves(size)), leaves(size)[index], ROOTS[size]
        for bad in flips(leaf):
            assert not inclusion_holds(index, size, bad, root, proof)
        for bad in flips(root):
            assert not inclusion_holds(index, size, leaf, bad, proof)
        for at in range(len(proof)):
            for bad in flips(proof[at]):
                damage = [*proof[:at], bad, *proof[at + 1 :]]
                assert not inclusion_holds(index, size, leaf, root, damage)

    @pytest.mark.parametrize(
        ("index", "size", "message"),
        [
            (0, 0, "not in 0"),
            (-1, 3, "leaf index -1"),
            (3, 3, "leaf index 3 is not in 0..2"),
            (0, -1, "tree size"),
            (0, 2**63, "tree size"),
        ],
    )
    def test_bounds(self, index: int, size: int, message: str) -> None:
        with pytest.raises(ProofError, match=message):
            root_from_inclusion(index, size, bytes(32), [])

    @pytest.mark.parametrize("length", [0, 31, 33, 64])
    def test_hashes_are_32_bytes(self, length: int) -> None:
        with pytest.raises(ProofError, match=f"leaf hash has {length} bytes"):
            root_from_inclusion(0, 1, bytes(length), [])
        with pytest.raises(ProofError, match=f"root hash has {length} bytes"):
            verify_inclusion(
                index=0, size=1, leaf_hash=bytes(32), root_hash=bytes(length), proof=[]
            )

    def test_bytes_do_not_move_between_neighbours(self) -> None:
        """H(leaf || sibling) has no memory of where one ends: only the lengths say."""
        (sibling,), leaf = path(0, leaves(2)), leaves(2)[0]
        assert not inclusion_holds(0, 2, leaf + sibling[:1], ROOTS[2], [sibling[1:]])

    def test_the_tree_of_one_leaf(self) -> None:
        assert root_from_inclusion(0, 1, b"\7" * 32, []) == b"\7" * 32

    def test_63_levels(self) -> None:
        proof = [bytes([level]) * 32 for level in range(63)]
        assert len(root_from_inclusion(0, 2**63 - 1, bytes(32), proof)) == 32
        for bad in (proof[:-1], [*proof, bytes(32)], proof * 1000):
            with pytest.raises(ProofError, match=r"too short|too long|limit is 64"):
                root_from_inclusion(0, 2**63 - 1, bytes(32), bad)

    @given(
        index=st.integers(-2, 80) | st.integers(),
        size=st.integers(-2, 80) | st.integers(),
        proof=st.lists(st.binary(min_size=32, max_size=32) | st.binary(max_size=70), max_size=9),
    )
    def test_never_another_error(self, index: int, size: int, proof: Proof) -> None:
        assert not inclusion_holds(index, size, bytes(32), bytes(32), proof) or size == 1
        assert not consistency_holds(index, size, bytes(32), ROOTS[1], proof)
        assert not subtree_holds(0, index, size, bytes(32), ROOTS[1], proof)
        assert not subtree_holds(index, index + 1, size, bytes(32), ROOTS[1], proof)


class TestConsistency:
    @pytest.mark.parametrize("new", range(1, 71))
    def test_every_pair_of_sizes(self, new: int) -> None:
        for old in range(1, new + 1):
            proof = subproof(old, leaves(new), True)
            assert consistency_holds(old, new, ROOTS[old], ROOTS[new], proof)
            assert not consistency_holds(old, new, ROOTS[old - 1], ROOTS[new], proof)
            assert not consistency_holds(old, new, ROOTS[old], ROOTS[new - 1], proof)
            for bad in damaged(proof):
                assert not consistency_holds(old, new, ROOTS[old], ROOTS[new], bad)

    @pytest.mark.parametrize(("old", "new"), [(1, 2), (4, 7), (6, 8), (7, 13), (13, 14)])
    def test_every_bit(self, old: int, new: int) -> None:
        proof = subproof(old, leaves(new), True)
        for bad in flips(ROOTS[old]):
            assert not consistency_holds(old, new, bad, ROOTS[new], proof)
        for bad in flips(ROOTS[new]):
            assert not consistency_holds(old, new, ROOTS[old], bad, proof)
        for at in range(len(proof)):
            for bad in flips(proof[at]):
                damage = [*proof[:at], bad, *proof[at + 1 :]]
                assert not consistency_holds(old, new, ROOTS[old], ROOTS[new], damage)

    @pytest.mark.parametrize("new", [0, 1, 2, 7, 8])
    def test_from_the_empty_tree(self, new: int) -> None:
        assert consistency_holds(0, new, EMPTY_ROOT, ROOTS[new], [])
        assert not consistency_holds(0, new, EMPTY_ROOT, ROOTS[new], [bytes(32)])
        assert not consistency_holds(0, new, EMPTY_ROOT, ROOTS[new], [ROOTS[new]])
        assert not consistency_holds(0, new, ROOTS[1], ROOTS[new], [])

    def test_two_empty_trees_are_one(self) -> None:
        assert not consistency_holds(0, 0, EMPTY_ROOT, ROOTS[1], [])
        assert not consistency_holds(0, 0, ROOTS[1], ROOTS[1], [])

    @pytest.mark.parametrize("size", range(1, 10))
    def test_equal_sizes(self, size: int) -> None:
        assert consistency_holds(size, size, ROOTS[size], ROOTS[size], [])
        assert not consistency_holds(size, size, ROOTS[size], ROOTS[size], [ROOTS[size]])
        with pytest.raises(ProofError, match="split view"):
            verify_consistency(
                old_size=size, new_size=size, old_root=bytes(32), new_root=ROOTS[size], proof=[]
            )

    @pytest.mark.parametrize(
        ("old", "new"), [(2, 1), (-1, 1), (1, 2**63), (2**63, 2**63), (-1, -1), (0, -1)]
    )
    def test_bounds(self, old: int, new: int) -> None:
        assert not consistency_holds(old, new, ROOTS[1], ROOTS[1], [])

    @pytest.mark.parametrize("length", [0, 31, 33])
    @pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (3, 3), (3, 5)])
    def test_hashes_are_32_bytes(self, old: int, new: int, length: int) -> None:
        proof = subproof(old, leaves(new), True) if old else []
        for old_root, new_root in ((bytes(length), ROOTS[new]), (ROOTS[old], bytes(length))):
            with pytest.raises(ProofError, match=f"root hash has {length} bytes"):
                verify_consistency(
                    old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof
                )

    def test_the_longest_proof(self) -> None:
        """64 hashes lead from the largest odd size but one to the largest size of all."""
        proof = [bytes([level]) * 32 for level in range(64)]
        with pytest.raises(ProofError, match="does not lead to"):
            verify_consistency(
                old_size=2**62 + 1,
                new_size=2**63 - 1,
                old_root=ROOTS[1],
                new_root=ROOTS[1],
                proof=proof,
            )
        for bad, message in ((proof[:63], "too short"), ([*proof, proof[0]], "limit is 64")):
            with pytest.raises(ProofError, match=message):
                verify_consistency(
                    old_size=2**62 + 1,
                    new_size=2**63 - 1,
                    old_root=ROOTS[1],
                    new_root=ROOTS[1],
                    proof=bad,
                )


class TestSubtreeConsistency:
    @pytest.mark.parametrize("size", range(1, 71))
    def test_every_subtree_of_every_size(self, size: int) -> None:
        for start, end in subtrees(size):
            proof = subtree_subproof(start, end, leaves(size), True)
            subtree_root = mth(leaves(size)[start:end])
            assert subtree_holds(start, end, size, subtree_root, ROOTS[size], proof)

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 14, 23, 33])
    def test_damage(self, size: int) -> None:
        for start, end in subtrees(size):
            proof = subtree_subproof(start, end, leaves(size), True)
            subtree_root, root = mth(leaves(size)[start:end]), ROOTS[size]
            for bad in damaged(proof):
                assert not subtree_holds(start, end, size, subtree_root, root, bad)
            for other in subtrees(size):
                if other != (start, end):
                    assert not subtree_holds(*other, size, subtree_root, root, proof)
            assert not subtree_holds(start, end, size, ROOTS[70], root, proof)
            assert not subtree_holds(start, end, size, subtree_root, ROOTS[70], proof)

    @pytest.mark.parametrize(("start", "end", "size"), [(8, 13, 14), (8, 14, 14), (4, 7, 13)])
    def test_every_bit(self, start: int, end: int, size: int) -> None:
        proof = subtree_subproof(start, end, leaves(size), True)
        subtree_root, root = mth(leaves(size)[start:end]), ROOTS[size]
        for bad in flips(subtree_root):
            assert not subtree_holds(start, end, size, bad, root, proof)
        for bad in flips(root):
            assert not subtree_holds(start, end, size, subtree_root, bad, proof)
        for at in range(len(proof)):
            for bad in flips(proof[at]):
                damage = [*proof[:at], bad, *proof[at + 1 :]]
                assert not subtree_holds(start, end, size, subtree_root, root, damage)

    def test_only_valid_subtrees(self) -> None:
        valid = subtrees(20)
        for start in range(-2, 23):
            for end in range(-2, 23):
                if (start, end) not in valid:
                    assert not subtree_holds(start, end, 20, ROOTS[20], ROOTS[20], [])

    def test_the_empty_subtree_is_refused(self) -> None:
        assert not subtree_holds(0, 0, 5, EMPTY_ROOT, ROOTS[5], [])


def test_a_proof_error_is_a_merkle_error_and_a_value_error() -> None:
    assert issubclass(ProofError, MerkleError)
    assert issubclass(ProofError, ValueError)
