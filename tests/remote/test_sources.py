"""Logs that are audited over gRPC: true ones, and servers that answer anything else."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tests.client.tiled import VERIFIER, TiledLog, numbered
from tlog.client import Auditor, AuditState, MemoryAudit, Unreachable, VerificationError
from tlog.client import walk as walking
from tlog.merkle import Tile
from tlog.remote import RemoteError, open_source
from tlog.remote import grpc as remote_grpc
from tlog.v1 import log_pb2 as pb

SIZE = 1000
SERVICE = pb.DESCRIPTOR.services_by_name["LogService"]

Lie = Callable[[Any], bytes | Exception]


class Server(grpc.GenericRpcHandler):
    """Serves a log's entries; `lies` change its answers, which they are given, by method."""

    def __init__(self, log: TiledLog) -> None:
        self.log = log
        self.lies: dict[str, Lie] = {}
        self.url = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = details.method.rpartition("/")[2]
        if name == "StreamEntries":
            return grpc.unary_stream_rpc_method_handler(self._entries)
        answer = {"GetCheckpoint": self._checkpoint, "GetConsistencyProof": self._proof}[name]
        return grpc.unary_unary_rpc_method_handler(answer)

    async def _checkpoint(self, data: bytes, context: Any) -> bytes:
        answer = pb.GetCheckpointResponse(checkpoint=pb.Checkpoint(note=self.log.head))
        return await self._said("GetCheckpoint", answer, context)

    async def _proof(self, data: bytes, context: Any) -> bytes:
        asked = pb.GetConsistencyProofRequest.FromString(data)
        hashes = await self.log.consistency_proof(asked.old_size, asked.new_size)
        answer = pb.GetConsistencyProofResponse(hashes=hashes)
        return await self._said("GetConsistencyProof", answer, context)

    async def _entries(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        first = pb.StreamEntriesRequest.FromString(data).start
        entries = self.log.entries[first : first + 256]
        answer = pb.StreamEntriesResponse(first_index=first, entries=entries)
        with contextlib.suppress(EOFError):
            yield await self._said("StreamEntries", answer, context)

    async def _said(self, method: str, answer: Any, context: Any) -> bytes:
        lie = self.lies.get(method)
        said: Any = answer.SerializeToString() if lie is None else lie(answer)
        if isinstance(said, bytes):
            return said
        if isinstance(said, EOFError):
            raise said
        if isinstance(said, TimeoutError):
            await asyncio.sleep(60)
        await context.abort(said.args[0], said.args[1])
        return b""


@contextlib.asynccontextmanager
async def serving(log: TiledLog) -> AsyncIterator[Server]:
    served = Server(log)
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((served,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    served.url = f"grpc://127.0.0.1:{port}"
    try:
        yield served
    finally:
        await server.stop(None)


async def audit(server: Server, state: AuditState | None = None) -> int:
    source = open_source(server.url)
    try:
        found = await Auditor(source, VERIFIER, state).run()
    finally:
        await source.aclose()
    return found.head.size - found.first


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAUSES", (0.0,))
    monkeypatch.setattr(remote_grpc, "CALL_SECONDS", 1.0)


async def test_a_true_log() -> None:
    state = MemoryAudit()
    async with serving(TiledLog(numbered(SIZE))) as server:
        assert await audit(server, state) == SIZE
        # It shows a checkpoint, and has more by the time that entries are asked for.
        server.log = TiledLog(numbered(SIZE + 600), size=SIZE + 300)
        assert await audit(server, state) == 300
        source = open_source(server.url)
        with pytest.raises(RemoteError, match="over HTTP, not over gRPC"):
            await source.tile(Tile(0, 0))
        await source.aclose()


def refusing(code: grpc.StatusCode, details: str = "no") -> Lie:
    return lambda answer: RuntimeError(code, details)


def changed(**fields: Any) -> Lie:
    def lie(answer: Any) -> bytes:
        for name, value in fields.items():
            if isinstance(value, list):
                answer.ClearField(name)
                getattr(answer, name).extend(value)
            else:
                setattr(answer, name, value)
        return bytes(answer.SerializeToString())

    return lie


ENTRIES: dict[str, tuple[Lie, type[Exception]]] = {
    "none": (changed(entries=[]), VerificationError),
    "others": (changed(entries=[b"x"] * 256), VerificationError),
    "too few": (changed(entries=[b"x"] * 255), VerificationError),
    "of another place": (changed(first_index=256), VerificationError),
    "too long an entry": (changed(entries=[bytes(65_536)] * 256), VerificationError),
    "far too long an answer": (changed(entries=[bytes(20 << 20)]), Unreachable),
    "no message": (lambda answer: b"\xff\xff\xff", Unreachable),
    "nothing": (lambda answer: EOFError(), Unreachable),
    "lost": (refusing(grpc.StatusCode.DATA_LOSS), VerificationError),
    "unknown": (refusing(grpc.StatusCode.NOT_FOUND), VerificationError),
    "beyond": (refusing(grpc.StatusCode.OUT_OF_RANGE), VerificationError),
    "busy": (refusing(grpc.StatusCode.RESOURCE_EXHAUSTED), Unreachable),
    "a terminal's": (refusing(grpc.StatusCode.INTERNAL, "\x1b[2J\n\x07"), Unreachable),
    "silence": (lambda answer: TimeoutError(), Unreachable),
}


@pytest.mark.parametrize("lie", ENTRIES)
async def test_entries_that_are_none(lie: str) -> None:
    async with serving(TiledLog(numbered(SIZE))) as server:
        server.lies["StreamEntries"], kind = ENTRIES[lie]
        tracemalloc.start()
        try:
            with pytest.raises(kind) as caught:
                await audit(server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert str(caught.value).isprintable()
        assert peak < 400 << 20


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (lambda answer: b"", VerificationError),
        (changed(hashes=[bytes(32)] * 9), VerificationError),
        (changed(hashes=[bytes(31)] * 9), VerificationError),
        (changed(hashes=[bytes(32)] * 5000), VerificationError),
        (refusing(grpc.StatusCode.OUT_OF_RANGE), VerificationError),
        (refusing(grpc.StatusCode.UNAVAILABLE), Unreachable),
    ],
)
async def test_proofs_that_are_none(lie: Lie, kind: type[Exception]) -> None:
    state = MemoryAudit()
    async with serving(TiledLog(numbered(SIZE))) as server:
        await audit(server, state)
        server.log = TiledLog(numbered(SIZE + 300))
        server.lies["GetConsistencyProof"] = lie
        with pytest.raises(kind):
            await audit(server, state)
        server.lies.clear()
        assert await audit(server, state) == 300


async def test_checkpoints_that_are_none() -> None:
    async with serving(TiledLog(numbered(SIZE))) as server:
        for lie, kind in (
            (lambda answer: b"", VerificationError),
            (lambda answer: b"\xff", Unreachable),
            (refusing(grpc.StatusCode.NOT_FOUND), Unreachable),
            (refusing(grpc.StatusCode.UNIMPLEMENTED), Unreachable),
        ):
            server.lies["GetCheckpoint"] = lie
            with pytest.raises(kind):
                await audit(server)
