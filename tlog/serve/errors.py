"""Refusals of the rooms below, said in gRPC: a code, one line, and google.rpc details."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tlog.log import (
    EntryNotFound,
    InvalidRequest,
    LogError,
    OutOfRange,
    Overloaded,
    Reserved,
    ShuttingDown,
    StateRefused,
    Unavailable,
)
from tlog.serve.logs import UnknownLog
from tlog.store import StoreCorrupt, StoreError, StoreMissing

# First match counts.
_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownLog, grpc.StatusCode.NOT_FOUND),
    (EntryNotFound, grpc.StatusCode.NOT_FOUND),
    (OutOfRange, grpc.StatusCode.OUT_OF_RANGE),
    (Reserved, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ShuttingDown, grpc.StatusCode.UNAVAILABLE),
    (Unavailable, grpc.StatusCode.FAILED_PRECONDITION),
    (StateRefused, grpc.StatusCode.DATA_LOSS),
    (StoreCorrupt, grpc.StatusCode.DATA_LOSS),
    (StoreMissing, grpc.StatusCode.DATA_LOSS),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
)
REFUSALS = (LogError, StoreError, TimeoutError)


def code_of(error: Exception) -> grpc.StatusCode:
    """The status code that says what kind of refusal this is."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def rich_status(error: Exception, code: grpc.StatusCode | None = None) -> grpc.Status:
    """A refusal as a gRPC status with details that a program can act on; its own code, if none."""
    code = code or code_of(error)
    status = status_pb2.Status(code=code.value[0], message=str(error))
    if (detail := _detail(error)) is not None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def _detail(error: Exception) -> Message | None:
    detail: Message | None = None
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        detail = error_details_pb2.RetryInfo(retry_delay=delay)
    elif isinstance(error, Unavailable):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="LOG_UNAVAILABLE", subject="log", description=str(error)
        )
        detail = error_details_pb2.PreconditionFailure(violations=[violation])
    elif isinstance(error, LogError) and error.field:
        wrong = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=str(error)
        )
        detail = error_details_pb2.BadRequest(field_violations=[wrong])
    return detail
