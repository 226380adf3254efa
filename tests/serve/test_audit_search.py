"""AuditService.Search and Read over a real socket: a reading is recorded before it is shown."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.approvers import governed, order
from tests.audit.producer import ALICE, access, received, signed
from tests.audit.tenant import indices, types, values
from tests.client.audit_server import AuditDouble
from tests.serve.test_audit_service import refused
from tests.serve.test_log_service import details_of
from tlog.audit import Draft
from tlog.audit.erasing import submit
from tlog.audit.records import Records
from tlog.client import Refused, VerificationError
from tlog.client.reading import Erased, FoundRecord, RecordReader, Search
from tlog.log import Unavailable
from tlog.serve import Logs, grpc_server
from tlog.v1 import audit_pb2 as pb
from tlog.v1 import audit_pb2_grpc

Code = grpc.StatusCode
WHY = "complaint 7"
BOB = "bob@example.com"


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[RecordReader, Any, Records]]:
    """Entries 4 to 7: Alice's request, who read of Alice, who read of Bob, and the answer."""
    async with governed(directory) as records:
        events = [
            signed(received(), 1),
            signed(access(ALICE), 2),
            signed(access(BOB), 3),
            signed(Draft("request.fulfilled", {"request_id": "R-1"}, {}, [{"id": ALICE}]), 4),
        ]
        assert indices(await records.accept(events)) == [4, 5, 6, 7]
        async with (
            grpc_server(Logs([records.log]), "127.0.0.1:0", records={"records": records}) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            RecordReader(f"127.0.0.1:{port}") as client,
        ):
            yield client, audit_pb2_grpc.AuditServiceStub(channel), records


def said(records: Sequence[FoundRecord]) -> list[tuple[int, Any]]:
    return [(each.index, each.payload["type"]) for each in records]


async def test_a_case_from_receipt_to_fulfilment(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _, records):
        page = await client.search(Search(subject=" ALICE@example.com"), purpose=WHY)
        assert said(page.records) == [
            (4, "request.received"),
            (5, "access.read"),
            (7, "request.fulfilled"),
        ]
        assert (page.cursor, page.complete_to) == ("", 8)
        first = page.records[0]
        assert first.shared.claims["details"] == {"note": "by post"}
        assert [each.claims for each in first.subjects] == [{"id": ALICE, "name": "Alice"}]
        assert first.claims()["request_id"] == "R-1"
        assert "_sd" not in first.claims()
        # Who read it, and what for, is recorded, and found under whom it is about.
        assert types(records, 8) == ["log.read"]
        shared, about = values(records, 8)
        assert shared["actor"] == {"id": getpass.getuser(), "kind": "local_user"}
        assert ALICE not in str(shared)
        assert about["id"] == ALICE
        payload = records.read(8).payload
        assert (payload["purpose"], payload["count"]) == (WHY, 3)
        again = await client.search(Search(subject=ALICE, types=["log.read"]), purpose=WHY)
        assert said(again.records) == [(8, "log.read")]
        nobody = await client.search(Search(subject="stranger@example.com"), purpose=WHY)
        assert nobody.records == ()
        assert [len(part) for part in values(records, 10)] == [2]  # its subject is nobody


async def test_pages_follow_each_other(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _, _records):
        found: list[FoundRecord] = []
        cursor, what = "", Search(producer="shop", newest_first=True)
        while cursor or not found:
            page = await client.search(what, purpose=WHY, limit=1, cursor=cursor)
            found += page.records
            cursor = page.cursor
        assert sorted(each.index for each in found) == [4, 5, 6, 7]
        times = [each.occurred_at for each in found]
        assert times == sorted(times, reverse=True)


async def test_one_record(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _, records):
        found = await client.read(6, purpose=WHY, request_id="R-9")
        assert found.subjects[0].claims == {"id": BOB}
        assert values(records, 8)[1]["id"] == BOB
        assert records.read(8).payload["request_id"] == "R-9"
        with pytest.raises(Refused, match="99"):
            await client.read(99, purpose=WHY)
        assert records.log.sequencer.edge.size == 9


async def test_what_somebody_took_from_the_vault_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _, records):
        store = records.vault.store
        store.write([("parts", key, None) for key, _ in store.items("parts")])
        found = await client.read(6, purpose=WHY)
        assert found.subjects[0].missing
        assert found.subjects[0].claims == {}


async def test_after_an_erasure_the_request_is_found_and_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _, records):
        receipt = await submit(records, order().encode())
        erased = next(i for i, t in enumerate(types(records)) if t == "subject.key_destroyed")
        assert receipt is not None
        page = await client.search(Search(subject=ALICE), purpose=WHY)
        kept = {each.index: each for each in page.records}
        assert {4, 7} <= kept.keys()
        assert 5 not in kept  # of the erasable class
        assert kept[4].subjects[0].claims == {}
        assert kept[4].subjects[0].erased == Erased(erased, "R-1")
        last = records.read(records.log.sequencer.edge.size - 1)
        assert last.payload["type"] == "log.read"
        assert len(last.parts) == 1  # it brings nobody back


async def test_what_cannot_be_recorded_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (_, stub, records):

        async def full(*_: object) -> int:
            raise Unavailable("the disk is full")

        monkeypatch.setattr(records, "record_alone", full)
        for call in (
            stub.Search(pb.SearchRequest(purpose=WHY, subject=ALICE)),
            stub.Read(pb.ReadRequest(purpose=WHY, index=4)),
        ):
            error = await refused(call)
            assert error.code() is Code.FAILED_PRECONDITION
            assert "the disk is full" in str(error.details())


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda: pb.SearchRequest(subject=ALICE), "purpose"),
        (lambda: pb.SearchRequest(purpose=" ", subject=ALICE), "purpose"),
        (lambda: pb.SearchRequest(purpose="for alice@example.com"), "purpose"),
        (lambda: pb.SearchRequest(purpose="x" * 257), "purpose"),
        (lambda: pb.SearchRequest(purpose=WHY, request_id="x" * 129), "request_id"),
        (lambda: pb.SearchRequest(purpose=WHY, subject="a\0b"), "subject"),
        (lambda: pb.SearchRequest(purpose=WHY, actor="x" * 2000), "actor"),
        (lambda: pb.SearchRequest(purpose=WHY, resource=" "), "resource"),
        (lambda: pb.SearchRequest(purpose=WHY, types=["a.b"] * 65), "types"),
        (lambda: pb.SearchRequest(purpose=WHY, since="yesterday"), "since"),
        (lambda: pb.SearchRequest(purpose=WHY, until="2026-01-01T00:00:00"), "until"),
        (lambda: pb.SearchRequest(purpose=WHY, limit=101), "limit"),
        (lambda: pb.SearchRequest(purpose=WHY, cursor="garbage"), "cursor"),
        (lambda: pb.SearchRequest(purpose=WHY, cursor="é" * 10_000), "cursor"),
        (lambda: pb.SearchRequest(purpose=WHY, log="other"), "log"),
        (lambda: pb.ReadRequest(index=4), "purpose"),
    ],
)
async def test_refused_and_nothing_recorded(
    tmp_path: Path, request_of: Callable[[], Any], field: str
) -> None:
    async with served(tmp_path) as (_, stub, records):
        request = request_of()
        call = stub.Read if isinstance(request, pb.ReadRequest) else stub.Search
        error = await refused(call(request))
        assert error.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
        assert details_of(error)["BadRequest"].field_violations[0].field == field
        assert records.log.sequencer.edge.size == 8


class Liar(AuditDouble):
    """Answers with what it was given."""

    def __init__(self, record: pb.FoundRecord) -> None:
        super().__init__()
        self.record = record

    def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:  # noqa: N802
        return pb.SearchResponse(records=[self.record], cursor="again")

    def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:  # noqa: N802
        return pb.ReadResponse(record=self.record)


@pytest.mark.parametrize(
    "lie", ["other index", "other record", "swapped", "no leaf", "left out", "forged"]
)
async def test_a_server_that_lies_is_found_out(tmp_path: Path, lie: str) -> None:
    async with served(tmp_path) as (_, stub, _records):
        true = (await stub.Read(pb.ReadRequest(purpose=WHY, index=4))).record
        other = (await stub.Read(pb.ReadRequest(purpose=WHY, index=5))).record
    match lie:
        case "other index":
            true.index = 5
        case "other record":
            true.CopyFrom(other)
            true.index = 4
        case "swapped":
            true.parts[0].disclosures[0] = other.parts[0].disclosures[0]
        case "no leaf":
            true.leaf = b"{}"
        case "left out":
            del true.parts[1]
        case "forged":
            true.parts[1].disclosures[0] = true.parts[1].disclosures[0][:-4] + "AAAA"
    server = grpc.server(ThreadPoolExecutor(1))
    audit_pb2_grpc.add_AuditServiceServicer_to_server(Liar(true), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with RecordReader(f"127.0.0.1:{port}") as client:
            if lie != "other record":  # which leaf an index has, only a proof tells
                with pytest.raises(VerificationError):
                    await client.read(4, purpose=WHY)
            if lie != "other index":  # a search is not for an index
                what = Search(of_request="R-1") if lie == "other record" else Search()
                with pytest.raises(VerificationError):
                    await client.search(what, purpose=WHY)
    finally:
        await asyncio.to_thread(server.stop(None).wait)
