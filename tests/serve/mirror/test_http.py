"""The mirror's HTTP face: bodies as they may come, clients as they may be, and reads."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from tests.mirror.support import LOG, OTHER, STRANGER, check_cosigned, sha256
from tests.serve.mirror.faces import OCTETS, Face, Info, served
from tlog.merkle import Tile
from tlog.notes import parse_unverified
from tlog.store import StoreFull

HASH = sha256(LOG.origin).hex()


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with served(tmp_path / "m") as face:
        await face.add_checkpoint(*LOG.request(0, 900))
        yield face


def next_entry(face: Face) -> int:
    return sum(copy.next_entry for copy in face.mirror.copies())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


class Body:
    """A body that is sent as the test says: chunked, its end open."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, piece: bytes) -> None:
        self._pieces.put_nowait(piece)

    def end(self) -> None:
        self._pieces.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


async def post(face: Face, body: Body) -> httpx.Response:
    return await face.client.post("/add-entries", content=body, headers=OCTETS)


OPEN = (
    b"POST /add-entries HTTP/1.1\r\nHost: m\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: 1000000\r\n\r\n"
)


async def begin(face: Face, body: bytes) -> bytes:
    """Send the beginning of a body, and wait for the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
    writer.write(OPEN + body)
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    return line


# ---- bodies ----


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_gzip(face: Face, coding: str) -> None:
    body = LOG.upload(0, 900)
    middle = len(body) // 2
    folded = gzip.compress(body)
    assert (await face.add_entries(folded, content_encoding=coding)).status_code == 200
    # Flushed in the middle, as a client does that streams.
    stream = zlib.compressobj(wbits=31)
    folded = (
        stream.compress(body[:middle])
        + stream.flush(zlib.Z_FULL_FLUSH)
        + stream.compress(body[middle:])
        + stream.flush()
    )
    assert (await face.add_entries(folded, content_encoding="gzip")).status_code == 200


async def test_what_is_not_gzip_ends_the_body(face: Face) -> None:
    body = LOG.upload(0, 900)
    response = await face.add_entries(body, content_encoding="gzip")
    assert response.status_code == 400
    assert "gzip" in response.text
    first = len(LOG.upload(0, 900, count=1))
    stream = zlib.compressobj(wbits=31)
    folded = stream.compress(body[: first + 100]) + stream.flush(zlib.Z_FULL_FLUSH)
    # Cut off after a package: what came before counts.
    response = await face.add_entries(folded, content_encoding="gzip")
    assert (response.status_code, Info.of(response).next_entry) == (202, 256)


async def test_a_bomb_is_refused_at_its_first_package(face: Face) -> None:
    head = LOG.upload(0, 900, count=0)
    bomb = gzip.compress(head + bytes(64 << 20))
    assert (await face.add_entries(bomb, content_encoding="gzip")).status_code == 422
    # Entries of 65,535 bytes each: a package that is never whole is bounded by what one can have.
    bomb = gzip.compress(head + b"\xff" * (64 << 20))
    assert (await face.add_entries(bomb, content_encoding="gzip")).status_code == 422
    assert next_entry(face) == 0


async def test_other_types_and_codings(face: Face) -> None:
    body = LOG.upload(0, 900)
    for headers in ({"content_encoding": "br"}, {"content_type": "text/plain"}):
        response = await face.add_entries(body, **headers)
        assert response.status_code == 415
    assert (await face.client.post("/add-entries", content=body)).status_code == 415
    named = "Application/Octet-Stream; q=1"
    assert (await face.add_entries(body, content_type=named)).status_code == 200


async def test_one_byte_at_a_time(face: Face) -> None:
    body = Body()
    asked = asyncio.create_task(post(face, body))
    data = LOG.upload(0, 900)
    for index in range(2000):
        body.send(data[index : index + 1])
    body.send(data[2000:])
    body.end()
    assert (await asked).status_code == 200


# ---- clients ----


async def test_a_refusal_does_not_wait_for_the_body(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "The mirror SHOULD send these error responses without waiting for the entire request body".
    monkeypatch.setattr("tlog.serve.http_body.DRAIN_SECONDS", 0.1)
    heads = [
        (STRANGER.upload(0, 300, count=0), 404),
        (OTHER.upload(0, 300, count=0), 422),
        (LOG.upload(0, 899, count=0), 409),
        (LOG.upload(1, 900, count=0), 409),
    ]
    for head, status in heads:
        assert (await begin(face, head)).startswith(b"HTTP/1.1 %d " % status)


async def test_packages_are_saved_as_they_arrive(face: Face) -> None:
    body = Body()
    asked = asyncio.create_task(post(face, body))
    first = LOG.upload(0, 900, count=1)
    body.send(first)
    await until(lambda: next_entry(face) == 256)
    # Another client is not held up by one that pauses, and does not disturb it.
    assert (await face.add_entries(LOG.upload(256, 900))).status_code == 200
    assert next_entry(face) == 900
    body.send(LOG.upload(0, 900)[len(first) :])
    body.end()
    assert (await asked).status_code == 200


async def test_a_client_that_goes_away_leaves_its_packages(face: Face) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", face.port)
    writer.write(OPEN + LOG.upload(0, 900, count=2) + b"\0")
    await until(lambda: next_entry(face) == 512)
    writer.transport.abort()
    info = Info.of(await face.add_entries(LOG.upload(600, 900)))
    assert (info.size, info.next_entry) == (900, 512)
    assert (await face.add_entries(LOG.upload(512, 900))).status_code == 200


async def test_many_clients_at_once(face: Face) -> None:
    async def client(step: int) -> httpx.Response:
        body = Body()
        asked = asyncio.create_task(post(face, body))
        data = LOG.upload(0, 900)
        for begin in range(0, len(data), step):
            body.send(data[begin : begin + step])
            await asyncio.sleep(0)
        body.end()
        return await asked

    answers = await asyncio.gather(*(client(step) for step in (700, 1100, 1900, 5000)))
    assert [answer.status_code for answer in answers] == [200] * 4
    for answer in answers:
        check_cosigned(face.mirror, LOG.note(900) + answer.content, 900)


async def test_a_client_that_is_too_slow(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.serve.mirror_http.BODY_SECONDS", 0.2)
    monkeypatch.setattr("tlog.serve.http_body.DRAIN_SECONDS", 0.1)
    for count, status in ((0, 408), (1, 202)):
        head = LOG.upload(0, 900, count=count) + b"\0"
        assert (await begin(face, head)).startswith(b"HTTP/1.1 %d " % status)
    # A drip is bounded as a whole.
    monkeypatch.setattr("tlog.serve.mirror_http.BODY_SECONDS", 30.0)
    monkeypatch.setattr("tlog.serve.mirror_http.UPLOAD_SECONDS", 0.2)
    assert (await begin(face, LOG.upload(0, 900)[:-1])).startswith(b"HTTP/1.1 202 ")


async def test_too_many_uploads(tmp_path: Path) -> None:
    async with served(tmp_path / "m", max_uploads=1) as face:
        await face.add_checkpoint(*LOG.request(0, 900))
        body = Body()
        asked = asyncio.create_task(post(face, body))
        body.send(LOG.upload(0, 900, count=1))
        await until(lambda: any(copy.next_entry for copy in face.mirror.copies()))
        refused = await face.add_entries(LOG.upload(0, 900))
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        body.end()
        assert (await asked).status_code == 202
        assert (await face.add_entries(LOG.upload(0, 900))).status_code == 200


async def test_a_disk_that_refuses(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await face.add_entries(LOG.upload(0, 900, count=1))).status_code == 202
    copy = face.mirror.copy(sha256(LOG.origin))

    def full() -> None:
        raise StoreFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(copy._store, "sync", full)
        response = await face.add_entries(LOG.upload(256, 900))
        assert response.status_code == 503
        assert "disk is full" in response.text
        assert int(response.headers["retry-after"]) > 0
    assert (await face.client.get("/readyz")).status_code == 503
    assert (await face.add_entries(LOG.upload(copy.next_entry, 900))).status_code == 200
    assert (await face.client.get("/readyz")).text == "ready\n"


async def test_methods_and_paths(face: Face) -> None:
    for path in ("/add-checkpoint", "/add-entries"):
        response = await face.client.get(path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert (await face.client.post("/", content=b"x")).status_code == 405
    for path in ("/sign-subtree", f"/{HASH}", f"/{HASH}/add", f"/{HASH.upper()}/checkpoint", "/x"):
        assert (await face.client.get(path)).status_code == 404


# ---- reads ----


async def test_what_is_not_mirrored_is_not_shown(face: Face) -> None:
    paths = ("checkpoint", "tile/0/000", "tile/entries/000", "tile/entries/000.p/1")
    for path in paths:
        assert (await face.client.get(f"/{HASH}/{path}")).status_code == 404
    # Saved, but no head covers it.
    assert (await face.add_entries(LOG.upload(0, 900, count=2))).status_code == 202
    for path in paths:
        assert (await face.client.get(f"/{HASH}/{path}")).status_code == 404
    await face.add_entries(LOG.upload(512, 900))
    await face.add_checkpoint(*LOG.request(900, 1300))
    await face.add_entries(LOG.upload(900, 1300, count=1))
    assert (await face.client.get(f"/{HASH}/tile/entries/003.p/132")).status_code == 200
    assert (await face.client.get(f"/{HASH}/tile/entries/003.p/133")).status_code == 404
    assert (await face.client.get(f"/{HASH}/tile/entries/003")).status_code == 404


async def test_a_copy_is_read_as_its_log_is(face: Face) -> None:
    await face.add_entries(LOG.upload(0, 900))
    checkpoint = await face.client.get(f"/{HASH}/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-cache"
    assert checkpoint.headers["access-control-allow-origin"] == "*"
    assert parse_unverified(checkpoint.content).checkpoint == LOG.checkpoint(900)
    known = {"if-none-match": checkpoint.headers["etag"]}
    assert (await face.client.get(f"/{HASH}/checkpoint", headers=known)).status_code == 304
    for tile in (Tile(0, 0), Tile(0, 3, 132), Tile(1, 0, 3), Tile(0, 0, 7)):
        response = await face.client.get(f"/{HASH}/{tile.path}")
        assert response.content == LOG.tile(tile)
        assert "immutable" in response.headers["cache-control"]
    for coding in ("identity", "gzip"):
        headers = {"accept-encoding": coding}
        response = await face.client.get(f"/{HASH}/tile/entries/001", headers=headers)
        assert response.headers.get("content-encoding", "identity") == coding
        assert response.content == LOG.bundle(1, 256)
    assert (await face.client.head(f"/{HASH}/tile/entries/001")).content == b""
    options = await face.client.options(f"/{HASH}/tile/entries/001")
    assert options.status_code == 204
    assert options.headers["access-control-allow-methods"] == "GET, HEAD"
    assert (await face.client.get(f"/{HASH}/tile/0/0")).status_code == 400


async def test_what_operators_ask_for(face: Face) -> None:
    await face.add_entries(LOG.upload(0, 900))
    await face.add_checkpoint(*LOG.request(900, 1000))
    index = (await face.client.get("/")).text.splitlines()
    assert index[:3] == ["mirror.example/m1", *map(str, face.mirror.vkeys)]
    assert index[3] == f"/{HASH}/ log.example/one 900 entries"
    assert (await face.client.get("/healthz")).text == "ok\n"
    metrics = (await face.client.get("/metrics")).text
    for name, value in (("tree_size", 900), ("next_entry", 900), ("pending_size", 1000)):
        assert f'tlog_mirror_{name}{{origin="log.example/one"}} {value}.0\n' in metrics
    assert 'answers_total{resource="add-entries",status="200"} 1.0' in metrics
