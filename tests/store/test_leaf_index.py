"""The leaf index, on its way from memory to the disk, as a look-up and a crash meet it."""

import random
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.store.growth import (
    Model,
    in_memory,
    index_rows,
    numbered,
    on_disk,
    small_runs,
    spill,
    step,
)
from tests.store.test_damage import damage
from tlog.merkle.hashing import leaf_hash
from tlog.merkle.tree import RightEdge
from tlog.store import RocksStore, StoreCorrupt


@pytest.fixture(autouse=True)
def _runs(monkeypatch: pytest.MonkeyPatch) -> None:
    small_runs(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> RocksStore:
    return RocksStore.create(tmp_path)


def test_find_through_every_step_of_a_spill(store: RocksStore) -> None:
    model = Model()
    model.grow(store, numbered(0, 400))
    model.grow(store, [b"on the disk"])
    spill(store)
    # Lowest index first on the disk, in the run that is spilled, in the newest; and again later.
    model.grow(store, [*numbered(390, 500), *numbered(490, 700), b"run", b"run"])
    model.grow(store, [b"run", b"on the disk", *numbered(600, 702), b"new", b"new"])
    size = len(model.entries)
    firsts = {entry: index for index, entry in reversed(list(enumerate(model.entries)))}
    hashes = [leaf_hash(entry) for entry in firsts]
    absent = [leaf_hash(b"absent %d" % number) for number in range(50)]
    steps = 0
    while True:
        for below in (0, 1, 400, 401, 402, 511, 700, size - 1, size):
            expected = [index if index < below else None for index in firsts.values()]
            assert store.find(hashes + absent, below=below) == expected + [None] * 50
        assert index_rows(store) == model.leaves()
        if store._index().due is None:
            break
        store.sync()
        steps += 1
    assert steps >= 5
    assert store._index().indexed == len(on_disk(store)) == size - 106
    for _ in range(2):
        store.reopen()
        model.check(store)
        assert index_rows(store) == model.leaves()


def test_memory_is_bounded_while_there_are_syncs(store: RocksStore) -> None:
    model = Model()
    held = []
    for begin in range(0, 20_000, 50):
        model.grow(store, numbered(begin, begin + 50))
        store.sync()
        held.append(len(in_memory(store)))
    assert max(held) < 3000
    assert store._index().indexed > 17_000
    model.check(store)


def test_reopening_takes_from_the_tiles_what_is_not_on_the_disk(store: RocksStore) -> None:
    model = Model()
    for begin in range(0, 1200, 100):
        model.grow(store, numbered(begin, begin + 100))
        spill(store)
    store.reopen()
    indexed = store._index().indexed
    # The mark is put by the commit after the spill.
    assert 800 <= indexed <= 1100
    assert [index for _, index in sorted(in_memory(store), key=lambda x: x[1])] == list(
        range(indexed, 1200)
    )
    model.check(store)


def test_a_run_that_is_frozen_during_a_flush_waits_for_the_next(store: RocksStore) -> None:
    """That flush may have begun before the last of its entries was written."""
    model = Model()
    model.grow(store, numbered(0, 400))
    real: Any = store._db

    class Committing:
        def flush_wal(self, sync: bool) -> None:
            store._db = real
            model.grow(store, numbered(400, 500))
            real.flush_wal(sync)

    store._db = Committing()  # type: ignore[assignment]
    store.sync()
    assert store._index().due is not None
    assert on_disk(store) == []
    store.sync()
    assert on_disk(store) != []


def test_look_ups_and_commits_beside_syncs(store: RocksStore) -> None:
    model = Model()
    hashes: list[bytes] = []
    firsts: dict[bytes, int] = {}
    chance = random.Random(1)
    with ThreadPoolExecutor(1) as pool:
        syncing: Future[None] | None = None
        for _ in range(300):
            begin = chance.randrange(max(1, 2 * len(firsts)))
            entries = numbered(begin, begin + 40)
            for index, entry in enumerate(entries, len(model.entries)):
                firsts.setdefault(leaf_hash(entry), index)
            hashes += map(leaf_hash, entries)
            model.grow(store, entries)
            if syncing is not None and chance.random() < 0.5:
                syncing.result()
            asked = [*chance.choices(hashes, k=30), *hashes[-30:], chance.randbytes(32)]
            expected = [firsts.get(leaf) for leaf in asked]
            assert store.find(asked, below=len(model.entries)) == expected
            if syncing is None or syncing.done():
                syncing = pool.submit(store.sync)
    assert store._index().indexed > 5000
    model.check(store)


# Grows a store by 100 entries and a sync at a time, and dies at a step of the first spill.
DYING = """
import os, signal, sys
from pathlib import Path
from tests.store.growth import Model, numbered
from tlog.store import RocksStore, leaf_index
leaf_index.RUN, leaf_index._PORTION, leaf_index._BATCH = 300, 100, 37
path, step = Path(sys.argv[1]), sys.argv[2]
store, model = RocksStore.create(path), Model()

def here(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)

while True:
    size = len(model.entries)
    model.grow(store, numbered(size, size + 100))
    if store._index().indexed:
        here("marked")
        store.sync()
        here("mark synced")
    due = store._index().due
    if due is not None:
        here("frozen")
        store.sync()
        here("first portion")
        while not due.written:
            store.sync()
        here("flushing")
        while store._index().due is not None:
            store.sync()
        here("flushed")
    store.sync()
"""


@pytest.mark.parametrize(
    ("step", "sizes", "indexed"),
    [
        ("frozen", {300, 400}, {0}),
        ("first portion", {400}, {0}),
        ("flushing", {400}, {0}),
        ("flushed", {400}, {0}),
        # What was written reached the kernel, so that only loss of power would take it.
        ("marked", {400, 500}, {0, 300}),
        ("mark synced", {500}, {300}),
    ],
)
def test_killed_at_a_step(tmp_path: Path, step: str, sizes: set[int], indexed: set[int]) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), step], check=False)
    assert done.returncode == -9
    reader = RocksStore.open(tmp_path, read_only=True)
    size = reader.tree_size()
    assert size in sizes
    assert reader._index().indexed in indexed
    assert len(in_memory(reader)) == size - reader._index().indexed
    model = Model(numbered(0, size), step_edge(size))
    model.check(reader)
    reader.close()
    store = RocksStore.open(tmp_path)
    model.check(store)
    assert index_rows(store) == model.leaves()
    # The same keys are written again, if need be, beside those that are new.
    model.grow(store, numbered(size, size + 350))
    model.grow(store, numbered(0, 10))
    spill(store)
    model.check(store)
    assert index_rows(store) == model.leaves()
    store.close()


def step_edge(size: int) -> RightEdge:
    return step(RightEdge(), numbered(0, size))[0]


def test_a_damaged_tile_is_no_empty_index_and_closes_nothing(
    tmp_path: Path, store: RocksStore
) -> None:
    model = Model()
    model.grow(store, numbered(0, 700))
    for family in store._families.values():
        family.flush()
    del family
    store.close()
    damage(tmp_path, b"".join(map(leaf_hash, numbered(256, 512))))
    for read_only in (True, False):
        store = RocksStore.open(tmp_path, read_only=read_only)
        with pytest.raises(StoreCorrupt, match=r"no leaf index, because .* tile 0/1"):
            store.find([leaf_hash(numbered(0, 1)[0])], below=700)
        assert store.read_bundle(1, 256)
        if not read_only:
            _, commit = step(model.edge, numbered(700, 701))
            with pytest.raises(StoreCorrupt, match="no leaf index"):
                store.commit(commit)
        store.close()
