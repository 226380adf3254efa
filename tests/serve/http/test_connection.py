"""Strangers on the socket: garbage, floods, silence. And the port itself."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from tests.serve.http.served import HOST, Served, read_all
from tlog.log import Log, LogConfig, LogError, create_log
from tlog.serve import Logs, http_protocol, http_server
from tlog.serve.http_listener import http_listener

GET = b"GET /a/checkpoint HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("shared")) as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    shared.base = shared.log.sequencer.edge.size
    yield shared
    # Whatever a test did, the next client is served.
    with shared.client() as client:
        assert client.get("/a/checkpoint").status_code == 200
        assert client.post("/a/add", content=b"x").status_code == 200


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,  # a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /a/checkpoint HTTP/1.1\nHost: x\n\n",
        b"GET /a/check point HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"bad header\r\n\r\n",
        GET + b": empty\r\n\r\n",
        GET + b"a: b\x00c\r\n\r\n",
        GET + b"a: b\r\n folded\r\n\r\n",
        b"\r\n" * 20_000,
    ],
    ids=range(15),
)
def test_garbage(served: Served, sent: bytes) -> None:
    assert statuses(served.raw(sent)) in ([400], [431], [])


def test_random_bytes(served: Served) -> None:
    noise = random.Random(6962)
    for _ in range(60):
        served.raw(noise.randbytes(noise.randrange(1, 3000)))


def test_damaged_requests(served: Served) -> None:
    noise = random.Random(6963)
    head = b"POST /a/add HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    good = head + b"3\r\nabc\r\n0\r\n\r\n"
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(noise.randrange(1, 4)):
            bad[noise.randrange(len(bad))] ^= 1 << noise.randrange(8)
        answers = statuses(served.raw(bytes(bad)))
        assert all(status in {200, 400, 404, 405} for status in answers)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"Cookie: " + b"a" * 17_000 + b"\r\n\r\n",
        GET + b"a: b\r\n" * 3_000 + b"\r\n",
        GET + b"a" * 17_000 + b": b\r\n\r\n",
        b"GET /" + b"a" * 900_000,
        GET + b"Cookie: " + b"a" * 900_000,
        GET + b"a" * 900_000,
        GET + b"a: b\r\n" * 300_000,
    ],
    ids=range(8),
)
def test_long_heads(served: Served, request_head: bytes) -> None:
    with served.connect() as connection:
        try:
            connection.sendall(request_head)
        except (ConnectionResetError, BrokenPipeError):
            return  # refused before all of it was sent
        assert statuses(read_all(connection)) in ([431], [])


def test_a_head_within_the_bound(served: Served) -> None:
    answer = served.raw(GET + b"Cookie: " + b"a" * 15_000 + b"\r\n\r\n")
    assert statuses(answer) == [200]


@pytest.mark.parametrize(
    "endless",
    [b"3;x=" + b"e" * 65_536, b"0\r\nTrailer: " + b"t" * 65_536, b"0\r\n" + b"a: b\r\n" * 9000],
)
def test_endless_extensions_and_trailers(served: Served, endless: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(b"POST /a/add HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(endless)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                connection.sendall(b"y" * 65_536)
    assert served.log.sequencer.edge.size == served.base


def test_a_flood_of_pipelined_requests_is_cut(served: Served) -> None:
    gone = (ConnectionResetError, BrokenPipeError)
    with served.connect() as connection, pytest.raises(gone):
        for _ in range(2000):
            connection.sendall((GET + b"\r\n") * 500)


def test_a_long_pipeline_within_bounds(served: Served) -> None:
    count = http_protocol.MAX_PIPELINED
    assert statuses(served.raw((GET + b"\r\n") * count)) == [200] * count


def test_an_upgrade_is_ignored(served: Served) -> None:
    for offer in (b"h2c", b"websocket"):
        with served.connect() as connection:
            connection.sendall(GET + b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\n\r\n")
            answer = read_all(connection)
        assert statuses(answer) == [200]
        assert b"connection: close" in answer


def test_a_slow_head_times_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PATIENCE_SECONDS", 0.3)
    for sent in (b"", b"GET /a", GET, b"\r\n"):
        with served.connect() as connection:
            connection.sendall(sent)
            started = time.monotonic()
            assert statuses(read_all(connection)) == [408]
            assert time.monotonic() - started < 3


def test_a_dripping_second_head_times_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PATIENCE_SECONDS", 0.5)
    with served.connect() as connection:
        connection.sendall(GET + b"\r\n")
        answers = b""
        while b"\xe2\x80\x94" not in answers:
            answers += connection.recv(65_536)
        started = time.monotonic()
        connection.sendall(b"GET /")
        connection.settimeout(0.05)
        while time.monotonic() - started < 5:
            try:
                connection.sendall(b"a")
                if not connection.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.4 < time.monotonic() - started < 4


def test_an_idle_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.serve.http_listener.KEEP_ALIVE_SECONDS", 1)
    with Served(tmp_path) as served, served.connect() as connection:
        connection.sendall(GET + b"\r\n")
        started = time.monotonic()
        assert statuses(read_all(connection)) == [200]
        assert 0.9 < time.monotonic() - started < 5


def test_too_many_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 5)
    held = [served.connect() for _ in range(5)]
    for connection in held:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    with served.connect() as connection:
        answer = read_all(connection)
    assert statuses(answer) == [503]
    assert b"retry-after: 1" in answer
    for connection in held:
        connection.close()
    time.sleep(0.2)


def test_a_reader_that_stalls_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALL_SECONDS", 0.5)
    config = LogConfig(origin="example.com/l", name="l", checkpoint_interval=0)
    with Served(tmp_path, config) as served:
        served.append([os.urandom(65_000) for _ in range(256)])
        served.publish()
        with served.connect() as connection:
            connection.sendall(b"GET /l/tile/entries/000 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(2)
            assert len(read_all(connection)) < 256 * 65_002
        with served.client() as client:
            answer = client.get("/l/tile/entries/000")
            assert len(answer.content) == 256 * 65_002
            packed = client.get("/l/tile/entries/000", headers={"Accept-Encoding": "gzip"})
            assert packed.content == answer.content


def test_long_answers_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.serve.http_answers.MAX_OUTGOING_BYTES", 20 << 20)
    config = LogConfig(origin="example.com/l", name="l", checkpoint_interval=0)
    with Served(tmp_path, config) as served, served.client() as client:
        served.append([os.urandom(65_000) for _ in range(256)])
        served.publish()
        with served.connect() as stalled:
            stalled.sendall(b"GET /l/tile/entries/000 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.5)
            answer = client.get("/l/tile/entries/000")
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert client.get("/l/tile/0/000").status_code == 200
        time.sleep(0.2)
        assert client.get("/l/tile/entries/000").status_code == 200


def test_unread_connections_do_not_keep_the_server(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        idle = served.connect()
        half = served.connect()
        half.sendall(b"GET /a")
        time.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert read_all(idle) == read_all(half) == b""


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def make(directory: Path) -> Path:
    create_log(directory, LogConfig(origin="example.com/p", name="p"))
    return directory


async def test_a_second_server_on_the_port_is_told_why(tmp_path: Path) -> None:
    async with Log.opened(await make(tmp_path / "p")) as log:
        async with http_server(Logs([log]), f"{HOST}:0") as port:
            with pytest.raises(LogError, match=r"the port is taken.*--http"):
                async with http_server(Logs([log]), f"{HOST}:{port}"):
                    pass
        # At once again, though connections of the first may linger.
        async with http_server(Logs([log]), f"{HOST}:{port}") as again:
            assert again == port


async def test_a_port_that_only_listens_elsewhere_is_taken_too(tmp_path: Path) -> None:
    async with Log.opened(await make(tmp_path / "p")) as log:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((HOST, 0))
            other.listen()
            with pytest.raises(LogError, match="the port is taken"):
                async with http_server(Logs([log]), f"{HOST}:{other.getsockname()[1]}"):
                    pass


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "[::]:0", "example.com:80", "127.0.0.1", "127.0.0.1:x", ":6963", ""]
)
async def test_addresses_that_are_refused(tmp_path: Path, address: str) -> None:
    async with Log.opened(await make(tmp_path / "p")) as log:
        with pytest.raises(LogError):
            async with http_server(Logs([log]), address):
                pass


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        pytest.param("[::1]", marks=pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")),
    ],
)
async def test_loopback_addresses(tmp_path: Path, host: str) -> None:
    directory = await make(tmp_path / "p")
    async with Log.opened(directory) as log, http_server(Logs([log]), f"{host}:0") as port:
        socket.create_connection((host.strip("[]"), port)).close()


def test_answers_are_not_delayed(served: Served) -> None:
    # Were head and body two writes, with Nagle's algorithm each answer would take 40 ms.
    with served.client() as client:
        started = time.monotonic()
        for _ in range(25):
            client.get("/a/checkpoint")
        assert time.monotonic() - started < 0.7


def test_head_and_body_leave_together(served: Served) -> None:
    with socket.create_connection((HOST, served.port)) as peer:
        for _ in range(50):
            peer.sendall(b"GET /a/checkpoint HTTP/1.1\r\nHost: log\r\n\r\n")
            head, _, body = peer.recv(65536).partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head
            assert body.startswith(b"example.com/a\n")


async def _reads_then_breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what it was sent; but only the head of the answer to "die"."""
    body = (await receive())["body"]
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if body == b"die":
        raise RuntimeError("between head and body")
    await send({"type": "http.response.body", "body": body})


async def _until_closed(request: bytes) -> bytes:
    async with http_listener(_reads_then_breaks_off, f"{HOST}:0") as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    return answer


async def test_a_head_without_its_body_is_still_sent() -> None:
    answer = await _until_closed(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\ndie")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_waits_to_be_asked_for_the_body() -> None:
    answer = await _until_closed(
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\n\r\nbody"
    )
    asked, _, answer = answer.partition(b"\r\n\r\n")
    assert asked == b"HTTP/1.1 100 Continue"
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"body"
