"""What tests of several rooms share: a real server in a process of its own."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from tlog.v1 import log_pb2 as pb
from tlog.v1 import log_pb2_grpc


def free_port() -> int:
    """A port nothing listens on at the moment.

    Below those that the kernel gives to whoever connects: it stays free until it is needed.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """`tlog serve` on directories, over gRPC, in a process of its own."""

    def __init__(self, *directories: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.target = f"127.0.0.1:{self.port}"
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-m", "tlog.cli", "serve", *map(str, directories)),
                *("--grpc", self.target, "--http", f"127.0.0.1:{free_port()}"),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def wait_ready(self, timeout: float = 30.0) -> ServerProcess:
        """Wait until the server answers; fail with what it said when it does not."""
        deadline = time.monotonic() + timeout
        with grpc.insecure_channel(self.target, _FAST_RECONNECT) as channel:
            stub = log_pb2_grpc.LogServiceStub(channel)
            while True:
                try:
                    stub.ListLogs(pb.ListLogsRequest(), timeout=1, wait_for_ready=True)
                except grpc.RpcError:
                    if self.child.poll() is not None or time.monotonic() > deadline:
                        raise AssertionError(f"the server did not start: {self.end()}") from None
                else:
                    return self

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.child.kill()
        self.end()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.child.send_signal(signal.SIGTERM)
        self.end()
        return self.child.returncode

    def end(self) -> str:
        """Wait for the end; what the server said on standard error."""
        if self.child.poll() is None and not self.child.stderr:
            self.child.kill()
        try:
            _, said = self.child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            _, said = self.child.communicate()
        return said


_FAST_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50))


@contextlib.contextmanager
def running_server(*directories: Path, port: int | None = None) -> Iterator[ServerProcess]:
    """A server that is ready, killed at the end if it still runs."""
    server = ServerProcess(*directories, port=port)
    try:
        yield server.wait_ready()
    finally:
        if server.child.poll() is None:
            server.kill()
