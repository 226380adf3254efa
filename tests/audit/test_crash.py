"""Kill -9 at each step from receipt to answer: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.producer import access, signed
from tests.audit.tenant import indices, opened, tenant, values
from tlog.audit.search import Query, find

# Records the events on its standard input, one each line, and dies where it is told to.
DYING = """
import asyncio, os, signal, sqlite3, sys
from pathlib import Path
from tests.audit.tenant import opened
from tlog.log.sequencer import Sequencer
from tlog.audit.round import Round
from tlog.store.sealed import SealedStore

where = sys.argv[2]
live = False

def die(point):
    if live and point == where:
        os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name, before, after):
    real = getattr(owner, name)
    def wrapped(*args, **kwargs):
        die(before)
        result = real(*args, **kwargs)
        die(after)
        return result
    setattr(owner, name, wrapped)

class Database(sqlite3.Connection):
    def executemany(self, sql, rows):
        die("before the index")
        return super().executemany(sql, rows)

    def execute(self, sql, *given):
        if sql.startswith("UPDATE covers"):
            die("within the index")
        return super().execute(sql, *given)

    def __exit__(self, *error):
        super().__exit__(*error)
        die("after the index")

connect = sqlite3.connect
sqlite3.connect = lambda *given, **more: connect(*given, factory=Database, **more)

around(Round, "marks", "before the vault", "")
around(SealedStore, "sync", "between write and sync of the vault", "between vault and log")
around(Sequencer, "_write", "", "between write and sync of the log")
around(Round, "unmarks", "between log and answer", "")
around(Round, "count", "before the answer", "")

async def main():
    global live
    async with opened(Path(sys.argv[1])) as records:
        events = sys.stdin.read().split()
        await records.index.caught_up(records.log.sequencer.edge.size, patience=30)
        live = True
        outcomes = await records.accept(events)
        await records.index.caught_up(records.log.sequencer.edge.size, patience=30)
        print(outcomes, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("where", "recorded"),
    [
        ("before the vault", {False}),
        ("between write and sync of the vault", {False}),
        ("between vault and log", {False}),
        ("between write and sync of the log", {False, True}),
        ("between log and answer", {True}),
        ("before the answer", {True}),
        ("before the index", {True}),
        ("within the index", {True}),
        ("after the index", {True}),
    ],
)
async def test_killed(tmp_path: Path, where: str, recorded: set[bool]) -> None:
    subjects = [f"{i}@example.com" for i in range(20)]
    events = [signed(access(subject), seq) for seq, subject in enumerate(subjects, 1)]
    events.append(signed(access(), 23))  # a gap, so that the log has something to say
    async with tenant(tmp_path) as records:
        await records.accept(events[:5])
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DYING, str(tmp_path), where],
        input="\n".join(events[3:]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert child.stdout == ""
    async with opened(tmp_path) as records:
        store = records.vault.store
        size = records.log.sequencer.edge.size
        assert size in {7 + 17 * done for done in recorded}
        assert list(store.items("pending")) == []
        assert len(list(store.items("parts"))) == {7: 10, 24: 41}[size]
        assert len(list(store.items("by_subject"))) == {7: 10, 24: 41}[size]
        # The producer has no answer, and sends it all again: as if nothing had happened.
        outcomes = await records.accept(events[3:])
        assert indices(outcomes) == [5, 6, *range(7, 23)]
        assert records.log.sequencer.edge.size == 24
        assert records._state is not None
        assert records._state.registry.producers["shop"].next_seq == 24
        assert records._state.registry.producers["log"].next_seq == 4
        for i, subject in enumerate(subjects):
            assert values(records, 2 + i)[1] == {"id": subject}
            places, complete_to = await find(records, Query(subject=subject), limit=9)
            assert ([index for _, index in places], complete_to) == ([2 + i], 24)
        places, _ = await find(records, Query(), limit=99)
        assert sorted(index for _, index in places) == list(range(24))
        assert records.read(23).payload["gap_kind"] == "gap"
