"""One gRPC channel to somebody who is not trusted: bounded in bytes and in time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from tlog.remote.http import RemoteError, first_line

CALL_SECONDS = 30.0
MAX_RECEIVED_BYTES = 256 << 10

_DETAILS = "grpc-status-details-bin"
_OPTIONS = (
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Despite its name, how long an attempt to connect may take, the server's greeting included.
    # Whoever is slower, being loaded or far away, would never be reached.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    # Whoever asks has pauses of its own; the channel must not add long ones to them.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

M = TypeVar("M", bound=Message)


class RemoteRefusal(RemoteError):
    """The other side answered with a status that is not OK.

    Attributes:
        code: which.
        details: the messages of google.rpc.Status that came with it, packed.
    """

    def __init__(self, message: str, code: grpc.StatusCode, status: status_pb2.Status) -> None:
        super().__init__(message)
        self.code = code
        self._status = status

    def detail(self, message: M) -> M | None:
        """Fill in the first detail of that type; None when there is none."""
        for detail in self._status.details:
            if detail.Is(message.DESCRIPTOR):
                with contextlib.suppress(DecodeError):
                    detail.Unpack(message)
                    return message
        return None


class GrpcPeer:
    """A channel to one server. Belongs to the event loop it was made on.

    Args:
        target: host and port.
        service: whose methods are called.
        limit: bytes of the longest answer that is taken.
    """

    def __init__(
        self, target: str, service: ServiceDescriptor, *, limit: int = MAX_RECEIVED_BYTES
    ) -> None:
        self._target = target
        self._service = service.full_name
        options = (("grpc.max_receive_message_length", limit), *_OPTIONS)
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._calls: dict[str, Any] = {}

    async def call(self, method: str, request: Message, kind: type[M]) -> M:
        """Make a unary call.

        Raises:
            RemoteRefusal: it was refused, or nobody is there.
            RemoteError: the answer is not a `kind`.
        """
        if (call := self._calls.get(method)) is None:
            call = self._calls[method] = self._channel.unary_unary(f"/{self._service}/{method}")
        with self._errors(kind):
            return kind.FromString(await call(request.SerializeToString(), timeout=CALL_SECONDS))

    async def first(self, method: str, request: Message, kind: type[M]) -> M:
        """Call a method that answers with a stream, and read its first message only.

        Raises:
            RemoteRefusal, RemoteError: as `call`; or the stream is empty.
        """
        if (make := self._calls.get(method)) is None:
            make = self._calls[method] = self._channel.unary_stream(f"/{self._service}/{method}")
        call = make(request.SerializeToString(), timeout=CALL_SECONDS)
        try:
            with self._errors(kind):
                data = await call.read()
                if not isinstance(data, bytes):
                    raise RemoteError(f"{self._target}: {method} answers nothing")
                return kind.FromString(data)
        finally:
            call.cancel()

    @contextlib.contextmanager
    def _errors(self, kind: type[M]) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            said = first_line((error.details() or "").encode())
            raise RemoteRefusal(
                f"{self._target}: {error.code().name} {said}".rstrip(), error.code(), _status(error)
            ) from None
        except DecodeError:
            name = kind.DESCRIPTOR.full_name
            raise RemoteError(f"{self._target}: the answer is not a {name}") from None

    async def aclose(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return status_pb2.Status()
