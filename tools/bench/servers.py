"""Servers to measure, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from tlog.log import LogConfig, create_log
from tlog.serve import grpc_server
from tlog.serve.grpc import MAX_MESSAGE_BYTES
from tlog.serve.grpc_listener import grpc_listener
from tlog.serve.handlers import generic_handler
from tlog.v1 import log_pb2 as pb


class _Noop:
    """Answers every unary call of LogService with an empty message."""

    def __getattr__(self, name: str) -> Any:
        method = pb.DESCRIPTOR.services_by_name["LogService"].methods_by_name[name]
        answer = getattr(pb, method.output_type.name)()

        async def call(request: Any, context: Any) -> Any:
            return answer

        return call


async def _serve_noop(port: int) -> None:
    service = pb.DESCRIPTOR.services_by_name["LogService"]
    handlers = {service.full_name: generic_handler(service, _Noop())}
    address = f"127.0.0.1:{port}"
    async with grpc_listener(handlers, address, max_message_bytes=MAX_MESSAGE_BYTES):
        await asyncio.Event().wait()


async def _serve_log(port: int, directory: Path, http_port: str = "") -> None:
    from tlog.log import Log
    from tlog.serve import Logs, http_server

    async with contextlib.AsyncExitStack() as stack:
        logs = Logs([await stack.enter_async_context(Log.opened(directory))])
        await stack.enter_async_context(grpc_server(logs, f"127.0.0.1:{port}"))
        if http_port:
            await stack.enter_async_context(http_server(logs, f"127.0.0.1:{http_port}"))
        await asyncio.Event().wait()


@contextlib.contextmanager
def noop() -> Iterator[tuple[str, int]]:
    """The server that does nothing; gives its address and process."""
    with _process("noop") as running:
        yield running


@contextlib.contextmanager
def log(directory: Path, **config: Any) -> Iterator[tuple[str, int]]:
    """A log in a directory, made when it is not there; gives its address and process."""
    if not directory.exists():
        create_log(directory, LogConfig(origin="example.com/bench", name="bench", **config))
    with _process("log", str(directory)) as running:
        yield running


@contextlib.contextmanager
def log_and_http(directory: Path) -> Iterator[tuple[str, str]]:
    """A new log in a directory, over both protocols; gives its two addresses."""
    create_log(directory, LogConfig(origin="example.com/bench", name="bench"))
    http_port = str(_free_port())
    with _process("log", str(directory), http_port) as (grpc_address, _):
        yield grpc_address, f"127.0.0.1:{http_port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[tuple[str, int]]:
    port = _free_port()
    child = subprocess.Popen([sys.executable, "-m", "tools.bench.servers", str(port), *arguments])
    try:
        yield f"127.0.0.1:{port}", child.pid
    finally:
        child.terminate()
        child.wait(30)


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    number, kind, *rest = sys.argv[1:]
    uvloop.run(
        _serve_noop(int(number))
        if kind == "noop"
        else _serve_log(int(number), Path(rest[0]), *rest[1:])
    )
