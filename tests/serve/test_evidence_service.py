"""EvidenceService over a real socket, before a real records layer."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.approvers import governed, order
from tests.audit.authority import Station
from tests.audit.drp import drp_request, verify_drp
from tests.audit.evidence import (
    ACCESSED,
    ERASURE,
    FULFILLED,
    RECEIVED,
    events,
    fulfilled,
    resting_stamper,
    stamp,
)
from tests.audit.producer import ALICE, received, signed
from tests.audit.tenant import (
    LOG,
    TILL,
    create,
    indices,
    opened,
    registration,
    tenant,
    types,
    values,
)
from tests.serve.slow import slow, until
from tests.serve.test_log_service import details_of
from tlog.audit import Draft
from tlog.audit.collecting import collect
from tlog.audit.erasing import submit
from tlog.audit.evidence import Gone
from tlog.audit.evidence_check import Verdict
from tlog.audit.records import Records
from tlog.client import Refused, VerificationError, Verifier, bytes_of
from tlog.client.evidence import EvidenceCollector
from tlog.log import Head
from tlog.log.errors import NoQuorum
from tlog.serve import Logs, evidence_service, grpc_server, sending
from tlog.v1 import evidence_pb2 as pb
from tlog.v1 import evidence_pb2_grpc

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def serving(directory: Path, **more: Any) -> AsyncIterator[tuple[int, Records]]:
    async with governed(directory) as records:
        await events(records)
        await fulfilled(records)
        async with grpc_server(
            Logs([records.log]), "127.0.0.1:0", records={"records": records}, **more
        ) as port:
            yield port, records


@contextlib.asynccontextmanager
async def served(
    directory: Path, **more: Any
) -> AsyncIterator[tuple[EvidenceCollector, Any, Records]]:
    async with (
        serving(directory, **more) as (port, records),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        EvidenceCollector(f"127.0.0.1:{port}") as collector,
    ):
        yield collector, evidence_pb2_grpc.EvidenceServiceStub(channel), records


def verified(records: Records, package: bytes) -> Verdict:
    return Verifier.with_vkeys(records.log.vkeys).evidence(package, service=LOG.vkey)


def chosen(verdict: Verdict) -> list[int]:
    return [each.record.index for each in verdict.chosen()]


def shown(verdict: Verdict) -> list[list[list[str]]]:
    return [[[d.name for d in p.shown] for p in each.record.parts] for each in verdict.chosen()]


async def test_of_a_request_and_recorded_before_it_is_given_out(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        seen: list[tuple[int, int | None]] = []
        collected = await collector.collect(
            purpose="complaint 7",
            request_id="R-1",
            disclose=["actor", "subject.id"],
            recipient="The Agency",
            progress=lambda done, total: seen.append((done, total)),
        )
        verdict = verified(records, collected.package)
        assert chosen(verdict) == [RECEIVED, FULFILLED]
        assert shown(verdict) == [[["actor"], ["id"]], [[]]]
        assert verdict.contents.request_id == "R-1"
        assert verdict.head.checkpoint.size == FULFILLED + 1
        assert seen[-1] == (len(collected.package),) * 2
        assert seen == sorted(seen)
        assert collected.recorded == FULFILLED + 1
        record = records.read(collected.recorded)
        assert (
            record.payload.items()
            >= {
                "type": "log.exported",
                "purpose": "complaint 7",
                "request_id": "R-1",
                "recipient": "The Agency",
                "count": 2,
                "document_sha256": sha256(collected.package).hexdigest(),
            }.items()
        )
        actor = {"id": getpass.getuser(), "kind": "local_user"}
        assert values(records, collected.recorded) == [
            {"actor": actor, "details": {"disclosed": ["actor", "subject.id"]}}, {"id": ALICE},
        ]  # fmt: skip
        # It is among her records, and goes with them.
        assert "alice" not in str(record.payload)


async def test_a_document_comes_out_as_it_was_signed(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        sent = received(personal={"native_document": drp_request(), "agent_id": "helper"})
        (there,) = indices(await records.accept([signed(sent, 3)]))
        collected = await collector.collect(
            purpose="complaint 8",
            indices=[there],
            disclose=["native_document"],
            recipient="The Agency",
        )
        (only,) = verified(records, collected.package).chosen()
        (document,) = [each for part in only.record.parts for each in part.shown]
        assert document.name == "native_document"
        assert verify_drp(bytes_of(document.value)) == "Alice \u00c9mile"
        assert bytes_of(document.value) == drp_request()


async def test_of_entries_and_all_that_can_be_opened(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        nothing = await collector.collect(purpose="audit", indices=[ACCESSED])
        assert shown(verified(records, nothing.package)) == [[[], [], []]]
        everything = await collector.collect(
            purpose="audit", indices=[ACCESSED, RECEIVED], disclose_all=True, recipient="Us"
        )
        verdict = verified(records, everything.package)
        assert chosen(verdict) == [RECEIVED, ACCESSED]
        assert shown(verdict) == [
            [["actor", "details"], ["id", "name"]],
            [["actor", "resource"], ["id"], ["id"]],
        ]
        assert verdict.contents.request_id == ""
        claims = records.read(everything.recorded).payload
        assert (claims["count"], claims["recipient"], "request_id" in claims) == (2, "Us", False)
        # Where nothing is disclosed there is nobody to be told of an erasure.
        assert "recipient" not in records.read(nothing.recorded).payload


async def test_of_a_subject_and_of_nobody_else(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        collected = await collector.collect(
            purpose="audit", subject=" ALICE@example.com", disclose_all=True, recipient="Us"
        )
        verdict = verified(records, collected.package)
        assert chosen(verdict) == [RECEIVED, ACCESSED]
        assert shown(verdict)[1] == [["actor", "resource"], ["id"], []]
        bobs = await collector.collect(purpose="audit", subject="bob@example.com")
        assert chosen(verified(records, bobs.package)) == [ACCESSED, collected.recorded]
        await submit(records, order().encode())
        # The token of what she did is gone with her key; that of her request is evidence.
        left = await collector.collect(purpose="audit", subject=ALICE)
        assert chosen(verified(records, left.package)) == [RECEIVED, bobs.recorded + 1]
        with pytest.raises(Refused, match="no record of this subject"):
            await collector.collect(purpose="audit", subject="carol@example.com")
        # Who was looked for in vain is not named by the record of it.
        assert types(records)[-2:] == ["log.exported", "log.read"]
        (said,) = values(records, left.recorded + 1)
        assert said["details"].keys() == {"subject_token", "epoch"}


async def test_after_an_erasure(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        more: dict[str, Any] = {"purpose": "audit", "disclose_all": True, "recipient": "Us"}
        old = await collector.collect(indices=[RECEIVED], **more)
        before = values(records, RECEIVED)
        receipt = await submit(records, order().encode())
        assert receipt.index == ERASURE + 1
        # Whoever got it is told of the erasure by the record of the export: it was hers, too.
        assert values(records, old.recorded) == [{}, {}]
        # And by the erasure's own record, which tells whom to notify.
        assert records.read(ERASURE + 1).payload["recipients"] == ["Us"]
        new = await collector.collect(request_id="R-1", **more)
        verdict = verified(records, new.package)
        assert chosen(verdict) == [RECEIVED, FULFILLED, ERASURE + 1]
        received, _, erasure = (each.record for each in verdict.chosen())
        gone = Gone(ERASURE + 1, "R-1")
        assert [part.gone for part in received.parts] == [gone, gone]
        # The erasure says whom, under the key that went.
        assert [part.gone for part in erasure.parts] == [None, gone]
        assert shown(verdict) == [[[], []], [[]], [[], []]]
        held = verified(records, old.package)
        assert [{d.name: d.value for d in p.shown} for p in held.chosen()[0].record.parts] == before


async def test_an_erasure_says_what_each_system_did(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        claims = {"request_id": "R-1", "system": "crm <old>"}
        done = await records.record(Draft("delete.system_erased", claims, {}))
        receipt = await submit(records, order().encode())
        told = f"system_erased (entry {done.index}): crm <old>"
        collected = await collector.collect(indices=[receipt.index or 0], purpose="audit")
        (erasure,) = verified(records, collected.package).chosen()
        assert erasure.record.payload["system_results"] == [told]
        page = zipfile.ZipFile(io.BytesIO(collected.package)).read("report.html").decode()
        assert escape(told) in page


async def test_with_the_time_stamps_of_the_log(tmp_path: Path) -> None:
    station, other = Station(tmp_path / "one"), Station(tmp_path / "two", name="two")
    stampers: dict[str, Any] = {}
    async with served(tmp_path, stampers=stampers) as (collector, _, records):
        with resting_stamper(records, tmp_path, station, other) as (stamper, store):
            stampers["records"] = stamper
            await stamp(records, store, station)
            collected = await collector.collect(purpose="audit", indices=[RECEIVED, FULFILLED])
            (first, second) = verified(records, collected.package).chosen()
            assert [each.including for each in (*first.times, *second.times)] == [FULFILLED + 1] * 2


REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"purpose": ""}, "purpose", "what for?"),
    ({"purpose": " "}, "purpose", "what for?"),
    ({"purpose": "x" * 257}, "purpose", "the limit is 256"),
    ({"purpose": "for bob@example.com"}, "purpose", "e-mail"),
    ({"request_id": "carol@example.com", "indices": [4]}, "request_id", "e-mail"),
    ({"request_id": ""}, "request_id", "which records?"),
    ({"request_id": "R-9"}, "request_id", "no record of request 'R-9'"),
    ({"indices": [4, 4]}, "indices", "comes twice"),
    ({"indices": [99]}, "index", "not below tree size"),
    ({"indices": [4], "subject": ALICE}, "indices", "not both"),
    ({"indices": range(5000)}, "indices", "choose 1 to 4096"),
    ({"disclose": ["x"] * 65}, "disclose", "at most 64 names"),
    ({"disclose": [""]}, "disclose", "at most 64 names"),
    ({"disclose": ["actor"]}, "recipient", "who gets it?"),
    ({"disclose_all": True, "recipient": " "}, "recipient", "who gets it?"),
    ({"recipient": "dan@example.com"}, "recipient", "e-mail"),
    ({"recipient": "x" * 257}, "recipient", "the limit is 256"),
    ({"recipient": "x" * 100_000}, "recipient", "the limit is 256"),
    ({"log": "other"}, "log", "other"),
]


async def test_what_is_refused_is_not_recorded(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, stub, records):
        for wrong, field, message in REFUSALS:
            request = pb.CollectRequest(
                **({"log": "records", "purpose": "audit", "request_id": "R-1"} | wrong)
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Collect(request):
                    pytest.fail("something was given out")
            assert message in (caught.value.details() or ""), wrong
            violations = details_of(caught.value)["BadRequest"].field_violations
            assert violations[0].field == field, wrong
        assert len(types(records)) == FULFILLED + 1


async def test_a_name_that_is_too_long_is_refused_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In canonical form it may have eighteen times as many characters."""
    monkeypatch.setattr(evidence_service, "canonical", lambda _: pytest.fail("it was looked at"))
    async with served(tmp_path) as (collector, _, _):
        with pytest.raises(Refused, match="1025 characters: at most 1024") as refused:
            await collector.collect(purpose="audit", subject="\ufdfa" * 1025)
        assert refused.value.code is Code.INVALID_ARGUMENT


async def test_nothing_is_given_out_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with served(tmp_path) as (collector, _, records):
        records._closing = True
        with pytest.raises(Refused, match="shutting down"):
            await collector.collect(purpose="audit", request_id="R-1")
        records._closing = False


async def test_not_before_a_checkpoint_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_service, "collect", partial(collect, patience=0.1))
    async with served(tmp_path) as (collector, _, records):
        await records.log.publisher.wait_for(FULFILLED + 1)
        records.log.publisher._witnessing = Away()
        index = (await records.record(Draft("log.heartbeat", {}, {}))).index
        with pytest.raises(Refused, match=f"no published checkpoint has entry {index} yet: ") as no:
            await collector.collect(purpose="audit", indices=[RECEIVED, index])
        assert no.value.code is Code.FAILED_PRECONDITION
        assert "quorum 'both' is not met" in str(no.value)
        collected = await collector.collect(purpose="audit", indices=[RECEIVED])
        assert chosen(verified(records, collected.package)) == [RECEIVED]
        assert types(records)[-2:] == ["log.heartbeat", "log.exported"]


def asked(**more: Any) -> pb.CollectRequest:
    """For a package with all that can be opened."""
    values: dict[str, Any] = {"log": "records", "purpose": "audit", "recipient": "Us"}
    return pb.CollectRequest(**values, disclose_all=True, **more)


async def large(records: Records) -> list[int]:
    """Records that make a package of half a megabyte."""
    drafts = (
        received(
            public={**received().public, "request_id": f"R-{i}"}, personal={"details": "y" * 20_000}
        )
        for i in range(10)
    )
    return indices(await records.accept([signed(each, 10 + i) for i, each in enumerate(drafts)]))


async def test_who_does_not_read_a_package_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_service, "MAX_ZIP_SIZE", 600_000)
    async with serving(tmp_path) as (port, records), contextlib.AsyncExitStack() as stack:
        request = asked(indices=await large(records))
        collector = await stack.enter_async_context(EvidenceCollector(f"127.0.0.1:{port}"))
        calls = []
        for channel in slow(port, 4):
            stub = evidence_pb2_grpc.EvidenceServiceStub(await stack.enter_async_context(channel))
            call, first = await begun(stub, request)
            calls.append(call)
            assert 450_000 < first.size < 600_000
            if len(calls) < 4:
                small = await collector.collect(purpose="audit", indices=[RECEIVED])
                assert chosen(verified(records, small.package)) == [RECEIVED]
        # What waits is bounded, too; and what is refused for it is not recorded.
        size = records.log.sequencer.edge.size
        with pytest.raises(Refused, match="bytes wait for those who asked") as full:
            await collector.collect(purpose="audit", indices=[RECEIVED])
        assert full.value.code is Code.RESOURCE_EXHAUSTED
        assert records.log.sequencer.edge.size == size
        calls[0].cancel()
        again = partial(EvidenceCollector.collect, collector, purpose="audit", indices=[RECEIVED])
        assert chosen(verified(records, (await until(again)).package)) == [RECEIVED]
        package = first.data
        while (piece := await calls[3].read()) is not grpc.aio.EOF:
            package += piece.data
        assert len(chosen(verified(records, package))) == 10


async def test_who_does_not_read_a_package_in_time_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_service, "MAX_ZIP_SIZE", 600_000)
    monkeypatch.setattr(sending, "PATIENCE", 0.1)
    monkeypatch.setattr(sending, "PACE", 1 << 30)
    async with serving(tmp_path) as (port, records), contextlib.AsyncExitStack() as stack:
        request = asked(indices=await large(records))
        calls = []
        # There is room for four: the others come once the first have had their time.
        for channel in slow(port, 6):
            stub = evidence_pb2_grpc.EvidenceServiceStub(await stack.enter_async_context(channel))
            calls.append(await until(partial(begun, stub, request)))
        for call, _ in calls[:2]:
            with pytest.raises(grpc.aio.AioRpcError, match="was not read within 0 s") as late:
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert late.value.code() is Code.DEADLINE_EXCEEDED


async def begun(stub: Any, request: pb.CollectRequest) -> tuple[Any, Any]:
    """A call, and the first piece of its answer."""
    call = stub.Collect(request)
    return call, await call.read()


async def test_a_tenant_that_waits_for_its_witnesses_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collects = asyncio.Event()

    async def collecting(records: Records, *args: Any, **more: Any) -> Any:
        if records.log.name == "records":
            collects.set()
        return await collect(records, *args, **more)

    monkeypatch.setattr(evidence_service, "collect", collecting)
    create(tmp_path / "other", name="other", origin="example.com/other")
    async with tenant(tmp_path / "one") as one, opened(tmp_path / "other") as other:
        await other.record(registration(TILL))
        one.log.publisher._witnessing = Away()
        waits = (await one.record(Draft("log.heartbeat", {}, {}))).index
        logs = Logs([one.log, other.log])
        both = {"records": one, "other": other}
        async with (
            grpc_server(logs, "127.0.0.1:0", records=both) as port,
            EvidenceCollector(f"127.0.0.1:{port}", log="records") as first,
            EvidenceCollector(f"127.0.0.1:{port}", log="other") as second,
        ):
            waiting = asyncio.create_task(first.collect(purpose="audit", indices=[waits]))
            await asyncio.wait_for(collects.wait(), 20)
            collected = await second.collect(purpose="audit", indices=[0])
            assert chosen(verified(other, collected.package)) == [0]
            assert not waiting.done()
            waiting.cancel()


class Away:
    """Witnesses that do not come."""

    async def cosign(self, head: Head) -> Head:
        await asyncio.sleep(0.01)
        raise NoQuorum("quorum 'both' is not met")

    def so_far(self, head: Head) -> Head:
        return head

    def close(self) -> None:
        pass


# ---- a server that misbehaves ----


class Liar(evidence_pb2_grpc.EvidenceServiceServicer):
    """Gives these answers."""

    def __init__(self, *answers: pb.CollectResponse) -> None:
        self.answers = answers

    def Collect(self, request: pb.CollectRequest, context: Any) -> Iterator[pb.CollectResponse]:  # noqa: N802
        yield from self.answers


LIES = {
    "nothing": ([], "0 bytes of a package of 0 came"),
    "too little": ([pb.CollectResponse(data=b"one", size=4)], "3 bytes of a package of 4 came"),
    "too much": ([pb.CollectResponse(data=b"three", size=4)], "another size than it said"),
    "too large": (
        [pb.CollectResponse(data=bytes(1 << 20), size=1 << 40)] * 65, "another size than it said",
    ),
    "pieces without bytes": ([pb.CollectResponse(size=4)] * 9, "another size than it said"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_server_that_lies_about_sizes(lie: str) -> None:
    answers, message = LIES[lie]
    server = grpc.server(ThreadPoolExecutor(1))
    evidence_pb2_grpc.add_EvidenceServiceServicer_to_server(Liar(*answers), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with EvidenceCollector(f"127.0.0.1:{port}") as collector:
            with pytest.raises(VerificationError, match=message):
                await collector.collect(purpose="audit", request_id="R-1")
    finally:
        server.stop(None).wait()
