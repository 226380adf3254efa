"""A damaged byte is found and named. Never is there less, without a word."""

import shutil
from pathlib import Path

import pytest

from tests.store.growth import Model, numbered, small_runs, spill, step
from tlog.merkle.hashing import leaf_hash
from tlog.merkle.tree import RightEdge
from tlog.store import RocksStore, StoreCorrupt, StoreError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed store of 2000 entries, all of it in tables but one leaf of the index."""
    small_runs(monkeypatch)
    store = RocksStore.create(tmp_path)
    model = Model()
    model.grow(store, numbered(0, 1999))
    model.grow(store, numbered(1999, 2000))
    spill(store)
    for family in store._families.values():
        family.flush()
    del family
    store.close()
    return tmp_path


def flip(file: Path, needle: bytes) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(needle) + len(needle) // 2] ^= 1
    file.write_bytes(data)


def damage(path: Path, needle: bytes) -> None:
    """Flip a bit of these bytes in the one table that has them."""
    (file,) = [f for f in (path / "db").glob("*.sst") if needle in f.read_bytes()]
    flip(file, needle)


def damage_leaf_index(path: Path) -> list[tuple[bytes, int]]:
    """Flip a bit in the middle of the leaf index; return what it held."""
    leaves = sorted((leaf_hash(e), i) for i, e in enumerate(numbered(0, 1999)))
    middle, index = leaves[1000]
    # A table leaves out what a key shares with the one before: here a byte or two.
    damage(path, middle[4:] + index.to_bytes(8, "big"))
    return leaves


@pytest.mark.parametrize("read_only", [False, True])
def test_damaged_tile_bundle_and_tail_are_named(path: Path, read_only: bool) -> None:
    # In a bundle an entry follows its length; in the tail, its key.
    damage(path, (30 + 4).to_bytes(2, "big") + numbered(300, 301)[0])
    damage(path, numbered(1999, 2000)[0])
    hashes = b"".join(map(leaf_hash, numbered(512, 768)))
    damage(path, hashes)
    store = RocksStore.open(path, read_only=read_only)
    with pytest.raises(StoreCorrupt, match="bundle 1 not read: damaged"):
        store.read_bundle(1, 256)
    with pytest.raises(StoreCorrupt, match="entry in 1792..1999 not read: damaged"):
        store.read_bundle(7, 208)
    with pytest.raises(StoreCorrupt, match="tile 0/2 not read: damaged"):
        store.read_tile(0, 2)
    store.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_damaged_leaf_index_is_not_a_shorter_one(path: Path, read_only: bool) -> None:
    leaves = damage_leaf_index(path)
    store = RocksStore.open(path, read_only=read_only)
    with pytest.raises(StoreCorrupt, match="leaf_index"):
        store.find([leaf for leaf, _ in leaves], below=2000)
    store.close()


def test_the_trap_is_there(path: Path) -> None:
    """The plain iterators of rocksdict end early at damage: nobody may use them."""
    damage_leaf_index(path)
    store = RocksStore.open(path)
    keys = list(store._families["leaf_index"].keys())
    assert len(keys) < 1999
    store.close()


def test_missing_bundle_and_tail_entry_are_damage(path: Path) -> None:
    store = RocksStore.open(path)
    store._families["bundles"].delete((3).to_bytes(8, "big"))
    store._families["tail"].delete((1800).to_bytes(8, "big"))
    with pytest.raises(StoreCorrupt, match=r"tile/entries/003 is gone"):
        store.read_bundle(3, 5)
    with pytest.raises(StoreCorrupt, match="entry 1800 is gone"):
        store.read_bundle(7, 208)
    edge = RightEdge.load(2000, store.read_tile)
    _, commit = step(edge, numbered(2000, 2100))
    with pytest.raises(StoreCorrupt, match="entry 1800 is gone"):
        store.commit(commit)
    assert store.tree_size() == 2000
    store.close()


def test_missing_table_is_damage(path: Path) -> None:
    next((path / "db").glob("*.sst")).unlink()
    with pytest.raises(StoreCorrupt, match="damaged"):
        RocksStore.open(path)


def crashed(store: RocksStore, path: Path) -> Path:
    """What a crash right now would leave: closing would move the WAL into tables."""
    (wal,) = shutil.copytree(store.path / "db", path / "db").glob("*.log")
    store.close()
    return wal


def test_damage_in_the_middle_of_the_wal_does_not_open(tmp_path: Path) -> None:
    store = RocksStore.create(tmp_path / "a")
    model = Model()
    for begin in range(0, 1000, 100):
        model.grow(store, numbered(begin, begin + 100))
    store.sync()
    flip(crashed(store, tmp_path / "b"), numbered(500, 501)[0])
    for read_only in (False, True):
        with pytest.raises(StoreCorrupt, match="damaged"):
            RocksStore.open(tmp_path / "b", read_only=read_only)


def test_torn_tail_of_the_wal_is_what_a_crash_leaves(tmp_path: Path) -> None:
    store = RocksStore.create(tmp_path / "a")
    model = Model()
    model.grow(store, numbered(0, 300))
    store.sync()
    (wal,) = (tmp_path / "a" / "db").glob("*.log")
    size = wal.stat().st_size
    _, torn = step(model.edge, numbered(300, 400))
    store.commit(torn)
    store.sync()
    with crashed(store, tmp_path / "b").open("r+b") as file:
        file.truncate(size + 1000)
    store = RocksStore.open(tmp_path / "b")
    model.check(store)
    model.grow(store, numbered(300, 400))
    model.check(store)
    store.close()


def test_every_file_cut_short_or_gone_is_noticed(path: Path) -> None:
    """No file of tables may be shortened without an error from opening or from reading it all."""
    for file in (path / "db").glob("*.sst"):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(StoreError):
            read_all(path)
        file.write_bytes(data)
    read_all(path)


def read_all(path: Path) -> None:
    every_hash = [leaf_hash(entry) for entry in numbered(0, 2000)]
    store = RocksStore.open(path, read_only=True)
    try:
        for index in range(8):
            store.read_bundle(index, min(256, 2000 - 256 * index))
            store.read_tile(0, index)
        assert store.find(every_hash, below=2000) == [*range(2000)]
    finally:
        store.close()
