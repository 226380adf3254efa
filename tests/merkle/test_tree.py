"""The growing tree against the recursive definition: any split of the appends, the same tree."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merkle.trees import leaves, mth, row
from tlog.merkle import (
    CompactRange,
    MerkleError,
    Node,
    ProofError,
    RightEdge,
    Tile,
    decompose,
    tiles_of,
)

BIG = 70_000
SIZES = [*range(20), 31, 100, 254, 255, 256, 257, 511, 512, 513, 1000]


def tile_hashes(tile: Tile) -> bytes:
    """The tile of the leaves of `leaves`, from its definition in tlog-tiles.md."""
    span = 256**tile.level
    first = tile.index * 256
    hashes = (
        mth(leaves(BIG)[at * span : (at + 1) * span]) for at in range(first, first + tile.width)
    )
    return b"".join(hashes)


class TestDecompose:
    @given(begin=st.integers(0, 2**63 - 1), count=st.integers(0, 2**63 - 1))
    def test_covers_with_maximal_subtrees(self, begin: int, count: int) -> None:
        end = min(begin + count, 2**63 - 1)
        nodes = decompose(begin, end)
        spans = [(node.index << node.level, (node.index + 1) << node.level) for node in nodes]
        assert [b for b, _ in spans] + [end] == [begin] + [e for _, e in spans]
        assert len(nodes) <= 2 * 63
        for left, right in pairwise(nodes):
            # Siblings would have been one node.
            assert (left.level, left.index ^ 1) != right or left.index & 1

    def test_examples(self) -> None:
        assert decompose(0, 0) == decompose(7, 7) == []
        assert decompose(0, 8) == [Node(3, 0)]
        assert decompose(0, 13) == [Node(3, 0), Node(2, 2), Node(0, 12)]
        assert decompose(3, 9) == [Node(0, 3), Node(2, 1), Node(0, 8)]

    @pytest.mark.parametrize(("begin", "end"), [(-1, 3), (2, 1), (-3, -1)])
    def test_refusals(self, begin: int, end: int) -> None:
        with pytest.raises(MerkleError):
            decompose(begin, end)


class TestCompactRange:
    @pytest.mark.parametrize("size", SIZES)
    def test_root(self, size: int) -> None:
        compact = CompactRange()
        for leaf_hash in leaves(size):
            compact.append(leaf_hash)
        assert (compact.begin, compact.end) == (0, size)
        assert compact.root() == mth(leaves(size))

    @given(cuts=st.lists(st.integers(0, 600), min_size=2, max_size=6).map(sorted))
    def test_ranges_merge(self, cuts: list[int]) -> None:
        whole = CompactRange(cuts[0])
        for begin, end in pairwise(cuts):
            part = CompactRange(begin)
            for leaf_hash in leaves(600)[begin:end]:
                part.append(leaf_hash)
            before = list(part.hashes)
            whole.merge(part)
            assert part.hashes == before
        nodes = decompose(cuts[0], cuts[-1])
        assert whole.hashes == [
            mth(leaves(600)[n.index << n.level : (n.index + 1) << n.level]) for n in nodes
        ]

    def test_a_gap_does_not_merge(self) -> None:
        with pytest.raises(MerkleError, match="does not follow"):
            CompactRange(3).merge(CompactRange(4))

    def test_a_middle_has_no_root(self) -> None:
        with pytest.raises(MerkleError, match="no root"):
            CompactRange(1).root()


class TestRightEdge:
    @pytest.mark.parametrize("size", [*SIZES, 65_535, 65_536, 65_537, BIG])
    def test_one_append(self, size: int) -> None:
        edge, tiles = RightEdge().extend(row(BIG)[: size * 32])
        assert edge.size == size
        assert edge.root() == mth(leaves(BIG)[:size])
        assert [tile for tile, _ in tiles] == list(tiles_of(size))

    def test_tiles_by_definition(self) -> None:
        _, tiles = RightEdge().extend(row(BIG))
        for tile, hashes in tiles:
            if tile.level or tile.index % 50 == 0 or tile.width < 256:
                assert hashes == tile_hashes(tile)

    @given(counts=st.lists(st.integers(0, 700) | st.integers(0, 3), max_size=12))
    def test_any_split_of_the_appends(self, counts: list[int]) -> None:
        edge = RightEdge()
        stored: dict[tuple[int, int], bytes] = {}
        for count in counts:
            old = edge
            edge, tiles = old.extend(row(BIG)[old.size * 32 : (old.size + count) * 32])
            places = [(tile.level, tile.index) for tile, _ in tiles]
            assert places == sorted(set(places))
            for tile, hashes in tiles:
                assert len(hashes) == tile.width * 32
                before = stored.get((tile.level, tile.index), b"")
                # Only what changed, and only by growing.
                assert hashes.startswith(before)
                assert len(hashes) > len(before)
                stored[tile.level, tile.index] = hashes
        at_once, tiles = RightEdge().extend(row(BIG)[: sum(counts) * 32])
        assert edge == at_once
        assert stored == {(tile.level, tile.index): hashes for tile, hashes in tiles}
        assert edge.root() == mth(leaves(BIG)[: edge.size])

    def test_one_leaf_at_a_time(self) -> None:
        edge = RightEdge()
        for size, leaf_hash in enumerate(leaves(600), 1):
            edge, tiles = edge.extend(leaf_hash)
            assert edge.size == size
            assert len(tiles) == (1 if size % 256 else 2)
            assert edge.root() == mth(leaves(600)[:size])

    def test_the_65536th_leaf_fills_two_tiles(self) -> None:
        edge, _ = RightEdge().extend(row(BIG)[: 65_535 * 32])
        edge, tiles = edge.extend(row(BIG)[65_535 * 32 : 65_536 * 32])
        assert [tile for tile, _ in tiles] == [Tile(0, 255), Tile(1, 0), Tile(2, 0, 1)]
        assert edge.partials == (b"", b"", mth(leaves(BIG)[:65_536]))

    def test_extend_leaves_the_old_edge_alone(self) -> None:
        old, _ = RightEdge().extend(row(300))
        kept = RightEdge(old.size, old.partials)
        old.extend(row(600)[300 * 32 :])
        assert old == kept
        assert old.root() == mth(leaves(300))

    def test_nothing_appended(self) -> None:
        edge, _ = RightEdge().extend(row(300))
        assert edge.extend(b"") == (edge, [])
        assert RightEdge().extend(b"") == (RightEdge(), [])

    @pytest.mark.parametrize("length", [1, 31, 33, 8191])
    def test_half_a_hash(self, length: int) -> None:
        with pytest.raises(MerkleError, match="multiple of 32"):
            RightEdge().extend(bytes(length))

    @pytest.mark.parametrize(
        ("size", "partials"),
        [
            (-1, ()),
            (2**63, (b"",) * 7 + (bytes(128 * 32),)),
            (0, (b"",)),
            (1, ()),
            (1, (bytes(31),)),
            (1, (bytes(64),)),
            (256, (b"",)),
            (256, (bytes(32), b"")),
            (256, (b"", bytes(32), b"")),
        ],
    )
    def test_an_edge_fits_its_size(self, size: int, partials: tuple[bytes, ...]) -> None:
        with pytest.raises(MerkleError):
            RightEdge(size, partials)

    def test_the_last_tree(self) -> None:
        size = 2**63 - 1
        edge = RightEdge.load(size, lambda level, index: bytes(8192))
        assert len(edge.partials) == 8
        assert len(edge.root()) == 32
        with pytest.raises(MerkleError, match="tree size"):
            edge.extend(bytes(32))


class TestLoad:
    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 65_536, 69_999, BIG])
    def test_from_the_tiles_of_a_larger_tree(self, size: int) -> None:
        stored = {(t.level, t.index): h for t, h in RightEdge().extend(row(BIG))[1]}
        edge = RightEdge.load(size, lambda level, index: stored[level, index])
        assert edge == RightEdge().extend(row(BIG)[: size * 32])[0]
        assert edge.root() == mth(leaves(BIG)[:size])

    def test_a_level_without_a_partial_tile_is_not_read(self) -> None:
        asked = []

        def read(level: int, index: int) -> bytes:
            asked.append((level, index))
            return bytes(32)

        RightEdge.load(65_536, read)
        assert asked == [(2, 0)]

    @pytest.mark.parametrize("missing", [1, 31, 32, 8000])
    def test_a_short_tile_is_named(self, missing: int) -> None:
        with pytest.raises(ProofError, match=r"tile/0/001\.p/251: .* size 507"):
            RightEdge.load(507, lambda level, index: bytes(251 * 32 - missing))
