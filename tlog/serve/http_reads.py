"""The static resources of tlog-tiles, of whatever log or copy of one is read.

Reads take the published head first and serve nothing beyond it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.requests import Request

from tlog.log import Head, InvalidRequest, Reader
from tlog.merkle import TILE_HEIGHT, TILE_WIDTH, MerkleError, parse_entries_path, parse_tile_path
from tlog.notes import VerifierKey
from tlog.serve.http_answers import Answer, NotAcceptable, NotFound
from tlog.serve.http_negotiate import content_coding, is_known

# Compression runs beside the loop, but must leave a core to the log.
COMPRESSORS = 2

READS = ("GET", "HEAD", "OPTIONS")
# SPEC tlog-tiles: "This endpoint is mutable, so its headers SHOULD prevent caching beyond a few
# seconds."
MUTABLE = {"Cache-Control": "no-cache"}
# SPEC tlog-tiles: "This endpoint is immutable, so its caching headers SHOULD be long-lived."
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
_PREFLIGHT = {
    "Allow": ", ".join(READS),
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "If-None-Match",
    "Access-Control-Max-Age": "86400",
}
CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Retry-After"),
)
_OCTETS = "application/octet-stream"


class Readable(Protocol):
    """What is read: a `Log`, or a mirror's `Copy` of one."""

    @property
    def vkeys(self) -> Sequence[VerifierKey]:
        """Whose head it is: under one key, a path never has other bytes."""

    @property
    def published(self) -> Head:
        """The latest published head, or a refusal."""

    @property
    def reader(self) -> Reader:
        """Its tiles and entries."""


class Reads:
    """Answers GET and HEAD.

    Args:
        spent: told the seconds that were spent beside the event loop.
    """

    def __init__(self, spent: Callable[[float], None] = lambda seconds: None) -> None:
        self._spent = spent
        self._compressors = asyncio.Semaphore(COMPRESSORS)

    async def answer(self, log: Readable, resource: str, request: Request) -> Answer:
        """Answer for `checkpoint`, a tile's or a bundle's path.

        Raises:
            NotFound: another resource, or one that no published checkpoint requires.
            InvalidRequest: no path of a tile or a bundle.
        """
        if resource == "checkpoint":
            return _checkpoint(log, request)
        if resource.startswith("tile/entries/"):
            return await self._entries(log, resource, request)
        return _tile(log, resource, request)

    async def _entries(self, log: Readable, path: str, request: Request) -> Answer:
        try:
            index, width = parse_entries_path(path)
        except MerkleError as error:
            raise InvalidRequest(str(error)) from None
        _check_published(log, path, level=0, index=index, width=width)
        coding = content_coding(_joined(request, "accept-encoding"))
        if coding is None:
            raise NotAcceptable("an entry bundle is sent as it is or with gzip: accept one of them")
        headers = {**_IMMUTABLE, "Vary": "Accept-Encoding", "ETag": _etag(log, path)}
        if coding == "gzip":
            # RFC 9110, 8.8.3.3: two codings of one resource must not share a strong entity tag.
            headers |= {"ETag": _etag(log, f"{path}.gz"), "Content-Encoding": "gzip"}
        if is_known(headers["ETag"], _joined(request, "if-none-match")):
            headers.pop("Content-Encoding", None)
            return Answer(status=304, headers=headers)
        if coding == "identity":
            return Answer(
                log.reader.encoded_bundle(index, width), media_type=_OCTETS, headers=headers
            )
        async with self._compressors:
            body, seconds = await asyncio.to_thread(
                _compress, log.reader.encoded_bundle(index, width)
            )
        self._spent(seconds)
        return Answer(body, media_type=_OCTETS, headers=headers)


def preflight() -> Answer:
    """The answer to OPTIONS."""
    return Answer(status=204, headers=_PREFLIGHT)


def _checkpoint(log: Readable, request: Request) -> Answer:
    note = log.published.note
    headers = {**MUTABLE, "ETag": _etag(log, hashlib.sha256(note).hexdigest())}
    if is_known(headers["ETag"], _joined(request, "if-none-match")):
        return Answer(status=304, headers=headers)
    # SPEC tlog-tiles: "with `Content-Type: text/plain; charset=utf-8`" (starlette adds the charset)
    return Answer(note, media_type="text/plain", headers=headers)


def _tile(log: Readable, path: str, request: Request) -> Answer:
    try:
        tile = parse_tile_path(path)
    except MerkleError as error:
        raise InvalidRequest(str(error)) from None
    _check_published(log, path, level=tile.level, index=tile.index, width=tile.width)
    headers = {**_IMMUTABLE, "ETag": _etag(log, path)}
    if is_known(headers["ETag"], _joined(request, "if-none-match")):
        return Answer(status=304, headers=headers)
    return Answer(log.reader.tile(tile), media_type=_OCTETS, headers=headers)


def _compress(data: bytes) -> tuple[bytes, float]:
    """The same bytes give the same gzip, always; and how long it took."""
    started = time.thread_time()
    return gzip.compress(data, 1, mtime=0), time.thread_time() - started


def _check_published(log: Readable, path: str, *, level: int, index: int, width: int) -> None:
    """Refuse what no published checkpoint requires.

    Clients rely on a tile not changing once they have seen it, and only what was signed cannot.
    """
    size = log.published.size
    published = min((size >> TILE_HEIGHT * level) - index * TILE_WIDTH, TILE_WIDTH)
    if width > published:
        part = f"; of it {published} are" if published > 0 else ""
        raise NotFound(f"{path} is not published{part}: the latest checkpoint has size {size}")


def _etag(log: Readable, what: str) -> str:
    """A strong entity tag: under one key, a path never has other bytes."""
    return f'"{log.vkeys[0].key_id:08x}/{what}"'


def _joined(request: Request, header: str) -> str | None:
    return ", ".join(request.headers.getlist(header)) if header in request.headers else None
