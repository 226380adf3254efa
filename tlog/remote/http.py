"""One HTTP exchange with somebody who is not trusted: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import httpx

from tlog.merkle.source import SourceError
from tlog.notes.codec import shown

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 30.0
MAX_CONNECTIONS = 8
KEEP_ALIVE_SECONDS = 60.0


class RemoteError(SourceError):
    """Somebody who was asked gave no usable answer. The message says why, in one line."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, read to its end."""

    status: int
    content_type: str
    body: bytes

    def reason(self) -> str:
        """Status code and first line, as they may stand in a message."""
        return f"{self.status} {first_line(self.body)}".rstrip()


class HttpPeer:
    """A client for one server, with connections that stay open.

    Args:
        secure: the server is asked over TLS.
    """

    def __init__(self, *, secure: bool) -> None:
        self._client = httpx.AsyncClient(
            # Making the default of verify=True costs 20 ms, for nothing where there is no TLS.
            verify=ssl.create_default_context() if secure else False,
            # Where a request goes is the operator's decision, not the peer's nor the environment's.
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_SECONDS
            ),
            # What is compressed has no bound.
            headers={"User-Agent": "tlog", "Accept-Encoding": "identity"},
        )

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        limit: int,
        content: bytes | None = None,
        content_type: str | None = None,
    ) -> HttpAnswer:
        """Send a request, and read the answer's body of at most `limit` bytes.

        Raises:
            RemoteError: no answer, none in time, or a longer one.
        """
        headers = {} if content_type is None else {"Content-Type": content_type}
        try:
            async with (
                asyncio.timeout(TOTAL_SECONDS),
                self._client.stream(method, url, content=content, headers=headers) as response,
            ):
                body = bytearray()
                async for piece in response.aiter_raw():
                    if len(body) + len(piece) > limit:
                        raise RemoteError(f"{url} answers with more than {limit} bytes")
                    body += piece
                kind = response.headers.get("content-type", "")
                return HttpAnswer(response.status_code, kind, bytes(body))
        except TimeoutError:
            raise RemoteError(f"{url} did not answer within {TOTAL_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            what = first_line(str(error).encode()) or type(error).__name__
            raise RemoteError(f"{url} cannot be asked: {what}") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def first_line(said: bytes) -> str:
    """The first line of what a stranger says, as it may stand in a message."""
    line = said[:1024].split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    return line if line.isprintable() and len(line) <= 200 else shown(line)
