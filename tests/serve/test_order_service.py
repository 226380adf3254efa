"""OrderService over a real socket, before a real records layer."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.approvers import CISO, COUNSEL, DPO, NEW_CISO, governed, order
from tests.audit.producer import ALICE, access, received, signed, signer_of
from tests.audit.tenant import LOG, registration, values
from tests.audit.test_collecting import revocation, rotation
from tests.serve.test_log_service import details_of
from tlog.audit import Draft
from tlog.audit.orders import Kind, Limits
from tlog.audit.records import Records
from tlog.client import Refused
from tlog.client.orders import Orders
from tlog.serve import Logs, grpc_server
from tlog.store import StoreFull
from tlog.v1 import audit_pb2, audit_pb2_grpc, orders_pb2_grpc
from tlog.v1 import orders_pb2 as pb

Code = grpc.StatusCode
WHY = "complaint 7"


@contextlib.asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[tuple[Orders, Any, Records]]:
    async with (
        governed(directory, **settings) as records,
        grpc_server(Logs([records.log]), "127.0.0.1:0", records={"records": records}) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        Orders(f"127.0.0.1:{port}") as orders,
    ):
        await records.accept([signed(received(), 1), signed(access("bob@example.com"), 2)])
        yield orders, orders_pb2_grpc.OrderServiceStub(channel), records


async def test_from_the_dry_run_to_the_second_receipt(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, _, records):
        assert (await orders.tenant(), await orders.holds(purpose=WHY)) == ("acme", [])
        seen = await orders.dry_run(ALICE, purpose=WHY)
        assert (seen.parts, seen.types) == (2, {"request.received": 1})
        assert (seen.retention_classes, seen.holds, seen.erased_at) == ({"requests": 1}, (), None)
        placed = await orders.submit(order(Kind.PLACE).encode())
        assert (placed.kind, placed.hold_id, placed.outcome, placed.index) == (
            "hold.place", "H-1", "done", 8,
        )  # fmt: skip
        assert (placed.key_id, placed.complete_by) == ("", "")
        (hold,) = await orders.holds(purpose=WHY)
        assert (hold.hold_id, hold.index, hold.request_id, hold.reason) == ("H-1", 8, "", "asked")
        assert (hold.approvers, hold.placed_at) == (("ciso", "dpo"), placed.recorded_at)
        assert (await orders.dry_run(ALICE, purpose=WHY)).holds == ("H-1",)
        made = order().encode()
        with pytest.raises(Refused, match="held by H-1") as caught:
            await orders.submit(made)
        assert caught.value.code is Code.FAILED_PRECONDITION
        await orders.submit(order(Kind.RELEASE).encode())
        receipt = await orders.submit(made)
        assert (receipt.outcome, receipt.index, receipt.parts) == ("done", 12, 7)
        assert receipt.key_id == seen.key_id
        assert receipt.complete_by > receipt.recorded_at
        again = await orders.submit(made)
        assert (again.outcome, again.index, again.key_sha256) == (
            "done before", 12, receipt.key_sha256,
        )  # fmt: skip
        other = await orders.submit(order(request_id="R-2").encode())
        assert (other.outcome, other.index) == ("erased before", 12)
        nobody = await orders.submit(order(subject="zoe").encode())
        assert (nobody.outcome, nobody.index, nobody.approvers) == ("nothing", None, ())
        assert (await orders.dry_run(ALICE, purpose=WHY)).erased_at == 12
        assert records.log.sequencer.edge.size == 14


async def test_a_dry_run_tells_of_the_other_half(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, _, records):
        keys = {"key_id": "00" * 16, "into_key_id": "11" * 16}
        both = [{"id": ALICE}, {"id": "bob@example.com"}]
        await records.accept([signed(Draft("subject.merged", keys, {}, both), 3)])
        bob = await orders.dry_run("bob@example.com", purpose=WHY)
        assert (await orders.dry_run(ALICE, purpose=WHY)).merged == {bob.key_id: 6}


async def test_what_each_system_did(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, _, records):
        assert (await orders.dry_run(ALICE, purpose=WHY, request_id="R-1")).system_results == ()
        claims = {"request_id": "R-1", "system": "crm"}
        for seq, kind in enumerate(("system_erased", "backup_deferred"), 3):
            await records.accept([signed(Draft(f"delete.{kind}", claims, {}), seq)])
        told = ("system_erased (entry 7), backup_deferred (entry 8): crm",)
        assert (await orders.dry_run(ALICE, purpose=WHY, request_id="R-1")).system_results == told
        assert (await orders.dry_run(ALICE, purpose=WHY, request_id="R-2")).system_results == ()
        assert (await orders.dry_run(ALICE, purpose=WHY)).system_results == ()
        made = order().encode()
        assert (await orders.submit(made)).system_results == told
        await records.accept([signed(Draft("delete.backup_done", claims, {}), 5)])
        assert (await orders.submit(made)).system_results == told
        (later,) = (await orders.dry_run(ALICE, purpose=WHY, request_id="R-1")).system_results
        assert "backup_done" in later
        assert (await orders.submit(order(subject="zoe").encode())).system_results == ()


async def test_nobody_looks_without_a_purpose(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, _, records):
        for purpose in ("", " ", "for a@example.com", "x" * 300):
            for look in (orders.dry_run(ALICE, purpose=purpose), orders.holds(purpose=purpose)):
                with pytest.raises(Refused) as caught:
                    await look
                assert [violation.field for violation in caught.value.violations] == ["purpose"]
        with pytest.raises(Refused) as caught:
            await orders.holds(purpose=WHY, request_id="a@example.com")
        assert [violation.field for violation in caught.value.violations] == ["request_id"]
        assert records.log.sequencer.edge.size == 6
        await orders.dry_run(ALICE, purpose=WHY, request_id="R-1")
        await orders.holds(purpose=WHY, request_id="R-7")
        for index, request_id in ((6, "R-1"), (7, "R-7")):
            claims = records.read(index).payload
            assert (claims["type"], claims["purpose"]) == ("log.read", WHY)
            assert claims["request_id"] == request_id
            actor = {"id": getpass.getuser(), "kind": "local_user"}
            assert values(records, index)[0]["actor"] == actor


async def test_refusals_name_the_field(tmp_path: Path) -> None:
    async with served(tmp_path, limits=Limits(1, 1)) as (orders, stub, records):
        for data, field in [
            (b"", "order"),
            (b"x" * 20_000, "order"),
            (order(Kind.ERASE, DPO).encode(), "signatures"),
            (order(tenant="other").encode(), "tenant"),
            (order(Kind.RELEASE).encode(), "hold_id"),
        ]:
            with pytest.raises(Refused) as caught:
                await orders.submit(data)
            assert caught.value.code is Code.INVALID_ARGUMENT
            assert [violation.field for violation in caught.value.violations] == [field]
        with pytest.raises(Refused) as caught:
            await orders.dry_run("", purpose=WHY)
        assert [violation.field for violation in caught.value.violations] == ["subject"]
        for request in (pb.SubmitOrderRequest(log="none"), pb.SubmitOrderRequest(log="x" * 999)):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.SubmitOrder(request)
            assert raised.value.code() is Code.NOT_FOUND
        assert records.log.sequencer.edge.size == 6
        await orders.submit(order(subject="bob@example.com").encode())
        # Asked without the client, which would wait as long as it is told to.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SubmitOrder(pb.SubmitOrderRequest(order=order().encode()))
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
        assert 3500 < details_of(raised.value)["RetryInfo"].retry_delay.ToSeconds() <= 3600


async def test_who_approves_is_nobodys_to_say_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, _, records):
        hr = signer_of("hr", 31)
        await records.record(registration(hr, "registrar"))
        async with grpc.aio.insecure_channel(orders._target) as channel:
            stub = audit_pb2_grpc.AuditServiceStub(channel)
            drafts = [
                registration(COUNSEL, "approver"),
                rotation(CISO, NEW_CISO, "2030-01-01T00:00:00Z"),
                revocation(CISO),
            ]
            events = [signed(draft, seq, hr) for seq, draft in enumerate(drafts, 1)]
            events.append(signed(drafts[0], 8, LOG))  # with the log's own key, and no order
            answer = await stub.Record(audit_pb2.RecordRequest(events=events))
        said = [each.refused.field for each in answer.outcomes]
        assert said == ["roles", "about_producer", "about_producer", "order"]
        assert records.log.sequencer.edge.size == 7
        for wrong, field in [
            (order(Kind.REGISTER, DPO), "signatures"),
            (order(Kind.REGISTER, DPO, COUNSEL), "signatures[1]"),
            (order(Kind.REGISTER, vkey=str(hr.vkey)), "about_producer"),
        ]:
            with pytest.raises(Refused) as caught:
                await orders.submit(wrong.encode())
            assert [violation.field for violation in caught.value.violations] == [field]
        made = order(Kind.REGISTER).encode()
        receipt = await orders.submit(made)
        assert (receipt.kind, receipt.outcome, receipt.index, receipt.vkey) == (
            "approver.register", "done", 7, str(COUNSEL.vkey),
        )  # fmt: skip
        assert (receipt.approvers, receipt.complete_by) == (("ciso", "dpo"), "")
        again = await orders.submit(made)
        assert (again.outcome, again.index, again.vkey) == ("done before", 7, receipt.vkey)
        rotated = await orders.submit(order(Kind.ROTATE, DPO, COUNSEL).encode())
        assert (rotated.kind, rotated.vkey) == ("approver.rotate", str(NEW_CISO.vkey))
        erased = await orders.submit(order(Kind.ERASE, NEW_CISO, COUNSEL).encode())
        assert erased.approvers == ("ciso", "counsel")


async def test_not_known_whether_it_was_done_is_unavailable(tmp_path: Path) -> None:
    async with served(tmp_path) as (orders, stub, records):
        store: Any = records.vault.store
        real = store.begin_shred

        def full(*_: Any) -> None:
            store.begin_shred = real
            store._unusable = "a write failed"
            raise StoreFull("no room")

        store.begin_shred = full
        made = order().encode()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SubmitOrder(pb.SubmitOrderRequest(order=made))
        assert raised.value.code() is Code.UNAVAILABLE
        receipt = await orders.submit(made)
        assert (receipt.outcome, receipt.index) == ("done before", 6)
        assert records.read(4).parts[1].erasure is not None
