"""ReportService over a real socket, before a real records layer."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import getpass
import io
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.audit.tenant import tenant, types, values
from tests.audit.test_docket import draft
from tests.serve.slow import slow, until
from tests.serve.test_log_service import details_of
from tlog.audit import Draft, report_formats
from tlog.audit import report as report_module
from tlog.audit.calendar import Calendar
from tlog.audit.deadlines import Terms
from tlog.audit.exporting import Piece, export
from tlog.audit.records import Records
from tlog.client import VerificationError
from tlog.client.reports import Reports
from tlog.log import Log, LogConfig, create_log
from tlog.serve import Logs, grpc_server, report_service, sending
from tlog.v1 import reports_pb2 as pb
from tlog.v1 import reports_pb2_grpc

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[tuple[int, Records]]:
    create_log(directory / "plain", LogConfig(origin="example.com/plain", name="plain"))
    async with (
        tenant(directory, **settings) as records,
        Log.opened(directory / "plain") as plain,
        grpc_server(
            Logs([records.log, plain]), "127.0.0.1:0", records={"records": records}
        ) as port,
    ):
        yield port, records


@contextlib.asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[tuple[Any, Records]]:
    async with (
        serving(directory, **settings) as (port, records),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield reports_pb2_grpc.ReportServiceStub(channel), records


def receipt(request: str, days: int, kind: str = "delete", **public: Any) -> Draft:
    """Received so many days before today."""
    return Draft(
        "request.received",
        {"request_id": request, "request_type": kind, "channel": "webform", **public},
        {},
        [{"id": "alice@example.com"}],
        occurred_at=datetime.now(UTC) - timedelta(days=days),
    )


def asked(**filters: Any) -> pb.ListRequestsRequest:
    return pb.ListRequestsRequest(log="records", **filters)


def names(answer: pb.ListRequestsResponse) -> list[str]:
    return [each.request_id for each in answer.requests]


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def field_of(error: grpc.aio.AioRpcError) -> str:
    field: str = details_of(error)["BadRequest"].field_violations[0].field
    return field


async def test_filters_pages_and_counts(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, records):
        for number in range(25):
            place = "US-CO" if number % 5 == 0 else "us-ca"
            await records.record(receipt(f"R-{number:02}", 2 * number, jurisdiction=place))
        await records.record(receipt("R-opt", 1, "opt_out_sale_share"))
        every = await stub.ListRequests(asked())
        assert (every.total, len(every.requests), every.next_page_token) == (26, 26, "")
        # A holiday can make the confirmation of several due on one day.
        urgency = [(each.deadlines[0].days_left, each.request_id) for each in every.requests]
        assert urgency == sorted(urgency)
        assert every.tree_size == records.log.sequencer.edge.size
        assert every.calendar_version == records.docket.terms.calendar.version
        assert every.time_zone == "America/Los_Angeles"
        late = await stub.ListRequests(asked(statuses=[pb.DEADLINE_STATUS_LATE]))
        assert (late.total, late.late, late.at_risk) == (every.late, every.late, 0)
        assert 0 < late.total < 25
        risky = await stub.ListRequests(asked(statuses=[pb.DEADLINE_STATUS_AT_RISK]))
        assert risky.total >= risky.at_risk == every.at_risk > 0
        near = await stub.ListRequests(asked(within_days=0))
        assert all(each.deadlines[0].days_left <= 0 for each in near.requests)
        assert near.total >= late.total
        assert names(await stub.ListRequests(asked(request_types=["opt_out_sale_share"]))) == [
            "R-opt"
        ]
        assert (await stub.ListRequests(asked(jurisdictions=["us-co"]))).total == 5
        assert (await stub.ListRequests(asked(jurisdictions=["US-CA"]))).total == 20
        seen, token = [], ""
        while True:
            page = await stub.ListRequests(asked(page_size=7, page_token=token))
            assert (page.total, len(page.requests)) == (26, 7 if page.next_page_token else 5)
            seen += names(page)
            if not (token := page.next_page_token):
                break
        assert seen == names(every)


async def test_all_of_a_request_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, records):
        await records.record(receipt("R-1", 20))
        until = (datetime.now(UTC) + timedelta(days=60)).isoformat()
        extended = draft("request.extended", "R-1", reason="much", extended_until=until)
        await records.record(Draft(extended.type, extended.public, {}))
        (one,) = (await stub.ListRequests(asked(request_id="R-1"))).requests
        confirm, answer = one.deadlines
        assert (one.request_type, one.channel, one.outcome) == ("delete", "webform", "unanswered")
        assert (confirm.duty, confirm.length, confirm.status) == (
            "confirm receipt",
            "10 business days",
            pb.DEADLINE_STATUS_LATE,
        )
        assert "11 CCR 7021(a)" in confirm.basis
        assert (answer.duty, answer.length, answer.days_left) == ("answer", "45 calendar days", 60)
        assert "the extension of entry" in answer.notes[0]
        await records.record(Draft("request.fulfilled", {"request_id": "R-1"}, {}))
        assert (await stub.ListRequests(asked())).total == 0
        (one,) = (await stub.ListRequests(asked(request_id="R-1"))).requests
        assert one.outcome == "fulfilled"
        met = next(each for each in one.deadlines if each.duty == "answer")
        assert met.status == pb.DEADLINE_STATUS_MET
        assert (met.HasField("days_left"), met.HasField("entry")) == (False, True)
        assert (await stub.ListRequests(asked(request_id="R-2"))).total == 0


async def test_an_answer_dated_back_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, records):
        await records.record(receipt("R-1", 60))
        day_30 = datetime.now(UTC) - timedelta(days=30)
        done = Draft("request.fulfilled", {"request_id": "R-1"}, {}, occurred_at=day_30)
        await records.record(done)
        await records.record(receipt("R-2", 1))
        await records.record(Draft("request.fulfilled", {"request_id": "R-2"}, {}))
        for request, late in (("R-1", True), ("R-2", False)):
            (one,) = (await stub.ListRequests(asked(request_id=request))).requests
            (answer,) = [each for each in one.deadlines if each.duty == "answer"]
            assert (answer.status, answer.recorded_late) == (pb.DEADLINE_STATUS_MET, late)


BAD_QUESTIONS = [
    (asked(page_size=1001), "page_size"),
    (asked(page_token="x"), "page_token"),
    (asked(page_token="-" * 10), "page_token"),
    (asked(page_token="1" * 400), "page_token"),
    (asked(request_types=["x"] * 257), "request_types"),
    (asked(jurisdictions=["x"] * 257), "jurisdictions"),
    (asked(request_types=["x" * 81]), "request_types"),
    (asked(jurisdictions=["US-CA", "x" * 81]), "jurisdictions"),
    (asked(statuses=[pb.DEADLINE_STATUS_LATE] * 257), "statuses"),
]


async def test_a_bad_question_names_its_field(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _):
        for question, field in BAD_QUESTIONS:
            error = await refused(stub.ListRequests(question))
            assert error.code() is Code.INVALID_ARGUMENT
            assert field_of(error) == field


async def test_a_calendar_without_business_days(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    closed = frozenset(today + timedelta(days=day) for day in range(-10, 4000))
    async with served(tmp_path, terms=Terms(calendar=Calendar(closed=closed))) as (stub, records):
        await records.record(receipt("R-1", 0))
        error = await refused(stub.ListRequests(asked()))
        assert error.code() is Code.FAILED_PRECONDITION
        assert "no business day" in (error.details() or "")


async def test_other_logs_have_none(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _):
        for log in ("plain", "none", ""):
            error = await refused(stub.ListRequests(pb.ListRequestsRequest(log=log)))
            assert error.code() is Code.NOT_FOUND


async def made(stub: Any, **settings: Any) -> bytes:
    request = pb.MakeReportRequest(log="records", **settings)
    return b"".join([piece.data async for piece in stub.MakeReport(request)])


async def test_a_report_in_every_format(tmp_path: Path) -> None:
    year = datetime.now(UTC).year
    async with served(tmp_path) as (stub, records):
        for number, place in enumerate(["US-CA", "US-CO", "US-CA"]):
            await records.record(receipt(f"R-{number}", 0, jurisdiction=place))
        await records.record(Draft("request.fulfilled", {"request_id": "R-0"}, {}))
        told = json.loads(await made(stub, year=year, format=pb.REPORT_FORMAT_JSON))
        figures = told["figures"]["California"]["delete"]
        assert figures["received"] == {"value": 2, "entries": [2, 4]}
        assert figures["complied"] == {"value": 1, "entries": [2, 5]}
        assert (told["tree_size"], told["counted_by"]) == (6, "received")
        only = await made(
            stub,
            year=year,
            format=pb.REPORT_FORMAT_JSON,
            jurisdictions=["us-co"],
            counted_by=pb.COUNTED_BY_ANSWERED,
        )
        told = json.loads(only)
        assert told["figures"]["all individuals"]["delete"]["received"]["value"] == 1
        assert (told["jurisdictions"], told["counted_by"]) == (["US-CO"], "answered")
        text = (await made(stub, year=year, format=pb.REPORT_FORMAT_CSV)).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert {row["value"] for row in rows if row["figure"] == "received"} == {"0", "2", "3"}
        page = (await made(stub, year=year, format=pb.REPORT_FORMAT_HTML)).decode()
        assert page.startswith("<!doctype html>")
        assert "of these jurisdictions alone" not in page


async def test_a_report_tells_drop_and_exemptions_from_the_log(tmp_path: Path) -> None:
    denial = {"request_id": "R-1", "denial_basis": "exempt", "exemption": "1798.145(a)"}
    async with served(tmp_path) as (stub, records):
        await records.record(receipt("R-1", 0, channel="drop"))
        await records.record(receipt("R-2", 0))
        await records.record(Draft("request.denied", denial, {}))
        year = datetime.now(UTC).year
        told = json.loads(await made(stub, year=year, format=pb.REPORT_FORMAT_JSON))
    assert told["data_broker_rule"] == "Civ. Code 1798.99.85"
    figures = told["figures"]["all individuals"]
    assert figures["delete"]["received"] == {"value": 2, "entries": [2, 3]}
    assert figures["drop"]["received"] == {"value": 1, "entries": [2]}
    for kind in ("delete", "drop"):
        assert figures[kind]["exemption.1798.145(a)"] == {"value": 1, "entries": [2, 4]}
    assert figures["know"]["exemption.1798.145(a)"] == {"value": 0, "entries": []}


async def test_a_report_of_many_pieces_comes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (stub, _):
        whole = await made(stub, year=2026, format=pb.REPORT_FORMAT_HTML)
        monkeypatch.setattr("tlog.serve.report_service.PIECE", 100)
        assert await made(stub, year=2026, format=pb.REPORT_FORMAT_HTML) == whole


BAD_REPORTS: list[tuple[dict[str, Any], str]] = [
    ({"year": 2017, "format": pb.REPORT_FORMAT_CSV}, "year"),
    ({"year": 2098, "format": pb.REPORT_FORMAT_CSV}, "year"),
    ({"year": 2026}, "format"),
    ({"year": 2026, "format": 9}, "format"),
    ({"year": 2026, "format": 1, "jurisdictions": ["x"] * 257}, "jurisdictions"),
    ({"year": 2026, "format": 2, "jurisdictions": ["US-CA", "x" * 81]}, "jurisdictions"),
]


async def test_a_report_that_cannot_be(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _):
        for settings, field in BAD_REPORTS:
            error = await refused(made(stub, **settings))
            assert error.code() is Code.INVALID_ARGUMENT
            assert field_of(error) == field


async def test_a_report_that_would_be_too_long_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (stub, _):
        settings = {"year": 2026, "format": pb.REPORT_FORMAT_CSV}
        names = [f"{number:080}" for number in range(256)]
        whole = await made(stub, **settings, jurisdictions=names)
        assert len(whole) > 1 << 20
        monkeypatch.setattr(report_formats, "MAX_REPORT", len(whole) // 2)
        error = await refused(made(stub, **settings, jurisdictions=names))
        assert (error.code(), field_of(error)) == (Code.INVALID_ARGUMENT, "jurisdictions")
        assert f"the limit is {len(whole) // 2}" in (error.details() or "")
        assert await made(stub, **settings, jurisdictions=names[:2])


async def test_reports_are_made_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when those who asked for them have gone away."""
    begun: asyncio.Queue[threading.Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def slow(*args: Any, **more: Any) -> Any:
        go_on = threading.Event()
        loop.call_soon_threadsafe(begun.put_nowait, go_on)
        assert go_on.wait(20)
        return report_module.make_report(*args, **more)

    monkeypatch.setattr("tlog.serve.report_service.make_report", slow)
    async with served(tmp_path) as (stub, _):
        settings = {"year": 2026, "format": pb.REPORT_FORMAT_CSV}
        first = asyncio.create_task(made(stub, **settings))
        go_on = await asyncio.wait_for(begun.get(), 20)
        first.cancel()
        second = asyncio.create_task(made(stub, **settings))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(begun.get(), 0.5)
        go_on.set()
        (await asyncio.wait_for(begun.get(), 20)).set()
        assert await second


LONG: dict[str, Any] = {
    "year": 2026,
    "format": pb.REPORT_FORMAT_CSV,
    "jurisdictions": [f"{number:080}" for number in range(16)],
}


async def test_who_does_not_read_a_report_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_service, "MAX_REPORT", 500_000)
    async with serving(tmp_path) as (port, _), contextlib.AsyncExitStack() as stack:
        stub, one, other = [
            reports_pb2_grpc.ReportServiceStub(await stack.enter_async_context(channel))
            for channel in (grpc.aio.insecure_channel(f"127.0.0.1:{port}"), *slow(port, 2))
        ]
        whole = await made(stub, **LONG)
        assert 250_000 < len(whole) < 500_000
        first, begin = await begun(one)
        assert await made(stub, **LONG) == whole
        # What waits is bounded, too.
        second, _ = await begun(other)
        error = await refused(made(stub, **LONG))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert details_of(error)["RetryInfo"].retry_delay.seconds > 0
        assert f"{2 * len(whole)} bytes wait" in (error.details() or "")
        # What is read, or given up, makes room.
        second.cancel()
        assert await until(partial(made, stub, **LONG)) == whole
        assert begin + await rest(first) == whole


async def test_who_does_not_read_a_report_in_time_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_service, "MAX_REPORT", 400_000)
    monkeypatch.setattr(sending, "PATIENCE", 0.1)
    monkeypatch.setattr(sending, "PACE", 1 << 30)
    async with serving(tmp_path) as (port, _), contextlib.AsyncExitStack() as stack:
        calls = []
        # There is room for two: the others come once the first have had their time.
        for channel in slow(port, 4):
            stub = reports_pb2_grpc.ReportServiceStub(await stack.enter_async_context(channel))
            calls.append(await until(partial(begun, stub)))
        for call, _ in calls[:2]:
            error = await refused(rest(call))
            assert error.code() is Code.DEADLINE_EXCEEDED
            assert "was not read within 0 s: ask again" in (error.details() or "")


async def begun(stub: Any) -> tuple[Any, bytes]:
    """A call for a long report, and the piece of it that was read."""
    call = stub.MakeReport(pb.MakeReportRequest(log="records", **LONG))
    return call, (await call.read()).data


async def rest(call: Any) -> bytes:
    data = b""
    while (piece := await call.read()) is not grpc.aio.EOF:
        data += piece.data
    return data


async def test_a_report_holds_up_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is counted, records are made."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any, **more: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(20)
        return report_module.make_report(*args, **more)

    monkeypatch.setattr("tlog.serve.report_service.make_report", slow)
    async with served(tmp_path) as (stub, records):
        making = asyncio.create_task(made(stub, year=2026, format=pb.REPORT_FORMAT_CSV))
        await asyncio.wait_for(begun.wait(), 20)
        await records.record(receipt("R-1", 0))
        assert not making.done()
        go_on.set()
        assert await making


# ---- exports ----


async def exported(stub: Any, **settings: Any) -> bytes:
    asked: dict[str, Any] = {
        "log": "records",
        "purpose": "audit",
        "format": pb.EXPORT_FORMAT_JSONL,
    }
    request = pb.ExportRequest(**(asked | settings))
    pieces = [piece async for piece in stub.Export(request)]
    assert (pieces[-1].done, {piece.total for piece in pieces}) == (
        pieces[-1].total,
        {pieces[-1].total},
    )
    return b"".join(piece.data for piece in pieces)


async def test_an_export_is_recorded_with_the_local_user(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, records):
        for number in range(3):
            await records.record(receipt(f"R-{number}", number))
        since = (datetime.now(UTC) - timedelta(days=1, hours=1)).isoformat()
        chosen = {"types": ["request.received"], "since": since}
        disclosed = {"recipient": "Agency", "disclose": ["subject.id"], "request_id": "R-9"}
        data = await exported(stub, **chosen, **disclosed)
        assert [json.loads(line)["claims"]["request_id"] for line in data.splitlines()] == [
            "R-0",
            "R-1",
        ]
        last = records.log.sequencer.edge.size - 1
        assert types(records, last) == ["log.exported"]
        assert values(records, last)[0]["actor"] == {
            "id": getpass.getuser(),
            "kind": "local_user",
        }
        assert records.read(last).payload["request_id"] == "R-9"
        by: list[tuple[dict[str, Any], int]] = [
            ({"of_request": "R-2"}, 1),
            ({"subject": "alice@example.com"}, 4),  # and that of the export
            ({"producer": "shop"}, 0),
            ({"outcome": "denied"}, 0),
            ({"until": since, "types": ["request.received"]}, 1),
        ]
        for selection, count in by:
            assert len((await exported(stub, **selection)).splitlines()) == count


async def test_a_large_export_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as (stub, records):
        for number in range(40):
            await records.record(receipt(f"R-{number}", 0))
        monkeypatch.setattr("tlog.serve.report_service.PIECE", 1000)
        monkeypatch.setattr("tlog.audit.exporting.WINDOW", 16)
        data = await exported(stub, types=["request.received"])
        assert len(data.splitlines()) == 40
        assert len(data) > 10_000


BAD_EXPORTS: list[tuple[dict[str, Any], str]] = [
    ({"format": 0}, "format"),
    ({"format": 9}, "format"),
    ({"purpose": ""}, "purpose"),
    ({"purpose": "about alice@example.com"}, "purpose"),
    ({"request_id": "x" * 129}, "request_id"),
    ({"disclose_all": True}, "recipient"),
    ({"disclose": ["actor"], "recipient": " "}, "recipient"),
    ({"disclose_all": True, "recipient": "bob@example.com"}, "recipient"),
    ({"recipient": "x" * 100_000}, "recipient"),
    ({"disclose": ["x"] * 65, "recipient": "Agency"}, "disclose"),
    ({"disclose": [""], "recipient": "Agency"}, "disclose"),
    ({"types": ["x"] * 257}, "types"),
    ({"since": "yesterday"}, "since"),
    ({"until": "2026-01-01T00:00:00"}, "until"),
]


async def test_an_export_that_is_refused_gives_nothing_out(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, records):
        await records.record(receipt("R-1", 0))
        size = records.log.sequencer.edge.size
        for settings, field in BAD_EXPORTS:
            error = await refused(exported(stub, **settings))
            assert error.code() is Code.INVALID_ARGUMENT, settings
            assert field_of(error) == field
        assert (await refused(exported(stub, log="plain"))).code() is Code.NOT_FOUND
        assert records.log.sequencer.edge.size == size


async def test_a_client_sees_that_an_export_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*args: Any) -> AsyncGenerator[Piece, None]:
        async for piece in export(*args):
            yield Piece(piece.data, piece.done - 1, piece.total)

    written: list[bytes] = []
    async with (
        tenant(tmp_path) as records,
        grpc_server(Logs([records.log]), "127.0.0.1:0", records={"records": records}) as port,
        Reports(f"127.0.0.1:{port}") as client,
    ):
        told: list[tuple[int, int | None]] = []
        count = await client.export(
            written.append,
            format="cloudevents",
            purpose="audit",
            progress=lambda done, total: told.append((done, total)),
        )
        assert (count, told[-1]) == (2, (2, 2))
        assert len(json.loads(b"".join(written))) == 2
        monkeypatch.setattr("tlog.serve.report_service.export", cut)
        with pytest.raises(VerificationError, match="2 of 3 records came"):
            await client.export(written.append, format="csv", purpose="audit")
