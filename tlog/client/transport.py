"""Calls to one server: connecting, deadlines, retries, and what a failure means.

A call is sent only over a connection that stands. Whatever fails before that is known not to have
reached the server, so that even an append may wait for it; whatever fails after is a lost answer,
which only a read may ask for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from tlog.client.errors import (
    ClientError,
    Refused,
    TimedOut,
    Unreachable,
    VerificationError,
    Violation,
    printable,
)
from tlog.v1 import log_pb2 as pb

MAX_RECEIVED_BYTES = 64 << 20
# A server that was never there is more likely a wrong address than one that is about to start.
CONNECT_GRACE = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Despite its name, how long an attempt to connect may take, the server's greeting included.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_LOG_SERVICE = pb.DESCRIPTOR.services_by_name["LogService"].full_name
_DETAILS = "grpc-status-details-bin"
# After these an append may or may not have happened.
_UNKNOWN_OUTCOME = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

M = TypeVar("M", bound=Message)


class Backoff:
    """Jittered pauses, each longer than the last, until the deadline (of the running loop)."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._pause = FIRST_PAUSE

    async def pause(self, error: ClientError, *, at_least: float = 0.0) -> None:
        """Wait, or raise `error` when that would outlast the deadline."""
        pause = at_least + self._pause * random.uniform(0.5, 1)  # noqa: S311
        if asyncio.get_running_loop().time() + pause >= self._deadline:
            raise error
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        await asyncio.sleep(pause)


class Transport:
    """A channel to one service of a server. Belongs to the event loop it was made on."""

    def __init__(self, target: str, *, timeout: float, service: str = _LOG_SERVICE) -> None:
        self.target = target
        self._service = service
        self.timeout = timeout
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._unary: dict[str, Any] = {}
        self._connected_once = False
        self._closed = False

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled, and later ones refused."""
        self._closed = True
        await self._channel.close()

    def deadline(self) -> float:
        """When a call that begins now must be done, by the clock of the loop."""
        return asyncio.get_running_loop().time() + self.timeout

    async def read(self, method: str, request: Message, kind: type[M]) -> M:
        """Ask for something. Asked again while the server is away or too busy, until the timeout.

        Raises:
            Refused, Unreachable, TimedOut; VerificationError: the answer is not a `kind`.
        """
        deadline = self.deadline()
        backoff = Backoff(deadline)
        while True:
            await self.connect(deadline)
            try:
                return await self._send(method, request, kind, deadline)
            except Unreachable as error:
                await backoff.pause(error)
            except Refused as error:
                if error.retry_after is None:
                    raise
                await backoff.pause(error, at_least=error.retry_after)

    async def append(self, method: str, request: Message, kind: type[M]) -> M:
        """Send entries. Sent again only when it is certain that none of them was taken.

        That is: before there is a connection, and when the server answers RESOURCE_EXHAUSTED with a
        RetryInfo. An answer that is lost is never asked for again.

        Raises:
            As `read`; see `ClientError.outcome_unknown`.
        """
        deadline = self.deadline()
        backoff = Backoff(deadline)
        while True:
            await self.connect(deadline)
            try:
                return await self._send(method, request, kind, deadline, appends=True)
            except Refused as error:
                if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or (
                    error.retry_after is None
                ):
                    raise
                await backoff.pause(error, at_least=error.retry_after)

    async def messages(
        self, method: str, request: Message, kind: type[M], *, patience: float | None
    ) -> AsyncGenerator[M, None]:
        """Ask for a stream of answers; `patience` bounds the wait for each.

        Not retried: the caller knows where to go on.

        Raises:
            As `read`.
        """
        await self.connect(self.deadline())
        call: Any = self._channel.unary_stream(
            f"/{self._service}/{method}", request_serializer=_serialize
        )(request)
        answers = aiter(call)
        try:
            while True:
                try:
                    async with asyncio.timeout(patience):
                        data = await anext(answers)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise self._timed_out(appends=False) from None
                except grpc.aio.AioRpcError as error:
                    self._raise(error, appends=False)
                yield parse(kind, data)
        finally:
            call.cancel()

    @contextlib.asynccontextmanager
    async def duplex(self, method: str) -> AsyncIterator[Any]:
        """An open call with streams of serialized messages both ways."""
        await self.connect(self.deadline())
        call: Any = self._channel.stream_stream(f"/{self._service}/{method}")()
        try:
            yield call
        except grpc.aio.AioRpcError as error:
            self._raise(error, appends=True)
        finally:
            call.cancel()

    async def connect(self, deadline: float) -> None:
        """Wait until a connection stands.

        Raises:
            Unreachable: none by the deadline, or by `CONNECT_GRACE` if there never was one.
            ClientError: the client was closed.
        """
        channel = self._channel
        # gRPC's own error for a closed channel is not one that callers could tell.
        if (
            not self._closed
            and channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY
        ):
            now = asyncio.get_running_loop().time()
            patience = deadline if self._connected_once else min(deadline, now + CONNECT_GRACE)
            try:
                async with asyncio.timeout_at(patience):
                    await channel.channel_ready()
            except grpc.aio.UsageError:  # closed meanwhile, as is told below
                pass
            except TimeoutError:
                raise Unreachable(
                    f"nothing listens at {self.target}: start one with `tlog serve DIR`, or check "
                    "the address"
                ) from None
        if self._closed:
            raise ClientError("the client is closed")
        self._connected_once = True

    async def _send(
        self,
        method: str,
        request: Message,
        kind: type[M],
        deadline: float,
        *,
        appends: bool = False,
    ) -> M:
        if (callable_ := self._unary.get(method)) is None:
            callable_ = self._unary[method] = self._channel.unary_unary(
                f"/{self._service}/{method}", request_serializer=_serialize
            )
        remaining = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            data = await callable_(request, timeout=remaining)
        except grpc.aio.AioRpcError as error:
            self._raise(error, appends=appends)
        return parse(kind, data)

    def _timed_out(self, *, appends: bool, said: str = "") -> TimedOut:
        what = said or f"{self.target} did not answer within {self.timeout:g} s"
        return TimedOut(what, outcome_unknown=appends)

    def _raise(self, error: grpc.aio.AioRpcError, *, appends: bool) -> NoReturn:
        code, said = error.code(), printable(error.details() or "")
        status = _rich_status(error)
        unknown = appends and code in _UNKNOWN_OUTCOME
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise self._timed_out(appends=appends, said=said if status else "") from None
        if code is grpc.StatusCode.UNAVAILABLE:
            lost = " The entries may have been appended or not" if unknown else ""
            raise Unreachable(
                f"{self.target} went away: {said or 'no reason given'}.{lost}",
                outcome_unknown=unknown,
            ) from None
        raise Refused(
            code,
            said or f"{self.target} refused without a reason ({code.name})",
            violations=_violations(status),
            retry_after=_retry_after(status),
            outcome_unknown=unknown,
        ) from None


def parse(kind: type[M], data: bytes) -> M:
    """Parse a message from the server.

    Raises:
        VerificationError: it is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise VerificationError("message", f"the answer is not a {name}") from None


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _rich_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return None


def _violations(status: status_pb2.Status | None) -> tuple[Violation, ...]:
    wrong = error_details_pb2.BadRequest()
    if not _unpack(status, wrong):
        return ()
    return tuple(
        Violation(printable(violation.field), printable(violation.description))
        for violation in wrong.field_violations
    )


def _retry_after(status: status_pb2.Status | None) -> float | None:
    info = error_details_pb2.RetryInfo()
    if not _unpack(status, info):
        return None
    return max(0.0, float(info.retry_delay.ToTimedelta().total_seconds()))


def _unpack(status: status_pb2.Status | None, message: Message) -> bool:
    """Fill in the first detail of that type; False when there is none."""
    for detail in () if status is None else status.details:
        if detail.Is(message.DESCRIPTOR):
            with contextlib.suppress(DecodeError):
                return bool(detail.Unpack(message))
    return False
