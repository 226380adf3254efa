"""The gRPC server: the services of all rooms on one port, with health and reflection."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tlog.log import LogError
from tlog.serve.handlers import generic_handler
from tlog.serve.log_service import LogService
from tlog.serve.logs import Logs
from tlog.v1 import log_pb2

# A batch of 16,384 entries of 2 KiB. Longer requests are refused by gRPC before they are parsed.
MAX_MESSAGE_BYTES = 32 << 20
GRACE_SECONDS = 10.0

_SERVICE = log_pb2.DESCRIPTOR.services_by_name["LogService"]
OPTIONS = (
    # Otherwise two servers silently share a port, and with it the clients of one log.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def check_address(address: str) -> tuple[str, int]:
    """Check an address to listen on: a loopback host and a port.

    Raises:
        LogError: not HOST:PORT, or not loopback.
    """
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise LogError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:6962")
    if host != "localhost":
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise LogError(
                f"refusing to listen on {host}: without TLS and authentication a server listens on "
                "loopback only (127.0.0.1, ::1 or localhost)"
            )
    return host, int(port)


@contextlib.asynccontextmanager
async def grpc_server(logs: Logs, address: str) -> AsyncIterator[int]:
    """Serve the logs over gRPC; gives the port it listens on (of use when 0 was asked for).

    On leaving: refuse new calls, end the endless ones, and let the others finish for ten seconds.

    Raises:
        LogError: the address is refused or taken.
    """
    check_address(address)
    server = grpc.aio.server(options=OPTIONS)
    service = LogService(logs)
    server.add_generic_rpc_handlers((generic_handler(_SERVICE, service),))
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = (_SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise LogError(
            f"cannot listen on {address}: the port is taken, perhaps by another tlog server. "
            "Stop it, or choose another port with --grpc"
        ) from None
    await server.start()
    for name in ("", _SERVICE.full_name):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await healthy.enter_graceful_shutdown()
        service.drain()
        await server.stop(GRACE_SECONDS)
