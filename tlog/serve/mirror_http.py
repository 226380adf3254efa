"""The HTTP face of a mirror (c2sp.org/tlog-mirror): submissions, the copies, and for operators.

Submission and monitoring prefix are one. Each copy is read below the hash of its log's origin, as a
log is (`http_reads`). Refusals have one line of text that says why, but for the 409s, whose bodies
the specifications give.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from starlette.requests import Request

from tlog.mirror import (
    INFO_TYPE,
    Accepted,
    Followers,
    Mirror,
    MirrorInfo,
    TooSlow,
    Unsupported,
    UploadConflict,
)
from tlog.serve.cosigner_http import MUTABLE, UNCACHED, CosignerApp, check_method, signed
from tlog.serve.http_answers import Answer, NotFound, text
from tlog.serve.http_body import BODY_SECONDS, read_body
from tlog.serve.http_listener import http_listener
from tlog.serve.http_reads import CORS, READS, Reads, preflight
from tlog.serve.mirror_metrics import MirrorMetrics
from tlog.witness import MAX_BODY_SIZE, BadRequest, parse_add_checkpoint

# For one request; BODY_SECONDS are for each piece of it.
UPLOAD_SECONDS = 600.0
# What is unfolded at once.
_UNFOLDED_BYTES = 256 << 10

# SPEC tlog-mirror: "`<monitoring prefix>/<origin hash>`, where `origin hash` is the SHA-256 hash of
# the log's origin, hex encoded, in lowercase".
_OF_COPY: Final = re.compile(r"([0-9a-f]{64})/(checkpoint|tile/.*)")
# SPEC tlog-mirror: "mirrors SHOULD send an `Accept-Encoding` header that includes `gzip`".
_ACCEPTED: Final = {**UNCACHED, "Accept-Encoding": "gzip"}

_Handler = Callable[[Request], Awaitable[Answer]]


class MirrorApp(CosignerApp):
    """The HTTP face of a mirror, as an ASGI application."""

    def __init__(self, mirror: Mirror, followers: Followers) -> None:
        super().__init__()
        self._mirror = mirror
        self._followers = followers
        self._registry.register(MirrorMetrics(mirror, followers, self._answered))
        self._reads = Reads()
        self._writes: dict[str, _Handler] = {
            "add-checkpoint": self._add_checkpoint,
            "add-entries": self._add_entries,
        }
        self._own: dict[str, _Handler] = {
            "": self._index,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
        }

    def _kind(self, path: str) -> str:
        if path in self._writes:
            return path
        if path in self._own:
            return "server"
        if (match := _OF_COPY.fullmatch(path)) is None:
            return "other"
        return "entries" if match[2].startswith("tile/entries/") else match[2].partition("/")[0]

    async def _answer(self, request: Request, path: str) -> Answer:
        if (write := self._writes.get(path)) is not None:
            check_method(request, ("POST",))
            return await write(request)
        if (own := self._own.get(path)) is not None:
            check_method(request, READS)
            return await own(request)
        if (match := _OF_COPY.fullmatch(path)) is not None:
            check_method(request, READS)
            return await self._of_copy(request, bytes.fromhex(match[1]), match[2])
        raise NotFound(
            "a mirror has add-checkpoint, add-entries, and below <origin hash, 64 lowercase hex "
            "digits>/ a log's checkpoint, tile/<L>/<N> and tile/entries/<N>, nothing else"
        )

    def _refuse(self, error: Exception, path: str) -> Answer:
        if isinstance(error, UploadConflict):
            return _info(error.info, error.status)
        answer = super()._refuse(error, path)
        if path == "add-entries":
            answer.headers["Accept-Encoding"] = "gzip"
        return answer

    async def _of_copy(self, request: Request, origin_hash: bytes, resource: str) -> Answer:
        if request.method == "OPTIONS":
            answer = preflight()
        else:
            copy = self._mirror.copy(origin_hash)
            answer = await self._reads.answer(copy, resource, request)
        answer.raw_headers += CORS
        return answer

    # ---- the protocol ----

    async def _add_checkpoint(self, request: Request) -> Answer:
        too_long = f"the body is over {MAX_BODY_SIZE} bytes, the most that this mirror takes"
        asked = parse_add_checkpoint(await read_body(request, MAX_BODY_SIZE, too_long))
        await self._mirror.add_checkpoint(asked.old_size, asked.proof, asked.note)
        # SPEC tlog-mirror: "responding with an empty response body".
        return Answer(media_type="text/plain", headers=UNCACHED)

    async def _add_entries(self, request: Request) -> Answer:
        # SPEC tlog-mirror: "The request body MUST have `Content-Type` of
        # `application/octet-stream`".
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/octet-stream":
            raise Unsupported("the Content-Type of an upload is application/octet-stream")
        async with aclosing(_decoded(request)) as pieces:
            done = await self._mirror.add_entries(pieces)
        if isinstance(done, Accepted):
            return _info(done.info, 202)
        answer = signed(done.cosignatures)
        answer.headers["Accept-Encoding"] = "gzip"
        return answer

    # ---- for operators ----

    async def _index(self, request: Request) -> Answer:
        lines = [self._mirror.config.name, *map(str, self._mirror.vkeys)]
        problems = self._followers.problems()
        for copy in self._mirror.copies():
            lines.append(f"/{copy.origin_hash.hex()}/ {copy.origin} {copy.size} entries")
            if problem := problems.get(copy.origin):
                lines.append(f"  not followed: {' '.join(problem.split())}")
        return text("".join(f"{line}\n" for line in lines), headers=MUTABLE)

    async def _readyz(self, request: Request) -> Answer:
        reason = self._mirror.failure
        return text(f"{reason or 'ready'}\n", status=503 if reason else 200, headers=MUTABLE)


def mirror_http_server(
    mirror: Mirror, followers: Followers, address: str
) -> AbstractAsyncContextManager[int]:
    """Serve a mirror over HTTP: see `http_listener`."""
    return http_listener(MirrorApp(mirror, followers), address)


def _info(info: MirrorInfo, status: int) -> Answer:
    # SPEC tlog-mirror: "the response body MUST have a `Content-Type` of
    # `text/x.tlog.mirror-info`" (of type text, starlette would add a charset).
    headers = {**_ACCEPTED, "Content-Type": INFO_TYPE}
    return Answer(info.encode(), status=status, headers=headers)


async def _decoded(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, unfolded if it is compressed; never much of it at once.

    Raises:
        Unsupported: compressed in a way that is not read.
        BadRequest: it is not what its Content-Encoding says.
        TooSlow: it does not arrive in time.
    """
    # SPEC tlog-mirror: "Mirrors MUST support receiving `Content-Encoding: gzip`".
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"identity", "gzip", "x-gzip"}:
        raise Unsupported("an upload is sent as it is or with gzip")
    unfold = None if coding == "identity" else zlib.decompressobj(wbits=31)
    async with aclosing(_received(request)) as pieces:
        async for piece in pieces:
            if unfold is None:
                yield piece
                continue
            try:
                while piece and not unfold.eof:
                    yield unfold.decompress(piece, _UNFOLDED_BYTES)
                    piece = unfold.unconsumed_tail  # noqa: PLW2901
            except zlib.error as error:
                raise BadRequest(f"the body is not gzip: {error}") from None
            if unfold.eof:
                return


async def _received(request: Request) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    end = loop.time() + UPLOAD_SECONDS
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + BODY_SECONDS)):
                piece = await anext(stream, None)
        except TimeoutError:
            raise TooSlow("the body did not arrive in time") from None
        if piece is None:
            return
        yield piece
