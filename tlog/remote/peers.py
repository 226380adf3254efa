"""Other witnesses, over gRPC: to gossip with, to bring heads to, and to ask how they do."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import grpc

from tlog.notes import VerifierKey
from tlog.remote.addresses import Address, AddressError, parse_address
from tlog.remote.grpc import GrpcPeer, RemoteRefusal
from tlog.remote.http import RemoteError
from tlog.remote.logs import RemoteLogs
from tlog.v1 import witness_pb2 as pb
from tlog.witness import CHALLENGE_SIZE, MAX_MESSAGE_SIZE, PeerConfig, proves_identity

MAX_ANSWER_SIZE = MAX_MESSAGE_SIZE + (1 << 20)
"""A full message of gossip, and what encodes it."""

_SERVICE = pb.DESCRIPTOR.services_by_name["WitnessService"]


class WitnessClient:
    """A witness, as others see it. Belongs to the event loop it was made on.

    Args:
        url: grpc://HOST:PORT.

    Raises:
        AddressError: the URL is something else.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._peer = GrpcPeer(_grpc_address(url).target, _SERVICE, limit=MAX_ANSWER_SIZE)

    async def identify(self, vkey: VerifierKey) -> bool:
        """Whether it proves that it holds the key.

        Raises:
            RemoteError: it does not answer, or it has no such key; so do all methods.
        """
        challenge = secrets.token_bytes(CHALLENGE_SIZE)
        request = pb.GetWitnessRequest(vkey=str(vkey), challenge=challenge)
        answer = await self._peer.call("GetWitness", request, pb.GetWitnessResponse)
        return proves_identity(vkey, challenge, answer.proof)

    async def submit(self, note: bytes) -> pb.SubmitCheckpointResponse:
        """Bring a head that was seen elsewhere.

        Raises:
            RemoteRefusal: the head says nothing about a log that the witness knows.
        """
        request = pb.SubmitCheckpointRequest(checkpoint=note)
        return await self._peer.call("SubmitCheckpoint", request, pb.SubmitCheckpointResponse)

    async def gossip(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Exchange heads and conflicts."""
        request = pb.GossipRequest(checkpoints=heads, conflicts=conflicts)
        answer = await self._peer.call("Gossip", request, pb.GossipResponse)
        return list(answer.checkpoints), list(answer.conflicts)

    async def conflicts(self) -> list[bytes]:
        """The evidence that it has, unverified."""
        request = pb.ListConflictsRequest()
        answer = await self._peer.call("ListConflicts", request, pb.ListConflictsResponse)
        return list(answer.conflicts)

    async def status(self) -> pb.GetWitnessStatusResponse:
        """How it does."""
        request = pb.GetWitnessStatusRequest()
        return await self._peer.call("GetWitnessStatus", request, pb.GetWitnessStatusResponse)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._peer.aclose()


class RemotePeer:
    """The port `tlog.witness.Peer`: a witness that holds the key that was configured.

    It proves it before each exchange, with a signature over a challenge. Without TLS somebody in
    between may pass the challenge on, and sees the heads, which are public; what a peer brings is
    believed for the log's signatures alone, whoever it is.
    """

    def __init__(self, peer: PeerConfig) -> None:
        self._peer = peer
        self._vkey = VerifierKey.parse(peer.vkey)
        self._client = WitnessClient(peer.url)

    async def exchange(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Give it ours, get its own.

        Raises:
            RemoteError: it does not answer, or is somebody else.
        """
        try:
            known = await self._client.identify(self._vkey)
        except RemoteRefusal as refusal:
            if refusal.code is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            known = False  # it says itself that it does not have the key
        if not known:
            raise RemoteError(f"who answers at {self._peer.url} is not {self._peer.name}")
        return await self._client.gossip(heads, conflicts)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


class GossipConnections:
    """The port `tlog.witness.Outward`; make one with `gossip_connections`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    def peer(self, peer: PeerConfig) -> RemotePeer:
        """How to reach a peer.

        Raises:
            AddressError: its URL is not grpc://HOST:PORT.
        """
        remote = RemotePeer(peer)
        self._stack.push_async_callback(remote.aclose)
        return remote

    def logs(self, url_of: Callable[[str], str | None]) -> RemoteLogs:
        """How to reach logs."""
        remote = RemoteLogs(url_of)
        self._stack.push_async_callback(remote.aclose)
        return remote


@contextlib.asynccontextmanager
async def gossip_connections() -> AsyncIterator[GossipConnections]:
    """The ways out of a witness; on leaving all are closed: leave the node before."""
    async with contextlib.AsyncExitStack() as stack:
        yield GossipConnections(stack)


def check_peer_url(url: str) -> None:
    """Check the URL of a peer.

    Raises:
        AddressError: it is not grpc://HOST:PORT.
    """
    _grpc_address(url)


def _grpc_address(url: str) -> Address:
    address = parse_address(url)
    if not address.grpc or address.path:
        raise AddressError(f"{url} is not where a witness gossips: expected grpc://HOST:PORT")
    return address
