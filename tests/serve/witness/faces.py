"""Both faces of one witness over real sockets, asked and answering alike."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2

from tests.witness.simulation import Source
from tlog.notes.codec import encode_base64
from tlog.serve.witness_http import witness_http_server
from tlog.serve.witness_service import witness_grpc_server
from tlog.v1 import witness_pb2 as pb
from tlog.v1 import witness_pb2_grpc
from tlog.witness import AddCheckpoint, EvidenceStore, Gossip, Node, SignSubtree, Witness

# proto/tlog/v1/witness.proto: what each HTTP status is called in gRPC.
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True)
class Reply:
    """What came back: the status of tlog-witness, and the body, or the line that says why."""

    status: int
    body: bytes
    size: int | None = None  # of a 409
    retry_after: float | None = None  # of a 429
    headers: dict[str, str] = field(default_factory=dict)


class Face(Protocol):
    """One of the two."""

    async def send(self, request: AddCheckpoint | SignSubtree) -> Reply: ...

    async def checkpoint(self, origin_hash: bytes) -> Reply: ...


class HttpFace:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def send(self, request: AddCheckpoint | SignSubtree) -> Reply:
        path = "/add-checkpoint" if isinstance(request, AddCheckpoint) else "/sign-subtree"
        return await self.post(path, encode(request))

    async def post(self, path: str, body: bytes) -> Reply:
        return self.reply(await self.client.post(path, content=body))

    async def checkpoint(self, origin_hash: bytes) -> Reply:
        return self.reply(await self.client.get(f"/{origin_hash.hex()}/checkpoint"))

    @staticmethod
    def reply(response: httpx.Response) -> Reply:
        kind = response.headers["content-type"]
        conflict = response.status_code == 409
        assert kind == ("text/x.tlog.size" if conflict else "text/plain; charset=utf-8")
        retry = response.headers.get("retry-after")
        assert (retry is not None) == (response.status_code in {429, 503})
        body = response.content
        if response.status_code != 200:
            assert_one_line(body)
        return Reply(
            response.status_code,
            body,
            int(body) if conflict else None,
            float(retry) if retry and response.status_code == 429 else None,
            dict(response.headers),
        )


class GrpcFace:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = witness_pb2_grpc.WitnessServiceStub(channel)

    async def send(self, request: AddCheckpoint | SignSubtree) -> Reply:
        if isinstance(request, AddCheckpoint):
            add = pb.AddCheckpointRequest(
                old_size=request.old_size,
                consistency_proof=request.proof,
                checkpoint=request.note,
            )
            return await self.reply(self.stub.AddCheckpoint(add), "cosignatures")
        sign = pb.SignSubtreeRequest(
            start=request.start,
            end=request.end,
            root_hash=request.root_hash,
            consistency_proof=request.proof,
            checkpoint=request.note,
        )
        return await self.reply(self.stub.SignSubtree(sign), "cosignatures")

    async def checkpoint(self, origin_hash: bytes) -> Reply:
        request = pb.GetCosignedCheckpointRequest(origin_hash=origin_hash)
        return await self.reply(self.stub.GetCosignedCheckpoint(request), "checkpoint")

    @staticmethod
    async def reply(call: Any, answer: str) -> Reply:
        try:
            return Reply(200, getattr(await call, answer))
        except grpc.aio.AioRpcError as error:
            status = next(http for http, code in CODES.items() if code is error.code())
            said = (error.details() or "").encode() + b"\n"
            assert_one_line(said)
            size, retry = pb.CosignedSize(), error_details_pb2.RetryInfo()
            details = dict(error.trailing_metadata() or {})["grpc-status-details-bin"]
            assert isinstance(details, bytes)
            found: set[str] = set()
            for detail in status_pb2.Status.FromString(details).details:
                for message in (size, retry):
                    if detail.Unpack(message):
                        found.add(message.DESCRIPTOR.name)
            return Reply(
                status,
                said,
                size.tree_size if "CosignedSize" in found else None,
                retry.retry_delay.ToTimedelta().total_seconds() if "RetryInfo" in found else None,
            )


@dataclass(frozen=True)
class Faces:
    """Both, and the ports that they have."""

    http: HttpFace
    grpc: GrpcFace
    http_port: int
    grpc_port: int

    def __iter__(self) -> Any:
        return iter((self.http, self.grpc))


@contextlib.asynccontextmanager
async def served(witness: Witness) -> AsyncIterator[Faces]:
    """A witness behind both faces."""
    with tempfile.TemporaryDirectory() as directory:
        node = lone(witness, Path(directory))
        async with (
            witness_http_server(node, "127.0.0.1:0") as http_port,
            witness_grpc_server(node, "127.0.0.1:0") as grpc_port,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{http_port}", timeout=20, trust_env=False
            ) as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        ):
            yield Faces(HttpFace(client), GrpcFace(channel), http_port, grpc_port)


def lone(witness: Witness, directory: Path) -> Node:
    """The witness without peers, and without a way to its logs."""
    evidence = EvidenceStore(directory)
    return Node(
        witness, Gossip(witness.logs, evidence, {}, Source(), freeze=lambda _: None), evidence
    )


def encode(request: AddCheckpoint | SignSubtree) -> bytes:
    """The body, also of requests that `encode` refuses to send."""
    good = replace(request, proof=request.proof[:63], note=b"").encode()
    more = "".join(f"{encode_base64(element)}\n" for element in request.proof[63:])
    return good[:-1] + more.encode() + b"\n" + request.note


def assert_one_line(said: bytes) -> None:
    line = said.decode("utf-8")
    assert line.endswith("\n")
    assert len(line) > 1
    assert line[:-1].isprintable(), line
    assert len(line) < 1000
