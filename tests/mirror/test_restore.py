"""A lost log is made again from its copy, and goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mirror.support import FORK, LOG, OTHER, SomeLog, a_mirror, mirrored, send
from tests.witness.support import flip
from tlog.log import Log, LogConfig, fsck
from tlog.log.log import KEY_FILES, KEYS
from tlog.merkle import verify_consistency
from tlog.mirror import MirrorError, copy_directory, restore
from tlog.notes import NoteError, open_checkpoint, save_signer
from tlog.store import RocksStore, StoreError, StoreLocked


async def fill(directory: Path, size: int = 900) -> None:
    async with a_mirror(directory) as mirror:
        await mirrored(mirror, 0, size)


def put_keys_back(target: Path, log: SomeLog = LOG) -> None:
    (target / KEYS).mkdir(parents=True)
    for file, signer in zip(KEY_FILES, log.signers, strict=True):
        save_signer(target / KEYS / file, signer, passphrase=None)


@pytest.mark.parametrize("size", [0, 1, 256, 900])
async def test_a_restored_log_goes_on(tmp_path: Path, size: int) -> None:
    await fill(tmp_path / "m", size)
    target = tmp_path / "mylog"
    put_keys_back(target)
    seen: list[tuple[int, int]] = []
    head = restore(tmp_path / "m", LOG.origin, target, progress=lambda *done: seen.append(done))
    assert head.checkpoint == LOG.checkpoint(size)
    assert seen[-1:] == ([(size, size)] if size else [])
    assert LogConfig.load(target).origin == LOG.origin
    async with Log.opened(target) as log:
        assert log.published.checkpoint == LOG.checkpoint(size)
        for index in range(0, size, 100):
            assert log.reader.entry(index, size) == LOG.entries[index]
        (receipt,) = await log.append_published([b"after the loss"])
        assert receipt.index == size
        grown = open_checkpoint(log.published.note, LOG.vkeys, origin=LOG.origin).checkpoint
        # Whoever has seen a head before the loss sees that this one follows.
        for old in {size, size // 2}:
            verify_consistency(
                old_size=old,
                new_size=grown.size,
                old_root=LOG.checkpoint(old).root_hash,
                new_root=grown.root_hash,
                proof=log.reader.consistency_proof(old, grown.size),
            )
    store = RocksStore.open(target, read_only=True)
    assert fsck(store, LOG.vkeys).problems == ()
    store.close()


async def test_a_log_that_has_signed_more_is_not_restored(tmp_path: Path) -> None:
    await fill(tmp_path / "m")
    async with a_mirror(tmp_path / "m") as mirror:
        await mirror.add_checkpoint(*LOG.request(900, 1300))
        # Most of the entries are there: that is not enough.
        await send(mirror, LOG.upload(900, 1300, count=1))
    with pytest.raises(MirrorError, match="would fork"):
        restore(tmp_path / "m", LOG.origin, tmp_path / "mylog")
    assert not (tmp_path / "mylog").exists()


async def test_it_is_held_to_what_others_have_seen(tmp_path: Path) -> None:
    await fill(tmp_path / "m")
    target = tmp_path / "mylog"

    def held_to(newest: bytes) -> None:
        restore(tmp_path / "m", LOG.origin, target, newest=newest)

    # Signed after the mirror's last look.
    with pytest.raises(MirrorError, match="would fork"):
        held_to(LOG.note(901))
    with pytest.raises(NoteError):
        held_to(OTHER.note(300))
    with pytest.raises(NoteError):
        held_to(flip(LOG.note(900)))
    assert not target.exists()
    for forked in (FORK.note(900), FORK.note(301)):
        with pytest.raises(MirrorError, match="forked"):
            held_to(forked)
        assert not (target / "HEAD").exists()
        shutil.rmtree(target)
    held_to(LOG.note(500))


async def test_what_cannot_be_restored_is_said(tmp_path: Path) -> None:
    mirror, target = tmp_path / "m", tmp_path / "mylog"
    await fill(mirror)
    with pytest.raises(MirrorError, match="does not mirror"):
        restore(mirror, "log.example/unknown", target)
    with pytest.raises(MirrorError, match="no copy"):
        restore(mirror, OTHER.origin, target)
    async with a_mirror(mirror) as running:
        with pytest.raises(StoreLocked, match="stop that one first"):
            restore(mirror, LOG.origin, target)
        await running.add_checkpoint(*OTHER.request(0, 300))
        await send(running, OTHER.upload(0, 300, count=1))
    with pytest.raises(MirrorError, match="not complete"):
        restore(mirror, OTHER.origin, target)
    assert not target.exists()
    target.mkdir()
    LogConfig(origin=OTHER.origin, name="mylog").save(target)
    with pytest.raises(MirrorError, match="log.example/other"):
        restore(mirror, LOG.origin, target)
    with pytest.raises(MirrorError, match="log.toml"):
        restore(mirror, LOG.origin, tmp_path / "no name!")
    (target / "log.toml").unlink()
    restore(mirror, LOG.origin, target)
    with pytest.raises(StoreError, match="exists"):
        restore(mirror, LOG.origin, target)


async def test_an_entry_that_was_changed_is_found(tmp_path: Path) -> None:
    await fill(tmp_path / "m")
    store = RocksStore.open(copy_directory(tmp_path / "m", LOG.origin))
    bundle = bytearray(store.read_bundle(1, 256))
    bundle[-1] ^= 1
    store._families["bundles"][(1).to_bytes(8, "big")] = bytes(bundle)
    store.close()
    with pytest.raises(MirrorError, match="the copy is damaged"):
        restore(tmp_path / "m", LOG.origin, tmp_path / "mylog")
    # What was begun is not taken for a log.
    assert not (tmp_path / "mylog" / "HEAD").exists()
    assert not (tmp_path / "mylog" / "log.toml").exists()
    shutil.rmtree(tmp_path / "mylog")
