"""WitnessService: translates between `tlog.v1` messages and a witness. No rules live here."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

from tlog.serve.grpc_listener import grpc_listener
from tlog.serve.handlers import Context, generic_handler
from tlog.serve.witness_errors import WITNESS_REFUSALS, witness_status
from tlog.v1 import witness_pb2 as pb
from tlog.witness import Node, Unproven, Verdict

# The longest message of gossip, and 63 hashes with the longest note, fit.
MAX_MESSAGE_BYTES = 4 << 20

_SERVICE = pb.DESCRIPTOR.services_by_name["WitnessService"]
_VERDICTS: Final = {
    Verdict.KNOWN: pb.HEAD_VERDICT_KNOWN,
    Verdict.NEW: pb.HEAD_VERDICT_NEW,
    Verdict.CLAIMED: pb.HEAD_VERDICT_CLAIMED,
    Verdict.CONFLICT: pb.HEAD_VERDICT_CONFLICT,
}
_BREATH: Final = 256  # logs between two chances for others on the event loop


class WitnessService:
    """The gRPC face of a witness. One coroutine for each method of `witness.proto`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._witness = node.witness
        self._gossip = node.gossip

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

    async def SubmitCheckpoint(
        self, request: pb.SubmitCheckpointRequest, context: Context
    ) -> pb.SubmitCheckpointResponse:
        verdict = self._gossip.submit(request.checkpoint)
        conflicts: list[bytes] = []
        if verdict is Verdict.CONFLICT:
            origin = request.checkpoint.partition(b"\n")[0].decode(errors="replace")
            conflicts = self._node.evidence.listed(origin)
        return pb.SubmitCheckpointResponse(verdict=_VERDICTS[verdict], conflicts=conflicts)

    async def Gossip(self, request: pb.GossipRequest, context: Context) -> pb.GossipResponse:
        heads, conflicts = await self._gossip.receive(request.checkpoints, request.conflicts)
        return pb.GossipResponse(checkpoints=heads, conflicts=conflicts)

    async def ListConflicts(
        self, request: pb.ListConflictsRequest, context: Context
    ) -> pb.ListConflictsResponse:
        return pb.ListConflictsResponse(conflicts=self._node.evidence.listed())

    async def GetWitness(
        self, request: pb.GetWitnessRequest, context: Context
    ) -> pb.GetWitnessResponse:
        asked = request.vkey or request.challenge
        return pb.GetWitnessResponse(
            name=self._witness.config.name,
            vkeys=map(str, self._witness.vkeys),
            proof=self._witness.prove_identity(request.vkey, request.challenge) if asked else b"",
        )

    async def GetWitnessStatus(
        self, request: pb.GetWitnessStatusRequest, context: Context
    ) -> pb.GetWitnessStatusResponse:
        logs = []
        self._witness.logs.refresh()
        for number, log in enumerate(list(self._witness.logs), 1):
            size = self._witness.cosigned_size(log.origin)
            logs.append(
                pb.WitnessedLog(
                    origin=log.origin, tree_size=size, frozen=log.frozen or "", url=log.url or ""
                )
            )
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        silent = self._gossip.silent
        return pb.GetWitnessStatusResponse(
            name=self._witness.config.name,
            logs=logs,
            peers=[
                pb.GossipPeer(name=name, problem=silent.get(name, ""))
                for name in self._gossip.peers
            ],
            unproven=map(_unproven, self._gossip.unproven()),
            problem=self._node.failure or self._witness.logs.problem or "",
        )


def witness_grpc_server(node: Node, address: str) -> AbstractAsyncContextManager[int]:
    """Serve a witness over gRPC: see `grpc_listener`."""
    handler = generic_handler(
        _SERVICE, WitnessService(node), refusals=WITNESS_REFUSALS, status_of=witness_status
    )
    return grpc_listener(
        {_SERVICE.full_name: handler}, address, max_message_bytes=MAX_MESSAGE_BYTES
    )


def _unproven(head: Unproven) -> pb.UnprovenHead:
    return pb.UnprovenHead(
        origin=head.origin,
        tree_size=head.size,
        latest_size=head.latest_size,
        attempts=head.attempts,
        reason=head.reason,
    )
