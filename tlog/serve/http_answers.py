"""Answers over HTTP, and which refusal has which status code."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tlog.log import (
    EntryNotFound,
    InvalidRequest,
    LogError,
    OutOfRange,
    Overloaded,
    Reserved,
    StateRefused,
    Unavailable,
)
from tlog.serve.logs import UnknownLog
from tlog.store import StoreError

PIECE_BYTES = 256 << 10
# Of answers longer than a piece (a bundle may have 16 MiB), while they are being sent.
MAX_OUTGOING_BYTES = 256 << 20
# Until a halted log has tried to recover a few times.
UNAVAILABLE_SECONDS = 5


class NotFound(LogError, LookupError):
    """The URL names nothing that this server has."""


class TooLong(InvalidRequest):
    """The body is longer than the log takes."""


class NotAllowed(LogError):
    """The resource does not know the method.

    Attributes:
        allow: the methods it knows, as the header of that name lists them.
    """

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class Forbidden(LogError):
    """Who asks may not do this."""


class NotAcceptable(LogError):
    """The request refuses every form that the resource has."""


class TooSlow(LogError):
    """The body did not arrive in time."""


# First match counts.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLong, 413),
    (InvalidRequest, 400),
    (NotFound, 404),
    (UnknownLog, 404),
    (EntryNotFound, 404),
    (OutOfRange, 404),
    (NotAllowed, 405),
    (Forbidden, 403),
    (Reserved, 403),
    (NotAcceptable, 406),
    (TooSlow, 408),
    (Overloaded, 429),
    (Unavailable, 503),
    (StateRefused, 503),
    (StoreError, 503),
    (TimeoutError, 503),
)


def status_of(error: Exception) -> int:
    """The HTTP status code that says what kind of refusal this is."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 500


class Answer(Response):
    """A response that is sent in pieces, so that a slow reader is noticed, not buffered for."""

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, status, headers, media_type)
        self.raw_headers.append((b"x-content-type-options", b"nosniff"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        for offset in range(0, max(len(self.body), 1), PIECE_BYTES):
            end = offset + PIECE_BYTES
            piece, more = self.body[offset:end], end < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


class Outgoing:
    """Sends answers, as long as those that are being sent have not too many bytes together."""

    def __init__(self) -> None:
        self._bytes = 0

    async def send(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an answer, or a refusal in its place."""
        size = len(answer.body) if len(answer.body) > PIECE_BYTES else 0
        if size and self._bytes + size > MAX_OUTGOING_BYTES:
            answer = refusal(Overloaded("too many long answers are being sent", retry_after=1))
            size = 0
        self._bytes += size
        try:
            await answer(scope, receive, send)
        finally:
            self._bytes -= size


def text(line: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Lines for a human or a script."""
    return Answer(line.encode(), status=status, media_type="text/plain", headers=headers)


def refusal(error: Exception) -> Answer:
    """A refusal of any room, said in HTTP: a status code and one line of text."""
    status = status_of(error)
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        headers["Retry-After"] = str(UNAVAILABLE_SECONDS)
    elif isinstance(error, NotAllowed):
        headers["Allow"] = error.allow
    return text(" ".join(str(error).split()) + "\n", status=status, headers=headers)
