"""What a mirror finds wrong with its own disk, and refuses to cosign."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mirror.support import LOG, a_mirror, check_cosigned, mirrored, send, sha256
from tests.witness.support import START, Clock
from tlog.log import StateRefused
from tlog.mirror import Mirrored, MirrorError, copy_directory
from tlog.mirror.copy import REFRESH_SECONDS
from tlog.notes import NoteError, open_checkpoint
from tlog.store import RocksStore, StoreFull
from tlog.witness import Unavailable, WitnessError


async def test_an_old_copy_of_the_copy_is_a_rollback(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 0, 600)
    database = copy_directory(directory, LOG.origin) / "db"
    shutil.copytree(database, tmp_path / "old")
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 600, 900)
    shutil.rmtree(database)
    shutil.move(tmp_path / "old", database)
    with pytest.raises(StateRefused, match="rollback"):
        async with a_mirror(directory):
            pass


async def test_an_old_copy_of_the_pending_checkpoints_is_a_rollback(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 0, 600)
    shutil.copytree(directory / "db", tmp_path / "old")
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 600, 900)
    shutil.rmtree(directory / "db")
    shutil.move(tmp_path / "old", directory / "db")
    with pytest.raises(MirrorError, match="rollback"):
        async with a_mirror(directory):
            pass


async def test_damage_below_a_pending_entry_is_never_cosigned(tmp_path: Path) -> None:
    # A head comes after the damage: its root is computed from what the disk holds.
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(0, 700))
        await send(mirror, LOG.upload(0, 700, count=2))
        copy = mirror.copy(sha256(LOG.origin))
        store = copy._store
        assert isinstance(store, RocksStore)
        tile = bytearray(store.read_tile(1, 0))
        tile[5] ^= 1
        store._families["tiles"][b"\1" + bytes(8)] = bytes(tile)
        with pytest.raises(Unavailable, match="root"):
            await send(mirror, LOG.upload(512, 700))
        assert copy.head is None


async def test_a_full_disk_refuses_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_mirror(tmp_path / "m") as mirror:
        await mirrored(mirror, 0, 600)
        await mirror.add_checkpoint(*LOG.request(600, 900))
        copy = mirror.copy(sha256(LOG.origin))

        def full() -> None:
            raise StoreFull("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(copy._store, "sync", full)
            with pytest.raises(Unavailable, match="disk is full"):
                await send(mirror, LOG.upload(600, 900))
        assert mirror.failure is not None
        assert copy.size == 600  # it is read all the same
        done = await send(mirror, LOG.upload(600, 900))
        assert isinstance(done, Mirrored)
        assert mirror.failure is None


async def test_a_head_is_cosigned_anew_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    async with a_mirror(tmp_path / "m", clock=clock) as mirror:
        first = await mirrored(mirror, 0, 600)
        clock.now = START + REFRESH_SECONDS - 1
        again = await send(mirror, LOG.upload(600, 600))
        assert isinstance(again, Mirrored)
        assert again.cosignatures == first.cosignatures
        clock.now = START + REFRESH_SECONDS
        later = await send(mirror, LOG.upload(600, 600))
        assert isinstance(later, Mirrored)
        times = [int.from_bytes(s.signature[:8], "big") for s in later.cosignatures]
        assert times == [START + REFRESH_SECONDS] * 2
    async with a_mirror(tmp_path / "m", clock=clock) as mirror:
        # A clock that was set back does not make a newer statement an older one.
        clock.now = START
        await mirrored(mirror, 600, 900)
        note = mirror.copy(sha256(LOG.origin)).published.note
        check_cosigned(mirror, note, 900)
        signed_by = open_checkpoint(note, mirror.vkeys, origin=LOG.origin).signed_by
        assert {time for _, time in signed_by} == {START + REFRESH_SECONDS}


async def test_a_key_of_another_name_is_refused(tmp_path: Path) -> None:
    async with a_mirror(tmp_path / "m"):
        pass
    path = tmp_path / "m" / "mirror.toml"
    path.write_text(path.read_text().replace("m1", "m2"))
    with pytest.raises(WitnessError, match="not the"):
        async with a_mirror(tmp_path / "m"):
            pass
    (tmp_path / "m" / "keys" / "ed25519.key").unlink()
    with pytest.raises(NoteError):
        async with a_mirror(tmp_path / "m"):
            pass
