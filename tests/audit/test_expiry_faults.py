"""Retention, whatever happens: in whatever order, from old copies, after failures and kill -9."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import every_byte, governed, order
from tests.audit.dying import Dying, killed
from tests.audit.producer import ALICE, access, merged, received
from tests.audit.tenant import indices, opened, types, values
from tests.audit.test_expiry import Clock, at, passed, sealed
from tlog.audit import expiry
from tlog.audit.erasing import submit
from tlog.audit.expiry import expire, months_before
from tlog.audit.obligations import Obligations
from tlog.audit.orders import Kind
from tlog.audit.records import Records
from tlog.audit.round import Round
from tlog.audit.vault import Part
from tlog.store import StoreFull
from tlog.store.sealed import SealedStore


async def test_an_old_copy_of_the_vault_expires_again(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    async with opened(tmp_path, clock=clock) as records:
        clock.now = datetime(2023, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
    shutil.rmtree(tmp_path / "vault")
    shutil.move(tmp_path / "copy", tmp_path / "vault")
    async with opened(tmp_path, clock=clock) as records:
        assert records.read(4).parts == [Part(expiry=5)] * 2
        assert records.vault.find_subject(ALICE) is None
        assert await passed(records) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_in_whatever_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Against a model: a record reads until it is past its time and not held, or erased."""
    monkeypatch.setattr(expiry, "SCAN", 7)
    rand, clock, seq = random.Random(seed), Clock(), 0
    people = [f"{name}@example.com" for name in "abcd"]
    known: dict[int, tuple[datetime, int, frozenset[str]]] = {}
    lost: set[tuple[int, str]] = set()
    held: dict[str, str] = {}
    merges: dict[int, frozenset[str]] = {}
    async with governed(tmp_path, clock=clock) as records:
        for _ in range(40):
            clock.now += timedelta(days=rand.randrange(1, 90))
            match rand.randrange(9):
                case 0 | 1 | 2 | 3:
                    about = frozenset(rand.sample(people, rand.randrange(1, 3)))
                    months = rand.choice([24, 62])
                    subjects = [{"id": each} for each in sorted(about)]
                    made = (
                        access(subjects=subjects) if months == 24 else received(subjects=subjects)
                    )
                    seq += 1
                    (index,) = indices(await records.accept([at(clock, made, seq)]))
                    known[index] = (clock.now, months, about)
                case 4:
                    name, who = f"H-{seq}-{len(held)}", rand.choice(people)
                    if name not in held:
                        placed = order(Kind.PLACE, hold_id=name, subject=who, now=clock.now)
                        await submit(records, placed.encode())
                        held[name] = who
                case 5 if held:
                    name = rand.choice(sorted(held))
                    released = order(Kind.RELEASE, hold_id=name, now=clock.now)
                    await submit(records, released.encode())
                    del held[name]
                case 6 if not held:
                    who = rand.choice(people)
                    await submit(records, order(subject=who, now=clock.now).encode())
                    lost |= {(index, who) for index, (_, _, about) in known.items() if who in about}
                case 7:  # the clock is ahead for a while
                    then, who = clock.now, rand.choice(people)
                    clock.now += timedelta(days=rand.randrange(900))
                    sent = [at(clock, access(who), seq + 1)]
                    (index,) = indices(await records.accept(sent))
                    known[index] = (clock.now, 24, frozenset({who}))
                    clock.now = then
                    (behind,) = indices(await records.accept([at(clock, access(who), seq + 2)]))
                    known[behind] = (then, 24, frozenset({who}))
                    seq += 2
                case 8:
                    about = frozenset(rand.sample(people, 2))
                    seq += 1
                    sent = [at(clock, merged(*sorted(about)), seq)]
                    (index,) = indices(await records.accept(sent))
                    known[index], merges[index] = (clock.now, 62, about), about
            keep = set(held.values())
            for _ in people:  # by way of however many
                for index, about in merges.items():
                    if about & keep and not any((index, who) in lost for who in about):
                        keep |= about
            await passed(records)
            for index, (then, months, about) in known.items():
                past = then < months_before(clock.now, months)
                there = {who for who in about if (index, who) not in lost}
                if past and not there & keep:
                    lost |= {(index, who) for who in about}
            _check(records, known, lost)
        if rand.random() < 0.5:
            records.vault.store.write([("state", b"snapshot", None)])
            records._state = None
    async with opened(tmp_path, clock=clock) as records:
        _check(records, known, lost)
        assert await passed(records) == 0


def _check(records: Records, known: Any, lost: set[tuple[int, str]]) -> None:
    for index, (_, _, about) in known.items():
        parts = values(records, index)[1:]
        assert parts == [{} if (index, who) in lost else {"id": who} for who in sorted(about)]
        for part in records.read(index).parts[1:]:
            assert bool(part.disclosures) is (part.erasure is None and part.expiry is None)


async def test_a_record_that_fails_is_made_the_next_time(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1)])
        await submit(records, order(now=clock.now).encode())
        clock.now += timedelta(days=31)
        store: Any = records.vault.store
        real = store.write

        def full(puts: Any) -> None:
            puts = list(puts)
            # The record is in the log by then.
            if any(family == "events" for family, *_ in puts):
                store.write = real
                store._unusable = "a write failed"
                raise StoreFull("no room")
            real(puts)

        store.write = full
        with pytest.raises(StoreFull):
            await passed(records)
        for _ in range(2):
            await passed(records)
        assert types(records, 6) == ["subject.key_backup_expired"]


async def _expire(directory: Path, where: str) -> None:
    """Let go what is past its time, in a process that dies of it."""
    dying = Dying(where)
    dying.around(SealedStore, "sync", after="between vault and log")
    dying.around(Round, "unmarks", before="after the log")
    dying.around(Obligations, "apply", after="before the deed")
    dying.around(SealedStore, "begin_shred", after="written over")
    dying.around(SealedStore, "compact_shredded", before="before the files", after="compacted")
    clock = Clock()
    clock.now = datetime(2023, 1, 1, tzinfo=UTC)
    async with opened(directory, clock=clock) as records:
        dying.live = True
        await expire(records, now=clock(), pace=0)


@pytest.mark.parametrize(
    ("where", "recorded"),
    [
        ("between vault and log", False),
        ("after the log", True),
        ("before the deed", True),
        ("written over", True),
        ("before the files", True),
        ("compacted", True),
    ],
)
async def test_killed(tmp_path: Path, where: str, recorded: bool) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1), at(clock, received(), 2)])
        secrets = sealed(records, 4)
    await killed(_expire, tmp_path, where)
    clock.now = datetime(2023, 1, 1, tzinfo=UTC)
    async with opened(tmp_path, clock=clock) as records:
        assert records.log.sequencer.edge.size == 6 + recorded
        assert records.read(4).parts[1].expiry == (6 if recorded else None)
        assert (values(records, 4)[1] == {}) is recorded
        assert any(each in every_byte(tmp_path / "vault") for each in secrets) is not recorded
        assert await passed(records) == (0 if recorded else 1)
        assert records.read(4).parts == [Part(expiry=6)] * 2
        assert values(records, 5)[1] == {"id": ALICE, "name": "Alice"}
        assert not any(each in every_byte(tmp_path / "vault") for each in secrets)
