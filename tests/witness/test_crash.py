"""Kill -9 at each step from the check to the answer: what was answered is there, and fits."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.witness.support import ORIGIN, SomeLog, a_witness
from tlog.notes import parse_unverified
from tlog.witness import SizeConflict, UnknownOrigin, Unprocessable, Witness, hash_origin

LOG = SomeLog()
FORK = SomeLog(forked_at=0)

# Serves one request from 3 to 5 and dies where it is told to.
DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.witness.support import SomeLog, a_witness
from tlog.store.heads import HeadStore

where = sys.argv[2]

def die(point):
    if point == where:
        os.kill(os.getpid(), signal.SIGKILL)

class Heads(HeadStore):
    def swap(self, swaps):
        die("before the swap")
        done = super().swap(swaps)
        die("between swap and sync")
        return done

    def sync(self):
        super().sync()
        die("between persist and answer")

async def main():
    heads = Heads.open(Path(sys.argv[1]))
    async with a_witness(Path(sys.argv[1]), heads=heads) as witness:
        await witness.add_checkpoint(*SomeLog().request(3, 5))
        print("answered", flush=True)
        die("after the answer")

asyncio.run(main())
"""

# Grows for ever; each line is an answer.
GROWING = """
import asyncio, sys
from pathlib import Path
from tests.witness.support import SomeLog, a_witness
from tlog.notes import parse_unverified
from tlog.witness import hash_origin

async def main():
    log = SomeLog()
    async with a_witness(Path(sys.argv[1])) as witness:
        (note,) = witness.checkpoints()
        size = parse_unverified(note).checkpoint.size
        print(size, flush=True)
        while True:
            await witness.add_checkpoint(*log.request(size, size + 1))
            size += 1
            print(size, flush=True)

asyncio.run(main())
"""


def stored_size(witness: Witness) -> int:
    return parse_unverified(witness.checkpoint(hash_origin(ORIGIN))).checkpoint.size


@pytest.mark.parametrize(
    ("where", "sizes"),
    [
        ("before the swap", {3}),
        ("between swap and sync", {3, 5}),
        ("between persist and answer", {5}),
        ("after the answer", {5}),
    ],
)
async def test_killed(tmp_path: Path, where: str, sizes: set[int]) -> None:
    async with a_witness(tmp_path) as witness:
        with pytest.raises(UnknownOrigin):
            stored_size(witness)
        await witness.add_checkpoint(*LOG.request(0, 3))
    command = [sys.executable, "-c", DYING, str(tmp_path), where]
    child = await asyncio.to_thread(
        subprocess.run, command, stdout=subprocess.PIPE, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert child.stdout == ("answered\n" if where == "after the answer" else "")
    async with a_witness(tmp_path) as witness:
        assert stored_size(witness) in sizes
        # The log tries again with what it knows, and gets its cosignature one way or the other.
        try:
            await witness.add_checkpoint(*LOG.request(3, 5))
        except SizeConflict as refusal:
            await witness.add_checkpoint(*LOG.request(refusal.size, 5))
        assert stored_size(witness) == 5
        # Another history does not pass, whatever became of the answer.
        with pytest.raises(Unprocessable):
            await witness.add_checkpoint(*FORK.request(5, 5))


def grow_and_kill(directory: Path) -> int:
    """The last size that a killed witness answered."""
    command = [sys.executable, "-c", GROWING, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        time.sleep(random.uniform(0, 0.2))
        child.kill()
        lines += child.stdout.read().splitlines(True)
    return int([line for line in lines if line.endswith("\n")][-1])


async def test_killed_at_any_time(tmp_path: Path) -> None:
    async with a_witness(tmp_path) as witness:
        await witness.add_checkpoint(*LOG.request(0, 1))
    for _ in range(4):
        answered = await asyncio.to_thread(grow_and_kill, tmp_path)
        async with a_witness(tmp_path) as witness:
            size = stored_size(witness)
            assert size >= answered
            await witness.add_checkpoint(*LOG.request(size, size))
    assert size > 1
