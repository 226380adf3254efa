"""The HTTP application: C2SP's static resources of each log, appends, and what operators ask for.

Reads take the published head first and serve nothing beyond it; they never touch the write path,
and give way to it (see `http_turns`).
Paths are dispatched by hand, not by a router: they have three shapes, are compared undecoded (one
resource, one path), and this runs for every tile.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tlog.log import InvalidRequest, Log, Overloaded
from tlog.merkle import (
    TILE_HEIGHT,
    TILE_WIDTH,
    MerkleError,
    parse_entries_path,
    parse_tile_path,
)
from tlog.serve.errors import REFUSALS
from tlog.serve.http_answers import (
    PIECE_BYTES,
    Answer,
    Forbidden,
    NotAcceptable,
    NotAllowed,
    NotFound,
    refusal,
    text,
)
from tlog.serve.http_body import Incoming, read_body
from tlog.serve.http_negotiate import content_coding, is_known
from tlog.serve.http_turns import Metered, ReadTurns
from tlog.serve.logs import Logs
from tlog.serve.metrics import ServerMetrics

# Of answers longer than a piece (a bundle may have 16 MiB), while they are being sent.
MAX_OUTGOING_BYTES = 256 << 20
# Compression runs beside the loop, but must leave a core to the log.
COMPRESSORS = 2

_READS = ("GET", "HEAD", "OPTIONS")
# SPEC tlog-tiles: "This endpoint is mutable, so its headers SHOULD prevent caching beyond a few
# seconds."
_MUTABLE = {"Cache-Control": "no-cache"}
# SPEC tlog-tiles: "This endpoint is immutable, so its caching headers SHOULD be long-lived."
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
_PREFLIGHT = {
    "Allow": ", ".join(_READS),
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "If-None-Match",
    "Access-Control-Max-Age": "86400",
}
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Retry-After"),
)
_OCTETS = "application/octet-stream"

_log = structlog.get_logger(__name__)

_Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a path asks for.

    Attributes:
        kind: of resource: "server" is one of the server's own, "other" is none that a log has.
        name: of the log, or of the server's own resource.
        resource: what follows the log's name and a slash.
    """

    kind: str
    name: str
    resource: str

    @classmethod
    def at(cls, path: str) -> _Wanted:
        """Take an undecoded path apart."""
        name, slash, resource = path[1:].partition("/")
        if not slash:
            return cls("server", name, "")
        if resource.startswith("tile/entries/"):
            return cls("entries", name, resource)
        if resource.startswith("tile/"):
            return cls("tile", name, resource)
        return cls(resource if resource in {"checkpoint", "add"} else "other", name, resource)

    @property
    def is_read(self) -> bool:
        """Whether it is a read of a log: anybody's, of any origin, and behind the appends."""
        return self.kind not in {"add", "server"}


class HttpApp:
    """The HTTP face of a server's logs, as an ASGI application."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._answered: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(ServerMetrics(logs, self._answered))
        self._outgoing_bytes = 0
        self._compressors = asyncio.Semaphore(COMPRESSORS)
        self._turns = ReadTurns(lambda: any(log.sequencer.pending for log in logs))
        self._own: dict[str, _Handler] = {
            "": self._index,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        wanted = _Wanted.at(scope["raw_path"].decode("ascii"))
        work = Metered(self._serve(wanted, scope, Incoming(receive), send))
        try:
            await work
        finally:
            if wanted.is_read:
                self._turns.spent(work.seconds)

    async def _serve(self, wanted: _Wanted, scope: Scope, incoming: Incoming, send: Send) -> None:
        request = Request(scope, incoming)
        try:
            if wanted.is_read:
                await self._turns.wait()
            answer = await self._answer(request, wanted)
        except ClientDisconnect:
            return
        except REFUSALS as error:
            answer = refusal(error)
        except Exception:  # noqa: BLE001  (it is logged)
            # Nothing of an internal error is told to strangers; all of it goes to the operator.
            _log.exception("internal error", path=scope["path"][:200])
            answer = text("internal error: see the server's log\n", status=500)
        self._answered[wanted.kind, answer.status_code] += 1
        if wanted.is_read:
            answer.raw_headers += _CORS
        if not await incoming.drained(request):
            answer.raw_headers.append((b"connection", b"close"))
        await self._send(answer, scope, incoming, send)

    async def _send(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        size = len(answer.body) if len(answer.body) > PIECE_BYTES else 0
        if size and self._outgoing_bytes + size > MAX_OUTGOING_BYTES:
            answer = refusal(Overloaded("too many long answers are being sent", retry_after=1))
            size = 0
        self._outgoing_bytes += size
        try:
            await answer(scope, receive, send)
        finally:
            self._outgoing_bytes -= size

    async def _answer(self, request: Request, wanted: _Wanted) -> Answer:
        if wanted.kind == "server":
            if (handler := self._own.get(wanted.name)) is None:
                raise NotFound("no such resource: / lists the logs, whose resources lie below them")
        else:
            handler = self._of_log(wanted)
        allowed = ("POST",) if wanted.kind == "add" else _READS
        if request.method not in allowed:
            allow = ", ".join(allowed)
            raise NotAllowed(f"{request.method[:20]} is not allowed here: use {allow}", allow=allow)
        if request.method == "OPTIONS":
            return Answer(status=204, headers=_PREFLIGHT)
        return await handler(request)

    def _of_log(self, wanted: _Wanted) -> _Handler:
        if not wanted.name:
            raise NotFound("the path has no log name: it begins with /<log>/")
        log = self._logs.get(wanted.name)
        match wanted.kind:
            case "checkpoint":
                return partial(_checkpoint, log)
            case "entries":
                return partial(self._entries, log, wanted.resource)
            case "tile":
                return partial(_tile, log, wanted.resource)
            case "add":
                return partial(_add, log)
        raise NotFound("a log has checkpoint, tile/<L>/<N>, tile/entries/<N> and add, nothing else")

    # ---- for operators ----

    async def _index(self, request: Request) -> Answer:
        lines = []
        for log in self._logs:
            lines += [f"/{log.name}/ {log.origin}", *(f"  {vkey}" for vkey in log.vkeys)]
        return text("".join(f"{line}\n" for line in lines), headers=_MUTABLE)

    async def _healthz(self, request: Request) -> Answer:
        return text("ok\n", headers=_MUTABLE)

    async def _readyz(self, request: Request) -> Answer:
        refusing = [(log.name, log.sequencer.refusal) for log in self._logs]
        reasons = "".join(f"{name}: {reason}\n" for name, reason in refusing if reason is not None)
        return text(reasons or "ready\n", status=503 if reasons else 200, headers=_MUTABLE)

    async def _metrics(self, request: Request) -> Answer:
        headers = {**_MUTABLE, "Content-Type": CONTENT_TYPE_LATEST}
        return Answer(generate_latest(self._registry), headers=headers)

    # ---- bundles ----

    async def _entries(self, log: Log, path: str, request: Request) -> Answer:
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
        self._turns.spent(seconds)
        return Answer(body, media_type=_OCTETS, headers=headers)


async def _checkpoint(log: Log, request: Request) -> Answer:
    note = log.published.note
    headers = {**_MUTABLE, "ETag": _etag(log, hashlib.sha256(note).hexdigest())}
    if is_known(headers["ETag"], _joined(request, "if-none-match")):
        return Answer(status=304, headers=headers)
    # SPEC tlog-tiles: "with `Content-Type: text/plain; charset=utf-8`" (starlette adds the charset)
    return Answer(note, media_type="text/plain", headers=headers)


async def _tile(log: Log, path: str, request: Request) -> Answer:
    try:
        tile = parse_tile_path(path)
    except MerkleError as error:
        raise InvalidRequest(str(error)) from None
    _check_published(log, path, level=tile.level, index=tile.index, width=tile.width)
    headers = {**_IMMUTABLE, "ETag": _etag(log, path)}
    if is_known(headers["ETag"], _joined(request, "if-none-match")):
        return Answer(status=304, headers=headers)
    return Answer(log.reader.tile(tile), media_type=_OCTETS, headers=headers)


async def _add(log: Log, request: Request) -> Answer:
    if "origin" in request.headers:
        # Any web page can make a browser post to the loopback address, without a preflight.
        raise Forbidden(
            "appends from web pages are refused: a request with an Origin header is one"
        )
    limit = log.config.max_entry_size
    too_long = (
        f"the entry is over {limit} bytes, the most that this log takes: append a hash of "
        "it, or split it"
    )
    entry = await read_body(request, limit, too_long)
    (index,) = await log.submit([entry])
    return text(str(index), headers={"Cache-Control": "no-store"})


def _compress(data: bytes) -> tuple[bytes, float]:
    """The same bytes give the same gzip, always; and how long it took."""
    started = time.thread_time()
    return gzip.compress(data, 1, mtime=0), time.thread_time() - started


def _check_published(log: Log, path: str, *, level: int, index: int, width: int) -> None:
    """Refuse what no published checkpoint requires.

    Clients rely on a tile not changing once they have seen it, and only what was signed cannot.
    """
    size = log.published.size
    published = min((size >> TILE_HEIGHT * level) - index * TILE_WIDTH, TILE_WIDTH)
    if width > published:
        part = f"; of it {published} are" if published > 0 else ""
        raise NotFound(f"{path} is not published{part}: the latest checkpoint has size {size}")


def _etag(log: Log, what: str) -> str:
    """A strong entity tag: under one key, a path never has other bytes."""
    return f'"{log.vkeys[0].key_id:08x}/{what}"'


def _joined(request: Request, header: str) -> str | None:
    return ", ".join(request.headers.getlist(header)) if header in request.headers else None
