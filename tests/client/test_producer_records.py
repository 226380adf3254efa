"""Producers and the true records layer, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from tests.audit.producer import ALICE, CATALOGUE, SHOP, TENANT, signer_of
from tests.audit.tenant import opened, registration, tenant, types, values
from tests.client.audit_server import key_file, producer, until
from tlog.audit import EventRefused, open_event, rotation
from tlog.audit.intake import Outcome
from tlog.audit.records import Records
from tlog.client import Producer, Refusal
from tlog.serve.records_metrics import RecordsMetrics
from tlog.v1 import audit_pb2 as pb
from tlog.v1 import audit_pb2_grpc

READ: dict[str, Any] = {"purpose": "support"}


class Face(audit_pb2_grpc.AuditServiceServicer):
    def __init__(self, records: Records) -> None:
        self.records = records

    async def Record(self, request: Any, context: Any) -> pb.RecordResponse:  # noqa: N802
        outcomes = await self.records.accept(request.events)
        return pb.RecordResponse(outcomes=map(said, outcomes))

    def Search(self, request: Any, context: Any) -> pb.SearchResponse:  # noqa: N802
        raise NotImplementedError

    def Read(self, request: Any, context: Any) -> pb.ReadResponse:  # noqa: N802
        raise NotImplementedError


def said(outcome: Outcome) -> pb.RecordOutcome:
    if isinstance(outcome, EventRefused):
        refused = pb.RefusedEvent(field=outcome.field, reason=str(outcome))
        return pb.RecordOutcome(refused=refused)
    return pb.RecordOutcome(recorded=pb.RecordedEvent(index=outcome.index))


@contextlib.asynccontextmanager
async def served(records: Records, port: int = 0) -> AsyncIterator[str]:
    server = grpc.aio.server()
    audit_pb2_grpc.add_AuditServiceServicer_to_server(Face(records), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def record(shop: Producer, count: int) -> None:
    for _ in range(count):
        shop.record("access.read", subject=ALICE, **READ, actor="eve")


async def test_from_the_call_to_the_log(tmp_path: Path) -> None:
    """Through an outage, and a key that is registered late: once each, in order, and no gap."""
    late = signer_of("late", 7)
    key = key_file(tmp_path, late)
    async with tenant(tmp_path) as records:
        async with served(records) as target:
            port = int(target.rpartition(":")[2])
            shop = await asyncio.to_thread(producer, target, tmp_path, key=key, decoys=4)
            await asyncio.to_thread(record, shop, 3)
            await asyncio.to_thread(until, lambda: "register it first" in shop.problem)
            await records.record(registration(late))
            assert await asyncio.to_thread(shop.flush, 30)
        await asyncio.to_thread(record, shop, 3)
        async with served(records, port):
            assert await asyncio.to_thread(shop.flush, 30)
            await asyncio.to_thread(shop.close)
        assert types(records, 2) == ["producer.registered", *["access.read"] * 6]
        assert [records.read(index).payload["producer_seq"] for index in range(3, 9)] == [
            *range(1, 7)
        ]
        assert values(records, 8) == [{"actor": "eve"}, {"id": ALICE}]


async def test_what_a_revoked_key_signed_is_set_aside_and_missed(tmp_path: Path) -> None:
    """Neither silently, nor at the cost of what the next key signs."""
    told: list[Refusal] = []
    (tmp_path / "new").mkdir()
    new = signer_of("shop", 8)
    async with tenant(tmp_path) as records:
        shop = await asyncio.to_thread(producer, "127.0.0.1:1", tmp_path)
        await asyncio.to_thread(record, shop, 3)
        await asyncio.to_thread(shop.close)
        old, index = await rotation.revoke_key(records, "shop", old="", reason="stolen")
        assert index == 2
        async with served(records) as target:
            shop = await asyncio.to_thread(producer, target, tmp_path)
            problem = f"the key {old.label} is revoked: rotate it, and give its producer the new"
            await asyncio.to_thread(until, lambda: problem in shop.problem)
            assert shop.spool.waiting == 3
            await asyncio.to_thread(shop.close)
            until_ = records.clock() + timedelta(days=7)
            await rotation.rotate_key(records, "shop", new.vkey, old=old.label, until=until_)
            shop = await asyncio.to_thread(
                producer,
                target,
                tmp_path,
                key=key_file(tmp_path / "new", new),
                on_refused=told.append,
            )
            await asyncio.to_thread(record, shop, 2)
            assert await asyncio.to_thread(shop.flush, 30)
            await asyncio.to_thread(until, lambda: len(told) == 3)
            await asyncio.to_thread(shop.close)
        assert sorted(types(records, 4)) == ["access.read", "access.read", "log.gap_detected"]
        payloads = [records.read(index).payload for index in range(4, 7)]
        (gap,) = [each for each in payloads if each["type"] == "log.gap_detected"]
        assert (gap["expected_seq"], gap["found_seq"]) == (1, 4)
    assert [(each.seq, each.declined.field) for each in told] == [
        (seq, "jws.header.kid") for seq in (1, 2, 3)
    ]
    lines = [json.loads(line) for line in shop.spool.refused.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert all("is revoked" in line["reason"] for line in lines)
    events = [open_event(e["event"], SHOP.vkey, tenant=TENANT, catalogue=CATALOGUE) for e in lines]
    assert [event.subject_ids() for event in events] == [[ALICE]] * 3


async def test_signs_of_life_and_since_when_there_is_none(tmp_path: Path) -> None:
    def heard() -> dict[str, float]:
        metrics = {each.name: each for each in RecordsMetrics({"records": records}).collect()}
        samples = metrics["tlog_records_producer_heard_timestamp_seconds"].samples
        return {sample.labels["producer"]: sample.value for sample in samples}

    def beaten() -> bool:
        return records.log.sequencer.edge.size > 3

    begun = int(time.time())
    async with tenant(tmp_path) as records:
        registered = heard()
        assert registered.keys() == {"shop", "till"}
        records.clock = lambda: datetime.now(UTC) + timedelta(seconds=100)
        async with served(records) as target:
            shop = await asyncio.to_thread(producer, target, tmp_path, heartbeat=0.05)
            await asyncio.to_thread(until, beaten)
            await asyncio.to_thread(shop.close)
        assert set(types(records, 2)) == {"log.heartbeat"}
        assert records.read(2).payload["interval_seconds"] == 1
        assert heard()["shop"] >= begun + 100 > heard()["till"] == registered["till"] >= begun
    async with opened(tmp_path) as records:
        assert heard()["till"] == registered["till"] < begun + 100 <= heard()["shop"]


async def test_a_spool_that_is_lost_is_seen_by_the_log(tmp_path: Path) -> None:
    """Numbers that come again are recorded, and told: a producer cannot begin anew in silence."""
    async with tenant(tmp_path) as records, served(records) as target:
        for name in ("spool", "another"):
            shop = await asyncio.to_thread(producer, target, tmp_path, spool=tmp_path / name)
            await asyncio.to_thread(record, shop, 2)
            assert await asyncio.to_thread(shop.flush, 30)
            await asyncio.to_thread(shop.close)
        assert sorted(types(records, 4)) == [*["access.read"] * 2, *["log.gap_detected"] * 2]
