"""The HTTP face of a witness (c2sp.org/tlog-witness), with health and metrics on one port.

Status codes to the letter of the specification, which the refusals of `tlog.witness` carry; every
refusal has one line of text that says why, but for the 409, whose body is the size.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tlog.notes import NoteSignature
from tlog.serve.errors import REFUSALS
from tlog.serve.http_answers import (
    UNAVAILABLE_SECONDS,
    Answer,
    NotAllowed,
    NotFound,
    refusal,
    text,
)
from tlog.serve.http_body import Incoming, read_body
from tlog.serve.http_listener import http_listener
from tlog.serve.witness_errors import one_line
from tlog.serve.witness_metrics import WitnessMetrics
from tlog.witness import (
    Node,
    Refusal,
    SizeConflict,
    TooManyRequests,
    parse_add_checkpoint,
    parse_sign_subtree,
)

# SPEC tlog-witness: "The origin hash is the SHA-256 hash of the log's origin, hex encoded, in
# lowercase."
_CHECKPOINT: Final = re.compile(r"([0-9a-f]{64})/checkpoint")
# SPEC tlog-witness: "The response MUST have a `Content-Type` of `text/x.tlog.size`."
_SIZE_TYPE: Final = "text/x.tlog.size"
_MUTABLE: Final = {"Cache-Control": "no-cache"}
_UNCACHED: Final = {"Cache-Control": "no-store"}
_READS: Final = ("GET", "HEAD")

_log = structlog.get_logger(__name__)

_Handler = Callable[[Request], Awaitable[Answer]]


class WitnessApp:
    """The HTTP face of a witness, as an ASGI application."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._witness = node.witness
        self._answered: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(WitnessMetrics(node, self._answered))
        self._writes: dict[str, _Handler] = {
            "add-checkpoint": self._add_checkpoint,
            "sign-subtree": self._sign_subtree,
        }
        self._reads: dict[str, _Handler] = {
            "": self._index,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        path = scope["raw_path"].decode("ascii", "replace")[1:]
        try:
            answer = await self._answer(request, path)
        except ClientDisconnect:
            return
        except (Refusal, *REFUSALS) as error:
            answer = _refusal(error)
        except Exception:  # noqa: BLE001  (it is logged)
            # Nothing of an internal error is told to strangers; all of it goes to the operator.
            _log.exception("internal error", path=path[:200])
            answer = text("internal error: see the witness's log\n", status=500)
        self._answered[self._kind(path), answer.status_code] += 1
        if not await incoming.drained(request):
            answer.raw_headers.append((b"connection", b"close"))
        await answer(scope, receive, send)

    def _kind(self, path: str) -> str:
        """What a path asks for; "other" if nothing."""
        if path in self._writes:
            return path
        if path in self._reads:
            return "server"
        return "checkpoint" if _CHECKPOINT.fullmatch(path) else "other"

    async def _answer(self, request: Request, path: str) -> Answer:
        if (write := self._writes.get(path)) is not None:
            # SPEC tlog-witness: "The request MUST be an HTTP POST."
            _check_method(request, ("POST",))
            return await write(request)
        if (read := self._reads.get(path)) is not None:
            _check_method(request, _READS)
            return await read(request)
        if (match := _CHECKPOINT.fullmatch(path)) is not None:
            # SPEC tlog-witness: "The request MUST be an HTTP GET."
            _check_method(request, _READS)
            note = self._witness.checkpoint(bytes.fromhex(match[1]))
            return Answer(note, media_type="text/plain", headers=_MUTABLE)
        raise NotFound(
            "a witness has add-checkpoint, sign-subtree and "
            "<origin hash, 64 lowercase hex digits>/checkpoint, nothing else"
        )

    # ---- the protocol ----

    async def _add_checkpoint(self, request: Request) -> Answer:
        limit = self._witness.config.max_body_size
        asked = parse_add_checkpoint(await _body(request, limit), max_size=limit)
        return _signed(await self._witness.add_checkpoint(asked.old_size, asked.proof, asked.note))

    async def _sign_subtree(self, request: Request) -> Answer:
        limit = self._witness.config.max_body_size
        asked = parse_sign_subtree(await _body(request, limit), max_size=limit)
        return _signed(
            await self._witness.sign_subtree(
                asked.start, asked.end, asked.root_hash, asked.proof, asked.note
            )
        )

    # ---- for operators ----

    async def _index(self, request: Request) -> Answer:
        lines = [self._witness.config.name, *map(str, self._witness.vkeys)]
        return text("".join(f"{line}\n" for line in lines), headers=_MUTABLE)

    async def _healthz(self, request: Request) -> Answer:
        return text("ok\n", headers=_MUTABLE)

    async def _readyz(self, request: Request) -> Answer:
        reason = self._node.failure
        return text(f"{reason or 'ready'}\n", status=503 if reason else 200, headers=_MUTABLE)

    async def _metrics(self, request: Request) -> Answer:
        headers = {**_MUTABLE, "Content-Type": CONTENT_TYPE_LATEST}
        return Answer(generate_latest(self._registry), headers=headers)


def witness_http_server(node: Node, address: str) -> AbstractAsyncContextManager[int]:
    """Serve a witness over HTTP: see `http_listener`."""
    return http_listener(WitnessApp(node), address)


def _check_method(request: Request, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        allow = ", ".join(allowed)
        raise NotAllowed(f"{request.method[:20]!r} is not allowed here: use {allow}", allow=allow)


async def _body(request: Request, limit: int) -> bytes:
    too_long = f"the body is over {limit} bytes, the most that this witness takes"
    return await read_body(request, limit, too_long)


def _signed(signatures: list[NoteSignature]) -> Answer:
    # SPEC tlog-witness: "The response body MUST be a sequence of one or more note signature lines".
    lines = b"".join(signature.encode() for signature in signatures)
    return Answer(lines, media_type="text/plain", headers=_UNCACHED)


def _refusal(error: Exception) -> Answer:
    if isinstance(error, SizeConflict):
        # SPEC tlog-witness: "The response body MUST consist of the tree size of the latest
        # cosigned checkpoint in decimal, followed by a newline (U+000A)."
        headers = {**_UNCACHED, "Content-Type": _SIZE_TYPE}
        return Answer(f"{error.size}\n".encode(), status=error.status, headers=headers)
    if not isinstance(error, Refusal):
        return refusal(error)
    headers = dict(_UNCACHED)
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.status == 503:
        headers["Retry-After"] = str(UNAVAILABLE_SECONDS)
    return text(one_line(error) + "\n", status=error.status, headers=headers)
