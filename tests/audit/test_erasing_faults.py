"""Erasure is done, or not begun, whatever fails or dies at it; and what goes on meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import every_byte, governed, order
from tests.audit.dying import Dying, killed
from tests.audit.producer import ALICE, access, signed
from tests.audit.tenant import indices, opened, types, values
from tlog.audit import Draft
from tlog.audit.erasing import Receipt, submit
from tlog.audit.expiry import carry_out
from tlog.audit.obligations import Obligations
from tlog.audit.reading import Access, Caller
from tlog.audit.round import Round
from tlog.audit.vault import Erasure, Part
from tlog.log import Unavailable
from tlog.log.sequencer import Sequencer
from tlog.store import StoreFull
from tlog.store.sealed import SealedStore

BOB = "bob@example.com"
LOOK = Access(Caller("olga", "local_user"), "request R-1")


async def test_many_at_once_and_a_caller_that_goes_away(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        people = [f"{i}@example.com" for i in range(6)]
        await records.accept([signed(access(each), i) for i, each in enumerate(people, 1)])
        orders = [order(subject=each).encode() for each in people]
        twice = await asyncio.gather(
            *[submit(records, each) for each in [*orders[:3], *orders[:3]]],
            records.accept([signed(access(people[0]), 7)]),
        )
        receipts = [each for each in twice if isinstance(each, Receipt)]
        assert sorted(each.repeated for each in receipts) == [False] * 3 + [True] * 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await submit(records, orders[3])
    async with opened(tmp_path) as records:
        for index in range(4, 8):
            assert records.read(index).parts[1].erasure is not None
        assert (await submit(records, orders[3])).repeated
    with pytest.raises(Unavailable, match="shutting down"):
        await submit(records, orders[4])


@pytest.mark.parametrize("failing", ["begin_shred", "compact_shredded", "end_shred"])
async def test_a_disk_that_fails_at_the_deed(tmp_path: Path, failing: str) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        store, real = records.vault.store, getattr(records.vault.store, failing)

        def full(*_: Any) -> None:
            setattr(store, failing, real)
            store._unusable = "a write failed"
            raise StoreFull("no room")

        setattr(store, failing, full)
        made = order().encode()
        with pytest.raises(StoreFull):
            await submit(records, made)
        receipt = await submit(records, made)
        assert (receipt.index, receipt.repeated) == (5, True)
        assert records.read(4).parts == [Part(erasure=Erasure(5, "R-1"))] * 2
        assert store.get("state", b"store/shredding") is None


async def test_a_search_while_a_key_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the key yet: if that were remembered, what comes in next would be lost with it."""
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])

        async def searched(*args: Any) -> None:
            assert records.vault.find_subject(ALICE) is not None
            await carry_out(*args)

        monkeypatch.setattr("tlog.audit.records.carry_out", searched)
        await submit(records, order().encode())
        (index,) = indices(await records.accept([signed(access(ALICE), 2)]))
        assert values(records, index)[1] == {"id": ALICE}


async def test_a_vault_from_an_old_copy_forgets_again(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(BOB), 2)])
        key = records.vault.find_subject(ALICE)
        assert key is not None
        row = records.vault.store.get("keys", key.key_id)
        assert row is not None
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    async with opened(tmp_path) as records:
        made = order().encode()
        await submit(records, made)
    shutil.rmtree(tmp_path / "vault")
    shutil.move(tmp_path / "copy", tmp_path / "vault")
    assert row[13:] in every_byte(tmp_path)
    async with opened(tmp_path) as records:
        assert records.read(4).parts == [Part(erasure=Erasure(6, "R-1"))] * 2
        assert values(records, 5)[1] == {"id": BOB}
        assert (await submit(records, made)).index == 6
        assert (await submit(records, order().encode())).erased_before
        assert row[13:] not in every_byte(tmp_path)


async def _erase(directory: Path, where: str, made: bytes) -> None:
    """Carry an order out, in a process that dies of it."""
    dying = Dying(where)
    dying.around(Round, "marks", before="before the vault")
    dying.around(SealedStore, "sync", after="between vault and log")
    dying.around(Sequencer, "_write", after="between write and sync of the log")
    dying.around(Round, "unmarks", before="after the log")
    dying.around(Obligations, "apply", after="before the deed")
    dying.around(SealedStore, "begin_shred", after="the key is written over")
    dying.around(SealedStore, "compact_shredded", after="compacted")
    dying.around(SealedStore, "end_shred", after="before the receipt")
    async with opened(directory) as records:
        dying.live = True
        await submit(records, made)


@pytest.mark.parametrize(
    ("where", "erased"),
    [
        ("before the vault", {False}),
        ("between vault and log", {False}),
        ("between write and sync of the log", {False, True}),
        ("after the log", {True}),
        ("before the deed", {True}),
        ("the key is written over", {True}),
        ("compacted", {True}),
        ("before the receipt", {True}),
    ],
)
async def test_killed(tmp_path: Path, where: str, erased: set[bool]) -> None:
    async with governed(tmp_path) as records:
        done = Draft("delete.system_erased", {"request_id": "R-1", "system": "crm"}, {})
        await records.accept(
            [signed(access(ALICE), 1), signed(access(ALICE, BOB), 2), signed(done, 3)]
        )
        key = records.vault.find_subject(ALICE)
        assert key is not None
        row = records.vault.store.get("keys", key.key_id)
        assert row is not None
    made = order().encode()
    await killed(_erase, tmp_path, where, made)
    async with opened(tmp_path) as records:
        recorded = records.log.sequencer.edge.size == 8
        assert recorded in erased
        # Recorded and destroyed, or neither: as soon as it is open.
        assert (records.vault.live_key(key.key_id) is None) is recorded
        assert (row[13:] in every_byte(tmp_path / "vault")) is not recorded
        assert list(records.vault.store.items("pending")) == []
        receipt = await submit(records, made)
        assert (receipt.index, receipt.repeated) == (7, recorded)
        assert records.read(4).parts == [Part(erasure=Erasure(7, "R-1"))] * 2
        assert values(records, 5) == [{}, {}, {"id": BOB}]
        assert row[13:] not in every_byte(tmp_path / "vault")
        assert receipt.claims["system_results"] == ["system_erased (entry 6): crm"]
        assert types(records, 5) == [
            "access.read", "delete.system_erased", "subject.key_destroyed",
        ]  # fmt: skip


async def test_recording_goes_on_while_files_are_rewritten(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1), signed(access(BOB), 2)])
        store: Any = records.vault.store
        real, go = store.compact_shredded, threading.Event()

        def slow(begun: bytes) -> None:
            assert go.wait(20)
            real(begun)

        store.compact_shredded = slow
        made = order().encode()
        first = asyncio.ensure_future(submit(records, made))
        while not store.shredding:
            await asyncio.sleep(0.001)
        assert indices(await records.accept([signed(access(ALICE), 3)])) == [7]
        assert values(records, 7)[1] == {"id": ALICE}
        # Nobody gets a receipt yet: not for this order again, nor for another that did nothing.
        others = [
            asyncio.ensure_future(submit(records, each))
            for each in (made, order(subject="zoe").encode(), order(subject=BOB).encode())
        ]
        await records.accept([signed(access(BOB), 4)])
        assert not [each for each in (first, *others) if each.done()]
        go.set()
        *rest, last = [(await each).index for each in (first, *others)]
        assert rest == [6, 6, None]
        assert last in {9, 10}
        assert store.shredding is None
        assert values(records, 7)[1] == {"id": ALICE}
