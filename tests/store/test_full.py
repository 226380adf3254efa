"""A full disk: nothing acknowledged is lost, and the store comes back once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.growth import Model, numbered, step
from tlog.store import RocksStore, StoreError, StoreFull


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(file: Path) -> None:
    """Take all the room that there is left."""
    with pytest.raises(OSError), file.open("ab") as more:  # noqa: PT011
        while True:
            more.write(bytes(1 << 16))
            more.flush()


def test_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    store = RocksStore.create(small_disk / "log")
    model = Model()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(30 << 20))
    acknowledged = 0
    with pytest.raises(StoreFull, match="disk is full"):
        while model.edge.size < 1_000_000:
            model.grow(store, numbered(model.edge.size, model.edge.size + 256, 1000))
            store.sync()
            acknowledged = model.edge.size
    assert acknowledged > 0

    # Reading goes on; writing does not, even though there may be a little room again.
    assert store.read_bundle(0, 256)
    for write in (store.sync, lambda: store.put_state({"a": b""})):
        with pytest.raises(StoreError, match="needs reopen"):
            write()
    # What failed half-way is removed behind our backs, and leaves some room.
    fill(small_disk / "more")
    with pytest.raises(StoreFull):
        store.write_marker(bytes(1 << 20))
    assert store.read_marker() is None

    # While the disk is full, reopen fails, and reading goes on.
    fill(small_disk / "more")
    with pytest.raises(StoreFull, match="no room"):
        store.reopen()
    assert store.read_bundle(0, 256)
    (small_disk / "more").unlink()
    ballast.unlink()
    store.reopen()

    # The commit that failed is there as a whole or not at all.
    assert store.tree_size() in {acknowledged, acknowledged + 256}
    model = Model()
    model.entries = numbered(0, store.tree_size(), 1000)
    model.edge, _ = step(model.edge, model.entries)
    model.check(store)
    model.grow(store, numbered(model.edge.size, model.edge.size + 500, 1000))
    store.sync()
    store.write_marker(b"head")
    store.reopen()
    model.check(store)
    store.close()
