"""A real log behind a real HTTP server, on a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tlog.log import Log, LogConfig, create_log
from tlog.serve.http import http_server
from tlog.serve.logs import Logs

T = TypeVar("T")
HOST = "127.0.0.1"


class Served:
    """`with Served(directory) as served:` creates a log there and serves it until left."""

    def __init__(self, directory: Path, *configs: LogConfig) -> None:
        self._directory = directory
        self._configs = configs or (LogConfig(origin="example.com/a", name="a"),)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._started: Future[None] = Future()
        self.logs: dict[str, Log] = {}
        self.port = 0
        self.base = 0  # for tests that share a log: how many entries it had before

    def __enter__(self) -> Served:
        self._thread.start()
        self._started.result(30)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not stop"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for config in self._configs:
                    directory = self._directory / config.name
                    create_log(directory, config)
                    log = await stack.enter_async_context(Log.opened(directory))
                    self.logs[config.name] = log
                server = http_server(Logs(self.logs.values()), f"{HOST}:0")
                self.port = await stack.enter_async_context(server)
                self._started.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Log:
        """The only log, or the first."""
        return next(iter(self.logs.values()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine beside the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Append, until durable."""

        async def submit() -> list[int]:
            return list(await self.log.submit(entries))

        return self.run(submit())

    def publish(self) -> None:
        """Publish what is durable, whatever the interval says."""
        self.run(self.log.publisher.publish())

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client that says nothing the test did not."""
        client = httpx.Client(base_url=self.url, timeout=40, trust_env=False, **options)
        client.headers.clear()
        return client

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((HOST, self.port), timeout=40)

    def raw(self, *pieces: bytes) -> bytes:
        """Send bytes; everything that comes back until the server closes."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer closes or resets."""
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received
