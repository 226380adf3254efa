"""Turns a servicer's methods into gRPC handlers that refuse politely.

The generated registration answers INTERNAL when a request does not parse, and UNKNOWN when a method
raises. Here bytes that are not the message become INVALID_ARGUMENT, and the refusals of the rooms
below become their codes, in one place, without an interceptor's cost on every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from traceback import clear_frames
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from tlog.log import InvalidRequest
from tlog.serve.errors import REFUSALS, rich_status

_log = structlog.get_logger(__name__)

_INTERNAL = rich_status(Exception("internal error: see the server's log"))

Context = grpc.aio.ServicerContext[Any, Any]


class _Translation(NamedTuple):
    """Which exceptions are refusals, and how they are said."""

    refusals: tuple[type[Exception], ...]
    status_of: Callable[[Exception], grpc.Status]


class _Malformed:
    """Stands for a request whose bytes are not the message they should be."""

    def __init__(self, message: str) -> None:
        self.message = message


def generic_handler(
    service: ServiceDescriptor,
    servicer: object,
    *,
    refusals: tuple[type[Exception], ...] = REFUSALS,
    status_of: Callable[[Exception], grpc.Status] = rich_status,
) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service; the servicer has a coroutine named like each.

    Methods that answer with a stream write to the context themselves.

    Args:
        service: the service.
        servicer: answers its methods.
        refusals: what a method may raise to refuse; InvalidRequest is always one of these.
        status_of: says a refusal in gRPC.
    """
    translation = _Translation(refusals, status_of)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        streams = (method.client_streaming, method.server_streaming)
        behaviour = getattr(servicer, method.name)
        handlers[method.name] = _MAKERS[streams](
            _refusing(behaviour, translation, client_streaming=method.client_streaming),
            request_deserializer=_parser(GetMessageClass(method.input_type)),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _parser(kind: type[Message]) -> Callable[[bytes], Message | _Malformed]:
    def parse(data: bytes) -> Message | _Malformed:
        try:
            return kind.FromString(data)
        except DecodeError:
            return _Malformed(f"the request is not a {kind.DESCRIPTOR.full_name}")

    return parse


def _refusing(
    method: Callable[..., Any], translation: _Translation, *, client_streaming: bool
) -> Callable[..., Any]:
    refusals, status_of = translation

    async def call(request: Any, context: Context) -> Any:
        try:
            return await answered(request, context)
        except grpc.aio.InternalError as error:
            # Of a write that fails: the client hung up, which nobody has to look into.
            _log.info("a client went away", method=method.__name__, reason=str(error))
            clear_frames(error.__traceback__)
            raise asyncio.CancelledError from None

    async def answered(request: Any, context: Context) -> Any:
        try:
            return await method(
                _parsed_stream(request) if client_streaming else _parsed(request), context
            )
        except grpc.aio.InternalError:
            raise
        except Exception as error:  # noqa: BLE001
            status = said(error)
            # Whoever does not read what was sent does not hear of this either: while it waits, it
            # does not hold what the method had.
            clear_frames(error.__traceback__)
        return await context.abort(status.code, status.details, status.trailing_metadata)

    def said(error: Exception) -> grpc.Status:
        if isinstance(error, refusals):
            return status_of(error)
        # Nothing of an internal error is told to strangers; all of it goes to the operator.
        _log.error("internal error", method=method.__name__, exc_info=error)
        return _INTERNAL

    return call


def _parsed(request: Message | _Malformed) -> Message:
    if isinstance(request, _Malformed):
        raise InvalidRequest(request.message)
    return request


async def _parsed_stream(requests: AsyncIterator[Message | _Malformed]) -> AsyncIterator[Message]:
    async for request in requests:
        yield _parsed(request)
