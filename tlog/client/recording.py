"""Events to an AuditService, over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from tlog.client.drain import Declined, Outcome, Recorded
from tlog.client.errors import ClientError, VerificationError, printable
from tlog.client.sync import LoopThread
from tlog.client.transport import Transport
from tlog.v1 import audit_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["AuditService"].full_name


class AuditServiceSink:
    """The records of one log of a server. Recording again does no harm, so that it is retried.

    Args:
        target: address of the server, `host:port`.
        log: name of the log; empty when the server holds only one.
        timeout: seconds for one delivery.
    """

    def __init__(self, target: str, *, log: str = "", timeout: float = 10.0) -> None:
        self._log = log
        self._loop = LoopThread()
        self._transport = self._loop.run(_open(target, timeout))

    def deliver(self, events: Sequence[str]) -> list[Outcome]:
        """Record events. Raises what `Transport.read` does."""
        request = pb.RecordRequest(log=self._log, events=events)
        answer = self._loop.run(self._transport.read("Record", request, pb.RecordResponse))
        return [_outcome(each) for each in answer.outcomes]

    def close(self) -> None:
        """Close the connection; a delivery that is under way fails."""
        with contextlib.suppress(ClientError):
            self._loop.run(self._transport.close())
        self._loop.stop()


async def _open(target: str, timeout: float) -> Transport:  # noqa: ASYNC109  (of each call)
    return Transport(target, timeout=timeout, service=_SERVICE)


def _outcome(answer: pb.RecordOutcome) -> Outcome:
    match answer.WhichOneof("outcome"):
        case "recorded":
            recorded = answer.recorded
            return Recorded(recorded.index, recorded.duplicate, recorded.conflict)
        case "refused":
            return Declined(printable(answer.refused.field), printable(answer.refused.reason))
    raise VerificationError("message", "an outcome that is neither recorded nor refused")
