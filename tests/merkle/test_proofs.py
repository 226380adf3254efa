"""Proofs as generated, against the recursive definitions and the vectors CT made well known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merkle.trees import (
    leaves,
    mth,
    path,
    path_ranges,
    reader,
    subproof,
    subtree_subproof,
    subtrees,
)
from tlog.merkle import (
    CompactRange,
    MerkleError,
    RightEdge,
    TileCache,
    TileNodeReader,
    consistency_proof,
    consistency_ranges,
    inclusion_proof,
    inclusion_ranges,
    is_subtree,
    leaf_hashes,
    subtree_consistency_proof,
    subtree_consistency_ranges,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 2**63 - 1) | st.integers(1, 1000)

# The reference tree of the Certificate Transparency code bases.
CT_ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_2_3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_4_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
_6_7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_4_7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
CT_INCLUSION = {
    (0, 1): [],
    (0, 8): [_1, _2_3, _4_7],
    (5, 8): [_4, _6_7, CT_ROOTS[4]],
    (2, 3): [CT_ROOTS[2]],
    (1, 5): [CT_ROOTS[1], _2_3, _4],
}
CT_CONSISTENCY = {
    (1, 1): [],
    (1, 8): [_1, _2_3, _4_7],
    (6, 8): [_4_5, _6_7, CT_ROOTS[4]],
    (2, 5): [_2_3, _4],
}


class TestCertificateTransparency:
    reader = TileNodeReader(
        TileCache(dict(RightEdge().extend(leaf_hashes(CT_ENTRIES))[1]).__getitem__), 8
    )

    @pytest.mark.parametrize("size", range(9))
    def test_roots(self, size: int) -> None:
        edge, _ = RightEdge().extend(leaf_hashes(CT_ENTRIES[:size]))
        compact = CompactRange()
        for at in range(size):
            compact.append(leaf_hashes(CT_ENTRIES)[at * 32 : at * 32 + 32])
        assert edge.root().hex() == compact.root().hex() == CT_ROOTS[size]

    @pytest.mark.parametrize(("index", "size"), CT_INCLUSION)
    def test_inclusion(self, index: int, size: int) -> None:
        proof = inclusion_proof(index, size, self.reader)
        assert [element.hex() for element in proof] == CT_INCLUSION[index, size]
        verify_inclusion(
            index=index,
            size=size,
            leaf_hash=leaf_hashes([CT_ENTRIES[index]]),
            root_hash=bytes.fromhex(CT_ROOTS[size]),
            proof=proof,
        )

    @pytest.mark.parametrize(("old", "new"), CT_CONSISTENCY)
    def test_consistency(self, old: int, new: int) -> None:
        proof = consistency_proof(old, new, self.reader)
        assert [element.hex() for element in proof] == CT_CONSISTENCY[old, new]
        verify_consistency(
            old_size=old,
            new_size=new,
            old_root=bytes.fromhex(CT_ROOTS[old]),
            new_root=bytes.fromhex(CT_ROOTS[new]),
            proof=proof,
        )


class TestAgainstTheDefinitions:
    @pytest.mark.parametrize("size", range(1, 71))
    def test_every_proof(self, size: int) -> None:
        tree = reader(70)
        for index in range(size):
            assert inclusion_proof(index, size, tree) == path(index, leaves(size))
        for old in range(1, size + 1):
            assert consistency_proof(old, size, tree) == subproof(old, leaves(size), True)
        for start, end in subtrees(size):
            expected = subtree_subproof(start, end, leaves(size), True)
            assert subtree_consistency_proof(start, end, size, tree) == expected

    @pytest.mark.parametrize("size", [255, 256, 257, 511, 513, 800])
    def test_across_tiles(self, size: int) -> None:
        tree = reader(800)
        for index in range(0, size, 37):
            assert inclusion_proof(index, size, tree) == path(index, leaves(size))
            if index:
                assert consistency_proof(index, size, tree) == subproof(index, leaves(size), True)

    @pytest.mark.parametrize("size", range(40))
    def test_from_nothing_and_to_itself(self, size: int) -> None:
        assert consistency_ranges(0, size) == consistency_ranges(size, size) == []

    def test_the_example_of_sign_subtree(self) -> None:
        """tlog-witness.md: four hashes from subtree [8, 13) to size 14."""
        assert subtree_consistency_ranges(8, 13, 14) == [(12, 13), (13, 14), (8, 12), (0, 8)]

    def test_validity_of_subtrees(self) -> None:
        valid = subtrees(70)
        for start in range(-3, 71):
            for end in range(-3, 71):
                assert is_subtree(start, end) == ((start, end) in valid)


class TestRanges:
    @given(data=st.data(), size=SIZES)
    def test_inclusion_is_the_path(self, data: st.DataObject, size: int) -> None:
        index = data.draw(st.integers(0, size - 1))
        assert inclusion_ranges(index, size) == path_ranges(index, 0, size)

    @given(data=st.data(), size=SIZES)
    def test_consistency_is_subtree_consistency(self, data: st.DataObject, size: int) -> None:
        old = data.draw(st.integers(1, size))
        ranges = consistency_ranges(old, size)
        assert ranges == subtree_consistency_ranges(0, old, size)
        assert len(ranges) <= 64
        # What is known, and what lies to the right of it, make up the tree.
        right = sorted(part for part in ranges if part[0] >= old)
        assert [begin for begin, _ in right] + [size] == [old] + [end for _, end in right]
        assert all(is_subtree(*part) for part in ranges)

    @pytest.mark.parametrize(
        ("index", "size"), [(0, 0), (-1, 5), (5, 5), (0, -1), (0, 2**63), (2**63, 2**63 + 1)]
    )
    def test_no_inclusion(self, index: int, size: int) -> None:
        with pytest.raises(MerkleError):
            inclusion_ranges(index, size)

    @pytest.mark.parametrize(("old", "new"), [(-1, 5), (6, 5), (0, -1), (0, 2**63), (5, 2**63)])
    def test_no_consistency(self, old: int, new: int) -> None:
        with pytest.raises(MerkleError):
            consistency_ranges(old, new)

    @pytest.mark.parametrize(
        ("start", "end", "size"),
        [
            (0, 0, 5),
            (3, 3, 5),
            (4, 3, 5),
            (-4, 0, 5),
            (1, 3, 5),
            (2, 5, 8),
            (4, 9, 16),
            (0, 6, 5),
            (4, 6, 5),
            (0, 1, 2**63),
            (0, -1, 5),
        ],
    )
    def test_no_subtree(self, start: int, end: int, size: int) -> None:
        with pytest.raises(MerkleError):
            subtree_consistency_ranges(start, end, size)


class TestRangeHashes:
    def test_in_the_order_asked_for(self) -> None:
        ranges = [(8, 13), (0, 8), (12, 13), (0, 13), (8, 12), (4, 7)]
        assert reader(13).range_hashes(ranges) == [mth(leaves(13)[b:e]) for b, e in ranges]
        assert reader(13).range_hashes([]) == []

    @pytest.mark.parametrize("bad", [(1, 3), (3, 3), (4, 3), (-2, 0), (-1, 1), (2, 5), (5, 1)])
    def test_what_is_no_subtree_has_no_hash(self, bad: tuple[int, int]) -> None:
        with pytest.raises(MerkleError):
            reader(13).range_hashes([(0, 1), bad])
