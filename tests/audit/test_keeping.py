"""Legal holds: whom they keep, whatever copy of the vault is put back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.audit.approvers import governed, order
from tests.audit.producer import ALICE, access, merged, signed
from tests.audit.tenant import indices, opened
from tests.audit.test_expiry import Clock, at, passed
from tlog.audit import Draft
from tlog.audit.erasing import submit
from tlog.audit.errors import Held
from tlog.audit.keeping import UNTOLD, Keeping
from tlog.audit.obligations import Obligations
from tlog.audit.orders import Kind
from tlog.audit.overview import preview
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.vault import Erasure, gone_key
from tlog.store.sealed import Put

BOB, CAROL = "bob@example.com", "carol@example.com"
LOOK = Access(Caller("olga", "local_user"), "request R-9", "R-9")


@contextlib.contextmanager
def old_copy(directory: Path) -> Iterator[None]:
    """What is done inside, a copy of the vault from before it, which is put back, knows not."""
    shutil.copytree(directory / "vault", directory / "copy")
    yield
    shutil.rmtree(directory / "vault")
    shutil.move(directory / "copy", directory / "vault")


@contextlib.asynccontextmanager
async def put_back(
    directory: Path, clock: Clock, *, epoch_too: bool = False
) -> AsyncIterator[Records]:
    """Alice is held as of entry 7, upon which the vault is that of before the hold, of entries 4
    to 6: of Alice and Bob, of Alice, and of Carol; and of a quarter before that of the hold, too.
    """
    async with governed(directory, clock=clock) as records:
        await records.accept(
            [
                at(clock, access(ALICE, BOB), 1),
                at(clock, access(ALICE), 2),
                at(clock, access(CAROL), 3),
            ]
        )
    with old_copy(directory):
        async with opened(directory, clock=clock) as records:
            if epoch_too:
                clock.now += timedelta(days=100)
            placed = await submit(records, order(Kind.PLACE, now=clock.now).encode())
            assert placed.index == 7
    async with opened(directory, clock=clock) as records:
        yield records


async def refusal(records: Records, subject: str) -> str:
    """Why somebody is not erased; a dry run says as much."""
    size = records.log.sequencer.edge.size
    made = order(subject=subject, request_id="R-9", now=records.clock())
    with pytest.raises(Held) as caught:
        await submit(records, made.encode())
    assert records.log.sequencer.edge.size == size
    told = await preview(records, LOOK, subject)
    assert f"held by {', '.join(told.holds)}: release" in str(caught.value)
    return str(caught.value)


async def erased(records: Records, subject: str) -> bool:
    assert not (await preview(records, LOOK, subject)).holds
    made = order(subject=subject, request_id="R-9", now=records.clock())
    receipt = await submit(records, made.encode())
    return bool(receipt.claims["key_id"])


async def test_an_older_copy_knows_by_its_token_whom_a_hold_is_on(tmp_path: Path) -> None:
    clock = Clock()
    async with put_back(tmp_path, clock) as records:
        assert records.read(7).parts[1].missing
        for subject in (ALICE, BOB):  # what is said of both goes with either key
            assert "held by H-1: release" in await refusal(records, subject)
        assert await erased(records, CAROL)
    # It stands so in the snapshot.
    async with opened(tmp_path, clock=clock) as records:
        assert "held by H-1: release" in await refusal(records, ALICE)
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        assert await erased(records, ALICE)


async def test_an_older_copy_keeps_from_expiry_who_is_held(tmp_path: Path) -> None:
    clock = Clock()
    async with put_back(tmp_path, clock) as records:
        clock.now = datetime(2025, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        for index in (4, 5):
            assert all(part.disclosures for part in records.read(index).parts)
        assert records.read(6).parts[1].expiry
        clock.now = datetime(2030, 1, 1, tzinfo=UTC)
        assert await passed(records) == 0
        # The key of the epoch tells whom the hold is on.
        assert records.vault.find_epoch("2020Q1") is not None
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        assert await passed(records) == 2
        assert all(part.expiry for index in (4, 5) for part in records.read(index).parts)
        assert records.vault.find_epoch("2020Q1") is None


async def test_who_was_known_to_no_copy_is_held_when_they_are_again(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(CAROL), 1)])
    with old_copy(tmp_path):
        async with opened(tmp_path, clock=clock) as records:
            await submit(records, order(Kind.PLACE, now=clock.now).encode())
    async with opened(tmp_path, clock=clock) as records:
        clock.now = datetime(2030, 1, 1, tzinfo=UTC)
        assert await passed(records) == 1
        assert records.vault.find_subject(CAROL) is None
        # No record needs the key of that epoch any more, but to know whom the hold is on.
        assert records.vault.find_epoch("2020Q1") is not None
        assert records.vault.find_subject(ALICE) is None
        await records.accept(
            [at(clock, access(" ALICE@example.com"), 2), at(clock, access(CAROL), 3)]
        )
        assert "held by H-1: release" in await refusal(records, ALICE)
        assert await erased(records, CAROL)
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        await passed(records)
        assert records.vault.find_epoch("2020Q1") is None


async def test_while_nobody_can_tell_whom_a_hold_is_on_it_keeps_everybody(tmp_path: Path) -> None:
    clock = Clock()
    async with put_back(tmp_path, clock, epoch_too=True) as records:
        # The epoch gets another key, and so she another token.
        await records.accept([at(clock, access(CAROL), 4)])
        await records.accept(
            [at(clock, Draft("access.read", {"purpose": "x"}, {"actor": "eve"}), 5)]
        )
        for subject in (ALICE, BOB, CAROL):
            assert f"held by H-1 ({UNTOLD})" in await refusal(records, subject)
    async with opened(tmp_path, clock=clock) as records:
        for subject in (ALICE, BOB, CAROL):
            assert f"held by H-1 ({UNTOLD})" in await refusal(records, subject)
        clock.now = datetime(2025, 1, 1, tzinfo=UTC)
        with capture_logs() as logs:
            assert await passed(records) == 1  # what is about nobody
        assert all(part.disclosures for index in range(4, 7) for part in records.read(index).parts)
        (told,) = [each for each in logs if each["log_level"] == "critical"]
        assert (told["hold"], told["index"]) == ("H-1", 7)
        assert UNTOLD in told["event"]

        again = order(Kind.PLACE, hold_id="H-1a", now=clock.now)
        await submit(records, again.encode())
        assert f"held by H-1 ({UNTOLD}), H-1a: release" in await refusal(records, ALICE)
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        with capture_logs() as logs:
            assert await passed(records)
        assert all(part.expiry for part in records.read(6).parts)
        assert not [each for each in logs if each["log_level"] == "critical"]
        assert all(part.disclosures for index in (4, 5) for part in records.read(index).parts)
        assert "held by H-1a: release" in await refusal(records, ALICE)


async def test_what_a_record_says_expired_stays_while_nobody_can_tell(tmp_path: Path) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, access(ALICE), 1), at(clock, access(CAROL), 2)])
    with old_copy(tmp_path):
        async with opened(tmp_path, clock=clock) as records:
            clock.now += timedelta(days=100)
            await submit(records, order(Kind.PLACE, now=clock.now).encode())
            clock.now = datetime(2025, 1, 1, tzinfo=UTC)
            assert await passed(records) == 1
    async with opened(tmp_path, clock=clock) as records:
        assert all(part.disclosures for index in (4, 5) for part in records.read(index).parts)
        await submit(records, order(Kind.PLACE, hold_id="H-2", now=clock.now).encode())
        await submit(records, order(Kind.RELEASE, now=clock.now).encode())
        assert await passed(records) == 1
        assert all(part.disclosures for part in records.read(4).parts)
        assert all(part.expiry for part in records.read(5).parts)


async def test_a_key_of_which_nobody_can_tell_whose_it_is_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    async with put_back(tmp_path, clock) as records:
        key, store = records.vault.find_subject(CAROL), records.vault.store
        assert key is not None
        # Her records do not open.
        rows = [(part, store.get("parts", part)) for part in records.vault.parts_of(key.key_id)]
        damaged: list[Put] = [("parts", part, row[:-1] + b"\0") for part, row in rows if row]
        store.write(damaged)
        assert f"held by H-1 ({UNTOLD})" in await refusal(records, CAROL)
        store.write([("parts", part, row) for part, row in rows])
        assert await erased(records, CAROL)


async def test_a_hold_of_a_snapshot_of_before_tokens_were_in_it(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(CAROL), 2)])
        await submit(records, order(Kind.PLACE).encode())
        state = await records._current()
        made = state.obligations.made()
        (row,) = made["holds"].values()
        assert row[3] is not None
        made["holds"] = {"H-1": row[:3]}
        state.obligations = Obligations.of(made)
        assert "held by H-1: release" in await refusal(records, ALICE)
        # If that version had put an older copy back, it did not know.
        records.vault.store.write([("parts", bytes.fromhex(row[2]), None)])
        assert Keeping.of(records, state.obligations.holds).untold == {"H-1"}
        assert f"held by H-1 ({UNTOLD})" in await refusal(records, CAROL)


async def test_what_was_erased_is_past_its_time_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    async with put_back(tmp_path, clock, epoch_too=True) as records:
        key = records.vault.find_subject(CAROL)
        assert key is not None
        keeping = Keeping.of(records, (await records._current()).obligations.holds)
        assert keeping.on_key(key.key_id) == (frozenset(), frozenset({"H-1"}))
        records.vault.store.write([("keys", key.key_id, gone_key(Erasure(9, "R-1")))])
        assert keeping.on_key(key.key_id) == (frozenset(), frozenset())


async def test_a_hold_is_on_a_person_under_whatever_identifier(tmp_path: Path) -> None:
    dave, erin = "dave@example.com", "erin@example.com"
    async with governed(tmp_path) as records:
        events = [access(name) for name in (ALICE, BOB, CAROL, dave, erin)]
        # Each way round, and in a ring; whose order of records tells nothing.
        events += [merged(BOB, ALICE), merged(BOB, CAROL), merged(dave, CAROL), merged(dave, ALICE)]
        await records.accept([signed(each, seq) for seq, each in enumerate(events, 1)])
        everybody = (ALICE, BOB, CAROL, dave)
        assert not (await preview(records, LOOK, ALICE)).holds
        await submit(records, order(Kind.PLACE, subject=CAROL).encode())
        keys = {name: records.vault.find_subject(name) for name in everybody}
        for name in everybody:
            assert "held by H-1: release" in await refusal(records, name)
            told = (await preview(records, LOOK, name)).survey.merged
            assert told.keys() == {k.key_id for each, k in keys.items() if k and each != name}
        assert await erased(records, erin)
        await submit(records, order(Kind.RELEASE).encode())
        # Whoever is between the two held them together; a key that is gone does not.
        for name in (BOB, dave):
            assert await erased(records, name)
        await submit(records, order(Kind.PLACE, hold_id="H-2", subject=CAROL).encode())
        assert await erased(records, ALICE)
        assert "held by H-2: release" in await refusal(records, CAROL)


async def test_a_hold_in_an_older_copy_is_on_a_person_under_whatever_identifier(
    tmp_path: Path,
) -> None:
    async with governed(tmp_path) as records:
        events = [access(ALICE), access(BOB), access(CAROL), merged(ALICE, BOB)]
        await records.accept([signed(each, seq) for seq, each in enumerate(events, 1)])
    with old_copy(tmp_path):
        async with opened(tmp_path) as records:
            await submit(records, order(Kind.PLACE).encode())
    async with opened(tmp_path) as records:
        assert "held by H-1: release" in await refusal(records, BOB)
        assert await erased(records, CAROL)


async def test_a_hold_keeps_from_expiry_a_person_under_whatever_identifier(tmp_path: Path) -> None:
    clock, dave, erin = Clock(), "dave@example.com", "erin@example.com"
    async with governed(tmp_path, clock=clock) as records:
        events = [access(name) for name in (ALICE, BOB, CAROL, dave, erin)]
        # By way of two others, whichever of them is held, and whoever names whom first.
        events += [merged(BOB, ALICE), merged(BOB, CAROL), merged(dave, CAROL)]
        sent = [at(clock, each, seq) for seq, each in enumerate(events, 1)]
        assert indices(await records.accept(sent)) == [*range(4, 12)]
    async with opened(tmp_path, clock=clock) as records:
        for index, (month, who) in enumerate(((6, ALICE), (7, CAROL)), 1):
            clock.now = datetime(2022, month, 1, tzinfo=UTC)
            placed = order(Kind.PLACE, hold_id=f"H-{index}", subject=who, now=clock.now)
            await submit(records, placed.encode())
        assert await passed(records) == 1
        assert records.read(8).parts[1].expiry
        await submit(records, order(Kind.RELEASE, hold_id="H-1", now=clock.now).encode())
        clock.now = datetime(2026, 1, 1, tzinfo=UTC)
        assert await passed(records) == 0
        assert all(part.disclosures for i in range(4, 8) for part in records.read(i).parts)
        await submit(records, order(Kind.RELEASE, hold_id="H-2", now=clock.now).encode())
        assert await passed(records) == 7
        # Nor is it known any more who was whose.
        assert not list(records.vault.store.items("state", b"merged/"))


async def test_a_hold_in_an_older_copy_keeps_from_expiry_a_person_under_whatever_identifier(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        events = [access(ALICE), access(BOB), access(CAROL), merged(ALICE, BOB)]
        await records.accept([at(clock, each, seq) for seq, each in enumerate(events, 1)])
    with old_copy(tmp_path):
        async with opened(tmp_path, clock=clock) as records:
            await submit(records, order(Kind.PLACE, now=clock.now).encode())
    async with opened(tmp_path, clock=clock) as records:
        clock.now = datetime(2022, 6, 1, tzinfo=UTC)
        assert await passed(records) == 1
        assert all(part.disclosures for i in (4, 5) for part in records.read(i).parts)
        assert records.read(6).parts[1].expiry


async def test_what_is_shared_with_a_person_who_is_held_is_held(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        events = [access(ALICE), access(BOB, CAROL), merged(ALICE, BOB)]
        await records.accept([signed(each, seq) for seq, each in enumerate(events, 1)])
        await submit(records, order(Kind.PLACE).encode())
        assert "held by H-1: release" in await refusal(records, CAROL)


async def test_a_vault_of_before_it_was_put_down_who_is_merged(tmp_path: Path) -> None:
    clock, dave = Clock(), "dave@example.com"
    async with governed(tmp_path, clock=clock) as records:
        events = [access(ALICE), access(BOB), access(CAROL), access(dave, CAROL)]
        events += [merged(CAROL, ALICE, BOB)]
        await records.accept([at(clock, each, seq) for seq, each in enumerate(events, 1)])
        await submit(records, order(now=clock.now, subject=CAROL).encode())
        await submit(records, order(Kind.PLACE, now=clock.now).encode())
        store = records.vault.store
        rows = dict(store.items("state", b"merged"))
        assert len(rows) == 3
        store.write([("state", key, None) for key in rows])
    async with opened(tmp_path, clock=clock) as records:
        assert dict(records.vault.store.items("state", b"merged")) == rows
        assert "held by H-1: release" in await refusal(records, BOB)
        clock.now = datetime(2022, 6, 1, tzinfo=UTC)
        assert await passed(records) == 1  # of Dave: of Carol there is nothing
        assert all(part.disclosures for i in (4, 5) for part in records.read(i).parts)
