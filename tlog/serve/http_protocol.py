"""HTTP/1.1 on one connection, with bounds on what a stranger may cost.

uvicorn's protocol over httptools bounds neither heads nor pipelines nor the patience with a silent
peer; this one does. It also refuses what uvicorn misreads: the body of a request that asks for an
upgrade would be taken for empty, and an empty entry would be appended in its place.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Below the usual soft limit of 1024 open files: strangers must leave some for the database, which
# would halt the log if it could not open a file of its own.
MAX_CONNECTIONS = 512
MAX_HEAD_BYTES = 16 << 10
# Chunk sizes, extensions and trailers of one request. A body of 65,535 one-byte chunks has 320 KiB.
MAX_FRAMING_BYTES = 512 << 10
MAX_PIPELINED = 128
# Of a request that waits in the pipeline: the longest entry, and what one read may bring besides.
MAX_WAITING_BODY_BYTES = 512 << 10
# For a head to arrive. Bodies have the application's patience.
PATIENCE_SECONDS = 15.0
# For a peer to take 64 KiB of an answer.
STALL_SECONDS = 60.0

_TOO_LONG = (431, "Request Header Fields Too Large", f"request head over {MAX_HEAD_BYTES} bytes")
_TOO_MANY = (503, "Service Unavailable", f"over {MAX_CONNECTIONS} connections: come back later")
_TOO_SLOW = (408, "Request Timeout", f"no whole request head within {PATIENCE_SECONDS:g} s")
_MALFORMED = (400, "Bad Request", "this is not HTTP/1.1")
_UPGRADE = (400, "Bad Request", "a request with a body cannot ask for an upgrade")


class _RefusedError(Exception):
    """Stops the parser; `BoundedProtocol._refusal` says why."""


class _Answering:
    """Where uvicorn writes the answer to one request: its head leaves with its body's first piece.

    That is one system call, one packet and one awakening of the peer instead of two.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._cycle.response_started and self._head is None:
            self._head = data
        else:
            self._transport.write((self._head or b"") + data)
            # Not None: what follows is body. Until there is a head, only a 100 Continue was said.
            self._head = b"" if self._cycle.response_started else None

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The states are uvicorn's; here are added counts, and two timers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refusal = _MALFORMED
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0
        self._framing_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # ---- the connection ----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A peer has connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(_TOO_MANY)
        else:
            self._start_patience()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_patience()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what came, then see whether it is too much."""
        if self.transport.is_closing():
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        # What is unfinished is in the parser, where nobody counts it.
        if self._in_body:
            if self._framing_bytes > MAX_FRAMING_BYTES:
                self._refuse(_MALFORMED)
        elif self._framing_bytes > MAX_HEAD_BYTES:
            self._refuse(_TOO_LONG)
        elif (self._in_head or self._framing_bytes) and self._patience is None:
            self._start_patience()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The peer will send nothing more, but may wait for answers: True keeps it connected."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """The peer is slow to take an answer."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer has taken enough."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        """The peer has asked for nothing for a while."""
        # A peer that never takes the rest of an answer would otherwise keep its connection.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    # ---- one request ----

    def on_message_begin(self) -> None:
        """A request begins."""
        self._unset_keepalive_if_required()
        self._in_head = True
        self._head_bytes = self._framing_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: work on the request begins."""
        self._stop_patience()
        self._in_head, self._in_body = False, True
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(_MALFORMED)
        upgrade = self.parser.should_upgrade()
        if upgrade and any(
            name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers
        ):
            self._stop(_UPGRADE)
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # its answer has no body to wait for
            self.cycle.transport = _Answering(self.cycle)  # type: ignore[assignment]
        if upgrade:
            # What follows is lost on the parser, so the peer must not expect an answer to it.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._framing_bytes -= len(body)
        super().on_body(body)
        if len(self.cycle.body) > MAX_WAITING_BODY_BYTES:
            self._stop(_MALFORMED)

    def on_message_complete(self) -> None:
        """The request is complete."""
        super().on_message_complete()
        self._in_body = False
        self._framing_bytes = 0

    # ---- bounds ----

    def send_400_response(self, msg: str) -> None:
        """The parser has stopped: say why in our words."""
        self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Strangers do not write into the operator's log."""

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(_TOO_LONG)

    def _stop(self, refusal: tuple[int, str, str]) -> None:
        self._refusal = refusal
        raise _RefusedError

    def _refuse(self, refusal: tuple[int, str, str]) -> None:
        """Answer and close, but never in place of the answer to an earlier request."""
        cycle = self.cycle
        unanswered = cycle is not None and not cycle.response_complete
        own = unanswered and cycle.more_body and not cycle.response_started and not self.pipeline
        if own or not unanswered:
            status, phrase, message = refusal
            retry = "retry-after: 1\r\n" if status == 503 else ""
            self.transport.write(
                f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(message) + 1}\r\n{retry}connection: close\r\n\r\n"
                f"{message}\n".encode()
            )
        self.transport.close()

    def _start_patience(self) -> None:
        self._stop_patience()
        self._patience = self.loop.call_later(PATIENCE_SECONDS, self._lose_patience)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_patience()  # an earlier request is still worked on
        else:
            self._refuse(_TOO_SLOW)
