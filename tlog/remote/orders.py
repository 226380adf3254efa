"""The OrderService of a server, over gRPC."""

from __future__ import annotations

from tlog.remote.grpc import GrpcPeer
from tlog.v1 import orders_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["OrderService"]


class OrderClient:
    """Orders about the records of one log. Belongs to the event loop it was made on.

    Every method raises RemoteRefusal when the server refuses, and RemoteError when it says what
    cannot be understood.

    Args:
        target: host and port.
        log: name of the log; may be empty when the server holds only one.
    """

    def __init__(self, target: str, log: str) -> None:
        self._peer = GrpcPeer(target, _SERVICE, limit=4 << 20)
        self._log = log

    async def submit(self, order: bytes) -> pb.SubmitOrderResponse:
        """Have an order carried out."""
        request = pb.SubmitOrderRequest(log=self._log, order=order)
        return await self._peer.call("SubmitOrder", request, pb.SubmitOrderResponse)

    async def dry_run(self, subject: str, request_id: str) -> pb.DryRunResponse:
        """What an erasure would do."""
        request = pb.DryRunRequest(log=self._log, subject=subject, request_id=request_id)
        return await self._peer.call("DryRun", request, pb.DryRunResponse)

    async def holds(self) -> pb.ListHoldsResponse:
        """The holds that stand."""
        request = pb.ListHoldsRequest(log=self._log)
        return await self._peer.call("ListHolds", request, pb.ListHoldsResponse)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._peer.aclose()
