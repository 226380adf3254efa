"""What the HTTP faces of a witness and of a mirror share: how they refuse, and what they count."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tlog.notes import NoteSignature
from tlog.serve.errors import REFUSALS
from tlog.serve.http_answers import UNAVAILABLE_SECONDS, Answer, NotAllowed, Outgoing, refusal, text
from tlog.serve.http_body import Incoming
from tlog.serve.witness_errors import one_line
from tlog.witness import Refusal, SizeConflict, TooManyRequests

# SPEC tlog-witness: "The response MUST have a `Content-Type` of `text/x.tlog.size`."
_SIZE_TYPE: Final = "text/x.tlog.size"
MUTABLE: Final = {"Cache-Control": "no-cache"}
UNCACHED: Final = {"Cache-Control": "no-store"}
READS: Final = ("GET", "HEAD")

_log = structlog.get_logger(__name__)


class CosignerApp(ABC):
    """An ASGI application that answers, refuses and counts."""

    def __init__(self) -> None:
        self._answered: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry()
        self._outgoing = Outgoing()

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
            answer = self._refuse(error, path)
        except Exception:  # noqa: BLE001  (it is logged)
            # Nothing of an internal error is told to strangers; all of it goes to the operator.
            _log.exception("internal error", path=path[:200])
            answer = text("internal error: see the server's log\n", status=500)
        self._answered[self._kind(path), answer.status_code] += 1
        if not await incoming.drained(request):
            answer.raw_headers.append((b"connection", b"close"))
        await self._outgoing.send(answer, scope, incoming, send)

    @abstractmethod
    def _kind(self, path: str) -> str:
        """What a path asks for; "other" if nothing."""

    @abstractmethod
    async def _answer(self, request: Request, path: str) -> Answer:
        """Answer a request for a path, given without the slash before it."""

    def _refuse(self, error: Exception, path: str) -> Answer:
        """A refusal, said in HTTP."""
        return refuse(error)

    async def _healthz(self, request: Request) -> Answer:
        return text("ok\n", headers=MUTABLE)

    async def _metrics(self, request: Request) -> Answer:
        headers = {**MUTABLE, "Content-Type": CONTENT_TYPE_LATEST}
        return Answer(generate_latest(self._registry), headers=headers)


def check_method(request: Request, allowed: tuple[str, ...]) -> None:
    """Refuse other methods with NotAllowed."""
    if request.method not in allowed:
        allow = ", ".join(allowed)
        raise NotAllowed(f"{request.method[:20]!r} is not allowed here: use {allow}", allow=allow)


def signed(signatures: list[NoteSignature]) -> Answer:
    """The answer of who has cosigned."""
    # SPEC tlog-witness: "The response body MUST be a sequence of one or more note signature lines".
    lines = b"".join(signature.encode() for signature in signatures)
    return Answer(lines, media_type="text/plain", headers=UNCACHED)


def refuse(error: Exception) -> Answer:
    """A refusal of the witness room, or of any other."""
    if isinstance(error, SizeConflict):
        # SPEC tlog-witness: "The response body MUST consist of the tree size of the latest
        # cosigned checkpoint in decimal, followed by a newline (U+000A)."
        headers = {**UNCACHED, "Content-Type": _SIZE_TYPE}
        return Answer(f"{error.size}\n".encode(), status=error.status, headers=headers)
    if not isinstance(error, Refusal):
        return refusal(error)
    headers = dict(UNCACHED)
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.status == 503:
        headers["Retry-After"] = str(UNAVAILABLE_SECONDS)
    return text(one_line(error) + "\n", status=error.status, headers=headers)
