"""OrderService: translates between `tlog.v1` messages and orders. No rules live here."""

from __future__ import annotations

import grpc

from tlog.audit import AuditError
from tlog.audit.erasing import Receipt, submit
from tlog.audit.errors import Held
from tlog.audit.overview import preview, standing
from tlog.audit.reading import Access
from tlog.audit.times import format_time
from tlog.audit.vault import VaultDamaged
from tlog.log import InvalidRequest, Unavailable
from tlog.serve.callers import caller_of
from tlog.serve.errors import REFUSALS, rich_status
from tlog.serve.handlers import Context
from tlog.serve.tenants import Tenants
from tlog.v1 import orders_pb2 as pb

ORDER_REFUSALS = (*REFUSALS, AuditError)


class OrderService:
    """The gRPC face of orders. One coroutine for each method of `orders.proto`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def SubmitOrder(
        self, request: pb.SubmitOrderRequest, context: Context
    ) -> pb.SubmitOrderResponse:
        return _receipt(await submit(self._tenants.get(request.log), request.order))

    async def DryRun(self, request: pb.DryRunRequest, context: Context) -> pb.DryRunResponse:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        seen = await preview(records, access, request.subject)
        survey = seen.survey
        return pb.DryRunResponse(
            key_id=seen.key_id.hex(),
            parts=survey.parts,
            types=survey.types,
            retention_classes=survey.classes,
            shared=survey.shared,
            recipients=survey.recipients,
            holds=seen.holds,
            erased_at=seen.erased_at,
            merged=[
                pb.MergedKey(key_id=key_id.hex(), entry=index)
                for key_id, index in sorted(survey.merged.items())
            ],
            system_results=seen.system_results,
        )

    async def ListHolds(
        self, request: pb.ListHoldsRequest, context: Context
    ) -> pb.ListHoldsResponse:
        records = self._tenants.get(request.log)
        access = Access(caller_of(context), request.purpose, request.request_id)
        holds = [
            pb.LegalHold(
                hold_id=hold.hold_id,
                index=hold.index,
                request_id=hold.request_id,
                reason=hold.reason,
                approvers=hold.approvers,
                placed_at=format_time(hold.placed_at),
            )
            for hold in await standing(records, access)
        ]
        return pb.ListHoldsResponse(holds=holds)

    async def GetTenant(
        self, request: pb.GetTenantRequest, context: Context
    ) -> pb.GetTenantResponse:
        return pb.GetTenantResponse(tenant=self._tenants.get(request.log).tenant)


def order_status(error: Exception) -> grpc.Status:
    """A refusal in gRPC: one that leaves open what was done is UNAVAILABLE, which says to retry."""
    match error:
        case Held():
            return rich_status(error, grpc.StatusCode.FAILED_PRECONDITION)
        case VaultDamaged():
            return rich_status(error, grpc.StatusCode.DATA_LOSS)
        case AuditError():
            return rich_status(InvalidRequest(str(error), field=error.field))
        case Unavailable():
            return rich_status(error, grpc.StatusCode.UNAVAILABLE)
    return rich_status(error)


def _receipt(receipt: Receipt) -> pb.SubmitOrderResponse:
    order, claims = receipt.order, receipt.claims
    outcome = pb.ORDER_OUTCOME_DONE
    if receipt.index is None:
        outcome = pb.ORDER_OUTCOME_NOTHING
    elif receipt.erased_before:
        outcome = pb.ORDER_OUTCOME_ERASED_BEFORE
    elif receipt.repeated:
        outcome = pb.ORDER_OUTCOME_DONE_BEFORE
    answer = pb.SubmitOrderResponse(
        order_id=order.order_id,
        kind=order.kind,
        request_id=order.request_id,
        hold_id=order.hold_id,
        vkey=order.vkey,
        outcome=outcome,
        index=receipt.index,
        approvers=claims.get("approvers", ()),
        recipients=claims.get("recipients", ()),
        system_results=claims.get("system_results", ()),
    )
    if receipt.recorded_at is not None:
        answer.recorded_at = format_time(receipt.recorded_at)
    if receipt.complete_by is not None:
        answer.complete_by = format_time(receipt.complete_by)
    if "key_id" in claims:
        answer.key.key_id, answer.key.key_sha256 = claims["key_id"], claims["key_sha256"]
        answer.key.parts = claims["count"]
    return answer
