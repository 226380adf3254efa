"""The HTTP application: C2SP's static resources of each log, appends, and what operators ask for.

Reads take the published head first and serve nothing beyond it; they never touch the write path,
and give way to it (see `http_turns`).
Paths are dispatched by hand, not by a router: they have three shapes, are compared undecoded (one
resource, one path), and this runs for every tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tlog.log import Log
from tlog.serve.errors import REFUSALS
from tlog.serve.http_answers import (
    Answer,
    Forbidden,
    NotAllowed,
    NotFound,
    Outgoing,
    refusal,
    text,
)
from tlog.serve.http_body import Incoming, read_body
from tlog.serve.http_reads import CORS, MUTABLE, READS, Reads, preflight
from tlog.serve.http_turns import Metered, ReadTurns
from tlog.serve.logs import Logs
from tlog.serve.metrics import ServerMetrics
from tlog.serve.records_metrics import RecordsMetrics
from tlog.serve.stamp_metrics import StampMetrics, Stamps

if TYPE_CHECKING:
    from tlog.audit.records import Records

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

    def __init__(
        self,
        logs: Logs,
        *,
        stamps: Stamps | None = None,
        records: Mapping[str, Records] | None = None,
    ) -> None:
        self._logs = logs
        self._answered: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(ServerMetrics(logs, self._answered))
        if stamps:
            self._registry.register(StampMetrics(stamps))
        if records:
            self._registry.register(RecordsMetrics(records))
        self._outgoing = Outgoing()
        self._turns = ReadTurns(lambda: any(log.sequencer.pending for log in logs))
        self._reads = Reads(self._turns.spent)
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
            answer.raw_headers += CORS
        if not await incoming.drained(request):
            answer.raw_headers.append((b"connection", b"close"))
        await self._outgoing.send(answer, scope, incoming, send)

    async def _answer(self, request: Request, wanted: _Wanted) -> Answer:
        if wanted.kind == "server":
            if (handler := self._own.get(wanted.name)) is None:
                raise NotFound("no such resource: / lists the logs, whose resources lie below them")
        else:
            handler = self._of_log(wanted)
        allowed = ("POST",) if wanted.kind == "add" else READS
        if request.method not in allowed:
            allow = ", ".join(allowed)
            raise NotAllowed(f"{request.method[:20]} is not allowed here: use {allow}", allow=allow)
        if request.method == "OPTIONS":
            return preflight()
        return await handler(request)

    def _of_log(self, wanted: _Wanted) -> _Handler:
        if not wanted.name:
            raise NotFound("the path has no log name: it begins with /<log>/")
        log = self._logs.get(wanted.name)
        if wanted.kind in {"checkpoint", "entries", "tile"}:
            return partial(self._reads.answer, log, wanted.resource)
        if wanted.kind == "add":
            return partial(_add, log)
        raise NotFound("a log has checkpoint, tile/<L>/<N>, tile/entries/<N> and add, nothing else")

    # ---- for operators ----

    async def _index(self, request: Request) -> Answer:
        lines = []
        for log in self._logs:
            lines += [f"/{log.name}/ {log.origin}", *(f"  {vkey}" for vkey in log.vkeys)]
        return text("".join(f"{line}\n" for line in lines), headers=MUTABLE)

    async def _healthz(self, request: Request) -> Answer:
        return text("ok\n", headers=MUTABLE)

    async def _readyz(self, request: Request) -> Answer:
        refusing = [(log.name, log.sequencer.refusal) for log in self._logs]
        reasons = "".join(f"{name}: {reason}\n" for name, reason in refusing if reason is not None)
        return text(reasons or "ready\n", status=503 if reasons else 200, headers=MUTABLE)

    async def _metrics(self, request: Request) -> Answer:
        headers = {**MUTABLE, "Content-Type": CONTENT_TYPE_LATEST}
        return Answer(generate_latest(self._registry), headers=headers)


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
