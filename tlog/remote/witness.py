"""Submitting heads to witnesses: the port `tlog.log.Cosigner`, over HTTP and over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import grpc

from tlog.log.cosigners import CosignerConflict, CosignerError
from tlog.notes import NoteError
from tlog.notes.codec import check_integer, parse_decimal, shown
from tlog.remote.addresses import Address, parse_address
from tlog.remote.grpc import GrpcPeer, RemoteRefusal
from tlog.remote.http import HttpPeer, RemoteError
from tlog.v1 import witness_pb2 as pb
from tlog.witness import AddCheckpoint, BadRequest

MAX_ANSWER_SIZE = 64 << 10
"""64 signature lines, some of them ML-DSA-44, fit; nothing that could hurt does."""
SIZE_TYPE = "text/x.tlog.size"

_SERVICE = pb.DESCRIPTOR.services_by_name["WitnessService"]


class RemoteWitness(Protocol):
    """A witness to submit heads to, over connections that stay open until `aclose`."""

    async def add_checkpoint(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        """See `tlog.log.Cosigner`, which this is."""

    async def aclose(self) -> None:
        """Close the connections."""


def connect(url: str) -> RemoteWitness:
    """The witness at a URL: the submission prefix of tlog-witness, or grpc://HOST:PORT.

    Nothing is sent yet. To be called, and closed, on the event loop that uses it.

    Raises:
        AddressError: the URL is none of these.
    """
    address = parse_address(url)
    return _GrpcWitness(address) if address.grpc else _HttpWitness(address)


@contextlib.asynccontextmanager
async def connections() -> AsyncIterator[Callable[[str], RemoteWitness]]:
    """`connect`, and on leaving all that it opened is closed: leave the log before."""
    async with contextlib.AsyncExitStack() as stack:

        def opened(url: str) -> RemoteWitness:
            witness = connect(url)
            stack.push_async_callback(witness.aclose)
            return witness

        yield opened


class _HttpWitness:
    """Any witness of c2sp.org/tlog-witness."""

    def __init__(self, address: Address) -> None:
        # SPEC tlog-witness: "POST <submission prefix>/add-checkpoint"
        self._url = f"{address.url}/add-checkpoint"
        self._peer = HttpPeer(secure=address.url.startswith("https:"))

    async def add_checkpoint(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        try:
            body = AddCheckpoint(old_size, tuple(proof), note).encode()
            answer = await self._peer.exchange(
                "POST", self._url, content=body, limit=MAX_ANSWER_SIZE
            )
        except (BadRequest, RemoteError) as error:
            raise CosignerError(str(error)) from None
        # SPEC tlog-witness: "a "409 Conflict" HTTP status code. The response body MUST consist of
        # the tree size of the latest cosigned checkpoint in decimal, followed by a newline
        # (U+000A). The response MUST have a `Content-Type` of `text/x.tlog.size`."
        if answer.status == 409 and _media_type(answer.content_type) == SIZE_TYPE:
            raise CosignerConflict(_parse_size(answer.body))
        # SPEC tlog-witness: "respond with a "200 Success" HTTP status code"
        if answer.status != 200:
            raise CosignerError(f"the witness answers {answer.reason()}")
        return answer.body

    async def aclose(self) -> None:
        await self._peer.aclose()


class _GrpcWitness:
    """A witness of this project."""

    def __init__(self, address: Address) -> None:
        self._peer = GrpcPeer(address.target, _SERVICE)

    async def add_checkpoint(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        request = pb.AddCheckpointRequest(
            old_size=old_size, consistency_proof=proof, checkpoint=note
        )
        try:
            answer = await self._peer.call("AddCheckpoint", request, pb.AddCheckpointResponse)
        except RemoteRefusal as refusal:
            cosigned = refusal.detail(pb.CosignedSize())
            if refusal.code is grpc.StatusCode.FAILED_PRECONDITION and cosigned is not None:
                raise CosignerConflict(_checked(cosigned.tree_size)) from None
            raise CosignerError(str(refusal)) from None
        except RemoteError as error:
            raise CosignerError(str(error)) from None
        if len(answer.cosignatures) > MAX_ANSWER_SIZE:
            raise CosignerError(f"the witness answers with more than {MAX_ANSWER_SIZE} bytes")
        return answer.cosignatures

    async def aclose(self) -> None:
        await self._peer.aclose()


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _parse_size(body: bytes) -> int:
    try:
        text = body.decode("ascii")
        if not text.endswith("\n"):
            raise NoteError("it does not end in a newline")
        return parse_decimal(text[:-1])
    except (UnicodeDecodeError, NoteError) as error:
        raise CosignerError(f"409 with {shown(body)}, which is not a size: {error}") from None


def _checked(size: int) -> int:
    try:
        check_integer(size, "size")
    except NoteError as error:
        raise CosignerError(f"the witness names no size: {error}") from None
    return size
