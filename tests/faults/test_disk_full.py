"""A full disk: appends are refused and say so, nothing acknowledged is lost, and it heals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlog.log import Log, LogConfig, Unavailable, create_log, fsck
from tlog.store import RocksStore


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_full_disk_refuses_loses_nothing_and_heals(small_disk: Path) -> None:
    directory = small_disk / "log"
    create_log(
        directory, LogConfig(origin="example.com/full", name="full", checkpoint_interval=0.05)
    )
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 << 20))
    acknowledged: dict[int, bytes] = {}

    async def append(batch: list[bytes]) -> None:
        for index, entry in zip(await log.submit(batch), batch, strict=True):
            assert index not in acknowledged
            acknowledged[index] = entry

    async with Log.opened(directory) as log:
        with pytest.raises(Unavailable, match="disk is full.*[Ff]ree some space"):
            for _ in range(1000):
                await append([os.urandom(2000) for _ in range(50)])
        size_when_full = log.published.size
        # It goes on refusing while the disk is full, and goes on answering what it has published.
        for _ in range(5):
            with contextlib.suppress(Unavailable):
                await append([os.urandom(2000) for _ in range(50)])
            await asyncio.sleep(0.3)
        assert log.sequencer.refusal is not None
        assert log.published.size >= size_when_full > 0
        log.reader.entry(0, size_when_full)
        ballast.unlink()
        async with asyncio.timeout(30):
            while log.sequencer.refusal is not None:
                await asyncio.sleep(0.1)
        await append([b"after the disk was freed"])
        await log.append_published([b"and published"])
        size = log.published.size
        assert size > max(acknowledged)
        for index, entry in acknowledged.items():
            assert log.reader.entry(index, size) == entry

    store = RocksStore.open(directory, read_only=True)
    try:
        assert fsck(store, log.vkeys).problems == ()
    finally:
        store.close()
