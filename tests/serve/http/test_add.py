"""POST /<log>/add: what is acknowledged is in the tree, and nothing is held beyond the bound."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.http.served import Served, read_all
from tlog.log import LogConfig, LogError, Overloaded, ShuttingDown, StateRefused, Unavailable
from tlog.serve import http_body

LIMIT = 1000  # of an entry of the small log


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = LogConfig(
        origin="example.com/small", name="small", checkpoint_interval=0, max_entry_size=LIMIT
    )
    with Served(tmp_path_factory.mktemp("shared"), config) as served:
        yield served


@pytest.fixture
def small(shared: Served) -> Served:
    """One log for all tests of this file; `stored` shows what a test has added."""
    shared.base = shared.log.sequencer.edge.size
    return shared


def stored(small: Served) -> list[bytes]:
    async def read() -> list[bytes]:
        size = small.log.sequencer.edge.size
        return [small.log.reader.entry(index, size) for index in range(small.base, size)]

    return small.run(read())


def head(length: int | None = None, *headers: str, path: str = "/small/add") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", framing, *headers, "", ""]
    return "\r\n".join(lines).encode()


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def statuses(answers: bytes) -> list[int]:
    return [int(part.split()[0]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def test_the_answer_is_the_bare_index(small: Served, writer: httpx.Client) -> None:
    bodies = [b"first", b"", b"\x00\xff\r\n", b"x" * LIMIT, b"first"]
    for index, body in enumerate(bodies):
        answer = writer.post("/small/add", content=body)
        assert (answer.status_code, answer.content) == (200, b"%d" % (small.base + index))
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
    assert stored(small) == bodies


def test_a_post_without_any_body_is_an_empty_entry(small: Served) -> None:
    answer = small.raw(b"POST /small/add HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n%d" % small.base)
    assert stored(small) == [b""]


def test_many_at_once(small: Served, writer: httpx.Client) -> None:
    bodies = [b"entry %d" % number for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: writer.post("/small/add", content=body), bodies))
    entries = stored(small)
    assert sorted(entries) == sorted(bodies)
    for body, answer in zip(bodies, answers, strict=True):
        assert entries[int(answer.content) - small.base] == body


@pytest.mark.parametrize("size", [1, 7, 300])
def test_chunked_bodies(small: Served, size: int) -> None:
    body = bytes(range(256)) * 3
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert statuses(small.raw(head(), chunks(*pieces))) == [200]
    assert stored(small) == [body]


def test_byte_by_byte(small: Served) -> None:
    for message in (head(5) + b"hello", head() + chunks(b"he", b"llo")):
        assert statuses(small.raw(*(message[i : i + 1] for i in range(len(message))))) == [200]
    assert stored(small) == [b"hello", b"hello"]


def test_pipelined(small: Served) -> None:
    count = 100
    sent = b"".join(
        head(3) + b"%03d" % number if number % 2 else head() + chunks(b"%03d" % number)
        for number in range(count)
    )
    answers = small.raw(sent)
    assert statuses(answers) == [200] * count
    # Answers stand in the order of their requests, and so do the entries.
    indices = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert indices == [b"%d" % (small.base + number) for number in range(count)]
    assert stored(small) == [b"%03d" % number for number in range(count)]


@pytest.mark.parametrize("length", [LIMIT + 1, 65_536, 900_000, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_too_long(small: Served, writer: httpx.Client, length: int, chunked: bool) -> None:
    def pieces() -> Any:
        for start in range(0, length, 50_000):
            yield b"x" * min(50_000, length - start)

    content = pieces() if chunked else b"x" * length
    answer = writer.post("/small/add", content=content)
    assert answer.status_code == 413
    assert answer.text.startswith(f"the entry is over {LIMIT} bytes")
    assert writer.post("/small/add", content=b"next").status_code == 200
    assert stored(small) == [b"next"]


def test_a_body_without_end_is_cut_off(small: Served) -> None:
    with small.connect() as connection:
        connection.sendall(head())
        sent = 0
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while sent < 1 << 30:
                connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                sent += 65_536
    # What was dropped unread, and what the two kernels held.
    assert sent < http_body.DRAIN_BYTES + (16 << 20)
    assert stored(small) == []


@pytest.mark.parametrize(
    "length", ["99999999999999999999", "1000000000000", "18446744073709551616"]
)
def test_absurd_lengths(small: Served, length: str) -> None:
    request = f"POST /small/add HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    assert statuses(small.raw(request.encode()))[:1] in ([413], [400], [])
    assert stored(small) == []


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: -3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: 3,3",
        "Content-Length:",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: xchunked",
    ],
)
def test_ambiguous_framing(small: Served, headers: str) -> None:
    sent = f"POST /small/add HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\nabc".encode()
    assert statuses(small.raw(sent)) == [400]
    assert stored(small) == []


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nabc\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"3abc"],
)
def test_broken_chunks(small: Served, body: bytes) -> None:
    assert statuses(small.raw(head(), body)) in ([400], [])
    assert stored(small) == []


@pytest.mark.parametrize("sent", [head(5) + b"four", head() + b"4\r\nfour\r\n", head(5), head()])
def test_a_body_cut_short_is_no_entry(small: Served, sent: bytes) -> None:
    assert small.raw(sent) == b""
    assert stored(small) == []


def test_an_upgrade_does_not_lose_the_body(small: Served) -> None:
    for framing in (
        head(3, "Connection: Upgrade", "Upgrade: h2c") + b"abc",
        head(None, "Connection: Upgrade", "Upgrade: websocket") + chunks(b"abc"),
    ):
        assert statuses(small.raw(framing)) == [400]
    assert stored(small) == []


def test_expect_continue(small: Served) -> None:
    with small.connect() as connection:
        connection.sendall(head(3, "Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    with small.connect() as connection:
        connection.sendall(head(LIMIT + 1, "Expect: 100-continue"))
        answer = read_all(connection)  # closed without waiting for a body
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer


def test_a_slow_body_times_out(small: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_body, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(http_body, "DRAIN_SECONDS", 0.2)
    for request in (head(5) + b"four", head() + b"4\r\nfour\r\n"):
        with small.connect() as connection:
            connection.sendall(request)
            answer = read_all(connection)
        assert statuses(answer) == [408]
        assert b"connection: close" in answer
    assert stored(small) == []


def test_web_pages_cannot_append(small: Served, writer: httpx.Client) -> None:
    for origin in ("null", "https://example.org", small.url):
        answer = writer.post("/small/add", content=b"x", headers={"Origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    preflight = writer.options("/small/add", headers={"Origin": "https://example.org"})
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers
    assert stored(small) == []


@pytest.mark.parametrize(
    ("refusal", "status", "retry"),
    [
        (Overloaded("full", retry_after=0.001), 429, "1"),
        (Overloaded("full", retry_after=2.1), 429, "3"),
        (Unavailable("the disk is full"), 503, "5"),
        (ShuttingDown("bye"), 503, "5"),
        (StateRefused("rollback:\nlook"), 503, "5"),
    ],
)
def test_refusals(
    small: Served,
    writer: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    refusal: LogError,
    status: int,
    retry: str,
) -> None:
    def submit(_: object) -> None:
        raise refusal

    monkeypatch.setattr(small.log.sequencer, "submit", submit)
    answer = writer.post("/small/add", content=b"x")
    assert answer.status_code == status
    assert answer.headers["retry-after"] == retry
    assert answer.text == " ".join(str(refusal).split()) + "\n"


def test_an_internal_error_tells_nothing(
    small: Served, writer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(small.log.sequencer, "submit", submit)
    answer = writer.post("/small/add", content=b"x")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    monkeypatch.undo()
    assert writer.post("/small/add", content=b"x").text == str(small.base)


def test_a_full_pool_pushes_back(tmp_path: Path) -> None:
    config = LogConfig(origin="example.com/s", name="s", max_pending_entries=1)
    with Served(tmp_path, config) as served, served.client() as client:
        bodies = [b"%d" % number for number in range(100)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: client.post("/s/add", content=body), bodies))
        taken = {int(answer.text) for answer in answers if answer.status_code == 200}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(taken) + len(refused) == len(bodies)
        assert taken == set(range(len(taken)))
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert refused, "one entry of room, sixteen writers"
        lines = client.get("/metrics").text.splitlines()
        assert f'tlog_http_answers_total{{resource="add",status="429"}} {len(refused)}.0' in lines


def test_who_goes_away_is_still_served(small: Served) -> None:
    connection = small.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.sendall(head(4) + b"gone")
    connection.close()  # with a reset
    deadline = time.monotonic() + 5
    while not stored(small) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored(small) in ([b"gone"], [])
    with small.client() as client:
        assert client.post("/small/add", content=b"here").status_code == 200


def test_an_accepted_append_is_answered_while_the_server_stops(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        release = asyncio.Event()

        async def slow(_: object) -> list[int]:
            await release.wait()
            return [77]

        served.log.submit = slow  # type: ignore[method-assign,assignment]
        with served.client() as client, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, "/a/add", content=b"x")
            time.sleep(0.2)
            leaving = threading.Thread(target=served.__exit__)
            leaving.start()
            time.sleep(0.3)
            with pytest.raises(ConnectionRefusedError):
                served.connect()
            served._loop.call_soon_threadsafe(release.set)
            assert answer.result(10).text == "77"
            leaving.join()
