"""Retention: what is past its time goes by itself, to the day; what is held stays."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import every_byte, governed, order
from tests.audit.producer import ALICE, CATALOGUE, access, received, signed
from tests.audit.tenant import opened, types, values
from tlog.audit import Draft
from tlog.audit.catalogue import Catalogue
from tlog.audit.claims import event_id_bytes
from tlog.audit.erasing import submit
from tlog.audit.expiry import epoch_end, expire, expiring, months_before
from tlog.audit.leaf import parse_leaf
from tlog.audit.obligations import Obligations
from tlog.audit.orders import Kind, Limits
from tlog.audit.records import Records
from tlog.audit.search import Query, find_all
from tlog.audit.survey import erased_at
from tlog.audit.tokens import epoch_of
from tlog.audit.vault import Erasure, Part, split_part
from tlog.store import StoreFull

BOB = "bob@example.com"
START = datetime(2020, 1, 15, 12, tzinfo=UTC)


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def at(clock: Clock, made: Draft, seq: int) -> str:
    values = {name: getattr(made, name) for name in made.__slots__}
    return signed(Draft(**(values | {"occurred_at": clock.now})), seq)


async def passed(records: Records) -> int:
    """Let go of what is past its time by the clock of the test."""
    return await expire(records, now=records.clock(), pace=0)


def sealed(records: Records, index: int) -> list[bytes]:
    """What is sealed of a record."""
    leaf = records.read(index).payload
    rows = records.vault.store.items("parts", event_id_bytes(str(leaf["event_id"])))
    return [split_part(row)[1] for _, row in rows]


@pytest.mark.parametrize(
    ("now", "months", "then"),
    [
        ("2026-03-31", 1, "2026-02-28"),
        ("2024-03-30", 1, "2024-02-29"),
        ("2026-01-31", 1, "2025-12-31"),
        ("2026-01-01", 24, "2024-01-01"),
        ("2028-02-29", 24, "2026-02-28"),
        ("2028-02-29", 48, "2024-02-29"),
        ("2026-12-31", 62, "2021-10-31"),
        ("2026-06-15", 30_000, "0001-01-01"),
    ],
)
def test_months(now: str, months: int, then: str) -> None:
    time = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert months_before(time, months).date().isoformat() == then


def test_an_epoch_is_its_quarter() -> None:
    time = datetime(2019, 1, 1, tzinfo=UTC)
    while time.year < 2029:
        assert time < epoch_end(epoch_of(time)) <= time + timedelta(days=92)
        time += timedelta(days=1)
    assert epoch_end("2026Q4") == datetime(2027, 1, 1, tzinfo=UTC)


async def test_each_class_has_its_day(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept(
            [
                at(clock, access(ALICE), 1),
                at(clock, received(subjects=[{"id": BOB}]), 2),
                at(clock, access(BOB), 3),
                at(clock, access(), 4),
            ]
        )
        entries = [records.log.reader.entry(index, 8) for index in range(8)]
        alice = records.vault.find_subject(ALICE)
        assert alice is not None
        clock.now = datetime(2022, 1, 15, 12, tzinfo=UTC)  # 24 months, and not a moment more
        assert await passed(records) == 0
        assert records.log.sequencer.edge.size == 8
        assert values(records, 4)[1] == {"id": ALICE}
        clock.now += timedelta(microseconds=1)
        assert await passed(records) == 3
        gone = Part(expiry=8)
        assert [len(records.read(index).parts) for index in (4, 6, 7)] == [2, 2, 1]
        assert {part for index in (4, 6, 7) for part in records.read(index).parts} == {gone}
        assert values(records, 5)[1] == {"id": BOB}
        claims = records.read(8).payload
        assert claims["type"] == "retention.expired"
        assert (claims["expired_class"], claims["count"]) == ("access", 3)
        assert claims["cutoff"] == "2020-01-15T12:00:00.000001Z"
        # Her key opened nothing else: it is gone, and no erasure; his still opens the request.
        assert records.vault.find_subject(ALICE) is None
        assert records.vault.store.get("keys", alice.key_id) is None
        assert records.vault.find_subject(BOB) is not None
        assert erased_at(records.vault, ALICE) is None
        assert await passed(records) == 0
        assert records.log.sequencer.edge.size == 9
        clock.now = datetime(2025, 3, 15, 12, tzinfo=UTC)  # 62 months
        assert await passed(records) == 0
        clock.now += timedelta(microseconds=1)
        assert await passed(records) == 1
        assert records.read(5).parts == [Part(expiry=9)] * 2
        assert [records.log.reader.entry(index, 10) for index in range(8)] == entries
        assert records.counters.expired == 4
    async with opened(tmp_path, clock=clock) as records:
        assert records.read(4).parts == [gone] * 2
        assert await passed(records) == 0
        assert types(records, 8) == ["retention.expired", "retention.expired"]
        # He comes back: another key.
        await records.accept([at(clock, access(BOB), 5)])
        assert values(records, 10)[1] == {"id": BOB}


async def test_requests_have_a_floor_of_24_months_whatever_a_tenant_sets(tmp_path: Path) -> None:
    own = "version = 1\n[retention]\nrequests = { months = 24 }\naccess = { months = 1 }\n"
    clock = Clock()
    async with governed(tmp_path, clock=clock, catalogue=CATALOGUE.extended(own)) as records:
        await records.accept([at(clock, received(), 1), at(clock, access(ALICE), 2)])
        clock.now = datetime(2022, 1, 15, 12, tzinfo=UTC)
        assert await passed(records) == 1
        assert values(records, 4)[1]["id"] == ALICE
        clock.now += timedelta(days=1)
        assert await passed(records) == 1
        assert records.read(4).parts == [Part(expiry=7)] * 2


# Of the tenant's own: whatever is said of somebody in its operations is kept as long as the log.
ENDLESS = CATALOGUE.extended("version = 1\n[retention]\noperations = {}\n")


async def test_who_asks_to_be_kept_longer_is(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock, catalogue=ENDLESS) as records:
        for seq, name in enumerate(("consent", "operations"), 1):
            public = {"purpose": "x", "retention_class": name}
            await records.accept([at(clock, access(ALICE, public=public), seq)])
        clock.now = datetime(2024, 1, 1, tzinfo=UTC)
        assert await passed(records) == 0
        clock.now = datetime(2026, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        assert records.read(4).parts == [Part(expiry=6)] * 2
        assert values(records, 5)[1] == {"id": ALICE}


async def test_what_expired_is_in_no_file(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        people = [ALICE, *(f"{i}@example.com" for i in range(30))]
        await records.accept([at(clock, access(each), i) for i, each in enumerate(people, 1)])
        store = records.vault.store
        for family in store._families.values():
            family.flush(True)
        await records.accept([at(clock, received(), 32)])
        secrets = [each for index in range(4, 35) for each in sealed(records, index)]
        for each in people[1:]:
            key = records.vault.find_subject(each)
            assert key is not None
            row = store.get("keys", key.key_id)
            assert row is not None
            # A table leaves out what a key has in common with the one before it.
            secrets += [row[13:], records.vault.lookup(each)[4:]]
        before = every_byte(tmp_path)
        assert len(secrets) == 122
        assert all(secret in before for secret in secrets)
        clock.now = START + timedelta(days=800)
        assert await passed(records) == 31
        after = every_byte(tmp_path)
        assert not any(secret in after for secret in secrets)
        assert values(records, 35)[1] == {"id": ALICE, "name": "Alice"}
    closed = every_byte(tmp_path)
    assert not any(secret in closed for secret in secrets)


async def test_what_is_held_stays_until_it_is_released(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept(
            [
                at(clock, access(ALICE), 1),
                at(clock, access(ALICE, BOB), 2),
                at(clock, access(BOB), 3),
                at(clock, access("carol", public={"purpose": "x", "request_id": "R-7"}), 4),
                at(clock, access("dave"), 5),
            ]
        )
        clock.now = datetime(2022, 6, 1, tzinfo=UTC)
        await submit(records, order(Kind.PLACE, now=clock.now).encode())
        on_request = order(Kind.PLACE, hold_id="H-2", request_id="R-7", now=clock.now)
        await submit(records, on_request.encode())
        assert await passed(records) == 2
        assert values(records, 4)[1] == {"id": ALICE}
        assert values(records, 5)[1:] == [{"id": ALICE}, {"id": BOB}]
        assert records.read(6).parts == [Part(expiry=11)] * 2
        assert values(records, 7)[1] == {"id": "carol"}
        assert records.read(8).parts == [Part(expiry=11)] * 2
        assert records.vault.find_subject(BOB) is not None
        assert await passed(records) == 0
        await submit(records, order(Kind.RELEASE, hold_id="H-2", now=clock.now).encode())
        assert await passed(records) == 1
        assert records.read(7).parts[1].expiry == 13
        assert await passed(records) == 0
    async with opened(tmp_path, clock=clock) as records:
        assert await passed(records) == 0
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        assert await passed(records) == 2
        assert {part.expiry for part in records.read(5).parts} == {15}
        assert records.vault.find_subject(BOB) is None
        # Her hold is a record about her too, of a longer class: her key opens it yet.
        assert records.vault.find_subject(ALICE) is not None
        clock.now = datetime(2030, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        assert records.vault.find_subject(ALICE) is None


async def test_what_was_erased_stays_erased(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE, BOB), 1), at(clock, access(ALICE), 2)])
        await submit(records, order(now=clock.now).encode())
        clock.now = datetime(2023, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        erased = Part(erasure=Erasure(6, "R-1"))
        assert records.read(4).parts == [erased, erased, Part(expiry=7)]
        assert records.read(5).parts == [erased, erased]
        assert records.vault.find_subject(BOB) is None  # also what they shared is past its time
        assert erased_at(records.vault, ALICE) == 6


@pytest.mark.parametrize("catalogue", [CATALOGUE, ENDLESS])
async def test_token_keys_go_when_no_record_needs_them(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock, catalogue=catalogue) as records:
        await records.accept([at(clock, received(), 1)])  # 2020Q1
        await submit(records, order(now=clock.now).encode())
        clock.now = datetime(2020, 5, 1, tzinfo=UTC)
        await records.accept([at(clock, received(subjects=[{"id": BOB}]), 2)])
        await records.record(
            Draft("subject.enrolled", {}, {}, [{"id": BOB}], occurred_at=clock.now)
        )  # which the endless catalogue keeps as long as the log
        clock.now = datetime(2020, 8, 1, tzinfo=UTC)
        await records.accept([at(clock, received(subjects=[{"id": "carol"}]), 3)])
        hold = order(Kind.PLACE, subject="carol", now=clock.now).encode()
        await submit(records, hold)
        assert erased_at(records.vault, ALICE) == 5
        store = records.vault.store
        secret = store.get("epochs", b"2020Q1")
        assert secret is not None
        clock.now = datetime(2025, 5, 31, tzinfo=UTC)  # 62 months after the quarter's end
        await passed(records)
        assert records.vault.find_epoch("2020Q1") is not None
        clock.now = datetime(2025, 6, 1, tzinfo=UTC)
        assert secret[12:] in every_byte(tmp_path)
        await passed(records)
        assert records.vault.find_epoch("2020Q1") is None
        assert secret[12:] not in every_byte(tmp_path)
        claims = records.read(records.log.sequencer.edge.size - 1).payload
        assert (claims["type"], claims["expired_epoch"]) == ("retention.expired", "2020Q1")
        assert erased_at(records.vault, ALICE) is None
        assert not list(store.items("state", b"erased/"))
        clock.now = datetime(2026, 1, 1, tzinfo=UTC)
        await passed(records)
        kept = [b"2020Q2"] if catalogue is ENDLESS else []
        kept += [b"2020Q3", b"2025Q2"]
        assert [name for name, _ in store.items("epochs")][: len(kept)] == kept
        size = records.log.sequencer.edge.size
        await passed(records)
        assert records.log.sequencer.edge.size == size
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        await passed(records)
        # The release itself is new; only what is never past its time keeps its epoch.
        assert b"2020Q3" not in dict(store.items("epochs"))
        assert (b"2020Q2" in dict(store.items("epochs"))) is (catalogue is ENDLESS)


async def test_it_runs_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        async with expiring(records, interval=0.01, leap=timedelta(days=9999)):
            await asyncio.sleep(0.05)
            assert values(records, 4)[1] == {"id": ALICE}
            clock.now = datetime(2023, 1, 1, tzinfo=UTC)
            await until(lambda: records.read(4).parts == [Part(expiry=5)] * 2)
            # A disk that fails stops it for a while only.
            await records.accept([at(clock, access(ALICE), 2)])
            store: Any = records.vault.store
            real, failed = store.begin_shred, []

            def full(*args: Any) -> None:
                failed.append(args)
                store.begin_shred = real
                store._unusable = "a write failed"
                raise StoreFull("no room")

            store.begin_shred = full
            clock.now = datetime(2026, 1, 1, tzinfo=UTC)
            await until(lambda: bool(failed) and records.read(6).parts == [Part(expiry=7)] * 2)
        clock.now = datetime(2030, 1, 1, tzinfo=UTC)
        await records.accept([at(clock, access(ALICE), 3)])
        clock.now = datetime(2036, 1, 1, tzinfo=UTC)
        await asyncio.sleep(0.05)
        assert values(records, 8)[1] == {"id": ALICE}


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_that_the_time_of_copies_is_over_is_recorded_once(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1), at(clock, access(BOB), 2)])
        receipt = await submit(records, order(now=clock.now).encode())
        key_id = receipt.claims["key_id"]
        clock.now += timedelta(days=20)
        await submit(records, order(subject=BOB, request_id="R-2", now=clock.now).encode())
        assert receipt.complete_by is not None
        clock.now = receipt.complete_by - timedelta(microseconds=1)
        assert await passed(records) == 0
        assert records.log.sequencer.edge.size == 8
    # It waits in the snapshot, and counts from what the log says.
    async with opened(tmp_path, clock=clock) as records:
        assert await passed(records) == 0
        clock.now = receipt.complete_by
        await asyncio.gather(passed(records), passed(records))
        assert types(records, 8) == ["subject.key_backup_expired"]
        claims = records.read(8).payload
        said = {name: claims[name] for name in ("key_id", "request_id", "about_index")}
        assert said == {"key_id": key_id, "request_id": "R-1", "about_index": 6}
        assert claims["producer_id"] == records.service
        assert values(records, 8) == [{}]
        assert not parse_leaf(records.log.reader.entry(8, 9)).tokens
        assert list(await find_all(records, Query(request_id="R-1"))) == [6, 8]
        await passed(records)
        assert records.log.sequencer.edge.size == 9
    # Other settings, and all of the log anew: what was recorded is not again, what was not is.
    for days, size in ((60, 9), (10, 10), (0, 10), (30, 10)):
        async with opened(tmp_path, clock=clock, limits=Limits(backup_days=days)) as records:
            records.vault.store.write([("state", b"snapshot", None)])
            records._state = None
            await passed(records)
            assert records.log.sequencer.edge.size == size
    async with opened(tmp_path, clock=clock) as records:
        assert records.read(9).payload["about_index"] == 7
        clock.now += timedelta(days=90)
        await passed(records)
        assert records.log.sequencer.edge.size == 10


def test_a_snapshot_of_before_copies_were_awaited_loads() -> None:
    made = {"holds": {"H-1": [4, "R-1", ""]}, "keys": {}, "expiries": [], "erasures": []}
    loaded = Obligations.of(made)
    assert loaded.awaiting == {}
    assert loaded.made() == made | {"holds": {"H-1": [4, "R-1", "", None]}, "awaiting": []}
