"""AuditService over a real socket, before a real records layer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.audit.bad_input import BAD, acquaint, everything
from tests.audit.producer import PAYLOAD, SHOP, access, received, signed, signer_of
from tests.audit.tenant import NOW, tenant
from tests.serve.test_log_service import details_of
from tlog.audit import intake
from tlog.audit.jws import sign_jws
from tlog.audit.records import Records
from tlog.audit.sdjwt import MAX_SD_JWT_SIZE, join
from tlog.log import Log, LogConfig, create_log
from tlog.serve import Logs, grpc_server
from tlog.serve.http import http_server
from tlog.v1 import audit_pb2 as pb
from tlog.v1 import audit_pb2_grpc, log_pb2, log_pb2_grpc

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def served(
    directory: Path, **settings: Any
) -> AsyncIterator[tuple[Any, grpc.aio.Channel, Records]]:
    """A records log `records`, whose entries 0 and 1 are its producers, and a log `plain`."""
    create_log(directory / "plain", LogConfig(origin="example.com/plain", name="plain"))
    async with (
        tenant(directory, **settings) as records,
        Log.opened(directory / "plain") as plain,
        grpc_server(
            Logs([records.log, plain]), "127.0.0.1:0", records={"records": records}
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield audit_pb2_grpc.AuditServiceStub(channel), channel, records


async def record(stub: Any, *events: str, log: str = "records") -> list[dict[str, Any]]:
    """What became of events, as plain values."""
    answer = await stub.Record(pb.RecordRequest(log=log, events=events))
    return [
        {name.name: value for name, value in getattr(each, each.WhichOneof("outcome")).ListFields()}
        for each in answer.outcomes
    ]


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def test_each_event_is_answered_for_in_its_place(tmp_path: Path) -> None:
    one, two = signed(received(), 1), signed(access(), 2)
    event_id = "019aa000-0000-7000-8000-00000000000a"
    async with served(tmp_path) as (stub, _, records):
        bad, stranger, *rest = await record(
            stub, "no event", signed(access(), 1, signer_of("shop", 7)), one, two
        )
        assert rest == [{"index": 2}, {"index": 3}]
        assert bad["field"] == "event"
        assert stranger["field"] == "jws.header.kid"
        assert "register it first" in stranger["reason"]
        assert await record(stub, two, one) == [
            {"index": 3, "duplicate": True},
            {"index": 2, "duplicate": True},
        ]
        await record(stub, signed(access(event_id=event_id), 3))
        other = signed(received(event_id=event_id), 4)
        assert await record(stub, other) == [{"index": 5, "conflict": True}]
        assert records.log.sequencer.edge.size == 7  # the conflict is said in the log
        (long,) = await record(stub, "x" * (MAX_SD_JWT_SIZE + 1))
        assert long["reason"] == f"event: an SD-JWT of over {MAX_SD_JWT_SIZE} characters"
        assert len(await record(stub, *[""] * 4096)) == 4096
        assert records.log.sequencer.edge.size == 7


async def test_bad_input_is_refused_with_the_reason_and_nothing_stored(tmp_path: Path) -> None:
    async with served(tmp_path, clock=lambda: NOW) as (stub, _, records):
        size = await acquaint(records)
        before, refused = await everything(records, tmp_path)
        outcomes = await record(stub, *[bad.make(1) for bad in BAD])
        for outcome, bad in zip(outcomes, BAD, strict=True):
            assert (bad.what, outcome["field"]) == (bad.what, bad.field)
            assert bad.says in outcome["reason"], bad.what
        assert await everything(records, tmp_path) == (before, refused + len(BAD))
        assert await record(stub, signed(access(occurred_at=NOW), 1)) == [{"index": size}]
        assert records.log.sequencer.edge.size == size + 1


async def test_findings_are_counted_for_whoever_scrapes(tmp_path: Path) -> None:
    far = NOW + timedelta(days=1)
    event_id = "019aa000-0000-7000-8000-00000000000a"
    events = {
        "": access(occurred_at=NOW),
        "gap": access(occurred_at=NOW),
        "repeat": access(occurred_at=NOW, event_id=event_id),
        "clock": access(occurred_at=far),
        "conflict": access(occurred_at=NOW, event_id=event_id),
    }
    numbers = {"": 1, "gap": 3, "repeat": 3, "clock": 4, "conflict": 5}
    expected = dict.fromkeys(events.keys() - {""}, 0.0)
    async with (
        served(tmp_path, clock=lambda: NOW) as (stub, _, records),
        http_server(Logs([records.log]), "127.0.0.1:0", records={"records": records}) as port,
        httpx.AsyncClient(trust_env=False) as scraper,
    ):
        for kind, draft in events.items():
            # Sent again, it is the same event, and the same finding.
            event = signed(draft, numbers[kind])
            for _ in range(2):
                await record(stub, event)
            text = (await scraper.get(f"http://127.0.0.1:{port}/metrics")).text
            expected |= {kind: 1.0} if kind else {}
            for each, count in expected.items():
                assert f'tlog_records_findings_total{{kind="{each}",log="records"}} {count}' in text


async def test_what_cannot_be_said_in_utf_8_is_refused_and_said(tmp_path: Path) -> None:
    payload = json.dumps(PAYLOAD | {"\udcff\ud800": 1}).encode()
    event = join(sign_jws(SHOP, payload), [])
    async with served(tmp_path) as (stub, _, _):
        (outcome,) = await record(stub, event)
        assert "\\ud800" in outcome["field"] + outcome["reason"]
        assert await record(stub, signed(access(), 1)) == [{"index": 2}]


@pytest.mark.parametrize(
    ("log", "events", "code", "field", "says"),
    [
        ("records", [], Code.INVALID_ARGUMENT, "events", "0 events: send 1 to 4096"),
        ("records", [""] * 4097, Code.INVALID_ARGUMENT, "events", "4097 events"),
        ("", ["x"], Code.NOT_FOUND, "log", "several logs"),
        ("none", ["x"], Code.NOT_FOUND, "log", "no log is named 'none'"),
        ("plain", ["x"], Code.NOT_FOUND, "log", "plain is not a records log"),
    ],
)
async def test_whole_requests_that_are_refused(
    tmp_path: Path, log: str, events: list[str], code: Code, field: str, says: str
) -> None:
    async with served(tmp_path) as (stub, _, _):
        error = await refused(stub.Record(pb.RecordRequest(log=log, events=events)))
        assert error.code() is code
        assert says in (error.details() or "")
        (violation,) = details_of(error)["BadRequest"].field_violations
        assert violation.field == field


@pytest.mark.parametrize(("bound", "most"), [("MAX_PENDING", 10), ("MAX_PENDING_BYTES", 5000)])
async def test_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(intake, bound, most)
    async with served(tmp_path) as (stub, _, records):
        async with records._exclusive:  # no round begins
            first = asyncio.ensure_future(record(stub, signed(access(), 1)))
            while not records._intake:
                await asyncio.sleep(0.001)
            events = [signed(access(), seq) for seq in range(2, 12)]
            error = await refused(record(stub, *events))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert details_of(error)["RetryInfo"].retry_delay.ToSeconds() == 1
        assert await first == [{"index": 2}]
        assert [each["index"] for each in await record(stub, *events)] == list(range(3, 13))
        assert records._intake._pending == records._intake._pending_bytes == 0


async def test_not_known_what_was_taken_is_unavailable(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _, records):
        event = signed(access(), 1)
        store = records.vault.store
        write = store.write

        def fails(puts: Any) -> None:
            raise OSError("gone")

        store.write = fails  # type: ignore[method-assign]
        error = await refused(record(stub, event))
        assert error.code() is Code.UNAVAILABLE
        assert "not known" in (error.details() or "")
        store.write = write  # type: ignore[method-assign]
        assert await record(stub, event) == [{"index": 2}]
        records._closing = True
        error = await refused(record(stub, event))
        assert error.code() is Code.UNAVAILABLE


async def test_a_records_log_refuses_what_is_no_record(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, channel, records):
        stub: Any = log_pb2_grpc.LogServiceStub(channel)
        wait = log_pb2.WAIT_FOR_PUBLISHED
        stream = stub.AppendStream()
        await stream.write(log_pb2.AppendStreamRequest(log="records", entries=[b"x"]))
        for call in (
            stub.Append(log_pb2.AppendRequest(log="records", entry=b"x")),
            stub.Append(log_pb2.AppendRequest(log="records", entry=b"x", wait_for=wait)),
            stub.AppendBatch(log_pb2.AppendBatchRequest(log="records", entries=[b"x"])),
            stream.read(),
        ):
            error = await refused(call)
            assert error.code() is Code.PERMISSION_DENIED
            assert "records is a records log" in (error.details() or "")
            (violation,) = details_of(error)["BadRequest"].field_violations
            assert violation.field == "log"
        assert records.log.sequencer.edge.size == 2
        assert (await stub.Append(log_pb2.AppendRequest(log="plain", entry=b"x"))).index == 0


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, channel, _):
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tlog.v1.LogService", "tlog.v1.AuditService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        names = {each.name for each in (await call.read()).list_services_response.service}
        assert {"tlog.v1.LogService", "tlog.v1.AuditService"} <= names


async def test_bytes_that_are_no_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, channel, records):
        method: Any = channel.unary_unary("/tlog.v1.AuditService/Record")
        error = await refused(method(b"\xff\xff"))
        assert error.code() is Code.INVALID_ARGUMENT
        assert SHOP.vkey.label in str(records._state)
