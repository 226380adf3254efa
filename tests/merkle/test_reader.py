"""Reading from tiles: which are asked for, how often, and what happens when one is wrong."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.merkle.trees import leaves, mth, path, row, subproof
from tlog.merkle import (
    MerkleError,
    ProofError,
    RightEdge,
    Tile,
    TileCache,
    TileNodeReader,
    consistency_proof,
    decompose,
    inclusion_proof,
    partial_width,
)

BIG = 70_000


class Log:
    """The tiles of a log of 70,000 leaves at any size, and a record of what was read."""

    def __init__(self) -> None:
        self.tiles = {(t.level, t.index): h for t, h in RightEdge().extend(row(BIG))[1]}
        self.asked: list[Tile] = []

    def read(self, tile: Tile) -> bytes:
        self.asked.append(tile)
        return self.tiles[tile.level, tile.index][: tile.width * 32]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 300, 511, 512, 1000])
def test_every_node(log: Log, size: int) -> None:
    reader = TileNodeReader(TileCache(log.read), size)
    for level in range(10):
        nodes = [(i << level, i + 1 << level) for i in range(size >> level)]
        expected = [mth(leaves(size)[begin:end]) for begin, end in nodes]
        assert reader.range_hashes(nodes) == expected
    for tile in log.asked:
        assert tile.width in (256, partial_width(tile.level, size))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 69_999, BIG])
def test_three_levels_of_tiles(log: Log, size: int) -> None:
    reader = TileNodeReader(TileCache(log.read), size)
    for index in (0, 255, 256, 65_534, size - 1):
        assert inclusion_proof(index, size, reader) == path(index, leaves(BIG)[:size])
    for old in (1, 256, 65_535, size - 1):
        assert consistency_proof(old, size, reader) == subproof(old, leaves(BIG)[:size], True)
    for tile in log.asked:
        full, width = divmod(size >> 8 * tile.level, 256)
        assert tile.width == (256 if tile.index < full else width)


def test_smaller_sizes_are_served_from_the_tiles_of_its_own(log: Log) -> None:
    reader = TileNodeReader(TileCache(log.read), 300)
    for size in range(1, 301, 13):
        assert inclusion_proof(size // 2, size, reader) == path(size // 2, leaves(size))
    assert {tile for tile in log.asked if tile.width < 256} <= {Tile(0, 1, 44), Tile(1, 0, 1)}


@pytest.mark.parametrize(
    "bad",
    [
        (300, 301),
        (300, 302),
        (296, 304),
        (256, 512),
        (0, 512),
        (0, 1 << 16),
        (0, 1 << 63),
        (0, 1 << 70),
        (1 << 70, (1 << 70) + 1),
        (-1, 0),
        (-256, 0),
        (1, 1),
        (2, 1),
        (1, 3),
        (8, 24),
        (256, 301),
        (288, 301),
    ],
)
def test_a_range_beyond_the_tree_or_no_subtree(log: Log, bad: tuple[int, int]) -> None:
    reader = TileNodeReader(TileCache(log.read), 300)
    with pytest.raises(MerkleError):
        reader.range_hashes([(0, 1), bad])
    assert all(tile.path for tile in log.asked)


def test_the_empty_tree_has_no_node(log: Log) -> None:
    with pytest.raises(MerkleError):
        TileNodeReader(TileCache(log.read), 0).range_hashes([(0, 1)])
    assert log.asked == []


@pytest.mark.parametrize("size", [-1, 2**63])
def test_sizes_are_bounded(log: Log, size: int) -> None:
    with pytest.raises(MerkleError, match="tree size"):
        TileNodeReader(TileCache(log.read), size)


class TestCache:
    def test_a_tile_is_read_once(self, log: Log) -> None:
        reader = TileNodeReader(TileCache(log.read), BIG)
        for _ in range(3):
            inclusion_proof(1000, BIG, reader)
        assert len(log.asked) == len(set(log.asked)) <= 6

    def test_ragged_ranges_are_joined_once(self, log: Log) -> None:
        reader = TileNodeReader(TileCache(log.read, capacity=0), BIG)
        first = reader.range_hashes([(65_536, BIG)])
        log.asked.clear()
        assert reader.range_hashes([(65_536, BIG)]) == first == [mth(leaves(BIG)[65_536:])]
        assert log.asked == []

    def test_full_tiles_are_shared_between_sizes(self, log: Log) -> None:
        cache = TileCache(log.read)
        for size in (600, 601, 602):
            reader = TileNodeReader(cache, size)
            assert reader.range_hashes([(i << h, i + 1 << h) for h, i in decompose(0, size)]) == [
                mth(leaves(size)[n.index << n.level : (n.index + 1) << n.level])
                for n in decompose(0, size)
            ]
            assert inclusion_proof(300, size, reader) == path(300, leaves(size))
        assert log.asked.count(Tile(0, 1)) == 1
        assert {tile.width for tile in log.asked if tile[:2] == (0, 2)} == {88, 89, 90}

    @pytest.mark.parametrize("capacity", [0, 1, 2])
    def test_small_caches_are_only_slower(self, log: Log, capacity: int) -> None:
        reader = TileNodeReader(TileCache(log.read, capacity=capacity), 1000)
        for index in range(0, 1000, 61):
            assert inclusion_proof(index, 1000, reader) == path(index, leaves(1000))

    def test_the_least_recently_used_goes(self, log: Log) -> None:
        reader = TileNodeReader(TileCache(log.read, capacity=2), 1000)
        for tile in (0, 1, 0, 2, 0, 1):
            reader.range_hashes([(tile * 256, tile * 256 + 1)])
        assert [tile.index for tile in log.asked] == [0, 1, 2, 1]

    def test_threads_share_a_reader(self, log: Log) -> None:
        reader = TileNodeReader(TileCache(log.read, capacity=4), 2000)
        expected = {index: path(index, leaves(2000)) for index in range(0, 2000, 50)}
        with ThreadPoolExecutor(4) as pool:
            proofs = pool.map(lambda i: inclusion_proof(i, 2000, reader), list(expected) * 20)
            assert list(proofs) == list(expected.values()) * 20


class TestBadTiles:
    @pytest.mark.parametrize("change", [-32, -1, 1, 32, -44 * 32])
    def test_a_tile_of_another_length_is_named(self, log: Log, change: int) -> None:
        def read(tile: Tile) -> bytes:
            return (log.read(tile) + bytes(32))[: tile.width * 32 + change]

        reader = TileNodeReader(TileCache(read), 300)
        with pytest.raises(ProofError, match=r"tile/0/001\.p/44: .*expected 1408"):
            reader.range_hashes([(299, 300)])

    def test_an_error_is_not_remembered(self, log: Log) -> None:
        answers = iter([b"", row(1)])
        reader = TileNodeReader(TileCache(lambda tile: next(answers)), 1)
        with pytest.raises(ProofError):
            reader.range_hashes([(0, 1)])
        assert reader.range_hashes([(0, 1)]) == leaves(1)

    def test_errors_of_the_reader_pass_through(self) -> None:
        def read(tile: Tile) -> bytes:
            raise OSError(tile.path)

        with pytest.raises(OSError, match="tile/0/000"):
            TileNodeReader(TileCache(read), 256).range_hashes([(0, 1)])
