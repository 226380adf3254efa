import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from rocksdict import Options, Rdict

from tests.store.growth import Model, index_rows, numbered, small_runs, step
from tlog.merkle.hashing import leaf_hash
from tlog.merkle.tiles import MAX_ENTRY_SIZE, Tile, encode_bundle
from tlog.merkle.tree import RightEdge
from tlog.store import (
    LogStore,
    RocksStore,
    SchemaError,
    StoreError,
    StoreLocked,
    StoreMissing,
)


@pytest.fixture(autouse=True)
def _runs(monkeypatch: pytest.MonkeyPatch) -> None:
    small_runs(monkeypatch)


class StoreMachine(RuleBasedStateMachine):
    """Any order of appends, states, reopens and closes leaves what a plain list would hold."""

    @initialize()
    def create(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.store = RocksStore.create(self.path)
        self.model = Model()
        self.states: dict[str, bytes] = {}

    @rule(
        count=st.sampled_from([1, 2, 7, 100, 255, 256, 257, 700]),
        size=st.integers(0, 300),
        repeat=st.booleans(),
    )
    def append(self, count: int, size: int, repeat: bool) -> None:
        begin = 0 if repeat else len(self.model.entries)
        self.model.grow(self.store, numbered(begin, begin + count, size))

    @rule(states=st.dictionaries(st.text(min_size=1, max_size=3), st.binary(max_size=9)))
    def put_state(self, states: dict[str, bytes]) -> None:
        self.store.put_state(states)
        self.states |= states

    @rule()
    def sync(self) -> None:
        self.store.sync()

    @rule()
    def reopen(self) -> None:
        self.store.reopen()

    @rule(read_only=st.booleans())
    def close_and_check(self, read_only: bool) -> None:
        self.store.close()
        self.store.close()
        with_all = RocksStore.open(self.path, read_only=read_only)
        self.model.check(with_all)
        assert index_rows(with_all) == self.model.leaves()
        with_all.close()
        self.store = RocksStore.open(self.path)

    @invariant()
    def holds(self) -> None:
        assert self.store.tree_size() == len(self.model.entries)
        for name, value in self.states.items():
            assert self.store.get_state(name) == value
        assert self.store.get_state("none of these") is None

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.model.check(self.store)
            self.store.close()
            shutil.rmtree(self.path)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> RocksStore:
    return RocksStore.create(tmp_path)


def test_the_driver_is_a_log_store(store: RocksStore) -> None:
    port: LogStore = store
    assert port.tree_size() == 0


def test_find_gives_the_lowest_index_below_a_bound(store: RocksStore) -> None:
    model = Model()
    model.grow(store, [b"a", b"b", b"a", b"c"])
    store.reopen()
    model.grow(store, [b"b", b"d", b"a"])
    hashes = [leaf_hash(entry) for entry in (b"a", b"b", b"c", b"d", b"none", b"a")]
    assert store.find(hashes, below=7) == [0, 1, 3, 5, None, 0]
    assert store.find(hashes, below=3) == [0, 1, None, None, None, 0]
    assert store.find(hashes, below=0) == [None] * 6
    assert store.find([], below=7) == []
    # The neighbours of a hash are not the hash.
    assert store.find([b"\0" * 32, b"\xff" * 32], below=7) == [None, None]


def test_bundles_are_cut_to_the_width_asked_for(store: RocksStore) -> None:
    entries = [b"x" * length for length in range(300)]
    Model().grow(store, entries)
    for width in (1, 2, 255, 256):
        assert store.read_bundle(0, width) == encode_bundle(entries[:width])
    for width in (1, 43, 44):
        assert store.read_bundle(1, width) == encode_bundle(entries[256 : 256 + width])
    for index, width in ((1, 45), (2, 1), (0, 0), (0, 257), (-1, 1)):
        with pytest.raises(StoreMissing, match="300"):
            store.read_bundle(index, width)
    with pytest.raises(StoreMissing, match="tile/0/002"):
        store.read_tile(0, 2)


def test_a_commit_that_does_not_fit_changes_nothing(store: RocksStore) -> None:
    model = Model()
    model.grow(store, numbered(0, 300))
    _, good = step(model.edge, numbered(300, 310))
    tile, data = good.tiles[0]
    _, empty = RightEdge().extend(b"")
    bad = [
        replace(good, begin=299, size=309),
        replace(good, begin=301, size=311),
        replace(good, size=311),
        replace(good, size=300, entries=[], leaf_hashes=b"", tiles=empty),
        replace(good, entries=good.entries[1:]),
        replace(good, leaf_hashes=good.leaf_hashes[1:]),
        replace(good, leaf_hashes=good.leaf_hashes + bytes(32)),
        replace(good, tiles=[(tile, data[1:])]),
        replace(good, tiles=[(Tile(0, 1, 255), data)]),
        replace(good, entries=[*good.entries[1:], bytes(MAX_ENTRY_SIZE + 1)]),
    ]
    for commit in bad:
        with pytest.raises(StoreError):
            store.commit(commit)
    model.check(store)
    model.grow(store, numbered(300, 310))
    model.check(store)


def test_names_of_the_driver_are_not_for_callers(store: RocksStore) -> None:
    for name in ("", "store/schema", "store/tree_size"):
        with pytest.raises(StoreError, match="name"):
            store.put_state({"fine": b"", name: b""})
        with pytest.raises(StoreError, match="name"):
            store.get_state(name)
    assert store.get_state("fine") is None


def test_create_refuses_what_is_there(tmp_path: Path, store: RocksStore) -> None:
    store.close()
    with pytest.raises(StoreError, match="directory of its own"):
        RocksStore.create(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "HEAD").write_bytes(b"signed")
    with pytest.raises(StoreError, match="HEAD"):
        RocksStore.create(other)


def test_open_refuses_what_is_not_a_store(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(StoreMissing, match="tlog init"):
            RocksStore.open(tmp_path / "typo", read_only=read_only)
        (tmp_path / "empty" / "db").mkdir(parents=True, exist_ok=True)
        with pytest.raises(StoreMissing, match="tlog init"):
            RocksStore.open(tmp_path / "empty", read_only=read_only)
    assert not (tmp_path / "typo").exists()
    assert not list((tmp_path / "empty" / "db").iterdir())

    Rdict(str(tmp_path / "foreign" / "db"), Options(raw_mode=True)).close()
    with pytest.raises(StoreError):
        RocksStore.open(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (b"store/schema", b"2", "version b'2'"),
        (b"store/schema", None, "no store of tlog"),
        (b"store/tree_size", None, "no store of tlog"),
        (b"store/tree_size", b"1", "version"),
    ],
)
def test_open_refuses_another_schema_or_none(
    tmp_path: Path, store: RocksStore, key: bytes, value: bytes | None, match: str
) -> None:
    state = store._families["state"]
    if value is None:
        state.delete(key)
    else:
        state.put(key, value)
    del state
    with pytest.raises(SchemaError, match=match):
        store.reopen()
    with pytest.raises(StoreError, match="closed"):
        store.put_state({"a": b""})
    # Refusing leaves nothing open: the same refusal comes again, not StoreLocked.
    with pytest.raises(SchemaError, match=match):
        RocksStore.open(tmp_path)


def test_second_open_is_refused_and_close_lets_go(tmp_path: Path, store: RocksStore) -> None:
    model = Model()
    for begin in (0, 400):
        model.grow(store, numbered(begin, begin + 400))
    with pytest.raises(StoreLocked, match=r"db.*another tlog server has it open"):
        RocksStore.open(tmp_path)
    # A run that is on its way to the disk has an iterator, which would keep the lock.
    store.sync()
    due = store._index().due
    assert due is not None
    assert due.view is not None
    del due
    store.close()
    RocksStore.open(tmp_path).close()


def test_closed_store_refuses_everything(store: RocksStore) -> None:
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.read_tile(0, 0),
        lambda: store.find([bytes(32)], below=1),
        lambda: store.get_state("a"),
        lambda: store.put_state({"a": b""}),
        store.sync,
        store.stats,
    ]
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            call()


def test_read_only_changes_no_byte(tmp_path: Path, store: RocksStore) -> None:
    model = Model()
    model.grow(store, numbered(0, 600))
    store.sync()
    store.write_marker(b"head")
    store.close()

    def files() -> dict[str, bytes]:
        found = {p.name: p.read_bytes() for p in (tmp_path / "db").iterdir()}
        # RocksDB's diary, of which each open begins a new page.
        return {name: data for name, data in found.items() if not name.startswith("LOG")}

    before = files()
    reader = RocksStore.open(tmp_path, read_only=True)
    model.check(reader)
    assert reader.read_marker() == b"head"
    _, commit = step(model.edge, [b"more"])
    writes: list[Callable[[], None]] = [
        lambda: reader.commit(commit),
        lambda: reader.put_state({"a": b""}),
        lambda: reader.write_marker(b"other"),
        reader.sync,
    ]
    for write in writes:
        with pytest.raises(StoreError, match="read-only"):
            write()
    reader.close()
    assert files() == before


def test_sync_runs_beside_reads_and_writes(store: RocksStore) -> None:
    model = Model()
    done = threading.Event()

    def sync_all_the_time() -> int:
        rounds = 0
        while not done.is_set():
            store.sync()
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        rounds = pool.submit(sync_all_the_time)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            model.grow(store, numbered(model.edge.size, model.edge.size + 50))
            store.read_bundle(0, 50)
        done.set()
        assert rounds.result() > 10
    model.check(store)


def test_close_waits_for_a_sync(store: RocksStore) -> None:
    for _ in range(20):
        store.put_state({"a": bytes(1 << 20)})
        with ThreadPoolExecutor(1) as pool:
            syncing = pool.submit(store.sync)
            store.reopen()
            # It was before the reopen, or after it; never in the middle, and never on nothing.
            syncing.result()
    assert store.get_state("a") == bytes(1 << 20)


def test_stats_tell_the_size(store: RocksStore) -> None:
    Model().grow(store, numbered(0, 300))
    stats = store.stats()
    assert stats["tree_size"] == 300
    assert stats["disk_bytes"] > 0
