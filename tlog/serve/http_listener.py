"""An ASGI application on a port of this machine, in somebody else's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import uvicorn
from starlette.types import Receive, Scope, Send

from tlog.log import LogError
from tlog.serve.addresses import check_address
from tlog.serve.http_protocol import BoundedProtocol

BACKLOG = 1024
GRACE_SECONDS = 10
# Longer than the five seconds that common clients keep an idle connection themselves.
KEEP_ALIVE_SECONDS = 15

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Server(uvicorn.Server):
    """uvicorn inside somebody else's loop: signals are the caller's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextlib.asynccontextmanager
async def http_listener(app: App, address: str) -> AsyncIterator[int]:
    """Serve an application over HTTP; gives the port it listens on (of use when 0 was asked for).

    On leaving: refuse new connections, close the idle ones, and let the others finish for ten
    seconds.

    Raises:
        LogError: the address is refused or taken.
    """
    listener = _listen(address)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        # One line for each malformed request is a stranger's way to fill a disk.
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]), name="http-server")
    try:
        await server.listening.wait()
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        for connection in list(server.server_state.connections):
            connection.transport.abort()


def _listen(address: str) -> socket.socket:
    host, port = check_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named: 40 ms for every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restarted server must not wait for old connections to be forgotten. No SO_REUSEPORT:
        # otherwise two servers silently share a port, and with it the clients of one log.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # with SO_REUSEADDR, only this finds that the port is taken
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "the port is taken, perhaps by another tlog server" if taken else error.strerror
        raise LogError(
            f"cannot listen on {address}: {reason}. Stop it, or choose another port with --http"
            if taken
            else f"cannot listen on {address}: {reason}. Choose another address with --http"
        ) from None
    return listener
