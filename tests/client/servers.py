"""A true server over a real socket, and a liar in front of it who changes its answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tlog.client import AsyncClient, Head, MemoryState, Record, State
from tlog.log import Log, LogConfig, create_log, load_signers
from tlog.notes import Checkpoint, Signer, VerifierKey, sign_checkpoint
from tlog.serve import Logs, grpc_server
from tlog.v1 import log_pb2 as pb

ORIGIN = "example.com/log"
SERVICE = pb.DESCRIPTOR.services_by_name["LogService"]

Lie = Callable[[Any, Any], Message | bytes]
StreamLie = Callable[[Any, AsyncIterator[Any]], AsyncIterator[Message | bytes]]


@dataclass
class World:
    """A log that is served, its keys, and the liar's address and lies."""

    log: Log
    signers: Sequence[Signer]
    target: str
    liar_target: str
    lies: dict[str, Lie] = field(default_factory=dict)
    stream_lies: dict[str, StreamLie] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        return self.log.vkeys

    def client(
        self, state: State | None = None, *, honest: bool = False, **more: Any
    ) -> AsyncClient:
        settings: dict[str, Any] = {"vkeys": self.vkeys, "timeout": 10.0} | more
        target = self.target if honest else self.liar_target
        return AsyncClient(target, state=state or MemoryState(), **settings)

    async def append(self, entries: Iterable[bytes]) -> Head:
        """Append and publish behind the client's back."""
        receipts = await self.log.append_published(list(entries))
        head = receipts[-1].head
        return Head(head.checkpoint, head.note)

    def sign(
        self, size: int, root_hash: bytes, *, signers: Sequence[Signer] | None = None
    ) -> pb.Checkpoint:
        """A head that the log never published, signed by its keys all the same."""
        signers = self.signers if signers is None else signers
        checkpoint = Checkpoint(signers[0].vkey.name, size, root_hash)
        return pb.Checkpoint(note=sign_checkpoint(checkpoint, signers, timestamp=1))

    def record(self, head: Head | None) -> Record:
        return Record(self.vkeys, head)


class _Liar(grpc.GenericRpcHandler):
    def __init__(self, world: World, channel: Any) -> None:
        self._world = world
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        path = details.method
        method = SERVICE.methods_by_name[path.rsplit("/", 1)[-1]]
        asked, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        self._world.calls.append(method.name)

        async def unary(data: bytes, context: Any) -> bytes:
            request = asked.FromString(data)
            truth = answer.FromString(await self._forward(path, data, context))
            lie = self._world.lies.get(method.name)
            return _bytes(truth if lie is None else lie(request, truth))

        async def stream(data: bytes, context: Any) -> AsyncIterator[bytes]:
            call = self._channel.unary_stream(path)(data)
            truth = (answer.FromString(message) async for message in call)
            lie = self._world.stream_lies.get(method.name)
            told = truth if lie is None else lie(asked.FromString(data), truth)
            try:
                async for message in told:
                    yield _bytes(message)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details())

        async def duplex(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            truth = (asked.FromString(data) async for data in requests)
            async for message in self._world.stream_lies[method.name](None, truth):
                yield _bytes(message)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(duplex)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _forward(self, path: str, data: bytes, context: Any) -> bytes:
        call = self._channel.unary_unary(path)
        try:
            answer: bytes = await call(data)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), error.trailing_metadata())
        return answer


def _bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextlib.asynccontextmanager
async def world(directory: Path, **config: Any) -> AsyncIterator[World]:
    settings: dict[str, Any] = {
        "origin": ORIGIN,
        "name": "log",
        "checkpoint_interval": 0.0,
    } | config
    made = LogConfig(**settings)
    if not directory.exists():
        create_log(directory, made)
    signers = load_signers(directory, made, passphrase=None)
    async with (
        Log.opened(directory) as log,
        grpc_server(Logs([log]), "127.0.0.1:0") as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        liar = grpc.aio.server()
        liar_port = liar.add_insecure_port("127.0.0.1:0")
        made_world = World(log, signers, f"127.0.0.1:{port}", f"127.0.0.1:{liar_port}")
        liar.add_generic_rpc_handlers((_Liar(made_world, channel),))
        await liar.start()
        try:
            yield made_world
        finally:
            await liar.stop(None)


@contextlib.asynccontextmanager
async def serving(**methods: Callable[[Any, Any], Any]) -> AsyncIterator[str]:
    """A server of nothing but these unary methods of LogService; gives its address."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {}
    for name, behaviour in methods.items():
        kind = GetMessageClass(SERVICE.methods_by_name[name].input_type)
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=kind.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
