"""Orders about records: submitted to the server of their log, which says what became of them.

Its receipt names the entry that records an order; whoever does not believe it reads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tlog.client.errors import printable
from tlog.client.service import RecordsService
from tlog.v1 import orders_pb2 as pb

Outcome = Literal["done", "done before", "erased before", "nothing", ""]
"""What became of an order."""

_OUTCOMES: dict[pb.OrderOutcome.ValueType, Outcome] = {
    pb.ORDER_OUTCOME_DONE: "done",
    pb.ORDER_OUTCOME_DONE_BEFORE: "done before",
    pb.ORDER_OUTCOME_ERASED_BEFORE: "erased before",
    pb.ORDER_OUTCOME_NOTHING: "nothing",
}


@dataclass(frozen=True, slots=True)
class OrderReceipt:
    """The receipt for an order: see `SubmitOrderResponse` in orders.proto."""

    order_id: str
    kind: str
    request_id: str
    hold_id: str
    outcome: Outcome
    index: int | None
    recorded_at: str
    approvers: tuple[str, ...]
    key_id: str
    key_sha256: str
    parts: int
    recipients: tuple[str, ...]
    complete_by: str
    system_results: tuple[str, ...]
    vkey: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What an erasure would do: see `DryRunResponse` in orders.proto."""

    key_id: str
    parts: int
    types: Mapping[str, int]
    retention_classes: Mapping[str, int]
    shared: int
    recipients: tuple[str, ...]
    holds: tuple[str, ...]
    erased_at: int | None
    merged: Mapping[str, int]
    system_results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold that stands: see `LegalHold` in orders.proto."""

    hold_id: str
    index: int
    request_id: str
    reason: str
    approvers: tuple[str, ...]
    placed_at: str


class Orders(RecordsService):
    """Orders about the records of one log."""

    SERVICE = pb.DESCRIPTOR.services_by_name["OrderService"].full_name

    async def submit(self, order: bytes) -> OrderReceipt:
        """Have an order carried out, once: it may be submitted again at any time."""
        request = pb.SubmitOrderRequest(log=self._log, order=order)
        answer = await self._transport.read("SubmitOrder", request, pb.SubmitOrderResponse)
        return OrderReceipt(
            printable(answer.order_id),
            printable(answer.kind),
            printable(answer.request_id),
            printable(answer.hold_id),
            _OUTCOMES.get(answer.outcome, ""),
            answer.index if answer.HasField("index") else None,
            printable(answer.recorded_at),
            tuple(map(printable, answer.approvers)),
            printable(answer.key.key_id),
            printable(answer.key.key_sha256),
            answer.key.parts,
            tuple(map(printable, answer.recipients)),
            printable(answer.complete_by),
            tuple(map(printable, answer.system_results)),
            printable(answer.vkey),
        )

    async def dry_run(self, subject: str, *, purpose: str, request_id: str = "") -> DryRun:
        """What an erasure would do; nothing is opened, nothing changes.

        Args:
            subject: whose data.
            purpose: what it is asked for; it is recorded, with who asked.
            request_id: the request that the erasure would be for.
        """
        request = pb.DryRunRequest(
            log=self._log, subject=subject, purpose=purpose, request_id=request_id
        )
        answer = await self._transport.read("DryRun", request, pb.DryRunResponse)
        return DryRun(
            printable(answer.key_id),
            answer.parts,
            {printable(name): count for name, count in sorted(answer.types.items())},
            {printable(name): count for name, count in sorted(answer.retention_classes.items())},
            answer.shared,
            tuple(map(printable, answer.recipients)),
            tuple(map(printable, answer.holds)),
            answer.erased_at if answer.HasField("erased_at") else None,
            {printable(each.key_id): each.entry for each in answer.merged},
            tuple(map(printable, answer.system_results)),
        )

    async def tenant(self) -> str:
        """Whose records these are."""
        request = pb.GetTenantRequest(log=self._log)
        answer = await self._transport.read("GetTenant", request, pb.GetTenantResponse)
        return printable(answer.tenant)

    async def holds(self, *, purpose: str, request_id: str = "") -> list[Hold]:
        """The holds that stand; with a purpose, as `dry_run`."""
        request = pb.ListHoldsRequest(log=self._log, purpose=purpose, request_id=request_id)
        answer = await self._transport.read("ListHolds", request, pb.ListHoldsResponse)
        return [
            Hold(
                printable(hold.hold_id),
                hold.index,
                printable(hold.request_id),
                printable(hold.reason),
                tuple(map(printable, hold.approvers)),
                printable(hold.placed_at),
            )
            for hold in answer.holds
        ]
