"""Witnesses that answer what they should not: each is a CosignerError, and counts as away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from tests.remote.witnesses import Station, make_log, opened, until, write_policy
from tests.serve.witness.transcripts import LOG
from tests.witness.support import signer
from tlog.log.cosigners import CosignerConflict, CosignerError
from tlog.notes import Algorithm, cosign, parse_unverified
from tlog.remote import AddressError, connect
from tlog.v1 import witness_pb2 as pb

NOTE = LOG.note(5)
SIZE = b"Content-Type: text/x.tlog.size\r\n"
STRANGER = signer("stranger.example", Algorithm.ED25519_COSIGNATURE)


@contextlib.asynccontextmanager
async def answering(*answer: bytes, pause: float = 0.0) -> AsyncIterator[str]:
    """An HTTP server that says these pieces to whatever is asked, and hangs up; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            for piece in answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def http(status: str, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        headers,
        len(body),
        body,
    )


async def ask(url: str, old: int = 0) -> bytes:
    witness = connect(url)
    try:
        return await witness.add_checkpoint(old, [], NOTE)
    finally:
        await witness.aclose()


async def test_409_heals() -> None:
    for size in (0, 5, (1 << 63) - 1):
        for kind in (SIZE, b"content-type: Text/X.tlog.size; charset=utf-8\r\n"):
            async with answering(http("409 Conflict", b"%d\n" % size, kind)) as url:
                with pytest.raises(CosignerConflict) as caught:
                    await ask(url)
                assert caught.value.size == size


BAD_SIZES = [
    b"",
    b"\n",
    b"5",
    b"05\n",
    b"-1\n",
    b"+1\n",
    b" 5\n",
    b"5 \n",
    b"5\r\n",
    b"5\n\n",
    b"5\n6\n",
    b"x\n",
]
BAD_SIZES += [b"9223372036854775808\n", b"9" * 5000 + b"\n", "٥\n".encode(), b"\xff\n", b"1_0\n"]


async def test_409_is_read_strictly() -> None:
    for body in BAD_SIZES:
        async with answering(http("409 Conflict", body, SIZE)) as url:
            with pytest.raises(CosignerError, match="not a size") as caught:
                await ask(url)
            assert not isinstance(caught.value, CosignerConflict)
    async with answering(http("409 Conflict", b"5\n", b"Content-Type: text/plain\r\n")) as url:
        with pytest.raises(CosignerError, match="409 5") as caught:
            await ask(url)
        assert not isinstance(caught.value, CosignerConflict)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "cannot be asked"),
        (b"\0" * 1000, "cannot be asked"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "cannot be asked"),
        (http("200 OK", b"x" * 65_537), "more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000, "more than 65536 bytes"),
        (http("404 Not Found", b"who?\nsecond line"), "404 who\\?$"),
        (http("403 Forbidden", b"\x1b[2J\x07"), r"403 '\\x1b\[2J"),
        (http("500 Oh", b"\xff\xfe"), "500"),
        (http("500 Oh", b"y" * 60_000), "500"),
        (http("204 No Content"), "204"),
        (http("302 Found", b"", b"Location: http://127.0.0.1:1/\r\n"), "302"),
        (http("307 Go", b"", b"Location: http://127.0.0.1:1/\r\n"), "307"),
        (http("429 Slow", b"later\n", b"Retry-After: 5\r\n"), "429 later"),
    ],
)
async def test_answers_that_are_none(answer: bytes, says: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(CosignerError, match=says) as caught:
            await ask(url)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async with answering(http("200 OK", b"junk", b"Content-Encoding: gzip\r\n")) as url:
        assert await ask(url) == b"junk"


async def test_slowly_is_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.remote.http.TOTAL_SECONDS", 0.3)
    dripping = [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 1000]
    async with answering(*dripping, pause=0.02) as url:
        started = time.monotonic()
        with pytest.raises(CosignerError, match="within 0.3 s"):
            await ask(url)
        assert time.monotonic() - started < 2


async def test_nobody_there() -> None:
    for scheme in ("http", "grpc"):
        with pytest.raises(CosignerError):
            await ask(f"{scheme}://127.0.0.1:1")


async def test_more_than_may_be_sent() -> None:
    witness = connect("http://127.0.0.1:1")
    with pytest.raises(CosignerError, match="63"):
        await witness.add_checkpoint(5, [bytes(32)] * 64, NOTE)
    await witness.aclose()


@pytest.mark.parametrize(
    "url",
    [
        *("", "w", "127.0.0.1:6972", "ftp://a", "http://", "grpc://a", "grpc://a:x", "unix:///a"),
        *("http://a:99999", "http://u:p@a", "http://a?b", "http://a#b", "http://a b", "http://[a"),
        *("http://ä", "http://a/" + "x" * 3000, "http://a\n"),
    ],
)
def test_addresses(url: str) -> None:
    with pytest.raises(AddressError, match="is not a"):
        connect(url)


# ---- gRPC ----


@contextlib.asynccontextmanager
async def refusing(behaviour: Any) -> AsyncIterator[str]:
    """A gRPC server whose AddCheckpoint does something; answers are raw bytes."""
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    name = pb.DESCRIPTOR.services_by_name["WitnessService"].full_name
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"AddCheckpoint": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(0)


def detailed(code: grpc.StatusCode, *details: bytes) -> Any:
    async def refuse(request: bytes, context: Any) -> bytes:
        packed = [
            any_pb2.Any(type_url="type.googleapis.com/tlog.v1.CosignedSize", value=d)
            for d in details
        ]
        status = status_pb2.Status(code=code.value[0], message="no\nreally", details=packed)
        rich = rpc_status.to_status(status)
        await context.abort(rich.code, rich.details, rich.trailing_metadata)
        return b""

    return refuse


async def test_grpc_409() -> None:
    size = pb.CosignedSize(tree_size=7).SerializeToString()
    async with refusing(detailed(grpc.StatusCode.FAILED_PRECONDITION, size)) as url:
        with pytest.raises(CosignerConflict) as caught:
            await ask(url)
        assert caught.value.size == 7
    too_big = pb.CosignedSize(tree_size=1 << 63).SerializeToString()
    for code, details in (
        (grpc.StatusCode.FAILED_PRECONDITION, [too_big]),
        (grpc.StatusCode.FAILED_PRECONDITION, []),
        (grpc.StatusCode.FAILED_PRECONDITION, [b"\xff\xff"]),
        (grpc.StatusCode.NOT_FOUND, [size]),
    ):
        async with refusing(detailed(code, *details)) as url:
            with pytest.raises(CosignerError) as caught_error:
                await ask(url)
            assert not isinstance(caught_error.value, CosignerConflict)
            assert str(caught_error.value).isprintable()


async def test_grpc_garbage() -> None:
    async def garbage(request: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff"

    async def flood(request: bytes, context: Any) -> bytes:
        return pb.AddCheckpointResponse(cosignatures=b"x" * (1 << 20)).SerializeToString()

    async def much(request: bytes, context: Any) -> bytes:
        return pb.AddCheckpointResponse(cosignatures=b"x" * 70_000).SerializeToString()

    for behaviour, says in ((garbage, "not a tlog"), (flood, "RESOURCE"), (much, "65536")):
        async with refusing(behaviour) as url:
            with pytest.raises(CosignerError, match=says):
                await ask(url)


# ---- beside good ones ----


def unknown_key() -> bytes:
    """A cosignature that verifies, of nobody in the policy."""
    return cosign(parse_unverified(NOTE).checkpoint, STRANGER, timestamp=1).encode()


@pytest.mark.parametrize(
    ("pieces", "pause"),
    [
        ([http("200 OK", b"garbage\n")], 0.0),
        ([http("200 OK", b"")], 0.0),
        ([http("200 OK", unknown_key())], 0.0),
        ([http("409 Conflict", b"1000000\n", SIZE)], 0.0),
        ([http("409 Conflict", b"0\n", SIZE)], 0.0),
        ([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 1000], 0.05),
    ],
    ids=["garbage", "empty", "unknown key", "ahead", "always 409", "slow"],
)
async def test_the_others_decide(tmp_path: Path, pieces: list[bytes], pause: float) -> None:
    directory = tmp_path / "log"
    vkeys = make_log(directory, quorum_timeout=1.0)
    async with answering(*pieces, pause=pause) as bad, contextlib.AsyncExitStack() as stack:
        witnesses = [(STRANGER.vkey, bad)] if b"stranger" not in b"".join(pieces) else []
        witnesses = witnesses or [(signer("other", Algorithm.ED25519_COSIGNATURE).vkey, bad)]
        for number in range(2):
            station = Station(tmp_path / f"w{number}", "http")
            station.trust(vkeys)
            await station.start()
            stack.push_async_callback(station.stop)
            witnesses.append((station.vkeys[0], station.url))
        policy = write_policy(directory, vkeys, witnesses, 2)
        async with opened(directory) as log:
            for number in range(3):
                async with asyncio.timeout(60):
                    await log.append_published([b"%d" % number])
            assert policy.open(log.published.note).cosigned_by == ("w1", "w2")
            cosigners = log.cosigners
            assert cosigners is not None
            await until(lambda: cosigners.status()[0].away, 30)
            assert cosigners.status()[0].last_error
