"""Searches over a socket: filters, pages, how far the index is, and every lie about a record."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.approvers import governed, order
from tests.audit.evidence import ACCESSED, ERASURE, FULFILLED, RECEIVED, events, fulfilled
from tests.audit.producer import ALICE, received, signed
from tlog.audit import AuditError
from tlog.audit import search as search_module
from tlog.audit.erasing import submit
from tlog.audit.expiry import expire
from tlog.audit.index import Index
from tlog.audit.records import Records
from tlog.audit.sdjwt import disclose
from tlog.cli.output import Output
from tlog.cli.records.telling import tell
from tlog.client import VerificationError
from tlog.client.reading import Erased, FoundRecord, RecordReader, Search
from tlog.log import Log, LogConfig, create_log
from tlog.serve import Logs, grpc_server
from tlog.serve.records_metrics import RecordsMetrics
from tlog.v1 import audit_pb2 as pb
from tlog.v1 import audit_pb2_grpc

Code = grpc.StatusCode
BOB = "bob@example.com"
ACTOR = {"actor": {"id": getpass.getuser(), "kind": "local_user"}}


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[RecordReader, Any, Records]]:
    """A case of Alice, whose data and Bob's is accessed meanwhile; and a log `plain`."""
    create_log(directory / "plain", LogConfig(origin="example.com/plain", name="plain"))
    async with governed(directory) as records, Log.opened(directory / "plain") as plain:
        await events(records)
        await fulfilled(records)
        async with (
            grpc_server(
                Logs([records.log, plain]), "127.0.0.1:0", records={"records": records}
            ) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            RecordReader(f"127.0.0.1:{port}", log="records") as reader,
        ):
            yield reader, audit_pb2_grpc.AuditServiceStub(channel), records


async def found(reader: RecordReader, **what: Any) -> list[int]:
    page = await reader.search(Search(**what), purpose="audit")
    return [each.index for each in page.records]


async def test_every_filter_is_passed_on(tmp_path: Path) -> None:
    async with served(tmp_path) as (reader, _, _):
        assert await found(reader, subject=BOB) == [ACCESSED]
        assert await found(reader, actor="eve") == [RECEIVED, ACCESSED]
        assert await found(reader, resource="customers/17") == [ACCESSED]
        # Of several subjects: under all of their keys.
        assert await found(reader, resource_type="customers") == [ACCESSED]
        kinds = ("request.received", "request.fulfilled")
        assert await found(reader, types=kinds) == [RECEIVED, FULFILLED]
        assert await found(reader, types=kinds, newest_first=True) == [FULFILLED, RECEIVED]
        assert await found(reader, of_request="R-1") == [RECEIVED, FULFILLED]
        assert await found(reader, outcome="denied") == []
        assert await found(reader, producer="till") == [FULFILLED]
        assert await found(reader, types=kinds, since="2100-01-01T00:00:00Z") == []
        assert await found(reader, types=kinds, until="2000-01-01T00:00:00+01:00") == []


async def test_after_an_erasure_it_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as (reader, _, records):
        await submit(records, order().encode())
        page = await reader.search(Search(subject=ALICE), purpose="audit")
        assert [each.index for each in page.records] == [RECEIVED, ERASURE]
        for each in (page.records[0], await reader.read(RECEIVED, purpose="audit")):
            parts = (each.shared, *each.subjects)
            assert [part.erased for part in parts] == [Erased(ERASURE, "R-1")] * 2
            assert all(part.claims == {} and part.expired is None for part in parts)
        # What is said of the other one alone is still there.
        two = await reader.read(ACCESSED, purpose="audit")
        assert [dict(each.claims) for each in two.subjects] == [{}, {"id": BOB}]
        assert two.shared.erased == Erased(ERASURE, "R-1")


async def test_after_its_time_it_says_so(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with served(tmp_path) as (reader, _, records):
        assert await expire(records, now=datetime.now(UTC) + timedelta(days=3 * 365), pace=0) == 1
        entry = records.log.sequencer.edge.size - 1
        page = await reader.search(Search(types=("access.read",)), purpose="audit")
        (one,) = page.records
        parts = (one.shared, *one.subjects)
        assert [(part.claims, part.erased, part.expired) for part in parts] == [
            ({}, None, entry)
        ] * 3
        tell(page.records, Output(as_json=False))
        lines = capfdbinary.readouterr().out.decode().splitlines()
        assert [line for line in lines if line.endswith(f"expired at entry {entry}")] == lines[-3:]
        assert lines[-1].startswith("      subject 2 ")
        # Of the case, which is kept for longer, all is there.
        page = await reader.search(Search(subject=ALICE, of_request="R-1"), purpose="audit")
        assert page.records[0].subjects[0].claims["id"] == ALICE


LARGE = 40_000


async def test_pages_by_count_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as (reader, _, records):
        drafts = [received(personal={"details": "x" * LARGE}) for _ in range(9)]
        await records.accept([signed(draft, seq) for seq, draft in enumerate(drafts, 3)])
        what = Search(types=("request.received",))
        whole = [each.index for each in (await reader.search(what, purpose="audit")).records]
        assert len(whole) == 10
        for limit, most in ((3, 1 << 30), (1, 1 << 30), (100, 4 * LARGE), (100, 1)):
            monkeypatch.setattr(search_module, "MAX_PAGE_BYTES", most)
            seen: list[int] = []
            cursor, pages = "", 0
            while cursor or not pages:
                page = await reader.search(what, purpose="audit", limit=limit, cursor=cursor)
                assert 1 <= len(page.records) <= limit
                seen += [each.index for each in page.records]
                # As many as were shown are said to have been read.
                last = records.log.sequencer.edge.size - 1
                assert records.read(last).payload["count"] == len(page.records)
                cursor, pages = page.cursor, pages + 1
            assert seen == whole
            assert pages == {3: 4, 1: 10, 100: 5 if most > 1 else 10}[limit]


async def test_how_far_the_index_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise AuditError("the disk is full")

    def behind() -> list[float]:
        metrics = {each.name: each for each in RecordsMetrics({"records": records}).collect()}
        return [s.value for s in metrics["tlog_records_index_entries_behind"].samples]

    async with served(tmp_path) as (reader, stub, records):
        await found(reader, subject=ALICE)
        assert records.index is not None
        await records.index.caught_up(FULFILLED + 2, patience=10)
        assert behind() == [0]
        monkeypatch.setattr(Index, "add", full)
        monkeypatch.setattr(search_module, "PATIENCE", 0.1)
        await records.accept([signed(received(), seq) for seq in (3, 4, 5)])
        assert behind() == [3]
        index, records.index = records.index, None
        assert behind() == []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Search(pb.SearchRequest(log="records", purpose="audit"))
        assert raised.value.code() is Code.FAILED_PRECONDITION
        assert "no search index" in (raised.value.details() or "")
        records.index = index


# ---- a server that lies ----


class Liar(audit_pb2_grpc.AuditServiceServicer):
    """Gives this answer, whatever it is asked."""

    def __init__(self) -> None:
        self.page = pb.SearchResponse()

    def Record(self, request: Any, context: Any) -> pb.RecordResponse:  # noqa: N802
        raise NotImplementedError

    def Search(self, request: Any, context: Any) -> pb.SearchResponse:  # noqa: N802
        return self.page

    def Read(self, request: Any, context: Any) -> pb.ReadResponse:  # noqa: N802
        return pb.ReadResponse(record=self.page.records[0])


def _flip(record: pb.FoundRecord) -> None:
    record.leaf = record.leaf[:20] + bytes([record.leaf[20] ^ 1]) + record.leaf[21:]


def _exchange(record: pb.FoundRecord) -> None:
    shared, about = (list(part.disclosures) for part in record.parts)
    record.parts[0].disclosures[:], record.parts[1].disclosures[:] = about, shared


def _altered(record: pb.FoundRecord) -> None:
    text = record.parts[1].disclosures[0]
    record.parts[1].disclosures[0] = ("A" if text[-2] != "A" else "B").join((text[:-2], text[-1]))


def _gone(record: pb.FoundRecord) -> None:
    record.parts[1].erased.entry = 9


def _expired(record: pb.FoundRecord) -> None:
    record.parts[0].expired = 9


LIES: dict[str, tuple[Callable[[pb.FoundRecord], object], str]] = {
    "no leaf": (lambda record: record.ClearField("leaf"), "leaf"),
    "a leaf that is none": (_flip, "leaf"),
    "a leaf too long": (lambda record: setattr(record, "leaf", b" " * 65_536), "over 65535 bytes"),
    "a claim that is added": (
        lambda record: record.parts[1].disclosures.append(disclose("name", "Bob").encoded),
        "matches no digest",
    ),
    "a claim that is altered": (_altered, "matches no digest"),
    "a claim twice": (
        lambda record: record.parts[1].disclosures.append(record.parts[1].disclosures[0]),
        "comes twice",
    ),
    "claims of another part": (_exchange, "of another part"),
    "a part too few": (lambda record: record.parts.pop(), "of another part"),
    "a part too many": (lambda record: record.parts.add(), "of another part"),
    "erased, and disclosed": (_gone, "said to be gone"),
    "expired, and disclosed": (_expired, "said to be gone"),
    "too much": (lambda record: record.parts[0].disclosures.extend(["x"] * 300), "more than 256"),
    "not ASCII": (lambda record: record.parts[0].disclosures.append("\u202e"), "matches no digest"),
}


@pytest.fixture
async def truth(tmp_path: Path) -> pb.SearchResponse:
    async with served(tmp_path) as (_, stub, _):
        request = pb.SearchRequest(log="records", purpose="audit", of_request="R-1", limit=1)
        page: pb.SearchResponse = await stub.Search(request)
        return page


@contextlib.contextmanager
def lying() -> Any:
    liar, server = Liar(), grpc.server(ThreadPoolExecutor(1))
    audit_pb2_grpc.add_AuditServiceServicer_to_server(liar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield liar, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


async def test_what_is_told_is_held_against_the_leaf(truth: pb.SearchResponse) -> None:
    with lying() as (liar, target):
        async with RecordReader(target) as reader:
            liar.page.CopyFrom(truth)
            honest = await reader.search(Search(of_request="R-1"), purpose="audit")
            assert isinstance(honest.records[0], FoundRecord)
            for name, (lie, says) in LIES.items():
                liar.page.CopyFrom(truth)
                lie(liar.page.records[0])
                with pytest.raises(VerificationError) as refused:
                    await reader.search(Search(), purpose="audit")
                assert refused.value.check == "disclosure", name
                assert says in str(refused.value), name
                assert str(refused.value).isprintable(), name
                with pytest.raises(VerificationError):
                    await reader.read(RECEIVED, purpose="audit")


async def test_an_answer_to_another_question(truth: pb.SearchResponse) -> None:
    with lying() as (liar, target):
        async with RecordReader(target) as reader:
            liar.page.CopyFrom(truth)
            for what in (
                Search(of_request="R-2"),
                Search(types=("request.fulfilled", "access.read")),
                Search(outcome="denied"),
                Search(producer="till"),
                Search(resource_type="customers"),
            ):
                with pytest.raises(VerificationError, match="echo"):
                    await reader.search(what, purpose="audit")
            with pytest.raises(VerificationError, match="echo"):
                await reader.read(RECEIVED + 1, purpose="audit")
            with pytest.raises(VerificationError, match="message"):
                liar.page.records.append(liar.page.records[0])
                await reader.search(Search(), purpose="audit", limit=1)
            liar.page.cursor = "round and round"
            with pytest.raises(VerificationError, match="message"):
                await reader.search(Search(), purpose="audit", cursor="round and round")
