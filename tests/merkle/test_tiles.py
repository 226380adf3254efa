"""Tile geometry, paths and bundles: the examples of tlog-tiles.md, and everything just beside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merkle.trees import leaves, mth, row
from tlog.merkle import (
    MAX_ENTRY_SIZE,
    MerkleError,
    Tile,
    bundle_entry,
    encode_bundle,
    entries_path,
    expand,
    parse_entries_path,
    parse_tile_path,
    partial_width,
    split_bundle,
    tile_path,
    tiles_of,
)
from tlog.merkle.tiles import MAX_TILE_INDEX

INDICES = st.integers(0, MAX_TILE_INDEX) | st.integers(0, 10**7)
WIDTHS = st.integers(1, 256)


class TestGeometry:
    def test_the_specification_of_70000(self) -> None:
        tiles = list(tiles_of(70_000))
        assert tiles == [
            *(Tile(0, index) for index in range(273)),
            Tile(0, 273, 112),
            Tile(1, 0),
            Tile(1, 1, 17),
            Tile(2, 0, 1),
        ]

    def test_the_specification_of_256(self) -> None:
        assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]

    @pytest.mark.parametrize(
        ("size", "tiles"),
        [
            (0, []),
            (1, [Tile(0, 0, 1)]),
            (255, [Tile(0, 0, 255)]),
            (257, [Tile(0, 0), Tile(0, 1, 1), Tile(1, 0, 1)]),
        ],
    )
    def test_small(self, size: int, tiles: list[Tile]) -> None:
        assert list(tiles_of(size)) == tiles

    def test_65536_is_full_up_to_level_1(self) -> None:
        assert list(tiles_of(65_536))[-2:] == [Tile(1, 0), Tile(2, 0, 1)]

    @given(size=st.integers(0, 2**63 - 1), level=st.integers(0, 63))
    def test_partial_width_is_the_formula(self, size: int, level: int) -> None:
        assert partial_width(level, size) == size // 256**level % 256


class TestPaths:
    @pytest.mark.parametrize(
        ("tile", "path"),
        [
            (Tile(0, 0), "tile/0/000"),
            (Tile(0, 999), "tile/0/999"),
            (Tile(0, 1000), "tile/0/x001/000"),
            (Tile(0, 1234067), "tile/0/x001/x234/067"),
            (Tile(0, 1234067, 12), "tile/0/x001/x234/067.p/12"),
            (Tile(63, 5, 255), "tile/63/005.p/255"),
            (Tile(10, 10**6), "tile/10/x001/x000/000"),
            (Tile(0, MAX_TILE_INDEX), "tile/0/x036/x028/x797/x018/x963/967"),
        ],
    )
    def test_vectors(self, tile: Tile, path: str) -> None:
        assert tile.path == path
        assert parse_tile_path(path) == tile

    @given(level=st.integers(0, 63), index=INDICES, width=WIDTHS)
    def test_round_trip(self, level: int, index: int, width: int) -> None:
        assert parse_tile_path(tile_path(level, index, width)) == Tile(level, index, width)
        assert parse_entries_path(entries_path(index, width)) == (index, width)

    @given(
        path=st.from_regex(r"tile/(entries|[0-9]{1,2})/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[0-9]{1,3})?")
    )
    def test_whatever_parses_is_the_one_path(self, path: str) -> None:
        try:
            tile = parse_tile_path(path)
        except MerkleError:
            pass
        else:
            assert tile.path == path
        try:
            bundle = parse_entries_path(path)
        except MerkleError:
            pass
        else:
            assert entries_path(*bundle) == path

    @pytest.mark.parametrize(
        "rest",
        [
            "",
            "0",
            "00",
            "0000",
            "x001",
            "x001/",
            "x001/67",
            "x001/x067",
            "001/067",
            "X001/067",
            "x000/067",
            "x000/x001/067",
            "-01",
            "+01",
            "1_0",
            "067/",
            "/067",
            "067.p",
            "067.p/",
            "067.p/0",
            "067.p/01",
            "067.p/012",
            "067.p/256",
            "067.p/999",
            "067.p/1000",
            "067.p/-1",
            "067.p/1/",
            "067.P/1",
            "067p/1",
            "067.p/1\n",
            "067\n",
            " 067",
            "067 ",
            "067?x",
            "067.gz",
            "../067",
            "x001/../067",
            "٠٦٧",  # Arabic-Indic digits: int() would take them
            "x٠٠١/067",
            "067.p/١",
            "x036/x028/x797/x018/x963/968",  # one over the last index
            "x999/x999/x999/x999/x999/999",
            "x001/x000/x000/x000/x000/x000/000",
            "x001/" * 10_000 + "000",
        ],
    )
    def test_refusals(self, rest: str) -> None:
        with pytest.raises(MerkleError):
            parse_tile_path(f"tile/0/{rest}")
        with pytest.raises(MerkleError):
            parse_entries_path(f"tile/entries/{rest}")

    @pytest.mark.parametrize(
        "prefix",
        [
            "tile/64/",
            "tile/00/",
            "tile/01/",
            "tile/-1/",
            "tile/100/",
            "tile//",
            "tile/٣/",
            "tile/x/",
            "tile/entries/",
            "/tile/0/",
            "Tile/0/",
            "tiles/0/",
            "0/",
            "",
            "tile/0",
            "tile/0//",
        ],
    )
    def test_tile_prefix_refusals(self, prefix: str) -> None:
        with pytest.raises(MerkleError):
            parse_tile_path(f"{prefix}067")

    @pytest.mark.parametrize(
        "prefix", ["tile/0/", "tile/Entries/", "tile/entries//", "entries/", ""]
    )
    def test_entries_prefix_refusals(self, prefix: str) -> None:
        with pytest.raises(MerkleError):
            parse_entries_path(f"{prefix}067")

    def test_a_refusal_is_short(self) -> None:
        with pytest.raises(MerkleError) as refusal:
            parse_tile_path("x" * 1_000_000)
        assert len(str(refusal.value)) < 300

    @pytest.mark.parametrize(
        ("level", "index", "width", "what"),
        [
            (-1, 0, 1, "level"),
            (64, 0, 1, "level"),
            (0, -1, 1, "index"),
            (0, MAX_TILE_INDEX + 1, 1, "index"),
            (0, 0, 0, "width"),
            (0, 0, -1, "width"),
            (0, 0, 257, "width"),
        ],
    )
    def test_no_path_for_no_tile(self, level: int, index: int, width: int, what: str) -> None:
        with pytest.raises(MerkleError, match=what):
            tile_path(level, index, width)


class TestExpand:
    @pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 100, 127, 128, 129, 255, 256])
    def test_levels_are_the_complete_subtrees(self, width: int) -> None:
        levels = expand(row(width))
        assert len(levels) == 9
        for height, level in enumerate(levels):
            step = 1 << height
            subtrees = [leaves(width)[at : at + step] for at in range(0, width, step)]
            complete = [mth(subtree) for subtree in subtrees if len(subtree) == step]
            assert level == b"".join(complete)

    @pytest.mark.parametrize("length", [0, 1, 31, 33, 257 * 32, 256 * 32 - 1])
    def test_refusals(self, length: int) -> None:
        with pytest.raises(MerkleError):
            expand(bytes(length))


class TestBundles:
    def test_bytes(self) -> None:
        assert encode_bundle([b"", b"a", b"b" * 258]) == b"\0\0\0\1a\1\2" + b"b" * 258
        assert encode_bundle([]) == b""
        assert split_bundle(b"") == []

    @given(entries=st.lists(st.binary(max_size=40), max_size=256))
    def test_round_trip(self, entries: list[bytes]) -> None:
        data = encode_bundle(entries)
        assert split_bundle(data) == entries
        assert [bundle_entry(data, offset) for offset in range(len(entries))] == entries
        if len(entries) < 256:
            with pytest.raises(MerkleError, match="cut short"):
                bundle_entry(data, len(entries))

    def test_the_longest_entry(self) -> None:
        longest = [bytes(MAX_ENTRY_SIZE), b"next"]
        assert split_bundle(encode_bundle(longest)) == longest
        assert encode_bundle(longest)[:2] == b"\xff\xff"
        with pytest.raises(MerkleError, match="65536"):
            encode_bundle([b"", bytes(MAX_ENTRY_SIZE + 1)])

    def test_257_entries(self) -> None:
        with pytest.raises(MerkleError, match="257"):
            encode_bundle([b""] * 257)
        with pytest.raises(MerkleError, match="over 256"):
            split_bundle(bytes(2 * 257))
        assert split_bundle(bytes(2 * 256)) == [b""] * 256

    @given(data=st.binary(max_size=300))
    def test_whatever_splits_is_the_one_bundle(self, data: bytes) -> None:
        try:
            entries = split_bundle(data)
        except MerkleError:
            return
        assert encode_bundle(entries) == data

    def test_every_cut_is_seen(self) -> None:
        entries = [b"", b"one", b"twotwo", b"x" * 300]
        data = encode_bundle(entries)
        whole = {len(encode_bundle(entries[:count])) for count in range(5)}
        for cut in range(len(data)):
            if cut in whole:
                assert encode_bundle(split_bundle(data[:cut])) == data[:cut]
            else:
                with pytest.raises(MerkleError, match="cut short"):
                    split_bundle(data[:cut])
            with pytest.raises(MerkleError, match="cut short"):
                bundle_entry(data[:cut], 3)

    @pytest.mark.parametrize("offset", [-1, 256, 1 << 40])
    def test_offsets_out_of_a_bundle(self, offset: int) -> None:
        with pytest.raises(MerkleError, match="offset"):
            bundle_entry(encode_bundle([b"entry"]), offset)
