"""A server interceptor for gRPC, and the same for grpc.aio.

    grpc.server(pool, interceptors=[AuditInterceptor(producer, describe)])
    grpc.aio.server(interceptors=[AioAuditInterceptor(producer, describe)])

Calls with one answer: they are recorded when the handler is done, before the answer leaves.
Streams of answers: before the first of them, or when they end without one. (An `abort` of grpc.aio
is sent at once; it is recorded right after.)
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any

import grpc

from tlog.client.hooks.act import Act, Seen, record
from tlog.client.operation import outcome_of
from tlog.client.producer import Producer

Describe = Callable[[str, Any, Any], Act | None]
"""What a call is, from the full name of its method, its request (None if there are many) and its
context; None: nothing to record."""

_Behaviour = Callable[..., Any]

_DENIED = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})


class _Call:
    """One call, recorded once."""

    def __init__(
        self, producer: Producer, describe: Describe, method: str, request: Any, context: Any
    ) -> None:
        self._producer = producer
        self._describe = describe
        self._request = request
        self._context = context
        # The name of a method that is served, not whatever a caller sent.
        self._seen = Seen(method.removeprefix("/"), method, datetime.now().astimezone())
        self._lock = threading.Lock()  # whoever is cancelled leaves a thread that tells
        self.recorded = False

    def tell(self, error: BaseException | None = None) -> None:
        """Record the outcome, unless that was done."""
        with self._lock:
            if self.recorded:
                return
            act = self._describe(self._seen.resource, self._request, self._context)
            if act is not None:
                code = _code(self._context)
                error_of = {"error": type(error).__qualname__} if error else {}
                details = {"code": code.name, **error_of}
                record(self._producer, act, self._seen, _outcome(code, error), details)
            self.recorded = True


def _code(context: Any) -> grpc.StatusCode:
    code = context.code()
    if isinstance(code, int):  # as grpc.aio has it
        code = next((each for each in grpc.StatusCode if each.value[0] == code), None)
    return code or grpc.StatusCode.OK


def _outcome(code: grpc.StatusCode, error: BaseException | None) -> str:
    if code is grpc.StatusCode.OK:
        return "success" if error is None else outcome_of(error)
    return "denied" if code in _DENIED else "failure"


class AuditInterceptor(grpc.ServerInterceptor):
    """Records calls of a `grpc.server`.

    Args:
        producer: closed by whoever made it.
        describe: says what a call is.
    """

    def __init__(self, producer: Producer, describe: Describe) -> None:
        self._producer = producer
        self._describe = describe

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """See `grpc.ServerInterceptor`. A call that cannot be recorded fails with UNKNOWN."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        behaviour, wrap = _parts(handler)

        def call_of(request: Any, context: Any) -> _Call:
            one = None if handler.request_streaming else request
            return _Call(self._producer, self._describe, method, one, context)

        return wrap((_stream if handler.response_streaming else _unary)(behaviour, call_of))


class AioAuditInterceptor(grpc.aio.ServerInterceptor):
    """Records calls of a `grpc.aio.server`. The arguments are those of `AuditInterceptor`."""

    def __init__(self, producer: Producer, describe: Describe) -> None:
        self._producer = producer
        self._describe = describe

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """See `grpc.aio.ServerInterceptor`. A call that cannot be recorded fails with UNKNOWN."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        behaviour, wrap = _parts(handler)

        def call_of(request: Any, context: Any) -> _Call:
            one = None if handler.request_streaming else request
            return _Call(self._producer, self._describe, method, one, context)

        async def unary(request: Any, context: Any) -> Any:
            call = call_of(request, context)
            try:
                answer = await behaviour(request, context)
            except BaseException as error:
                await _tell(call, error)
                raise
            await _tell(call)
            return answer

        async def writing(request: Any, context: Any) -> None:
            call = call_of(request, context)
            try:
                await behaviour(request, _Writing(context, call))
            except BaseException as error:
                await _tell(call, error)
                raise
            await _tell(call)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            call = call_of(request, context)
            try:
                async for answer in behaviour(request, context):
                    await _tell(call)
                    yield answer
            except BaseException as error:
                await _tell(call, error)
                raise
            await _tell(call)

        # As grpc.aio tells them apart, which runs a function that is neither on another thread.
        if inspect.isasyncgenfunction(behaviour):
            return wrap(stream)
        if inspect.iscoroutinefunction(behaviour):
            return wrap(writing if handler.response_streaming else unary)
        made = (_stream if handler.response_streaming else _unary)(behaviour, call_of)
        return wrap(lambda request, context: made(request, _Threaded(context)))


class _Threaded:
    """The context of a handler that grpc.aio runs on another thread, which does not tell a code."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: grpc.StatusCode | None = None

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code
        self._context.set_code(code)

    def abort(self, code: grpc.StatusCode, *args: Any, **kwargs: Any) -> None:
        self._code = code
        self._context.abort(code, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Writing:
    """The context of a handler that writes its answers: the first waits for the record."""

    def __init__(self, context: Any, call: _Call) -> None:
        self._context = context
        self._call = call

    async def write(self, answer: Any) -> None:
        await _tell(self._call)
        await self._context.write(answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _unary(behaviour: _Behaviour, call_of: Callable[[Any, Any], _Call]) -> _Behaviour:
    """A handler with one answer that is no coroutine, recorded."""

    def unary(request: Any, context: Any) -> Any:
        call = call_of(request, context)
        try:
            answer = behaviour(request, context)
        except BaseException as error:
            call.tell(error)
            raise
        call.tell()
        return answer

    return unary


def _stream(behaviour: _Behaviour, call_of: Callable[[Any, Any], _Call]) -> _Behaviour:
    """A handler with many answers that is no coroutine, recorded."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        call = call_of(request, context)
        try:
            for answer in behaviour(request, context):
                call.tell()
                yield answer
        except BaseException as error:
            call.tell(error)
            raise
        call.tell()

    return stream


async def _tell(call: _Call, error: BaseException | None = None) -> None:
    if not call.recorded:
        await asyncio.shield(asyncio.to_thread(call.tell, error))


def _parts(handler: Any) -> tuple[_Behaviour, Callable[[Any], Any]]:
    """What a handler does, and how to make one like it that does something else."""
    asked = "stream" if handler.request_streaming else "unary"
    answered = "stream" if handler.response_streaming else "unary"
    make = getattr(grpc, f"{asked}_{answered}_rpc_method_handler")

    def wrap(behaviour: Any) -> Any:
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    return getattr(handler, f"{asked}_{answered}"), wrap
