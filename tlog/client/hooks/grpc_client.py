"""Client interceptors for gRPC, and for grpc.aio: record what an application asks of others.

    channel = grpc.intercept_channel(channel, AuditClientInterceptor(producer, describe))
    channel = grpc.aio.insecure_channel(target, interceptors=aio_interceptors(producer, describe))

Calls with one answer: the record is made when it is there, before the application gets it, or when
the application gives the call up. Streams of answers: before the first of them, or when they end
without one, or are given up, or dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from datetime import datetime
from typing import Any

import grpc

from tlog.client.hooks.act import Act, Seen, record
from tlog.client.operation import outcome_of
from tlog.client.producer import Producer

Describe = Callable[[str, Any], Act | None]
"""What a call is, from the full name of its method and its request (None if there are many); None:
nothing to record."""

_DENIED = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})
_BEGUN = {"stream": "begun"}
_GIVEN_UP = ("unknown", {"stream": "given up"})


class _Out:
    """One call, recorded once. Raises what `record` does, before anything is asked of anybody."""

    def __init__(self, producer: Producer, act: Act, method: str | bytes) -> None:
        producer.check()
        name = method.decode() if isinstance(method, bytes) else method
        self._producer = producer
        self._act = act
        self._seen = Seen(name.removeprefix("/"), name, datetime.now().astimezone())
        self._lock = threading.RLock()
        self.asked = False  # for an answer of its stream
        self.recorded = False

    def ended(self, code: grpc.StatusCode | None) -> None:
        """It has an answer, or its stream an end."""
        code = code or grpc.StatusCode.UNKNOWN
        outcome = "success" if code is grpc.StatusCode.OK else "failure"
        self.tell("denied" if code in _DENIED else outcome, {"code": code.name})

    def failed(self, error: BaseException) -> None:
        """It ended in an exception: that of another interceptor, or it is given up."""
        self.tell(outcome_of(error), {"error": type(error).__qualname__})

    def tell(self, outcome: str, details: dict[str, Any]) -> None:
        """Record it, unless that was done."""
        with self._lock:
            if not self.recorded:
                record(self._producer, self._act, self._seen, outcome, details)
                self.recorded = True


class _Answers:
    """The stream of answers of a call, which it is otherwise."""

    def __init__(self, call: Any, out: _Out) -> None:
        self._call = call
        self._out = out

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._out.asked = True
        try:
            answer = next(self._call)
        except (StopIteration, grpc.RpcError) as end:
            self._out.ended(_code(self._call, end))
            raise
        except BaseException as error:
            self._out.failed(error)
            raise
        self._out.tell("success", _BEGUN)
        return answer

    def cancel(self) -> bool:
        """Give it up."""
        self._out.tell(*_GIVEN_UP)
        return bool(self._call.cancel())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class AuditClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Records calls that go out. Its methods are those of gRPC's interceptors.

    They raise EventRefused or SpoolError: it was called and cannot be recorded.

    Args:
        producer: closed by whoever made it.
        describe: says what a call is.
    """

    def __init__(self, producer: Producer, describe: Describe) -> None:
        self._producer = producer
        self._describe = describe

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """One answer to one request; waits for it."""
        return self._one(continuation, client_call_details, request, request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """One answer to many requests; waits for it."""
        return self._one(continuation, client_call_details, request_iterator, None)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Many answers to one request."""
        return self._many(continuation, client_call_details, request, request)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Many answers to many requests."""
        return self._many(continuation, client_call_details, request_iterator, None)

    def _one(self, continuation: Any, details: Any, sent: Any, request: Any) -> Any:
        if (act := self._describe(details.method, request)) is None:
            return continuation(details, sent)
        out = _Out(self._producer, act, details.method)
        call = continuation(details, sent)
        try:
            code = call.code()  # waits
        except BaseException as error:
            call.cancel()
            out.failed(error)
            raise
        out.ended(code)
        return call

    def _many(self, continuation: Any, details: Any, sent: Any, request: Any) -> Any:
        if (act := self._describe(details.method, request)) is None:
            return continuation(details, sent)
        out = _Out(self._producer, act, details.method)
        answers = _Answers(call := continuation(details, sent), out)
        if not hasattr(call, "add_callback"):
            return answers  # of an interceptor within, which made a mere iterator of it
        unasked = functools.partial(_unasked, weakref.ref(answers), out)
        if not answers.add_callback(unasked):  # it has ended
            unasked()
        return answers


def _code(call: Any, end: Exception) -> grpc.StatusCode:
    """With which code a stream has ended; interceptors may have made a mere iterator of it."""
    told: Any = call if hasattr(call, "code") else end
    return grpc.StatusCode.OK if isinstance(told, StopIteration) else told.code()


def _unasked(answers: weakref.ref[_Answers], out: _Out) -> None:
    """A stream ends before it was asked for an answer: gRPC cancels one that nobody keeps."""
    if not out.asked:
        if (kept := answers()) is None:
            out.tell(*_GIVEN_UP)
        else:
            out.ended(kept.code())


_END = frozenset({"code", "details", "trailing_metadata", "debug_error_string"})


class _AioAnswer:
    """A call of many requests, whose end is told when it is recorded.

    The interceptor cannot wait for that: `write` waits for the interceptor.
    """

    def __init__(self, call: Any, out: _Out) -> None:
        self._call = call
        self._recorded = asyncio.create_task(_ended(call, out))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            await asyncio.shield(self._recorded)
        except asyncio.CancelledError:
            self._call.cancel()  # not the task: it hears of it, and records
            await self._recorded
            raise
        return await self._call

    async def _after(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        await asyncio.wait([self._recorded])
        if not self._recorded.cancelled():
            self._recorded.result()
        return await ask()

    def __getattr__(self, name: str) -> Any:
        told = getattr(self._call, name)
        return functools.partial(self._after, told) if name in _END else told


class _Aio:
    """What the interceptors of grpc.aio share, of which each is for one shape of calls."""

    def __init__(self, producer: Producer, describe: Describe) -> None:
        self._producer = producer
        self._describe = describe

    def _out(self, details: Any, request: Any) -> _Out | None:
        method = details.method
        name = method.decode() if isinstance(method, bytes) else method
        act = self._describe(name, request)
        return None if act is None else _Out(self._producer, act, name)

    async def _call(self, continuation: Any, details: Any, sent: Any, out: _Out) -> Any:
        try:
            return await continuation(details, sent)
        except BaseException as error:
            await _told(out.failed, error)
            raise

    async def _many(self, continuation: Any, details: Any, sent: Any, request: Any) -> Any:
        if (out := self._out(details, request)) is None:
            return await continuation(details, sent)
        call = await self._call(continuation, details, sent, out)
        call.add_done_callback(functools.partial(_aio_unasked, asyncio.get_running_loop(), out))
        return self._answers(call, out)

    async def _answers(self, call: Any, out: _Out) -> AsyncIterator[Any]:
        out.asked = True
        try:
            async for answer in call:
                if not out.recorded:
                    await _told(out.tell, "success", _BEGUN)
                yield answer
        finally:
            if not out.recorded:
                if call.done():
                    await _stopped(call, out)
                else:
                    await _told(out.tell, *_GIVEN_UP)


def _aio_unasked(loop: asyncio.AbstractEventLoop, out: _Out, call: Any) -> None:
    """A stream ends before it was asked for an answer: `_answers` may never run."""
    if not out.asked:
        if call.cancelled():
            loop.run_in_executor(None, out.tell, *_GIVEN_UP)
        else:
            asyncio.run_coroutine_threadsafe(_stopped(call, out), loop)


async def _stopped(call: Any, out: _Out) -> None:
    """Record the end of a stream."""
    await _told(out.ended, await call.code())


async def _ended(call: Any, out: _Out) -> None:
    """Wait for the end of a call with one answer, and record it."""
    try:
        # A `write` that comes too late makes up a code, until that of the server is there.
        with contextlib.suppress(Exception):
            await call
        code = await call.code()
    except BaseException as error:
        call.cancel()
        await _told(out.failed, error)
        raise
    await _told(out.ended, code)


async def _told(tell: Callable[..., None], *args: Any) -> None:
    """Not on the loop's thread, and even if whoever waits for it is cancelled."""
    await asyncio.shield(asyncio.to_thread(tell, *args))


class _AioUnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        if (out := self._out(client_call_details, request)) is None:
            return await continuation(client_call_details, request)
        call = await self._call(continuation, client_call_details, request, out)
        await _ended(call, out)
        return call


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        if (out := self._out(client_call_details, None)) is None:
            return await continuation(client_call_details, request_iterator)
        call = await self._call(continuation, client_call_details, request_iterator, out)
        return _AioAnswer(call, out)


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._many(continuation, client_call_details, request, request)


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._many(continuation, client_call_details, request_iterator, None)


def aio_interceptors(producer: Producer, describe: Describe) -> list[grpc.aio.ClientInterceptor]:
    """For the channels of grpc.aio, which take one for each shape of calls.

    The arguments, and what is raised, are those of `AuditClientInterceptor`.
    """
    kinds = (_AioUnaryUnary, _AioStreamUnary, _AioUnaryStream, _AioStreamStream)
    return [kind(producer, describe) for kind in kinds]
