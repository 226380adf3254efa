"""What is HTTP's own: bodies, methods, paths, connections, and what operators ask for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serve.witness.faces import Faces, assert_one_line, encode, lone, served
from tests.serve.witness.transcripts import LOG, SIZE
from tests.witness.support import ORIGIN, WITNESS_VKEYS, a_witness, times_of
from tlog.log import LogError
from tlog.notes import parse_signatures
from tlog.serve.witness_http import witness_http_server
from tlog.serve.witness_service import witness_grpc_server
from tlog.witness import MAX_BODY_SIZE, AddCheckpoint, SignSubtree, hash_origin

HASH = hash_origin(ORIGIN).hex()
GOOD = AddCheckpoint(SIZE, tuple(LOG.proof(SIZE, 8)), LOG.note(8)).encode()
NOTE = LOG.note(8)
LINES = GOOD.split(b"\n\n", 1)[0]


@contextlib.asynccontextmanager
async def cosigned(tmp_path: Path) -> AsyncIterator[Faces]:
    """A witness that has cosigned size 5."""
    async with a_witness(tmp_path) as witness, served(witness) as faces:
        await witness.add_checkpoint(*LOG.request(0, SIZE))
        yield faces
        # Nothing a test sent was taken.
        assert b"\n5\n" in witness.checkpoint(hash_origin(ORIGIN))


def add(first: bytes, *, proof: bytes = b"", note: bytes = NOTE) -> bytes:
    return first + b"\n" + proof + b"\n" + note


BODIES = {
    "empty": b"",
    "newlines": b"\n\n\n\n",
    "note only": NOTE,
    "no empty line": LINES + b"\n" + NOTE.replace(b"\n\n", b"\n"),
    "CRLF": GOOD.replace(b"\n", b"\r\n"),
    "CR": GOOD.replace(b"\n", b"\r"),
    "CRLF in the head": LINES.replace(b"\n", b"\r\n") + b"\n\n" + NOTE,
    "leading newline": b"\n" + GOOD,
    "not UTF-8": b"\xff" + GOOD,
    "not UTF-8 in the proof": add(b"old 5", proof=b"\xff\xfe\n"),
    "NUL": b"\0" * 1000,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "no size": add(b"old"),
    "no space": add(b"old5"),
    "two spaces": add(b"old  5"),
    "space at the end": add(b"old 5 "),
    "tab": add(b"old\t5"),
    "OLD": add(b"OLD 5"),
    "two sizes": add(b"old 5 6"),
    "zeros": add(b"old 05"),
    "00": add(b"old 00"),
    "plus": add(b"old +5"),
    "minus": add(b"old -5"),
    "point": add(b"old 5.0"),
    "hex": add(b"old 0x5"),
    "underscore": add(b"old 1_0"),
    "other digits": add("old ٥".encode()),
    "2^63": add(b"old 9223372036854775808"),
    "2^64": add(b"old 18446744073709551616"),
    "many digits": add(b"old " + b"9" * 5000),
    "bad base64": add(b"old 5", proof=b"!" * 44 + b"\n"),
    "short hash": add(b"old 5", proof=b"AAAA\n"),
    "long hash": add(b"old 5", proof=b"A" * 48 + b"\n"),
    "URL-safe base64": add(b"old 5", proof=b"_" * 43 + b"=\n"),
    "unpadded": add(b"old 5", proof=b"A" * 43 + b"\n"),
    "not canonical": add(b"old 5", proof=b"A" * 42 + b"B=\n"),
    "64 lines": add(b"old 5", proof=(b"A" * 43 + b"=\n") * 64),
    "5000 lines": add(b"old 5", proof=(b"A" * 43 + b"=\n") * 5000),
    "ESC in the first line": add(b"old \x1b[2J"),
    "line separator": add("old \u2028".encode()),
    "control in the name": add(b"old 5", note=NOTE.replace(b"log.ex", b"log\x1bex")),
    "DEL in the name": add(b"old 5", note=NOTE.replace(b"log.ex", b"log\x7fex")),
    "all": bytes(range(256)) * 8,
    "a megabyte less": b"a" * (MAX_BODY_SIZE - 1),
}


@pytest.mark.parametrize("path", ["/add-checkpoint", "/sign-subtree"])
async def test_garbage_gets_one_line(tmp_path: Path, path: str) -> None:
    async with cosigned(tmp_path) as faces:
        for name, body in BODIES.items():
            reply = await faces.http.post(path, body)
            # A name with a control character in it may as well be one that nobody knows.
            assert reply.status in ({400, 404} if "in the name" in name else {400}), (name, reply)


async def test_every_prefix_of_a_good_body_is_refused(tmp_path: Path) -> None:
    async with cosigned(tmp_path) as faces:
        for end in range(0, len(GOOD), 3):
            reply = await faces.http.post("/add-checkpoint", GOOD[:end])
            # Cut short within its signature, it has none that can be read.
            assert reply.status in {400, 403}, (end, reply)


async def test_subtree_lines(tmp_path: Path) -> None:
    async with cosigned(tmp_path) as faces:
        shown = (await faces.http.checkpoint(hash_origin(ORIGIN))).body
        good = encode(SignSubtree(0, 4, LOG.root(4), tuple(LOG.proof(4, 5)), shown))
        assert (await faces.http.post("/sign-subtree", good)).status == 200
        for range_line in (
            b"subtree 0",
            b"subtree 0 4 4",
            b"subtree 00 4",
            b"subtree 0 04",
            b"subtree 0 9223372036854775808",
            b"subtree 4 0",
            b"old 4",
        ):
            body = good.replace(b"subtree 0 4", range_line, 1)
            assert (await faces.http.post("/sign-subtree", body)).status == 400, range_line


async def test_413_before_it_is_read(tmp_path: Path) -> None:
    async with cosigned(tmp_path) as faces:
        client = faces.http.client
        for size in (MAX_BODY_SIZE + 1, 3 << 20):
            response = await client.post("/add-checkpoint", content=b"x" * size)
            assert response.status_code == 413
            assert f"over {MAX_BODY_SIZE} bytes" in response.text
            assert_one_line(response.content)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 16_384

        response = await client.post("/add-checkpoint", content=chunks())
        assert response.status_code == 413
        # Whoever announces too much is told at once.
        reader, writer = await asyncio.open_connection("127.0.0.1", faces.http_port)
        writer.write(
            b"POST /add-checkpoint HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n"
        )
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.serve.http_body.BODY_SECONDS", 0.1)
    monkeypatch.setattr("tlog.serve.http_body.DRAIN_SECONDS", 0.1)
    async with cosigned(tmp_path) as faces:
        reader, writer = await asyncio.open_connection("127.0.0.1", faces.http_port)
        writer.write(b"POST /add-checkpoint HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nold")
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert_one_line(answer.split(b"\r\n\r\n", 1)[1])
        writer.close()


async def test_405_and_404(tmp_path: Path) -> None:
    async with cosigned(tmp_path) as faces:
        client = faces.http.client
        for path, methods, allow in (
            ("/add-checkpoint", ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"), "POST"),
            ("/sign-subtree", ("GET", "PUT"), "POST"),
            (f"/{HASH}/checkpoint", ("POST", "PUT", "DELETE"), "GET, HEAD"),
            ("/healthz", ("POST",), "GET, HEAD"),
        ):
            for method in methods:
                response = await client.request(method, path)
                assert response.status_code == 405, (method, path)
                assert response.headers["allow"] == allow
        for path in (
            "/add-checkpoint/",
            "/Add-Checkpoint",
            "/add-checkpoin%74",
            f"/{HASH.upper()}/checkpoint",
            f"/{HASH}/",
            f"/{HASH}",
            f"/{HASH[:-1]}/checkpoint",
            f"/{HASH}0/checkpoint",
            f"/{HASH}/checkpoint/x",
            f"/{'0' * 64}/checkpoint",
            "/nothing",
        ):
            response = await client.get(path)
            assert response.status_code == 404, path
            assert_one_line(response.content)


async def test_one_connection_for_good_and_bad(tmp_path: Path) -> None:
    """SPEC tlog-witness: "witnesses SHOULD support, HTTP keep-alive HTTP connections"."""
    async with a_witness(tmp_path) as witness, served(witness) as faces:
        reader, writer = await asyncio.open_connection("127.0.0.1", faces.http_port)

        async def ask(body: bytes) -> tuple[int, bytes]:
            writer.write(
                b"POST /add-checkpoint HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
                % len(body)
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection: close" not in head.lower()
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            return int(head.split()[1]), await reader.readexactly(length)

        async with asyncio.timeout(20):
            for _ in range(3):
                assert (await ask(b"garbage"))[0] == 400
                assert (await ask(b"x" * (MAX_BODY_SIZE + 9)))[0] == 413
                assert (await ask(GOOD)) == (409, b"0\n")
            for old, new in ((0, 5), (5, 5), (5, 8)):
                size, proof, note = LOG.request(old, new)
                status, body = await ask(AddCheckpoint(size, tuple(proof), note).encode())
                assert status == 200
                times_of(note, parse_signatures(body))
        writer.close()


async def test_for_operators(tmp_path: Path) -> None:
    async with cosigned(tmp_path) as faces:
        client = faces.http.client
        index = (await client.get("/")).text
        assert index == "".join(f"{line}\n" for line in (WITNESS_VKEYS[0].name, *WITNESS_VKEYS))
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ready\n"
        await faces.http.post("/add-checkpoint", b"x")
        page = (await client.get("/metrics")).text
        assert "tlog_witness_logs 1.0" in page
        assert "tlog_witness_recording 1.0" in page
        answered = 'tlog_witness_http_answers_total{resource="add-checkpoint",status="400"} 1.0'
        assert answered in page


async def test_addresses(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness, served(witness) as faces:
        for server, port in (
            (witness_http_server, faces.http_port),
            (witness_grpc_server, faces.grpc_port),
        ):
            for address, why in (
                (f"127.0.0.1:{port}", "taken"),
                ("0.0.0.0:0", "loopback"),
                ("nonsense", "HOST:PORT"),
            ):
                with pytest.raises(LogError, match=why):
                    async with server(lone(witness, tmp_path), address):
                        pass


async def test_leaving_answers_what_was_begun(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        node = lone(witness, tmp_path)
        async with witness_http_server(node, "127.0.0.1:0") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            size, proof, note = LOG.request(0, 5)
            body = AddCheckpoint(size, tuple(proof), note).encode()
            writer.write(
                b"POST /add-checkpoint HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
                % len(body)
                + body
            )
            await writer.drain()
            await asyncio.sleep(0.005)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass
