"""GETs of thousands of small resources of one server that is not trusted: bounded, and cheap.

An audit asks for two resources for every 256 entries. httpx costs 2.5 ms of CPU for each, this
0.1 ms: a few connections that stay open, and the parser that our own server uses (llhttp).
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from tlog.merkle.source import SourceDamaged, SourceMissing
from tlog.remote.addresses import Address
from tlog.remote.http import RemoteError, first_line

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 30.0
CONNECTIONS = 16

_PIECE = 64 << 10
# Of status line and headers.
_MAX_HEAD_BYTES = 64 << 10
# Of a refusal, for the message.
_MAX_REASON_BYTES = 1024

_FAILURES = (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade)


class RemoteMissing(RemoteError, SourceMissing):
    """The server says that it does not have the resource."""


class RemoteDamaged(RemoteError, SourceDamaged):
    """The server's answer cannot be the resource."""


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False


class Fetcher:
    """Reads what lies below one URL. Belongs to the event loop it is used on.

    Args:
        address: the URL.
        accept: the Accept-Encoding to send. Whatever comes is read if it is gzip or identity: SPEC
            tlog-tiles lets a log "use `Content-Encoding: gzip` with no negotiation".
        timeout: seconds for one resource, from the first byte sent to the last one read.
    """

    def __init__(
        self, address: Address, *, accept: str = "gzip, identity", timeout: float = TOTAL_SECONDS
    ) -> None:
        parts = urlsplit(address.url)
        secure = parts.scheme == "https"
        self._url = address.url
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        self._timeout = timeout
        self._path = parts.path.rstrip("/")
        self._rest = (
            f" HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: tlog\r\n"
            f"Accept-Encoding: {accept}\r\n\r\n"
        )
        self._free: list[_Connection] = []
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def get(self, path: str, *, limit: int) -> bytes:
        """The content of a resource, of at most `limit` bytes.

        Raises:
            RemoteMissing: there is none.
            RemoteDamaged: it is longer, or its coding is broken.
            RemoteError: no answer, none in time, no success, or no HTTP. Redirects are not
                followed: where requests go is the operator's decision.
        """
        url = f"{self._url}/{path}"
        request = f"GET {self._path}/{path}{self._rest}".encode("ascii")
        async with self._turns:
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._exchange(request, limit)
            except TimeoutError:
                raise RemoteError(f"{url} did not answer within {self._timeout:g} s") from None
            except _FAILURES as error:
                what = first_line(str(error).encode()) or type(error).__name__
                raise RemoteError(f"{url} cannot be read: {what}") from None
        return answer.content(url)

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in self._free:
            connection.writer.close()
        self._free.clear()

    async def _exchange(self, request: bytes, limit: int) -> _Answer:
        while True:
            connection = await self._connect()
            answer = _Answer(limit)
            try:
                connection.writer.write(request)
                await _read(connection.reader, answer)
            except BaseException as error:
                connection.writer.transport.abort()
                # It was closed while it stood idle, as any server may do: that is no answer yet.
                if connection.used and not answer.begun and isinstance(error, ConnectionError):
                    continue
                raise
            if answer.reusable:
                connection.used = True
                self._free.append(connection)
            else:
                connection.writer.transport.abort()
            return answer

    async def _connect(self) -> _Connection:
        if self._free:
            return self._free.pop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return _Connection(
                    *await asyncio.open_connection(
                        self._host, self._port, ssl=self._tls, limit=_PIECE
                    )
                )
        except TimeoutError:
            raise OSError(f"no connection within {CONNECT_SECONDS:g} s") from None


class _Answer:
    """What the parser finds, as far as it is wanted. Its methods must not raise."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self._coding = b"identity"
        self._inflate: zlib._Decompress | None = None
        self.begun = self.headed = self.complete = self._stays = False
        self.problem: str | None = None
        self.status = 0
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        if self.complete:
            self.problem = "more than one answer to one request"

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-encoding":
            self._coding = value.strip().lower()

    def on_headers_complete(self) -> None:
        self.headed = True
        self.status = self.parser.get_status_code()
        if self.status != 200:
            return
        if self._coding in {b"gzip", b"x-gzip"}:
            self._inflate = zlib.decompressobj(wbits=31)
        elif self._coding != b"identity":
            self.problem = f"the content coding {first_line(self._coding)} was not asked for"

    def on_body(self, piece: bytes) -> None:
        if self.problem is not None:
            return
        if self.status != 200:
            self._body += piece[: _MAX_REASON_BYTES - len(self._body)]
            return
        if self._inflate is not None:
            if self._inflate.eof:
                self.problem = "broken gzip: the answer goes on after its end"
                return
            try:
                # Never more than a byte over the limit, whatever it would unfold to.
                piece = self._inflate.decompress(piece, self._limit + 1 - len(self._body))
            except zlib.error as error:
                self.problem = f"broken gzip: {error}"
                return
        if len(self._body) + len(piece) > self._limit:
            self.problem = f"longer than {self._limit} bytes"
        else:
            self._body += piece

    def on_message_complete(self) -> None:
        self.complete = True
        self._stays = self.parser.should_keep_alive()  # not known any more after this
        inflate = self._inflate
        if inflate is not None and (not inflate.eof or inflate.unused_data):
            self.problem = self.problem or "broken gzip: it does not end where the answer does"

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent over the same connection."""
        return self._stays and self.problem is None

    def fits(self, received: int) -> bool:
        """Whether so many bytes may have come by now. One byte of content may be one chunk."""
        most = _MAX_HEAD_BYTES + (8 * self._limit if self.headed else 0)
        return received <= most + _PIECE

    def content(self, url: str) -> bytes:
        """The resource."""
        if self.problem is not None:
            raise RemoteDamaged(f"{url}: {self.problem}")
        if self.status == 200:
            return bytes(self._body)
        reason = f"{url}: {self.status} {first_line(bytes(self._body))}".rstrip()
        if self.status in {404, 410}:
            raise RemoteMissing(reason)
        if 300 <= self.status < 400:
            reason += ": redirects are not followed"
        raise RemoteError(reason)


async def _read(reader: asyncio.StreamReader, answer: _Answer) -> None:
    """Read an answer."""
    received = 0
    try:
        while not answer.complete and answer.problem is None:
            piece = await reader.read(_PIECE)
            if not piece:
                raise ConnectionResetError("the connection ended before the answer did")
            answer.begun = True
            received += len(piece)
            if not answer.fits(received):
                answer.problem = f"more than {received - len(piece)} bytes are no such resource"
                break
            answer.parser.feed_data(piece)
    finally:
        # The two hold each other: without this, bodies of 16 MiB would wait for the collector.
        del answer.parser
