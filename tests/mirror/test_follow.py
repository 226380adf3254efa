"""Following a log over HTTP: it grows, goes away, and lies in every way that it can."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.mirror.support import FORK, LOG, OTHER, SomeLog, a_mirror, check_cosigned, sha256
from tests.witness.support import flip
from tlog.merkle import (
    MerkleError,
    SourceDamaged,
    SourceError,
    SourceMissing,
    parse_entries_path,
    parse_tile_path,
)
from tlog.mirror import Follower, Mirror, following
from tlog.remote import open_source
from tlog.serve.http_listener import http_listener
from tlog.witness import (
    BadRequest,
    BadSignature,
    Unprocessable,
    set_url,
)

Lie = Callable[[str, bytes], bytes | None]


@dataclass
class Tiles:
    """A log's tiles over HTTP, at a size, with what the log says that is not so."""

    log: SomeLog = LOG
    size: int = 0
    lie: Lie = lambda path, body: body
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"][1:]
        self.asked.append(path)
        body = self.lie(path, self.honest(path))
        answer = Response(status_code=404) if body is None else Response(body)
        await answer(scope, receive, send)

    def honest(self, path: str) -> bytes:
        if path == "checkpoint":
            return self.log.note(self.size)
        with contextlib.suppress(MerkleError):
            return self.log.bundle(*parse_entries_path(path))
        return self.log.tile(parse_tile_path(path))


@contextlib.asynccontextmanager
async def followed(mirror: Mirror, tiles: Tiles) -> AsyncIterator[Follower]:
    async with http_listener(tiles, "127.0.0.1:0") as port:
        source = open_source(f"http://127.0.0.1:{port}")
        try:
            yield Follower(mirror, LOG.origin, source)
        finally:
            await source.aclose()


def check_copy(mirror: Mirror, size: int) -> None:
    copy = mirror.copy(sha256(LOG.origin))
    assert (copy.size, copy.next_entry) == (size, size)
    check_cosigned(mirror, copy.published.note, size)
    for index in range(-(-size // 256)):
        width = min(256, size - index * 256)
        assert copy.reader.encoded_bundle(index, width) == LOG.bundle(index, width)


async def test_a_log_is_followed_as_it_grows(tmp_path: Path) -> None:
    tiles = Tiles()
    async with a_mirror(tmp_path / "m") as mirror, followed(mirror, tiles) as follower:
        for tiles.size in (0, 1, 255, 256, 257, 600, 1024, 1300):
            await follower.step()
            check_copy(mirror, tiles.size)
        # Nothing new is nothing to read.
        tiles.asked.clear()
        await follower.step()
        assert tiles.asked == ["checkpoint"]
    async with a_mirror(tmp_path / "m") as mirror, followed(mirror, tiles) as follower:
        tiles.size = 2000
        await follower.step()
        check_copy(mirror, 2000)
        bundles = [path for path in tiles.asked if path.startswith("tile/entries/")]
        assert bundles == [f"tile/entries/{index:03}" for index in (5, 6)] + [
            "tile/entries/007.p/208"
        ]


def flipped(pattern: str) -> Lie:
    return lambda path, body: (
        bytes([body[0], body[1] ^ 1]) + body[2:] if re.fullmatch(pattern, path) else body
    )


def changed(pattern: str) -> Lie:
    def lie(path: str, body: bytes) -> bytes:
        return body[:-1] + bytes([body[-1] ^ 1]) if re.fullmatch(pattern, path) else body

    return lie


def gone(pattern: str) -> Lie:
    return lambda path, body: None if re.fullmatch(pattern, path) else body


def cut(pattern: str) -> Lie:
    return lambda path, body: body[: len(body) // 2] if re.fullmatch(pattern, path) else body


def shows(note: bytes) -> Lie:
    return lambda path, body: note if path == "checkpoint" else body


LIES: list[tuple[str, Lie, type[Exception], str]] = [
    ("changed entry", changed("tile/entries/004"), Unprocessable, "entries 1024 to 1279"),
    ("changed first", changed("tile/entries/002"), Unprocessable, "entries 600 to 767"),
    ("changed last", changed("tile/entries/005.*"), Unprocessable, "entries 1280 to 1299"),
    ("wrong length", flipped("tile/entries/004"), SourceError, "entry 1024"),
    ("short bundle", cut("tile/entries/003"), SourceDamaged, "entry 768"),
    (
        "empty bundle",
        lambda p, b: b"" if p == "tile/entries/003" else b,
        SourceDamaged,
        "entry 768",
    ),
    ("no bundle", gone("tile/entries/003"), SourceMissing, "003"),
    ("wrong tile", changed("tile/1/000.*"), Unprocessable, "proof"),
    ("wrong leaves", changed("tile/0/005.*"), Unprocessable, "consistency proof"),
    ("short tile", cut("tile/1/000.*"), SourceDamaged, "tile"),
    ("no tile", gone("tile/1/.*"), SourceMissing, "tile/1"),
    ("fork", shows(FORK.note(1300)), Unprocessable, "consistency proof"),
    ("split view", shows(FORK.note(600)), Unprocessable, "600"),
    ("rollback", shows(LOG.note(599)), Unprocessable, "599 entries"),
    ("forged", shows(flip(LOG.note(1300))), BadSignature, "signature"),
    ("another log", shows(OTHER.note(300)), BadRequest, "log.example/other"),
    ("no checkpoint", shows(b"sorry"), BadRequest, "checkpoint"),
    ("too long", lambda p, b: b * 3 if p == "tile/entries/004" else b, SourceError, "1024"),
]


@pytest.mark.parametrize(
    ("lie", "error", "says"), [case[1:] for case in LIES], ids=[case[0] for case in LIES]
)
async def test_a_lie_is_refused_and_named(
    tmp_path: Path, lie: Lie, error: type[Exception], says: str
) -> None:
    tiles = Tiles(size=600)
    async with a_mirror(tmp_path / "m") as mirror, followed(mirror, tiles) as follower:
        await follower.step()
        tiles.size, tiles.lie = 1300, lie
        with pytest.raises(error, match=re.escape(says)):
            await follower.step()
        copy = mirror.copy(sha256(LOG.origin))
        assert copy.size == 600
        check_cosigned(mirror, copy.published.note, 600)
        # Nothing that was false was kept, and what was true was.
        follower._tiles.clear()  # `run` does so after a problem
        tiles.lie = Tiles.lie
        await follower.step()
        check_copy(mirror, 1300)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_problems_come_and_go_and_so_do_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlog.mirror.follow.LOOK_SECONDS", 0.05)
    directory = tmp_path / "m"
    tiles, others = Tiles(size=600), Tiles(log=OTHER, size=300)
    async with (
        a_mirror(directory) as mirror,
        http_listener(tiles, "127.0.0.1:0") as port,
        http_listener(others, "127.0.0.1:0") as other_port,
        following(mirror, open_source) as followers,
    ):
        mirror.config = mirror.config.model_copy(update={"interval": 0.05})
        assert followers.problems() == {}
        # The list changes while the mirror runs.
        set_url(directory, LOG.origin, f"http://127.0.0.1:{port}/")
        await until(lambda: any(copy.size == 600 for copy in mirror.copies()))
        tiles.lie, tiles.size = gone("checkpoint"), 700
        await until(lambda: "404" in (followers.problems()[LOG.origin] or ""))
        tiles.lie = Tiles.lie
        await until(lambda: mirror.copy(sha256(LOG.origin)).size == 700)
        await until(lambda: followers.problems() == {LOG.origin: None})
        set_url(directory, OTHER.origin, f"http://127.0.0.1:{other_port}")
        await until(lambda: sum(copy.size for copy in mirror.copies()) == 1000)
        # A wrong URL is an error of that log alone.
        set_url(directory, LOG.origin, "ftp://127.0.0.1/")
        await until(lambda: LOG.origin not in followers.problems())
        assert followers.problems() == {OTHER.origin: None}


async def test_uploads_and_following_go_together(tmp_path: Path) -> None:
    from tests.mirror.support import send
    from tlog.mirror import Mirrored

    tiles = Tiles(size=1300)
    async with a_mirror(tmp_path / "m") as mirror, followed(mirror, tiles) as follower:
        await mirror.add_checkpoint(*LOG.request(0, 1024))
        await send(mirror, LOG.upload(0, 1024, count=1))
        done, _ = await asyncio.gather(send(mirror, LOG.upload(256, 1024)), follower.step())
        assert isinstance(done, Mirrored)
        await follower.step()
        check_copy(mirror, 1300)
