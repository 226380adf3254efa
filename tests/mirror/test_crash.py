"""Kill -9 at each step of an upload: what was cosigned is there, and the upload goes on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mirror.support import FORK, LOG, a_mirror, check_cosigned, mirrored, send, sha256
from tlog.merkle import leaf_hashes, split_bundle
from tlog.mirror import Mirrored, UploadConflict
from tlog.witness import Unprocessable

# Takes one upload from 600 to 900, of two packages, and dies where it is told to.
DYING = """
import asyncio, os, signal, sys
from collections import Counter
from pathlib import Path
import tlog.mirror.copy
from tests.mirror.support import LOG, a_mirror, send
from tlog.store import RocksStore

where = sys.argv[2]
seen = Counter()

def die(point):
    seen[point] += 1
    if where in {point, f"{point} {seen[point]}"}:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(RocksStore):
    def commit(self, commit):
        die("before commit")
        super().commit(commit)
        die("after commit")

    def sync(self):
        super().sync()
        die("after sync")

    def put_state(self, mapping):
        die("before head")
        super().put_state(mapping)
        die("after head")

    def write_marker(self, marker):
        die("before marker")
        super().write_marker(marker)
        die("after marker")

async def main():
    tlog.mirror.copy.RocksStore = Dying
    async with a_mirror(Path(sys.argv[1])) as mirror:
        await mirror.add_checkpoint(*LOG.request(600, 900))
        die("after pending")
        await send(mirror, LOG.upload(600, 900))
        print("answered", flush=True)
        die("after answer")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("where", "sizes", "next_entries"),
    [
        ("before commit", {600}, {600}),
        ("after commit 1", {600}, {600, 768}),
        ("after commit 2", {600}, {600, 768, 900}),
        ("after sync 1", {600}, {900}),
        ("before head", {600}, {900}),
        ("after head", {600, 900}, {900}),
        ("after marker", {900}, {900}),
        ("after answer", {900}, {900}),
    ],
)
async def test_killed(tmp_path: Path, where: str, sizes: set[int], next_entries: set[int]) -> None:
    directory = tmp_path / "m"
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 0, 600)
    command = [sys.executable, "-c", DYING, str(directory), where]
    child = await asyncio.to_thread(
        subprocess.run, command, stdout=subprocess.PIPE, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert child.stdout == ("answered\n" if where == "after answer" else "")
    async with a_mirror(directory) as mirror:
        copy = mirror.copy(sha256(LOG.origin))
        assert copy.size in sizes
        assert copy.next_entry in next_entries
        check_cosigned(mirror, copy.published.note, copy.size)
        # What is there is the log's, to the last entry.
        for index in range(-(-copy.next_entry // 256)):
            width = min(256, copy.next_entry - index * 256)
            assert copy.reader.encoded_bundle(index, width) == LOG.bundle(index, width)
        # No other history gets in, whatever became of the answer; the client goes on.
        with pytest.raises(Unprocessable):
            await mirror.add_checkpoint(*FORK.request(900, 900))
        try:
            done = await send(mirror, LOG.upload(copy.next_entry, 900))
        except UploadConflict as conflict:
            done = await send(mirror, LOG.upload(conflict.info.next_entry, 900))
        assert isinstance(done, Mirrored)
        check_cosigned(mirror, copy.published.note, 900)


async def test_a_copy_that_was_being_made_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    async with a_mirror(directory) as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 600))
        # As a kill in the middle of it leaves things.
        unfinished = directory / "copies" / f"{sha256(LOG.origin).hex()}.new"
        (unfinished / "db").mkdir(parents=True)
        assert isinstance(await send(mirror, LOG.upload(0, 600)), Mirrored)
        assert not unfinished.exists()


async def test_a_first_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    # There is no head yet that could be proven.
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 1300))
        await send(mirror, LOG.upload(0, 1300, count=3))
    async with a_mirror(tmp_path / "m") as mirror:
        copy = mirror.copy(sha256(LOG.origin))
        assert copy.head is None
        assert copy.next_entry == 768
        assert isinstance(await send(mirror, LOG.upload(768, 1300)), Mirrored)
        assert leaf_hashes(split_bundle(copy.reader.encoded_bundle(2, 256))) == leaf_hashes(
            LOG.entries[512:768]
        )
