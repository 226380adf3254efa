"""What waits for a round: begun and read ahead, decided on in its own round alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.audit.producer import CATALOGUE, TENANT, access, signed
from tests.audit.tenant import LOG, TILL, indices, opened, tenant, types, values
from tests.audit.test_verifying import said, spoiled
from tlog.audit import Draft, EventRefused, intake, sign_event
from tlog.audit.intake import Recorded
from tlog.audit.records import Records
from tlog.audit.round import Placed, Round, Seen
from tlog.audit.verifying import CHUNK, Checks, Verifiers
from tlog.log import Unavailable
from tlog.store import StoreFull

COUNT = 2 * CHUNK + 9


@pytest.fixture(scope="module")
def verifiers() -> Iterator[Verifiers]:
    with Verifiers(1) as verifiers:
        yield verifiers


def one_round_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.audit.records.ROUND_EVENTS", COUNT)


def read_ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries the log had whenever something was read ahead."""
    seen: list[int] = []
    read = intake.Intake.read_ahead

    async def counts(self: intake.Intake, this: Round) -> bool:
        if more := await read(self, this):
            seen.append(this.state.size)
        return more

    monkeypatch.setattr(intake.Intake, "read_ahead", counts)
    return seen


def slow_sync(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = records.vault.store.sync

    def slow() -> None:
        time.sleep(0.3)
        sync()

    monkeypatch.setattr(records.vault.store, "sync", slow)


async def test_what_is_read_ahead_is_recorded_as_ever(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one call after the other, in one process, in which nothing is ahead."""
    one_round_each(monkeypatch)
    dice, seen = random.Random(11), read_ahead(monkeypatch)
    good = [signed(access(f"user{seq % 7}@example.com"), seq) for seq in range(1, 3 * COUNT)]
    # Wrong ones, some that come twice in one batch, and some that come again in the next.
    events = [spoiled(e) if dice.random() < 0.1 else dice.choice([e, good[0], e]) for e in good]
    batches = [events[at : at + COUNT] for at in range(0, len(events), COUNT)]
    async with tenant(tmp_path / "ahead", verifiers=verifiers) as records:
        await records.accept(good[:20])  # the process is up
        slow_sync(records, monkeypatch)
        answers = await asyncio.gather(*[records.accept(batch) for batch in batches])
        assert seen, "nothing was read ahead"
        found = types(records)
    async with tenant(tmp_path / "after") as records:
        await records.accept(good[:20])
        expected = [await records.accept(batch) for batch in batches]
        assert found == types(records)
    for ahead, after in zip(answers, expected, strict=True):
        assert said(ahead) == said(after)
        recorded = [(a, b) for a, b in zip(ahead, after, strict=True) if isinstance(a, Recorded)]
        assert all(a == b for a, b in recorded)


async def test_a_key_revoked_in_the_round_before(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_round_each(monkeypatch)
    seen = read_ahead(monkeypatch)
    claims = {"about_producer": "till", "old_vkey": str(TILL.vkey), "reason": "stolen"}
    revoked = sign_event(
        Draft("producer.key_revoked", claims, {}), LOG, tenant=TENANT, seq=3, catalogue=CATALOGUE
    )
    first = [*(signed(access(), seq) for seq in range(1, COUNT)), revoked]
    second = [signed(access(), seq, TILL) for seq in range(1, COUNT + 1)]
    async with tenant(tmp_path, verifiers=verifiers) as records:
        slow_sync(records, monkeypatch)
        recorded, late = await asyncio.gather(records.accept(first), records.accept(second))
        assert seen, "nothing was read ahead"
        assert said(recorded) == ["recorded"] * COUNT
        assert said(late) == ["jws.header.kid"] * COUNT
        assert "revoked" in str(late[0])


@pytest.mark.parametrize("shared", [False, True], ids=["two calls", "one call, cut in two"])
async def test_what_is_ahead_of_a_round_that_fails_is_refused_with_it(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    one_round_each(monkeypatch)
    events = [signed(access(), seq) for seq in range(1, 2 * COUNT + 1)]
    calls = [events] if shared else [events[:COUNT], events[COUNT:]]
    async with tenant(tmp_path, verifiers=verifiers) as records:
        store, real = records.vault.store, records.vault.store.sync

        def full() -> None:
            monkeypatch.setattr(store, "sync", real)
            time.sleep(0.2)
            store._unusable = "a sync failed"
            raise StoreFull("no room")

        monkeypatch.setattr(store, "sync", full)
        answers = await asyncio.gather(*map(records.accept, calls), return_exceptions=True)
        assert all(isinstance(a, Unavailable) and "no room" in str(a) for a in answers)
        assert not records._intake
        assert records._intake._pending == records._intake._pending_bytes == 0
        # Sent again, each is recorded, once.
        again = [i for call in calls for i in indices(await records.accept(call))]
        assert again == list(range(2, 2 * COUNT + 2))
    async with opened(tmp_path) as records:
        assert types(records, 2) == ["access.read"] * 2 * COUNT


async def test_long_events_make_short_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [signed(access(), seq) for seq in range(1, 21)]
    monkeypatch.setattr(intake, "BATCH_BYTES", 3 * max(map(len, events)) + 1)
    lengths: list[int] = []
    take = intake.Intake.take

    def counts(self: intake.Intake) -> intake.Batch:
        batch = take(self)
        lengths.append(sum(len(events) for _, events in batch.slices))
        return batch

    async with tenant(tmp_path) as records:
        monkeypatch.setattr(intake.Intake, "take", counts)
        calls = [records.accept(events[:11]), records.accept(events[11:])]
        answers = await asyncio.gather(*calls)
    assert [i for each in answers for i in indices(each)] == list(range(2, 22))
    assert lengths == [4, 4, 4, 4, 4]


async def test_whatever_happens_ahead_the_log_is_waited_for(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts whose leaves it does not have yet would be taken for orphans."""
    one_round_each(monkeypatch)
    events = [signed(access("user@example.com"), seq) for seq in range(1, 2 * COUNT + 1)]
    async with tenant(tmp_path, verifiers=verifiers) as records:
        sync = records.log.sequencer._store.sync

        def slow() -> None:
            time.sleep(0.5)
            sync()

        async def fails(_intake: intake.Intake, _this: Round) -> bool:
            if records.log.sequencer.pending:
                raise MemoryError
            return False

        with monkeypatch.context() as patched:
            patched.setattr(records.log.sequencer._store, "sync", slow)
            patched.setattr(intake.Intake, "read_ahead", fails)
            with pytest.raises(Unavailable):
                await records.accept(events[:COUNT])
        outcomes = await records.accept(events)
        assert [o.duplicate for o in outcomes if isinstance(o, Recorded)] == [
            *[True] * COUNT, *[False] * COUNT,
        ]  # fmt: skip
        for index in range(2, 2 * COUNT + 2):
            assert values(records, index)[1] == {"id": "user@example.com"}


async def test_what_fails_ahead_loses_no_event(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each answer of the batch would be that of the event before."""
    waiting = intake.Intake(COUNT)
    async with tenant(tmp_path) as records, records.alone() as state:
        this = records._round(state)
        waiting.add([signed(access(), seq) for seq in range(1, COUNT + 1)])
        batch = waiting.take()
        batch.begin(this, verifiers)
        while not await batch.read_ahead(this):
            await asyncio.sleep(0.01)

        async def fails(_checks: Checks, _position: int) -> bool:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(Checks, "right", fails)
            with pytest.raises(MemoryError):
                await batch.read_ahead(this)
        assert len([event async for event in batch.events(this)]) == COUNT


async def test_a_process_that_is_busy_is_not_waited_for_alone(
    tmp_path: Path, verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits verifies what no process has begun, and finds the same."""
    taken: list[bool] = []
    take_last = Checks._take_last

    async def counts(self: Checks, first: int) -> bool:
        taken.append(await take_last(self, first))
        return taken[-1]

    monkeypatch.setattr(Checks, "_take_last", counts)
    count = 8 * CHUNK
    bad = {0, CHUNK, 5 * CHUNK + 1, count - 1}
    events = [signed(access(), seq) for seq in range(1, count + 1)]
    events = [spoiled(event) if i in bad else event for i, event in enumerate(events)]
    async with tenant(tmp_path, verifiers=verifiers) as records:
        busy = asyncio.ensure_future(verifiers.run(partial(time.sleep, 1.0)))
        outcomes = await records.accept(events)
        await busy
    assert {i for i, what in enumerate(said(outcomes)) if what != "recorded"} == bad
    # All but what the process had been given already, and each once.
    assert 5 <= taken.count(True) <= 8


async def test_what_was_seen_of_another_event_is_not_believed(tmp_path: Path) -> None:
    good = signed(access(), 1)
    async with tenant(tmp_path) as records, records.alone() as state:
        this = records._round(state)
        right, wrong = this.parse(good), this.parse(spoiled(good))
        claim = this.claim(right)
        assert isinstance(right, tuple)
        assert claim is not None
        seen = Seen(claim, this.read(*right))
        this.take(wrong, seen)
        this.take(right, seen)
    refused, placed = this.outcomes
    assert isinstance(refused, EventRefused)
    assert refused.field == "jws.signature"
    assert placed == Placed(0)
