"""The store of time-stamps: against a model, full, damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.audit.authority import Station
from tlog.audit import StampError, StampTime, stamp_store
from tlog.audit.stamp_store import Due, StampStore

AUTHORITIES = [
    Station(Path(mkdtemp(prefix="tlog-stations-")), name=name).authority for name in ("one", "two")
]


def test_a_database_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StampError, match="has no time-stamps"):
        StampStore(tmp_path, create=False)
    (tmp_path / "stamps.db").write_bytes(b"not a database, but long enough to be read as one" * 9)
    with pytest.raises(StampError, match="not a database. If it is damaged"):
        StampStore(tmp_path, create=True)
    (tmp_path / "stamps.db").unlink()
    StampStore(tmp_path, create=True).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "stamps.db")) as database:
        database.execute("PRAGMA user_version = 7")
    for create in (True, False):
        with pytest.raises(StampError, match="of version 7, this reads 2"):
            StampStore(tmp_path, create=create)


def test_a_full_queue_keeps_the_oldest_and_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp_store, "MAX_WAITING", 4)
    with contextlib.closing(StampStore(tmp_path, create=True)) as store:
        for size in range(1, 11):
            store.queue(Due(size, b"note %d" % size, size * 10.0), ["one", "two"])
            if size in {5, 6}:  # the other one is not away
                due = store.next("two")
                assert due == Due(size, b"note %d" % size, size * 10.0)
        waits = []
        while (due := store.next("one")) is not None:
            waits.append(due.size)
            store._db.execute("DELETE FROM waiting WHERE authority='one' AND size=?", (due.size,))
        assert waits == [10, 3, 2, 1]
        assert store.tally("two").waiting == 4
        assert store.tally("two").since == 10.0
        newest = store.newest()
        assert newest is not None
        assert newest.size == 10
        kept = store._db.execute("SELECT size FROM checkpoints ORDER BY size").fetchall()
        assert kept == [(1,), (2,), (3,), (10,)]


def stamped_by(store: StampStore, *names: str) -> None:
    size = store._db.execute("SELECT coalesce(max(size), 0) + 1 FROM checkpoints").fetchone()[0]
    store.queue(Due(size, b"note", 1.0), names)
    time = datetime.fromtimestamp(1, UTC)
    for name in names:
        store.keep(name, size, b"answer", StampTime(time, None, 1, time, "CN=one"))


def test_what_stamps_are_verified_with_outlives_the_settings(tmp_path: Path) -> None:
    one, two = AUTHORITIES
    new = Station(tmp_path / "new", name="one").authority
    with contextlib.closing(StampStore(tmp_path, create=True)) as store:
        store.expect([one, two])
        assert store.earlier([]) == {}  # nobody has stamped
        stamped_by(store, "one", "two")
        assert store.earlier([one, two]) == {}
        assert store.earlier([two]) == {"one": replace(one, url="")}
        store.expect([new])
    with contextlib.closing(StampStore(tmp_path, create=False)) as store:
        # What the settings said of it last.
        kept = {"one": replace(new, url=""), "two": replace(two, url="")}
        assert store.earlier([]) == kept
        store._db.execute("UPDATE authorities SET issuers = x'00' WHERE name = 'two'")
        with pytest.raises(StampError, match="the certificates of two: "):
            store.earlier([])


def test_a_database_of_before_certificates_were_kept(tmp_path: Path) -> None:
    one, two = AUTHORITIES
    with contextlib.closing(StampStore(tmp_path, create=True)) as store:
        store.expect([one, two])
        stamped_by(store, "one", "two")
    with contextlib.closing(sqlite3.connect(tmp_path / "stamps.db")) as database, database:
        database.execute("DROP TABLE authorities")
        database.execute("PRAGMA user_version = 1")
    for create in (False, True):  # whoever only reads it leaves it as it is
        with contextlib.closing(StampStore(tmp_path, create=create)) as store:
            assert store.earlier([two]) == {"one": None}
            assert store._version() == (2 if create else 1)
            assert len(list(store.all())) == 2
    with contextlib.closing(StampStore(tmp_path, create=True)) as store:
        store.expect([one])  # put back for a moment
        assert store.earlier([]) == {"one": replace(one, url=""), "two": None}


class StoreMachine(RuleBasedStateMachine):
    """The store against dictionaries, closed and opened at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = TemporaryDirectory()
        self.store = StampStore(Path(self.scratch.name), create=True)
        self.size = 0
        self.waiting: dict[str, list[int]] = {"one": [], "two": []}
        self.stamps: dict[str, dict[int, float]] = {"one": {}, "two": {}}

    @rule(grown=st.integers(1, 5))
    def queue(self, grown: int) -> None:
        self.size += grown
        self.store.queue(Due(self.size, b"%d" % self.size, float(self.size)), ["one", "two"])
        for name, sizes in self.waiting.items():
            if len(sizes) == 3:
                sizes.pop()
            sizes.append(self.size)
            assert self.store.tally(name).waiting == len(sizes)

    @rule(name=st.sampled_from(["one", "two"]), at=st.integers(0, 20))
    def keep(self, name: str, at: int) -> None:
        due = self.store.next(name)
        if due is None:
            assert not self.waiting[name]
            return
        assert due.size == self.waiting[name].pop()
        assert due.note == b"%d" % due.size
        self.stamps[name][due.size] = at
        time = datetime.fromtimestamp(at, UTC)
        self.store.keep(name, due.size, b"answer", StampTime(time, None, 1, time, "CN=one"))

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = StampStore(Path(self.scratch.name), create=False)
        self.store.expect(AUTHORITIES)

    @rule(name=st.sampled_from(["one", "two"]), index=st.integers(0, 30))
    def look(self, name: str, index: int) -> None:
        stamps, waiting = self.stamps[name], self.waiting[name]
        after = [(at, size) for size, at in stamps.items() if size > index]
        before = [size for size in stamps if size <= index]
        including, excluding = self.store.including(index, name), self.store.excluding(index, name)
        assert (including and including.size) == (min(after)[1] if after else None)
        assert (excluding and excluding.size) == (max(before) if before else None)
        assert self.store.tally(name) == stamp_store.Tally(
            stamped=len(stamps),
            size=max(stamps, default=0),
            waiting=len(waiting),
            since=float(waiting[0]) if waiting else None,
        )
        newest = self.store.newest()
        assert (newest and newest.size) == (self.size or None)
        listed = [(stamp.size, stamp.authority) for stamp in self.store.all()]
        assert listed == sorted((size, name) for name in self.stamps for size in self.stamps[name])

    def teardown(self) -> None:
        self.store.close()
        self.scratch.cleanup()


def test_the_store_against_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp_store, "MAX_WAITING", 3)
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=20, stateful_step_count=25, deadline=None)
    )
