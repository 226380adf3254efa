"""WitnessService: translates between `tlog.v1` messages and a witness. No rules live here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tlog.log import LogError
from tlog.serve.grpc import GRACE_SECONDS, OPTIONS, check_address
from tlog.serve.handlers import Context, generic_handler
from tlog.serve.witness_errors import WITNESS_REFUSALS, NotServed, witness_status
from tlog.v1 import witness_pb2 as pb
from tlog.witness import Witness

# The longest note, and 63 hashes, fit many times.
MAX_MESSAGE_BYTES = 4 << 20

_SERVICE = pb.DESCRIPTOR.services_by_name["WitnessService"]
_LIMITS = {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
}


class WitnessService:
    """The gRPC face of a witness. One coroutine for each method of `witness.proto`."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def AddCheckpoint(
        self, request: pb.AddCheckpointRequest, context: Context
    ) -> pb.AddCheckpointResponse:
        signatures = await self._witness.add_checkpoint(
            request.old_size, request.consistency_proof, request.checkpoint
        )
        return pb.AddCheckpointResponse(cosignatures=b"".join(s.encode() for s in signatures))

    async def SignSubtree(
        self, request: pb.SignSubtreeRequest, context: Context
    ) -> pb.SignSubtreeResponse:
        signatures = await self._witness.sign_subtree(
            request.start,
            request.end,
            request.root_hash,
            request.consistency_proof,
            request.checkpoint,
        )
        return pb.SignSubtreeResponse(cosignatures=b"".join(s.encode() for s in signatures))

    async def GetCosignedCheckpoint(
        self, request: pb.GetCosignedCheckpointRequest, context: Context
    ) -> pb.GetCosignedCheckpointResponse:
        note = self._witness.checkpoint(request.origin_hash)
        return pb.GetCosignedCheckpointResponse(checkpoint=note)

    async def Gossip(self, request: pb.GossipRequest, context: Context) -> pb.GossipResponse:
        raise NotServed("this witness does not gossip")

    async def ListConflicts(
        self, request: pb.ListConflictsRequest, context: Context
    ) -> pb.ListConflictsResponse:
        raise NotServed("this witness does not gossip")

    async def GetWitness(
        self, request: pb.GetWitnessRequest, context: Context
    ) -> pb.GetWitnessResponse:
        vkeys = [str(vkey) for vkey in self._witness.vkeys]
        return pb.GetWitnessResponse(name=self._witness.config.name, vkeys=vkeys)


@contextlib.asynccontextmanager
async def witness_grpc_server(witness: Witness, address: str) -> AsyncIterator[int]:
    """Serve a witness over gRPC; gives the port it listens on (of use when 0 was asked for).

    On leaving: refuse new calls, and let the others finish for ten seconds.

    Raises:
        LogError: the address is refused or taken.
    """
    check_address(address)
    server = grpc.aio.server(options=tuple({**dict(OPTIONS), **_LIMITS}.items()))
    handler = generic_handler(
        _SERVICE, WitnessService(witness), refusals=WITNESS_REFUSALS, status_of=witness_status
    )
    server.add_generic_rpc_handlers((handler,))
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = (_SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise LogError(
            f"cannot listen on {address}: the port is taken, perhaps by another tlog server. "
            "Stop it, or choose another port with --grpc"
        ) from None
    await server.start()
    for name in ("", _SERVICE.full_name):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(GRACE_SECONDS)
