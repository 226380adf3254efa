"""The bodies of HTTP requests: bounded in bytes and time, and read to their end when refused."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.types import Message, Receive

from tlog.serve.http_answers import TooLong, TooSlow

BODY_SECONDS = 30.0
# How much of a refused body is read and dropped, and how long. Closing with bytes unread resets the
# connection, and the peer would never read why it was refused.
DRAIN_BYTES = 16 << 20
DRAIN_SECONDS = 5.0


class Incoming:
    """What arrives of a request's body, and whether all of it did."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def __call__(self) -> Message:
        """The next piece."""
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        return message

    async def drained(self, request: Request) -> bool:
        """Read what is left of the body; False if that is too much, or takes too long."""
        headers = request.headers
        if self._ended or not ("content-length" in headers or "transfer-encoding" in headers):
            return True
        if "expect" in headers:
            return False  # the body may come or not: what follows could not be told apart
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and size <= DRAIN_BYTES:
                    size += len((await self()).get("body", b""))
        return self._ended


async def read_body(request: Request, limit: int, too_long: str) -> bytes:
    """The body of a request, refused as soon as it is known to be too long.

    Raises:
        TooLong: over `limit` bytes; it says `too_long`.
        TooSlow: it did not arrive in time.
    """
    # Digits only: the parser has refused anything else.
    if int(request.headers.get("content-length", 0)) > limit:
        raise TooLong(too_long)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                if len(body) + len(piece) > limit:
                    raise TooLong(too_long)
                body += piece
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {BODY_SECONDS:g} s") from None
    return bytes(body)
