"""Asking time-stamp authorities: the port `tlog.audit.stamps.TimeStamper`, over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tlog.audit.stamps import MAX_ANSWER_SIZE, Connect, StampError
from tlog.remote.addresses import AddressError, parse_address
from tlog.remote.http import HttpPeer, RemoteError

# SPEC RFC 3161, 3.4: "Content-Type: application/timestamp-query".
_QUERY = "application/timestamp-query"


class RemoteTimeStamper:
    """An authority at a URL. Belongs to the event loop it is used on.

    Raises:
        AddressError: the URL is not http(s)://HOST[:PORT][/PATH].
    """

    def __init__(self, url: str) -> None:
        address = parse_address(url)
        if address.grpc:
            raise AddressError(f"{url} is not where an authority stamps: expected http(s)://…")
        self._url = url
        # Plain HTTP is usual: the answer is signed, and repeats the nonce.
        self._peer = HttpPeer(secure=address.url.startswith("https:"))

    async def stamp(self, request: bytes) -> bytes:
        """See `TimeStamper.stamp`."""
        try:
            answer = await self._peer.exchange(
                "POST", self._url, content=request, content_type=_QUERY, limit=MAX_ANSWER_SIZE
            )
        except RemoteError as error:
            raise StampError(str(error)) from None
        if answer.status != 200:
            raise StampError(f"{self._url} answers {answer.reason()}")
        return answer.body

    async def aclose(self) -> None:
        """Close the connections."""
        await self._peer.aclose()


@contextlib.asynccontextmanager
async def time_stampers() -> AsyncIterator[Connect]:
    """Ways to authorities, and on leaving all are closed: leave the stampers before."""
    async with contextlib.AsyncExitStack() as stack:

        def opened(url: str) -> RemoteTimeStamper:
            stamper = RemoteTimeStamper(url)
            stack.push_async_callback(stamper.aclose)
            return stamper

        yield opened
