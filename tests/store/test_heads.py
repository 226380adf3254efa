"""The heads of a witness: swapped or not, durable after sync, damage named, one owner."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.test_full import small_disk  # noqa: F401 -- a fixture
from tlog.store import (
    RocksStore,
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
)
from tlog.store.heads import HeadStore, Swap


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


A, B, C = (key(number) for number in range(3))


SALTS = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> HeadStore:
    return HeadStore.create(tmp_path)


def test_compare_and_swap(store: HeadStore) -> None:
    assert store.get(A) is None
    assert store.swap([Swap(A, b"1", b"2"), Swap(B, None, b"b")]) == [False, True]
    assert (store.get(A), store.get(B)) == (None, b"b")
    # In one batch, each sees the ones before it.
    swaps = [Swap(A, None, b"1"), Swap(A, None, b"x"), Swap(A, b"1", b"2"), Swap(B, b"", b"x")]
    assert store.swap(swaps) == [True, False, True, False]
    assert (store.get(A), store.get(B)) == (b"2", b"b")
    assert store.swap([]) == []
    for short in (b"", A[1:], A + b"x"):
        with pytest.raises(StoreError, match="origin hash"):
            store.swap([Swap(C, None, b"c"), Swap(short, None, b"")])
    # Refused before anything was written: usable, and nothing of the batch is there.
    assert store.get(C) is None
    store.sync()
    assert dict(store.heads()) == {A: b"2", B: b"b"}
    store.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from([None, b"", b"1", b"2"]),
                st.sampled_from([b"", b"1", b"2"]),
            ),
            max_size=6,
        ),
        max_size=6,
    ),
)
def test_any_swaps_against_a_dict(
    store: HeadStore, batches: list[list[tuple[int, bytes | None, bytes]]]
) -> None:
    model: dict[bytes, bytes] = {}
    salt = next(SALTS)
    for batch in batches:
        swaps = [
            Swap(hashlib.sha256(f"{salt} {number}".encode()).digest(), expected, head)
            for number, expected, head in batch
        ]
        done = []
        for swap in swaps:
            done.append(model.get(swap.origin_hash) == swap.expected)
            if done[-1]:
                model[swap.origin_hash] = swap.head
        assert store.swap(swaps) == done
        for swap in swaps:
            assert store.get(swap.origin_hash) == model.get(swap.origin_hash)


def test_reopened(store: HeadStore, tmp_path: Path) -> None:
    many = {key(number): b"%d" % number * 100 for number in range(1000)}
    assert all(store.swap([Swap(origin, None, head) for origin, head in many.items()]))
    store.sync()
    store.reopen()
    assert list(store.heads()) == sorted(many.items())
    store.close()
    store.close()
    for use in (lambda: store.get(A), lambda: list(store.heads()), store.sync):
        with pytest.raises(StoreError, match="closed"):
            use()
    store = HeadStore.open(tmp_path)
    assert dict(store.heads()) == many
    # Written to between two steps.
    for origin, head in store.heads():
        assert store.swap([Swap(origin, head, b"new")]) == [True]
    assert set(dict(store.heads()).values()) == {b"new"}
    store.close()


def test_a_second_owner_is_refused(store: HeadStore, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match="another tlog witness"):
        HeadStore.open(tmp_path)
    script = (
        "import sys; from pathlib import Path; from tlog.store.heads import HeadStore;"
        "HeadStore.open(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    child = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert "StoreLocked" in child.stderr
    store.close()
    HeadStore.open(tmp_path).close()


def test_what_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="tlog witness init"):
        HeadStore.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    RocksStore.create(tmp_path / "log").close()
    with pytest.raises(SchemaError):
        HeadStore.open(tmp_path / "log")
    RocksStore.open(tmp_path / "log").close()
    HeadStore.create(tmp_path / "witness").close()
    with pytest.raises(SchemaError):
        RocksStore.open(tmp_path / "witness")
    with pytest.raises(StoreError, match="exists"):
        HeadStore.create(tmp_path / "witness")


def test_after_a_failed_write_nothing_is_written(store: HeadStore) -> None:
    store.swap([Swap(A, None, b"1")])
    store.sync()
    store._poison(Exception("IO error: No space left on device"))
    for write in (store.sync, lambda: store.swap([Swap(B, None, b"1")])):
        with pytest.raises(StoreError, match="needs reopen"):
            write()
    assert store.get(A) == b"1"
    store.reopen()
    assert store.get(A) == b"1"
    assert store.swap([Swap(A, b"1", b"2")]) == [True]
    store.sync()
    store.close()


def test_damage_is_named(store: HeadStore, tmp_path: Path) -> None:
    many = [Swap(key(number), None, key(number) * 8) for number in range(1000)]
    store.swap(many)
    store._families["heads"].flush()
    store.close()
    victim = sorted(swap.origin_hash for swap in many)[500]
    (table,) = [f for f in (tmp_path / "db").glob("*.sst") if victim * 4 in f.read_bytes()]
    data = bytearray(table.read_bytes())
    data[data.index(victim * 4) + 40] ^= 1
    table.write_bytes(data)
    # In another process: this one's block cache may hold what the disk no longer does.
    script = """
import sys
from pathlib import Path
from tlog.store import StoreCorrupt
from tlog.store.heads import HeadStore
store = HeadStore.open(Path(sys.argv[1]))
for read in (lambda: store.get(bytes.fromhex(sys.argv[2])), lambda: list(store.heads())):
    try:
        read()
    except StoreCorrupt as error:
        print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path), victim.hex()]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert child.stdout.count("damaged") == 2
    assert StoreCorrupt.__name__ not in child.stderr


WRITER = """
import sys
from pathlib import Path
from tlog.store.heads import HeadStore, Swap
from tests.store.test_heads import key
store = HeadStore.open(Path(sys.argv[1]))
heads = {}
for step in range(1 << 30):
    swaps = [Swap(key(n), store.get(key(n)), b"%d" % step) for n in range(step % 7 + 1)]
    assert all(store.swap(swaps))
    store.sync()
    print(step, step % 7 + 1, flush=True)
"""


def test_kill_loses_nothing_synced(store: HeadStore, tmp_path: Path) -> None:
    store.close()
    for delay in (0.0, 0.05, 0.1):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(delay)
            writer.kill()
            lines += [line for line in writer.stdout.read().splitlines(True) if line[-1] == "\n"]
        heads: dict[bytes, int] = {}
        for line in lines:
            step, count = map(int, line.split())
            heads.update(dict.fromkeys(map(key, range(count)), step))
        store = HeadStore.open(tmp_path)
        for origin, step in heads.items():
            assert int(store.get(origin) or -1) >= step
        for origin, _ in list(store.heads()):
            store.swap([Swap(origin, store.get(origin), b"0")])
        store.close()


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:  # noqa: F811
    store = HeadStore.create(small_disk / "witness")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(30 << 20))
    stored: dict[bytes, bytes] = {}
    with pytest.raises(StoreFull, match="disk is full"):
        for number in range(100):
            head = key(number) * 8192
            assert store.swap([Swap(key(number), None, head)]) == [True]
            store.sync()
            stored[key(number)] = head
    assert stored
    # Still there to be read, and while the disk is full it stays so.
    with pytest.raises(StoreError, match="needs reopen"):
        store.sync()
    with pytest.raises(StoreFull):
        store.reopen()
    for origin, head in stored.items():
        assert store.get(origin) == head
    ballast.unlink()
    store.reopen()
    kept = dict(store.heads())
    assert kept.items() >= stored.items()
    assert len(kept) <= len(stored) + 1
    store.swap([Swap(A, kept[A], b"new")])
    store.sync()
    store.close()
