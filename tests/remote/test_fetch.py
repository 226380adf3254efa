"""A log over HTTP whose server is malicious: no audit accepts, crashes, hangs, or eats memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.client.tiled import VERIFIER, TiledLog, numbered
from tests.remote.test_hostile import http
from tlog.client import (
    Auditor,
    AuditState,
    ClientError,
    MemoryAudit,
    Unreachable,
    VerificationError,
)
from tlog.client import walk as walking
from tlog.merkle import TILE_WIDTH, Tile
from tlog.remote import RemoteError, fetch, open_source

SIZE = 1000
ENTRIES = numbered(SIZE)
TIMEOUT = 0.4

Pieces = AsyncIterator[bytes]
Answer = Callable[[str, bytes], bytes | Pieces]


class Server:
    """Serves a log over real sockets; `lies` answer in place of the truth, by path."""

    def __init__(self, log: TiledLog) -> None:
        self.serves(log)
        self.lies: dict[str, bytes | Callable[[], Pieces]] = {}
        self.asked: list[bytes] = []
        self.connections = 0
        self.url = ""

    def serves(self, log: TiledLog) -> None:
        self.resources = {"checkpoint": log.head, **log.resources()}
        # A tile that is partial now serves proofs in smaller trees too.
        for (level, index), data in log.tiles.items():
            for width in range(1, len(data) // 32):
                self.resources[Tile(level, index, width).path] = data[: 32 * width]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head)
                path = head.split()[1].decode().removeprefix("/log/")
                lie = self.lies.get(path, self.lies.get("*"))
                if lie is None:
                    body = self.resources.get(path)
                    said = http("404 Not Found", b"no\n") if body is None else http("200 OK", body)
                    writer.write(said)
                elif isinstance(lie, bytes):
                    writer.write(lie)
                    if not lie.startswith(b"HTTP/1.1 2") or b"Content-Length" not in lie:
                        break
                else:
                    async for piece in lie():
                        writer.write(piece)
                        await writer.drain()
                    break
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(log: TiledLog | None = None) -> AsyncIterator[Server]:
    server = Server(log or TiledLog(ENTRIES))
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/log/"
        yield server


async def audit(server: Server, state: AuditState | None = None) -> int:
    """Audit the log of the server; the number of entries that were hashed."""
    source = open_source(server.url, timeout=TIMEOUT)
    try:
        found = await Auditor(source, VERIFIER, state).run()
    finally:
        await source.aclose()
    assert asyncio.all_tasks() - {asyncio.current_task()} == _served()
    return found.head.size - found.first


def _served() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "Server.answer" in repr(task)}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAUSES", (0.0,))


async def test_an_honest_log() -> None:
    log = TiledLog(numbered(9000))
    async with serving(log) as server:
        assert await audit(server) == 9000
        # A few connections, each used again and again.
        assert len(server.asked) == 1 + len(log.resources()) > 70
        assert server.connections <= 16
        for wanted in (b"gzip", b"identity", b"Host: 127.0.0.1:"):
            assert all(wanted in head for head in server.asked)


async def test_answers_do_not_wait_for_the_garbage_collector() -> None:
    """One that was read may have 16 MiB, and hundreds are read before it comes."""
    async with serving() as server:
        gc.collect()
        gc.disable()
        try:
            assert await audit(server) == SIZE
            assert not [found for found in gc.get_objects() if isinstance(found, fetch._Answer)]
        finally:
            gc.enable()


async def test_partial_resources_that_are_gone_are_read_from_the_full_ones() -> None:
    """SPEC tlog-tiles: a log may drop what a later full tile contains."""
    async with serving() as server:
        server.serves(TiledLog(numbered(2048)))
        server.resources["checkpoint"] = TiledLog(ENTRIES).head
        for path in list(server.resources):
            if ".p/" in path and not path.startswith("tile/1"):
                del server.resources[path]
        assert await audit(server) == SIZE
        server.resources["tile/entries/003"] = b"\0\5hell"
        with pytest.raises(VerificationError, match="tile/entries/003"):
            await audit(server)


async def test_gzip_without_being_asked() -> None:
    async with serving() as server:
        for path, data in server.resources.items():
            for coding in (b"gzip", b"GZIP", b"x-gzip"):
                header = b"Content-Encoding: %s\r\n" % coding
                server.lies[path] = http("200 OK", gzip.compress(data, 1), header)
        assert await audit(server) == SIZE


async def test_chunks() -> None:
    async with serving() as server:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for path in ("checkpoint", "tile/entries/001"):
            data = server.resources[path]
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data)
            server.lies[path] = head + chunks + b"0\r\n\r\n"
        assert await audit(server) == SIZE


async def test_connections_that_close_while_idle() -> None:
    async with serving() as server:
        for path, data in server.resources.items():
            # Keep-alive is promised, and the connection closed.
            async def once(data: bytes = data) -> Pieces:
                yield http("200 OK", data)

            server.lies[path] = once
        assert await audit(server) == SIZE


async def endless(head: bytes, piece: bytes) -> Pieces:
    yield head
    while True:
        yield piece


async def drip(head: bytes, pause: float) -> Pieces:
    for byte in head:
        yield bytes([byte])
    while True:
        await asyncio.sleep(pause)
        yield b"x"


async def silence() -> Pieces:
    await asyncio.sleep(60)
    yield b""


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(100 << 20), 9)
# Blocks of no bytes, of which gzip may have any number.
EMPTY_BLOCKS = b"\0\0\0\xff\xff" * 12_000
GZIP_HEADER = gzip.compress(b"")[:10]
HOLLOW = GZIP_HEADER + EMPTY_BLOCKS
GZIPPED = b"Content-Encoding: gzip\r\n"

LIES: dict[str, bytes | Callable[[], Pieces]] = {
    "an endless body": lambda: endless(OK + b"\r\n", bytes(65_536)),
    "endless chunks": lambda: endless(CHUNKED, b"ffff\r\n" + bytes(65_535) + b"\r\n"),
    "endless empty gzip": lambda: endless(
        OK + GZIPPED + b"Transfer-Encoding: chunked\r\n\r\na\r\n" + GZIP_HEADER + b"\r\n",
        b"%x\r\n%s\r\n" % (len(EMPTY_BLOCKS), EMPTY_BLOCKS),
    ),
    "endless bytes after a gzip": lambda: endless(
        OK + GZIPPED + b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + gzip.compress(b"") + b"\r\n",
        b"ffff\r\n" + bytes(65_535) + b"\r\n",
    ),
    "endless headers": lambda: endless(OK, b"X: y\r\n" * 10_000),
    "an endless header": lambda: endless(OK + b"X: ", bytes([120]) * 65_536),
    "an endless status line": lambda: endless(b"HTTP/1.1 200 ", bytes([120]) * 65_536),
    "endless interim answers": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "an endless refusal": lambda: endless(b"HTTP/1.1 404 No\r\n\r\n", bytes(65_536)),
    "a slow body": lambda: drip(OK + b"Content-Length: 100\r\n\r\n", 0.05),
    "slow headers": lambda: drip(OK, 0.05),
    "silence": silence,
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "zeros": bytes(10_000),
    "a cut": OK + b"Content-Length: 90\r\n\r\nshort",
    "no length": OK + b"\r\nwho knows where it ends",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "a length of 2**70": OK + b"Content-Length: 1180591620717411303424\r\n\r\nabc",
    "more than the length": http("200 OK", b"") + http("200 OK", b""),
    "a redirect": http("302 Found", b"", b"Location: http://127.0.0.1:1/\r\n"),
    "a redirect to itself": http("301 Moved", b"", b"Location: checkpoint\r\n"),
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a gzip bomb": http("200 OK", BOMB, GZIPPED),
    "a nested gzip bomb": http("200 OK", gzip.compress(BOMB), b"Content-Encoding: gzip, gzip\r\n"),
    "no gzip": http("200 OK", b"not gzip at all", GZIPPED),
    "half a gzip": http("200 OK", gzip.compress(bytes(9))[:-5], GZIPPED),
    "gzip and more": http("200 OK", gzip.compress(b"") * 2, GZIPPED),
    "a hollow gzip": http("200 OK", HOLLOW, GZIPPED),
    "a coding nobody knows": http("200 OK", b"x", b"Content-Encoding: br\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a part": http("206 Partial Content", b"x"),
    "push-back": http("503 Busy", b"later\n", b"Retry-After: 0\r\n"),
    "an escape": http("500 Oh", b"\x1b[2J\x07 \xff"),
    "no body": http("200 OK"),
    "zeros of any length": http("200 OK", bytes(32)),
}


@pytest.mark.parametrize("at", ["checkpoint", "tile/0/002", "tile/entries/002", "tile/1/000.p/3"])
@pytest.mark.parametrize("lie", LIES)
async def test_a_malicious_server(at: str, lie: str) -> None:
    async with serving() as server:
        server.lies[at] = LIES[lie]
        started = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises((VerificationError, Unreachable)) as caught:
                await audit(server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert time.monotonic() - started < 20 * TIMEOUT
        # The test's own server sends from here too. A bundle may have 16 MiB.
        assert peak < (100 if at == "tile/entries/002" else 8) << 20
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("an endless body", "tile/0/002: longer than 8192 bytes"),
        ("endless chunks", "tile/0/002: longer than 8192 bytes"),
        ("endless headers", "tile/0/002: more than .* bytes"),
        ("endless empty gzip", "tile/0/002: more than .* bytes"),
        ("a gzip bomb", "tile/0/002: longer than 8192 bytes"),
        ("a nested gzip bomb", "content coding gzip, gzip"),
        ("half a gzip", "broken gzip"),
        ("endless bytes after a gzip", "goes on after its end"),
        ("a slow body", "tile/0/002 did not answer within 0.4 s"),
        ("a redirect", "302: redirects are not followed"),
        ("push-back", "503 later"),
        ("an escape", "500 .*x1b"),
        ("zeros of any length", "tile/0/002 has 32 bytes, but must have 8192"),
    ],
)
async def test_what_a_lie_is_called(lie: str, says: str) -> None:
    async with serving() as server:
        server.lies["tile/0/002"] = LIES[lie]
        with pytest.raises(ClientError, match=says):
            await audit(server)


async def test_two_answers_to_one_request() -> None:
    async with serving() as server:
        path = "tile/1/000.p/3"
        server.lies[path] = http("200 OK", server.resources[path]) + http("200 OK", b"")
        with pytest.raises(VerificationError, match="more than one answer"):
            await audit(server)


async def test_a_short_log_turns_long_at_once() -> None:
    """Bundles that would have 16 MiB each, all on their way at the same moment."""
    async with serving(TiledLog(numbered(6000))) as server:
        for index in range(4, 24):
            path = f"tile/entries/{index:03d}" + (".p/112" if index == 23 else "")
            server.lies[path] = lambda: endless(OK + b"\r\n", bytes(65_536))
        tracemalloc.start()
        try:
            with pytest.raises((VerificationError, Unreachable)):
                await audit(server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 400 << 20


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose certificate is not known is not read from."""
    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = Server(TiledLog(ENTRIES))
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=context) as listening:
        server.url = f"https://localhost:{listening.sockets[0].getsockname()[1]}/log"
        with pytest.raises(Unreachable, match="certificate"):
            await audit(server)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await audit(server) == SIZE
        server.url = server.url.replace("localhost", "127.0.0.1")
        with pytest.raises(Unreachable, match="certificate"):
            await audit(server)


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for `localhost`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


# ---- logs that lie about their past ----


async def test_a_log_that_rolls_back_forks_or_freezes() -> None:
    state = MemoryAudit()
    async with serving(TiledLog(ENTRIES[:700])) as server:
        assert await audit(server, state) == 700
        old = server.resources
        server.serves(TiledLog(ENTRIES))
        assert await audit(server, state) == 300
        honest, server.resources = server.resources, old
        with pytest.raises(VerificationError) as caught:
            await audit(server, state)
        assert caught.value.check == "rollback"
        for size, check in ((SIZE, "fork"), (SIZE + 500, "consistency")):
            server.serves(TiledLog([*numbered(600), *numbered(size - 600, b"forked")]))
            with pytest.raises(VerificationError) as caught:
                await audit(server, state)
            assert caught.value.check == check
            assert len(caught.value.evidence) == 2
        # A log that stands still proves nothing new, and loses nothing.
        server.resources = honest
        assert await audit(server, state) == 0


async def test_tiles_of_another_log_while_it_is_read() -> None:
    async with serving() as server:
        server.resources |= TiledLog(numbered(SIZE, b"other")).resources()
        with pytest.raises(VerificationError) as caught:
            await audit(server)
        assert caught.value.check == "root"


async def test_a_server_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    state = MemoryAudit()
    async with serving(TiledLog(numbered(9000))) as server:

        async def gone() -> Pieces:
            raise ConnectionResetError
            yield b""

        server.lies["tile/entries/030"] = gone
        with pytest.raises(Unreachable, match="tile/entries/030"):
            await audit(server, state)
        server.lies.clear()
        assert await audit(server, state) == 9000 - 16 * TILE_WIDTH


async def test_nobody_there() -> None:
    async with serving() as server:
        pass
    with pytest.raises(Unreachable, match="no checkpoint"):
        await audit(server)
    source = open_source(server.url)
    with pytest.raises(RemoteError):
        await source.consistency_proof(5, 1000)
    await source.aclose()
