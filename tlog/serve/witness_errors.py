"""A witness's refusals said in gRPC: the codes that `witness.proto` names, with details."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tlog.serve.errors import REFUSALS, rich_status
from tlog.v1 import witness_pb2 as pb
from tlog.witness import Refusal, SizeConflict, TooManyRequests

WITNESS_REFUSALS: Final = (*REFUSALS, Refusal)

# By the status code that SPEC tlog-witness gives the refusal.
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def witness_status(error: Exception) -> grpc.Status:
    """A refusal as a gRPC status with details that a program can act on."""
    if not isinstance(error, Refusal):
        return rich_status(error)
    status = status_pb2.Status(code=_CODES[error.status].value[0], message=one_line(error))
    if (detail := _detail(error)) is not None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def one_line(error: Exception) -> str:
    """What a refusal says."""
    return " ".join(str(error).split())


def _detail(error: Refusal) -> Message | None:
    detail: Message | None = None
    if isinstance(error, SizeConflict):
        detail = pb.CosignedSize(tree_size=error.size)
    elif isinstance(error, TooManyRequests):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        detail = error_details_pb2.RetryInfo(retry_delay=delay)
    return detail
