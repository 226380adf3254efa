"""What survives kill -9, and that a second process stays out."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.growth import Model, index_rows, numbered, step
from tlog.store import RocksStore, StoreLocked

# Appends batches of 1 to 300 for ever; a line on stdout acknowledges all entries below it.
WRITER = """
import random, sys
from pathlib import Path
from tests.store.growth import numbered, step
from tlog.merkle.tree import RightEdge
from tlog.store import RocksStore, leaf_index
leaf_index.RUN = 300
store = RocksStore.open(Path(sys.argv[1]))
edge = RightEdge.load(store.tree_size(), store.read_tile)
print("ready", flush=True)
while True:
    size = edge.size + random.choice([1, 5, 100, 256, 300])
    edge, commit = step(edge, numbered(edge.size, size, 200))
    store.commit(commit)
    store.put_state({"head": b"%d" % size})
    store.sync()
    store.write_marker(b"%d" % size)
    print(size, flush=True)
"""


def start(script: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )


def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    RocksStore.create(tmp_path).close()
    acknowledged = 0
    for _ in range(12):
        writer = start(WRITER, tmp_path)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.15))
        writer.kill()
        lines = [line for line in writer.stdout.read().splitlines(True) if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
        acknowledged = int(lines[-1]) if lines else acknowledged

        store = RocksStore.open(tmp_path)
        size = store.tree_size()
        assert size >= acknowledged
        # The head is put after its commit: it is never ahead of the tree, nor behind an answer.
        assert acknowledged <= int(store.get_state("head") or 0) <= size
        assert acknowledged <= int(store.read_marker() or 0) <= size
        store.close()
    store = RocksStore.open(tmp_path)
    model = Model()
    model.entries = numbered(0, store.tree_size(), 200)
    model.edge, _ = step(model.edge, model.entries)
    model.check(store)
    assert index_rows(store) == model.leaves()
    assert store.tree_size() > 1000
    store.close()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    RocksStore.create(tmp_path).close()
    writer = start(WRITER, tmp_path)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(StoreLocked, match=str(tmp_path)):
            RocksStore.open(tmp_path)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    RocksStore.open(tmp_path).close()
