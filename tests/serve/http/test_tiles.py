"""Static reads: every byte of every resource, and not one byte that was not published."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from tests.serve.http.conftest import HIDDEN, SIZE
from tests.serve.http.served import Served
from tlog.merkle import (
    HASH_SIZE,
    CompactRange,
    RightEdge,
    encode_bundle,
    entries_path,
    leaf_hashes,
    node_hashes,
    parse_tile_path,
    split_bundle,
    tile_path,
    tiles_of,
)
from tlog.notes import open_checkpoint


@pytest.fixture(scope="module")
def levels(entries: list[bytes]) -> list[bytes]:
    """The hashes of tile level 0, 1, 2, computed from the entries with RFC 6962 alone."""
    rows = [leaf_hashes(entries[:SIZE])]
    while len(rows[-1]) >= 256 * HASH_SIZE:
        row = rows[-1][: len(rows[-1]) // (256 * HASH_SIZE) * 256 * HASH_SIZE]
        for _ in range(8):
            row = node_hashes(row)
        rows.append(row)
    return rows


def test_every_tile_is_what_the_entries_give(reader: httpx.Client, levels: list[bytes]) -> None:
    tiles = list(tiles_of(SIZE))
    # SPEC tlog-tiles: "a tree of size 70,000 will be represented by 273 full level 0 tiles, one
    # partial level 0 tile of width 112, one full level 1 tile, one partial level 1 tile of width
    # 17, and one partial level 2 tile of width 1."
    assert [tile.path for tile in tiles[-4:]] == [
        *("tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1")
    ]
    assert len(tiles) == 273 + 4
    for tile in tiles:
        answer = reader.get(f"/big/{tile.path}")
        start = tile.index * 256 * HASH_SIZE
        assert answer.status_code == 200, tile.path
        assert answer.content == levels[tile.level][start : start + tile.width * HASH_SIZE]
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
        assert "content-encoding" not in answer.headers


def test_every_bundle_is_its_entries(reader: httpx.Client, entries: list[bytes]) -> None:
    for index in range(SIZE // 256 + 1):
        begin, end = index * 256, min(index * 256 + 256, SIZE)
        path = f"/big/{entries_path(index, end - begin)}"
        expected = encode_bundle(entries[begin:end])
        plain = reader.get(path)
        packed = reader.get(path, headers={"Accept-Encoding": "gzip"})
        assert plain.content == packed.content == expected
        assert plain.headers["content-type"] == packed.headers["content-type"]
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"


def test_the_tree_of_the_tiles_alone_has_the_root_of_the_checkpoint(
    big: Served, reader: httpx.Client
) -> None:
    answer = reader.get("/big/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    opened = open_checkpoint(answer.content, big.log.vkeys, origin="example.com/big")
    size = opened.checkpoint.size
    assert size == SIZE

    def read(level: int, index: int) -> bytes:
        width = min(256, (size >> 8 * level) - index * 256)
        return reader.get(f"/big/{tile_path(level, index, width)}").content

    assert RightEdge.load(size, read).root() == opened.checkpoint.root_hash
    # Not only its right edge: from the leaves of all the tiles of level 0, too.
    tree = CompactRange()
    for index in range(-(-size // 256)):
        row = read(0, index)
        for start in range(0, len(row), HASH_SIZE):
            tree.append(row[start : start + HASH_SIZE])
    assert tree.root() == opened.checkpoint.root_hash


def hidden_paths() -> Iterator[str]:
    for begin in ("tile/0", "tile/entries"):
        yield f"{begin}/273"  # durable and complete, but not in any published tree
        yield from (f"{begin}/273.p/{width}" for width in (113, 114, 200, 255))
        yield from (f"{begin}/{index}" for index in (274, 275, 276, 277, 999))
        yield from (f"{begin}/274.p/{width}" for width in (1, 112, 255))
        yield f"{begin}/x001/000"
        yield f"{begin}/x036/x028/x797/x018/x963/967"
    yield from ("tile/1/001", "tile/1/001.p/18", "tile/1/002.p/1", "tile/2/000", "tile/2/000.p/2")
    yield from ("tile/2/001.p/1", "tile/3/000.p/1", "tile/3/000", "tile/7/000.p/1", "tile/63/000")


@pytest.mark.parametrize("path", list(hidden_paths()))
def test_nothing_beyond_the_published_size(reader: httpx.Client, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = reader.request(method, f"/big/{path}", headers={"If-None-Match": "*"})
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"
    text = reader.get(f"/big/{path}").text
    assert path in text
    assert text.count("\n") == 1


def test_the_hidden_entries_are_durable(big: Served) -> None:
    assert big.log.sequencer.edge.size == SIZE + HIDDEN


def test_partials_of_every_width_at_the_edge(
    reader: httpx.Client, entries: list[bytes], levels: list[bytes]
) -> None:
    begin = 273 * 256
    for width in range(1, 256):
        status = 200 if width <= 112 else 404
        tile = reader.get(f"/big/tile/0/273.p/{width}")
        bundle = reader.get(f"/big/tile/entries/273.p/{width}")
        assert (tile.status_code, bundle.status_code) == (status, status)
        if status == 200:
            assert tile.content == levels[0][begin * 32 : (begin + width) * 32]
            assert bundle.content == encode_bundle(entries[begin : begin + width])


def test_partials_stay_when_the_full_tile_exists(
    reader: httpx.Client, entries: list[bytes], levels: list[bytes]
) -> None:
    for width in range(1, 256):
        assert (
            reader.get(f"/big/tile/0/005.p/{width}").content
            == (levels[0][5 * 8192 : 5 * 8192 + width * 32])
        )
        assert reader.get(f"/big/tile/1/000.p/{width}").content == levels[1][: width * 32]
        bundle = reader.get(f"/big/tile/entries/005.p/{width}").content
        assert split_bundle(bundle) == entries[1280 : 1280 + width]


def test_the_edge_moves_with_each_checkpoint(small: Served, writer: httpx.Client) -> None:
    assert writer.get("/small/tile/0/000.p/1").status_code == 404
    tree = CompactRange()
    for size in (1, 2, 3, 100, 254, 255, 256, 257, 258, 511, 512, 513):
        entries = [b"%d" % number for number in range(tree.end, size)]
        small.append(entries)
        small.publish()
        for entry in entries:
            tree.append(leaf_hashes([entry]))
        opened = open_checkpoint(writer.get("/small/checkpoint").content, small.log.vkeys)
        assert (opened.checkpoint.size, opened.checkpoint.root_hash) == (size, tree.root())
        # SPEC tlog-tiles: "Logs MUST serve partial tiles corresponding to tree sizes for which a
        # checkpoint was produced"
        for tile in tiles_of(size):
            assert writer.get(f"/small/{tile.path}").status_code == 200
        index, width = divmod(size, 256)
        assert writer.get(f"/small/{tile_path(0, index, width + 1)}").status_code == 404
        assert writer.get(f"/small/{entries_path(index, width + 1)}").status_code == 404
    # SPEC tlog-tiles: "a tree of size 256 will be represented by a full level 0 tile and a partial
    # level 1 tile of width 1"
    assert len(writer.get("/small/tile/1/000.p/1").content) == HASH_SIZE


MALFORMED = (
    *(
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/5",
        "tile//000",
    ),
    *("tile/00/000", "tile/01/000", "tile/64/000", "tile/100/000", "tile/-1/000", "tile/+1/000"),
    *("tile/0/x000/001", "tile/0/x001", "tile/0/001/067", "tile/0/x001/x067", "tile/0/X001/067"),
    *("tile/0/x01/067", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/"),
    *("tile/0/000.p", "tile/0/000.p/1/", "tile/0/000/", "tile/0/000.p/-1", "tile/0/000.p/1000"),
    *("tile/0/000.P/1", "tile/0/000.p/+1", "tile/0/000.p/1%20", "tile/0/%30%30%30", "tile%2F0/000"),
    *("tile/entries", "tile/entries/", "tile/entries/0", "tile/entries/0/000", "tile/entries/x000"),
    *("tile/entries/000.p/0", "tile/entries/000.p/256", "tile/entries/%30%30%30", "tile/data/000"),
    *("tile/0/x036/x028/x797/x018/x963/968", "tile/0/x999/x999/x999/x999/x999/x999/999"),
    *("tile/0/../0/000", "tile/0/./000", "tile/0/000;x", "tile/0/\xd9\xa0\xd9\xa0\xd9\xa0"),
    *("tile/0/" + "x000/" * 1000 + "000", "tile/" + "9" * 5000 + "/000"),
)


@pytest.mark.parametrize("path", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_paths(big: Served, path: str) -> None:
    request = f"GET /big/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = big.raw(request.encode("latin-1"))
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in {400, 404}
    assert (status == 404) == (not path.startswith("tile/")) or "\xd9" in path
    assert body.count(b"\n") == 1
    assert len(body) < 400


def test_paths_are_not_decoded(big: Served) -> None:
    for path in ("/%62ig/checkpoint", "/big/checkpoin%74", "/big%2Fcheckpoint", "//checkpoint",
                 "/big//checkpoint", "/big/checkpoint/", "/BIG/checkpoint", "/big/CHECKPOINT",
                 "/big", "/big/", "/./big/checkpoint", "/x/../big/checkpoint"):  # fmt: skip
        head = big.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert head.startswith(b"HTTP/1.1 404 "), path


def test_a_query_changes_nothing(reader: httpx.Client) -> None:
    assert reader.get("/big/tile/0/000?x=/../y").content == reader.get("/big/tile/0/000").content


RESOURCES = (
    *("/big/checkpoint", "/big/tile/0/000", "/big/tile/0/273.p/112", "/big/tile/1/000"),
    *("/big/tile/entries/000", "/big/tile/entries/273.p/5", "/big/tile/entries/999", "/big/nope"),
    *("/", "/healthz", "/readyz", "/nope", "/other/checkpoint", "/big/tile/0/0"),
)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", RESOURCES)
def test_head_is_get_without_the_body(reader: httpx.Client, path: str, coding: str) -> None:
    get = reader.get(path, headers={"Accept-Encoding": coding})
    head = reader.head(path, headers={"Accept-Encoding": coding})
    get.headers.pop("date")
    head.headers.pop("date")
    assert head.status_code == get.status_code
    assert list(head.headers.raw) == list(get.headers.raw)
    assert head.content == b""


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", RESOURCES[:6])
def test_an_etag_is_recognized(reader: httpx.Client, path: str, coding: str) -> None:
    first = reader.get(path, headers={"Accept-Encoding": coding})
    etag = first.headers["etag"]
    assert not etag.startswith("W/")
    for value in (etag, f"W/{etag}", f'"x", {etag}', f'{etag},W/"y"', "*"):
        again = reader.get(path, headers={"Accept-Encoding": coding, "If-None-Match": value})
        assert again.status_code == 304, value
        assert again.content == b""
        for name in ("etag", "cache-control", "vary"):
            assert again.headers.get(name) == first.headers.get(name)
        assert "content-length" not in again.headers
    for value in ("", '""', etag.strip('"'), etag[:-2] + '"', '"*"', f"x{etag}".replace('"', "")):
        again = reader.get(path, headers={"Accept-Encoding": coding, "If-None-Match": value})
        assert again.status_code == 200, value
        assert again.content == first.content


def test_etags_differ_where_bytes_do(reader: httpx.Client, small: Served) -> None:
    etags = [reader.get(path).headers["etag"] for path in RESOURCES[:6]]
    for path in RESOURCES[4:6]:
        etags.append(reader.get(path, headers={"Accept-Encoding": "gzip"}).headers["etag"])
    small.append([b"x"])
    small.publish()
    with small.client() as client:
        etags.append(client.get("/small/checkpoint").headers["etag"])
        etags.append(client.get("/small/tile/0/000.p/1").headers["etag"])
    assert len(set(etags)) == len(etags)


def test_the_etag_of_the_checkpoint_moves(small: Served, writer: httpx.Client) -> None:
    etag = writer.get("/small/checkpoint").headers["etag"]
    small.append([b"x"])
    small.publish()
    assert writer.get("/small/checkpoint", headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0, identity", None),
        ("identity;q=0", "gzip"),
        ("*", "gzip"),
        ("*;q=0, gzip", "gzip"),
        ("br, zstd", None),
        ("*;q=0", 406),
        ("identity;q=0, gzip;q=0", 406),
    ],
)
def test_codings_of_a_bundle(
    reader: httpx.Client, entries: list[bytes], accept: str | None, coding: str | int | None
) -> None:
    headers = {} if accept is None else {"Accept-Encoding": accept}
    answer = reader.get("/big/tile/entries/001", headers=headers)
    if coding == 406:
        assert answer.status_code == 406
        return
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.content == encode_bundle(entries[256:512])
    tile = reader.get("/big/tile/0/001", headers=headers)
    assert "content-encoding" not in tile.headers  # hashes do not compress


def test_gzip_is_shorter_and_always_the_same(big: Served) -> None:
    request = (
        b"GET /big/tile/entries/000 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
        b"Connection: close\r\n\r\n"
    )
    bodies = {big.raw(request).partition(b"\r\n\r\n")[2] for _ in range(3)}
    (body,) = bodies
    assert len(body) < len(gzip.decompress(body)) / 2


def test_every_path_that_parses_is_answered_in_bounds(reader: httpx.Client) -> None:
    for level in range(64):
        path = tile_path(level, 0, 1)
        assert parse_tile_path(path).level == level
        assert reader.get(f"/big/{path}").status_code == (200 if level < 3 else 404)
