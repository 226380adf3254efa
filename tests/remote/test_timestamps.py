"""Authorities over HTTP: a real one, and servers that are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.audit.authority import Station
from tests.remote.test_hostile import answering, http
from tlog.audit import StampError, verify_stamp
from tlog.audit.stamps import MAX_ANSWER_SIZE, make_request
from tlog.remote import AddressError, time_stampers
from tlog.remote import http as remote_http

NOTE = b"a note\n"


async def ask(url: str) -> bytes:
    async with time_stampers() as connect:
        return await connect(url).stamp(make_request(NOTE).der)


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    async with Station(tmp_path).serving() as station:
        yield station


async def test_a_real_authority(station: Station) -> None:
    async with time_stampers() as connect:
        way = connect(station.url)
        for _ in range(3):
            request = make_request(NOTE)
            answer = await way.stamp(request.der)
            verify_stamp(answer, NOTE, station.authority, nonce=request.nonce)
            assert station.asked[-1] == request.der
        station.away = True
        with pytest.raises(StampError, match="cannot be asked"):
            await way.stamp(make_request(NOTE).der)
        station.away = False
        verify_stamp(await way.stamp(make_request(NOTE).der), NOTE, station.authority)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "cannot be asked"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "cannot be asked"),
        (http("200 OK", bytes(MAX_ANSWER_SIZE + 1)), "more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10_000_000), "more than 65536 bytes"),
        (http("404 Not Found", b"who?\nmore"), "404 who\\?$"),
        (http("500 Oh", b"\x1b[2J\x07"), r"500 '\\x1b\[2J"),
        (http("302 Found", b"", b"Location: http://127.0.0.1:1/\r\n"), "answers 302"),
        (http("307 Go", b"", b"Location: /elsewhere\r\n"), "answers 307"),
        (http("503 Busy", b"later\n", b"Retry-After: 0\r\n"), "503 later"),
        (http("204 No Content"), "answers 204"),
    ],
)
async def test_answers_that_are_none(answer: bytes, says: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(StampError, match=says) as caught:
            await ask(url)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


async def test_what_is_answered_is_for_the_rule_to_judge(station: Station) -> None:
    for garbage in (b"", b"<html>", bytes(MAX_ANSWER_SIZE)):
        async with answering(http("200 OK", garbage)) as url:
            assert await ask(url) == garbage


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000],
    ],
    ids=["headers", "body"],
)
async def test_a_slow_drip(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    monkeypatch.setattr(remote_http, "TOTAL_SECONDS", 0.3)
    async with answering(*pieces, pause=0.02) as url:
        started = time.monotonic()
        with pytest.raises(StampError, match="did not answer within 0.3 s"):
            await ask(url)
        assert time.monotonic() - started < 5


async def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_http, "TOTAL_SECONDS", 0.2)

    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        with pytest.raises(StampError, match="did not answer within"):
            await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize("url", ["", "tsa.example", "grpc://127.0.0.1:1", "ftp://x", "http://a b"])
async def test_urls_that_lead_nowhere(url: str) -> None:
    async with time_stampers() as connect:
        with pytest.raises(AddressError):
            connect(url)
