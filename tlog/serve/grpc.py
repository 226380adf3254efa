"""The gRPC server of logs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from tlog.serve.grpc_listener import grpc_listener
from tlog.serve.handlers import generic_handler
from tlog.serve.log_service import LogService
from tlog.serve.logs import Logs
from tlog.v1 import log_pb2

# A batch of 16,384 entries of 2 KiB.
MAX_MESSAGE_BYTES = 32 << 20

_SERVICE = log_pb2.DESCRIPTOR.services_by_name["LogService"]


def grpc_server(logs: Logs, address: str) -> AbstractAsyncContextManager[int]:
    """Serve the logs over gRPC: see `grpc_listener`. On leaving, endless calls are ended."""
    service = LogService(logs)
    return grpc_listener(
        _SERVICE,
        generic_handler(_SERVICE, service),
        address,
        max_message_bytes=MAX_MESSAGE_BYTES,
        drain=service.drain,
    )
