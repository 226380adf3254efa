"""Retention while the log's own clock is wrong: nothing goes early, and nothing stays for long."""

from __future__ import annotations

import asyncio
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.audit.approvers import governed, order
from tests.audit.producer import ALICE, CATALOGUE, access, signed
from tests.audit.tenant import indices, opened, types, values
from tests.audit.test_expiry import BOB, ENDLESS, START, Clock, at, passed, until
from tlog.audit import Draft, expiry
from tlog.audit.erasing import submit
from tlog.audit.expiry import expire, expiring, months_before
from tlog.audit.looks import look
from tlog.audit.orders import Kind
from tlog.audit.records import Records
from tlog.audit.retained import fingerprint
from tlog.audit.search import Query, find_all
from tlog.audit.vault import Part

MONTHLY = CATALOGUE.extended("version = 1\n[retention]\naccess = { months = 1 }\n")


async def come_in(records: Records, clock: Clock, then: datetime, seq: int, *made: Draft) -> None:
    """Records that come in when the clock says so."""
    now, clock.now = clock.now, then
    indices(await records.accept([at(clock, each, n) for n, each in enumerate(made, seq)]))
    clock.now = now


@pytest.mark.parametrize(
    ("wrong", "first"),
    [(datetime(2021, 1, 1, tzinfo=UTC), True), (datetime(2020, 2, 1, tzinfo=UTC), False)],
)
async def test_a_clock_that_was_wrong_for_long_costs_no_token_key(
    tmp_path: Path, wrong: datetime, first: bool
) -> None:
    clock = Clock()

    async def many(records: Records) -> None:
        for seq in range(1, 4201, 200):
            made = [access(personal={})] * 200
            await come_in(records, clock, wrong, seq, *made)

    async with governed(tmp_path, clock=clock, catalogue=ENDLESS) as records:
        clock.now = datetime(2020, 5, 1, tzinfo=UTC)
        if first:
            await many(records)
        # Which is kept as long as the log; before it, or behind, is much that another clock dates.
        kept = Draft("subject.enrolled", {}, {}, [{"id": BOB}], occurred_at=clock.now)
        await records.record(kept)
        if not first:
            await many(records)
        assert b"2020Q2" in dict(records.vault.store.items("epochs"))
        clock.now = datetime(2026, 1, 1, tzinfo=UTC)
        await passed(records)
        assert b"2020Q2" in dict(records.vault.store.items("epochs"))
        assert b"2020Q1" not in dict(records.vault.store.items("epochs"))


async def test_a_clock_that_is_set_far_ahead_destroys_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        async with expiring(records, interval=600):
            await until(lambda: records.vault.store.get("state", b"expiry/looked"))
        clock.now = datetime(2100, 1, 1, tzinfo=UTC)
        with capture_logs() as logs:
            for _ in range(3):  # a restart in between helps as little
                async with expiring(records, interval=0.001):
                    await asyncio.sleep(0.05)
        assert {(each["log_level"], each["days"] > 29_000) for each in logs} == {("critical", True)}
        assert values(records, 4)[1] == {"id": ALICE}
        # One that came in meanwhile is of the future, and holds up nothing.
        await records.accept([signed(access(BOB), 2)])
        clock.now = START + timedelta(days=1)
        await records.accept([at(clock, access("carol"), 3)])
        clock.now = datetime(2023, 1, 1, tzinfo=UTC)
        assert await passed(records) == 2
        assert values(records, 5)[1] == {"id": BOB}
        index = records.log.sequencer.edge.size - 2
        assert records.read(index).parts == [Part(expiry=index + 1)] * 2


@pytest.mark.parametrize("first_look", [datetime(2023, 1, 1, tzinfo=UTC), None])
async def test_what_came_in_while_the_clock_was_ahead_goes_when_its_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_look: datetime | None
) -> None:
    monkeypatch.setattr(expiry, "SCAN", 2)
    clock, day = Clock(), timedelta(days=1)
    async with governed(tmp_path, clock=clock) as records:
        await come_in(records, clock, START, 1, access("carol"))
        await come_in(records, clock, datetime(2030, 2, 1, tzinfo=UTC), 2, access(BOB))
        await come_in(records, clock, datetime(2030, 1, 1, tzinfo=UTC), 3, access(ALICE))
        for seq in range(4, 8):
            await come_in(records, clock, START + seq * day, seq, access("carol"))
        await come_in(records, clock, datetime(2029, 6, 1, tzinfo=UTC), 8, access("dave"))
        clock.now = first_look or clock.now
        assert await passed(records) == (5 if first_look else 0)
        clock.now = datetime(2031, 6, 2, tzinfo=UTC)  # both have been, and are not past their time
        assert await passed(records) == (1 if first_look else 6)
    async with opened(tmp_path, clock=clock) as records:
        assert [values(records, index)[1] for index in (5, 6)] == [{"id": BOB}, {"id": ALICE}]
        for due, index in (
            (datetime(2032, 1, 1, tzinfo=UTC), 6),
            (datetime(2032, 2, 1, tzinfo=UTC), 5),
        ):
            clock.now = due
            assert await passed(records) == 0
            assert all(part.disclosures for part in records.read(index).parts[1:])
            clock.now += timedelta(microseconds=1)
            assert await passed(records) == 1
            assert all(part.expiry for part in records.read(index).parts)
        size = records.log.sequencer.edge.size
        assert await passed(records) == 0
        assert records.log.sequencer.edge.size == size
        assert records.vault.find_subject(ALICE) is None


async def test_what_came_in_while_the_clock_was_ahead_holds_up_nothing(tmp_path: Path) -> None:
    clock, day = Clock(), timedelta(days=1)
    async with governed(tmp_path, clock=clock) as records:
        await come_in(records, clock, START + 600 * day, 1, access(ALICE), access(BOB))
        for seq in range(3, 7):
            await come_in(records, clock, START + seq * day, seq, access("carol"))
        clock.now = datetime(2022, 1, 15, 12, tzinfo=UTC) + 3 * day
        assert await passed(records) == 0
        for _ in range(4):
            clock.now += day
            assert await passed(records) == 1
        clock.now = months_before(START + 600 * day, -24)
        assert await passed(records) == 0
        clock.now += day
        assert await passed(records) == 2


async def test_a_hold_keeps_what_came_in_while_the_clock_was_ahead(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await come_in(records, clock, datetime(2030, 1, 1, tzinfo=UTC), 1, access(ALICE))
        await come_in(records, clock, START, 2, access(BOB))
        clock.now = datetime(2023, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        clock.now = datetime(2032, 1, 1, tzinfo=UTC)
        await submit(records, order(Kind.PLACE, now=clock.now).encode())
        for _ in range(2):
            clock.now += timedelta(days=1)
            assert await passed(records) == 0
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        assert await passed(records) == 1


async def test_a_look_of_before_is_forgotten_if_it_does_not_say_what_it_passed_over(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        clock.now = datetime(2023, 1, 1, tzinfo=UTC)
        store, rules = records.vault.store, fingerprint(records.catalogue)
        row = b'{"kept":4,"next":5}'
        store.write([("state", b"expiry/catalogue", rules), ("state", b"expiry/class/access", row)])
        assert await passed(records) == 1


async def looked(records: Records) -> int:
    """A look with the clock of the test, and what goes by it."""
    return await expire(records, now=await look(records), pace=0)


async def test_after_a_time_without_looks_the_clock_is_believed_once_it_went_on_for_as_long(
    tmp_path: Path,
) -> None:
    clock, hour = Clock(), timedelta(hours=1)
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        clock.now = START + timedelta(days=725)
        await looked(records)
    clock.now += timedelta(days=20)
    first = clock.now
    with capture_logs() as logs:
        async with opened(tmp_path, clock=clock) as records:
            while not await looked(records):
                clock.now += hour
    assert {each["log_level"] for each in logs} == {"warning"}
    async with opened(tmp_path, clock=clock) as records:
        gone = months_before(START, -24) + timedelta(days=20)  # which nobody knows to have passed
        assert gone < clock.now <= gone + hour
        while clock.now < first + timedelta(days=20):
            clock.now += hour
            await looked(records)
        assert await look(records) == clock.now


OWN = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}


async def own_record(records: Records, who: str) -> int:
    """A request that is recorded at a time at which no key of a producer is valid yet."""
    (index,) = indices([await records.record(Draft("request.received", OWN, {}, [{"id": who}]))])
    return index


@pytest.mark.parametrize("before", range(1, 5))
async def test_what_came_in_while_the_clock_was_behind_is_kept_as_long_as_others(
    tmp_path: Path, before: int
) -> None:
    """Wherever it stands: what is past its time is looked for further and further away."""
    clock, hour = Clock(), timedelta(hours=1)
    async with governed(tmp_path, clock=clock) as records:
        for _ in range(before):
            await own_record(records, BOB)
        await looked(records)
        clock.now = datetime(2000, 1, 1, 0, 5, tzinfo=UTC)
        index = await own_record(records, ALICE)
        if before == 2:
            await looked(records)
        clock.now = START + hour
        await own_record(records, BOB)
        size = records.log.sequencer.edge.size
        for _ in range(3):
            assert await looked(records) == 0
            clock.now += hour
    async with opened(tmp_path, clock=clock) as records:
        clock.now = months_before(START, -62)
        assert await passed(records) == 0
        assert values(records, index)[1] == {"id": ALICE}
        # The tokens of the epoch that it seemed to be in find it until then.
        assert list(await find_all(records, Query(subject=ALICE))) == [index]
        assert records.log.sequencer.edge.size == size
        clock.now += timedelta(microseconds=1)
        assert await passed(records) == before + 1
        assert records.read(index).parts[1].expiry == size
        clock.now = months_before(START, -66)
        await passed(records)
        assert b"2000Q1" not in dict(records.vault.store.items("epochs"))


async def test_in_a_copy_of_the_vault_it_is_kept_too(tmp_path: Path) -> None:
    """An expiry whose deed is done again takes what is past its time before, and not this."""
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        old = await own_record(records, BOB)
        clock.now = months_before(START, -61)
        await looked(records)
        clock.now = datetime(2000, 1, 1, tzinfo=UTC)
        index = await own_record(records, ALICE)
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    clock.now = months_before(START, -62) + timedelta(days=1)
    async with opened(tmp_path, clock=clock) as records:
        assert await passed(records) == 1
        assert int(str(records.read(index + 1).payload["until_index"])) > index
    shutil.rmtree(tmp_path / "vault")
    shutil.move(tmp_path / "copy", tmp_path / "vault")
    async with opened(tmp_path, clock=clock) as records:
        assert values(records, old)[1] == {}
        assert values(records, index)[1] == {"id": ALICE}


async def test_copies_of_a_key_that_was_destroyed_while_the_clock_was_behind_are_awaited(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        ordered = order(now=clock.now).encode()
        clock.now += timedelta(days=3)
        await look(records)
        right, clock.now = clock.now, START
        await submit(records, ordered)
        size = records.log.sequencer.edge.size
        clock.now = right + timedelta(days=30) - timedelta(microseconds=1)
        await passed(records)
        assert records.log.sequencer.edge.size == size
        clock.now = right + timedelta(days=30)
        await passed(records)
        assert types(records, size) == ["subject.key_backup_expired"]


async def test_one_look_with_a_clock_that_is_wrong_changes_nothing_for_the_next(
    tmp_path: Path,
) -> None:
    clock, hour = Clock(), timedelta(hours=1)
    async with governed(tmp_path, clock=clock) as records:
        await look(records)
        for year in (2000, 2100, 1970, 2100):
            then, clock.now = clock.now, datetime(year, 1, 1, tzinfo=UTC)
            assert await look(records) <= then
            clock.now = then + hour
            assert await look(records) == clock.now


@pytest.mark.parametrize("year", [2000, 2100])
async def test_a_first_look_with_a_clock_that_was_wrong_holds_up_retention_for_a_month(
    tmp_path: Path, year: int
) -> None:
    clock, day = Clock(), timedelta(days=1)
    async with governed(tmp_path, clock=clock, catalogue=MONTHLY) as records:
        clock.now = datetime(year, 1, 1, tzinfo=UTC)
        await look(records)
        clock.now = START
        await records.accept([at(clock, access(ALICE), 1)])
        with capture_logs() as logs:
            for _ in range(33):
                assert await looked(records) == 0 or clock.now > START + 31 * day
                clock.now += day
        assert {each["log_level"] for each in logs} == {"critical"}
        assert len(logs) in (30, 31)
        assert records.read(4).parts == [Part(expiry=5)] * 2
        assert await look(records) == clock.now


async def test_a_look_of_before_there_were_marks_guards_too(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        records.vault.store.write([("state", b"expiry/looked", b"2020-01-15T12:00:00.000000Z")])
        clock.now = datetime(2100, 1, 1, tzinfo=UTC)
        assert await look(records) == START
        clock.now = datetime(2022, 1, 16, tzinfo=UTC)
        assert await passed(records) == 1  # and counts for nothing from a mark


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_clock_does(tmp_path: Path, seed: int) -> None:
    """Against the true time: nothing goes earlier than two looks before it may, or days later."""
    rand, clock, day = random.Random(seed), Clock(), timedelta(days=1)
    true, off, left = START, timedelta(0), 0
    came: dict[int, tuple[datetime, bool]] = {}
    gone = behind = 0
    async with governed(tmp_path, clock=clock, catalogue=MONTHLY) as records:
        await looked(records)
        for _ in range(320):
            true += timedelta(hours=rand.randrange(1, 12))
            left -= 1
            if left < -1 and not rand.randrange(12):
                off, left = rand.choice([-9000, 9000, -400, 60, -20, 9, -3]) * day, 5
            elif left <= 0:
                off = timedelta(0)
            clock.now = true + off
            if not rand.randrange(3):
                made = await records.record(access(f"{len(came)}@example.com"))
                came[indices([made])[0]] = true, off > timedelta(0)
                behind += off < timedelta(0)
            await looked(records)
            for index, (then, ahead) in list(came.items()):
                if not records.read(index).parts[1].disclosures:
                    assert then - day < months_before(true, 1)
                    del came[index]
                    gone += 1
                elif off == timedelta(0) and left < -8 and not ahead:
                    assert then >= months_before(true - 3 * day, 1)
    assert gone > 30
    assert behind > 3
