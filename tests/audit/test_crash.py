"""Kill -9 between the commits of vault, log and index, in every order: nothing lost, nor twice."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.audit.dying import Dying, killed
from tests.audit.producer import access, merged, signed
from tests.audit.tenant import indices, opened, tenant, values
from tlog.audit.index import DIRECTORY
from tlog.audit.indexer import Indexer, reindex
from tlog.audit.intake import Outcome
from tlog.audit.records import Records
from tlog.audit.search import Query, find
from tlog.log import Log
from tlog.log.sequencer import Sequencer
from tlog.store.sealed import SealedStore

# The steps of a round, and whether the log has it after a kill there.
STEPS: Final[dict[str, set[bool]]] = {
    "before the vault": {False},
    "between write and sync of the vault": {False},
    "between vault and log": {False},
    "between write and sync of the log": {False, True},
    "between log and unmarking": {True},
    "before the answer": {True},
    "after the answer": {True},
}
# How far the index is then: it runs apart from the rounds, and may be anywhere.
INDEX: Final = ("behind", "within a commit", "up to date")
SUBJECTS: Final = [f"{i}@example.com" for i in range(20)]


class _Database(sqlite3.Connection):
    """One that tells when it is about to commit to the index."""

    committing: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
        if sql.startswith("UPDATE covers"):
            self.committing()
        return super().execute(sql, *given)


async def _record(
    directory: Path, where: str, indexed: str, first: Sequence[str], events: Sequence[str]
) -> None:
    """Two rounds, of which the index has nothing at first, in a process that dies of the second."""
    dying, go = Dying(where), asyncio.Event()
    loop = asyncio.get_running_loop()
    _hold(go)
    async with opened(directory) as records:

        async def at(step: str) -> None:
            """The index goes on to where it is to be, and then the process dies."""
            if not dying.live or step != where:
                return
            if indexed != "behind":
                if indexed == "within a commit":
                    _Database.committing = staticmethod(lambda: dying.at(where))
                go.set()
                records.grew.set()
                assert records.index is not None
                size = records.log.sequencer.edge.size
                assert await records.index.caught_up(size, patience=60) == size
                assert indexed == "up to date"  # else it is dead by now
            dying.at(step)

        _slow(at, loop)
        await records.accept(first)
        dying.live = True
        await at("before the vault")
        await records.accept(events)
        await at("after the answer")


def _hold(go: asyncio.Event) -> None:
    """The index takes nothing in before it may."""
    take_in, connect = Indexer._take_in, sqlite3.connect

    async def held(indexer: Indexer) -> None:
        await go.wait()
        await take_in(indexer)

    Indexer._take_in = held  # type: ignore[method-assign, assignment]
    sqlite3.connect = lambda *given, **more: connect(  # type: ignore[assignment]
        *given, factory=_Database, **more
    )


def _slow(at: Callable[[str], Any], loop: asyncio.AbstractEventLoop) -> None:
    """Each step of a round is told of."""
    commit, submit, sync_log = Records._commit, Sequencer.submit, Sequencer._sync
    sync_vault = SealedStore.sync

    def syncs_vault(store: SealedStore) -> None:  # in a thread
        asyncio.run_coroutine_threadsafe(at("between write and sync of the vault"), loop).result()
        sync_vault(store)
        asyncio.run_coroutine_threadsafe(at("between vault and log"), loop).result()

    async def syncs_log(sequencer: Sequencer, *given: Any) -> None:
        await at("between write and sync of the log")
        await sync_log(sequencer, *given)

    def submits(sequencer: Sequencer, entries: Sequence[bytes]) -> Any:
        accepted = submit(sequencer, entries)

        async def placed() -> Sequence[int]:
            indices = await accepted
            await at("between log and unmarking")
            return indices

        return placed()

    async def commits(records: Records, *given: Any) -> list[Outcome]:
        outcomes = await commit(records, *given)
        await at("before the answer")
        return outcomes

    for owner, name, made in (
        (SealedStore, "sync", syncs_vault),
        (Sequencer, "_sync", syncs_log),
        (Sequencer, "submit", submits),
        (Records, "_commit", commits),
    ):
        setattr(owner, name, made)


@pytest.mark.parametrize("indexed", INDEX)
@pytest.mark.parametrize("where", STEPS)
async def test_killed(tmp_path: Path, where: str, indexed: str) -> None:
    events = await _begin(tmp_path)
    await killed(_record, tmp_path, where, indexed, events[3:12], events[9:])
    await _check(tmp_path, events, STEPS[where])


async def _begin(directory: Path) -> list[str]:
    """The events; five of them are recorded."""
    events = [signed(access(subject), seq) for seq, subject in enumerate(SUBJECTS, 1)]
    # A gap, so that the log has something to say.
    events.append(signed(merged("m@example.com", "n@example.com"), 23))
    async with tenant(directory) as records:
        await records.accept(events[:5])
    return events


async def _check(directory: Path, events: list[str], recorded: set[bool]) -> None:
    """All is there that was answered, once; the rest once it is sent again; and the index of it."""
    async with opened(directory) as records:
        store = records.vault.store
        size = records.log.sequencer.edge.size
        assert size in {14 + 10 * done for done in recorded}
        assert list(store.items("pending")) == []
        assert len(list(store.items("parts"))) == {14: 24, 24: 42}[size]
        assert len(list(store.items("by_subject"))) == {14: 24, 24: 42}[size]
        assert len(list(store.items("state", b"merged/"))) == {14: 0, 24: 2}[size]
        # The producer has no answer, and sends it all again: as if nothing had happened.
        outcomes = await records.accept(events[3:])
        assert indices(outcomes) == [5, 6, *range(7, 23)]
        assert records.log.sequencer.edge.size == 24
        assert records._state is not None
        assert records._state.registry.producers["shop"].next_seq == 24
        assert records._state.registry.producers["log"].next_seq == 4
        for i, subject in enumerate(SUBJECTS):
            assert values(records, 2 + i)[1] == {"id": subject}
            places, complete_to = await find(records, Query(subject=subject), limit=9)
            assert ([index for _, index in places], complete_to) == ([2 + i], 24)
        places, _ = await find(records, Query(), limit=99)
        assert sorted(index for _, index in places) == list(range(24))
        assert records.read(23).payload["gap_kind"] == "gap"
    kept = _index_of(directory)
    async with Log.opened(directory / "log") as log:
        await reindex(directory / "log", log)
    assert _index_of(directory) == kept


def _index_of(directory: Path) -> list[list[tuple[Any, ...]]]:
    """All rows of the index; the numbers of kinds mean nothing."""
    path = directory / "log" / DIRECTORY / "records.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [
            sorted(database.execute(query).fetchall(), key=repr)
            for query in (
                "SELECT * FROM covers",
                "SELECT * FROM tokens",
                "SELECT type, producer, outcome FROM kinds",
                "SELECT idx, at, type, producer, outcome, request_id, resource_type, actor "
                "FROM records JOIN kinds USING (kind)",
            )
        ]
