"""gRPC services on a port of this machine, with health and reflection beside it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tlog.log import LogError
from tlog.serve.addresses import check_address

GRACE_SECONDS = 10.0

_OPTIONS = {
    # Otherwise two servers silently share a port, and with it the clients of one log.
    "grpc.so_reuseport": 0,
    "grpc.max_metadata_size": 16 << 10,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
}


@contextlib.asynccontextmanager
async def grpc_listener(
    handlers: Mapping[str, grpc.GenericRpcHandler],
    address: str,
    *,
    max_message_bytes: int,
    drain: Callable[[], None] = lambda: None,
) -> AsyncIterator[int]:
    """Serve services over gRPC; gives the port it listens on (of use when 0 was asked for).

    On leaving: refuse new calls, `drain`, and let the others finish for ten seconds.

    Args:
        handlers: answer the methods of each service, by its full name.
        address: HOST:PORT.
        max_message_bytes: longer requests are refused by gRPC before they are parsed.
        drain: ends the calls that would not end by themselves.

    Raises:
        LogError: the address is refused or taken.
    """
    check_address(address)
    options = {
        **_OPTIONS,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.max_send_message_length": max_message_bytes,
    }
    server = grpc.aio.server(options=tuple(options.items()))
    server.add_generic_rpc_handlers(tuple(handlers.values()))
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = (*handlers, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise LogError(
            f"cannot listen on {address}: the port is taken, perhaps by another tlog server. "
            "Stop it, or choose another port with --grpc"
        ) from None
    await server.start()
    for name in ("", *handlers):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await healthy.enter_graceful_shutdown()
        drain()
        await server.stop(GRACE_SECONDS)
