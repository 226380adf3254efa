"""A log refuses to start on anything that is not what it signed, and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tlog.log import (
    Log,
    LogConfig,
    LogError,
    StateRefused,
    create_log,
    fsck,
    load_signers,
)
from tlog.log.publisher import PUBLISHED, SIGNED
from tlog.merkle import Tile, leaf_hash
from tlog.notes import Algorithm, Checkpoint, NoteError, Signer, sign_checkpoint
from tlog.store import Commit, RocksStore, StoreError

ORIGIN = "example.com/startup"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_log(tmp_path / "log", LogConfig(origin=ORIGIN, name="log", checkpoint_interval=0))
    return tmp_path / "log"


async def append(directory: Path, count: int) -> int:
    async with Log.opened(directory) as log:
        indices = await log.submit([b"entry %d" % i for i in range(count)])
    return indices[-1] + 1


async def refusal(directory: Path) -> str:
    with pytest.raises((LogError, NoteError, StoreError)) as caught:
        async with Log.opened(directory):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def head(directory: Path, size: int, root: bytes) -> bytes:
    signers = load_signers(directory, LogConfig.load(directory), passphrase=None)
    return sign_checkpoint(Checkpoint(ORIGIN, size, root), signers, timestamp=1)


def tamper(directory: Path, change: Callable[[RocksStore], None]) -> None:
    store = RocksStore.open(directory)
    change(store)
    store.sync()
    store.close()


async def test_a_fresh_log_publishes_a_head_of_size_zero_before_its_first_write(
    directory: Path,
) -> None:
    async with Log.opened(directory) as log:
        assert log.published.size == 0
    assert (directory / "HEAD").read_bytes() == log.published.note


@pytest.mark.parametrize("counts", [(1, 1), (255, 1, 1), (256, 256), (300, 700, 5), (70_000, 1)])
async def test_it_goes_on_where_it_was(directory: Path, counts: tuple[int, ...]) -> None:
    size = 0
    for count in counts:
        async with Log.opened(directory) as log:
            assert log.published.size == size
            indices: list[int] = []
            for start in range(0, count, 10_000):
                indices += await log.submit(
                    [b"%d" % i for i in range(start, min(start + 10_000, count))]
                )
        assert indices == list(range(size, size + count))
        size += count


async def test_an_old_copy_of_the_database_is_a_rollback(directory: Path, tmp_path: Path) -> None:
    await append(directory, 300)
    shutil.copytree(directory / "db", tmp_path / "old")
    await append(directory, 5)
    shutil.rmtree(directory / "db")
    shutil.copytree(tmp_path / "old", directory / "db")
    said = await refusal(directory)
    assert "rollback" in said
    assert "305" in said


async def test_an_old_copy_that_grew_another_way_is_a_fork(directory: Path, tmp_path: Path) -> None:
    await append(directory, 300)
    shutil.copytree(directory, tmp_path / "fork")
    await append(directory, 5)
    async with Log.opened(tmp_path / "fork") as log:
        await log.submit([b"other %d" % i for i in range(9)])
    shutil.copy(directory / "HEAD", tmp_path / "fork" / "HEAD")
    assert "the tree is not what was signed: at size 305" in await refusal(tmp_path / "fork")


async def test_without_its_marker_it_does_not_start(directory: Path) -> None:
    await append(directory, 3)
    (directory / "HEAD").unlink()
    assert "HEAD is missing" in await refusal(directory)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\xff" * 100])
async def test_a_damaged_marker_is_refused(directory: Path, garbage: bytes) -> None:
    await append(directory, 3)
    (directory / "HEAD").write_bytes(garbage)
    assert "is not a checkpoint signed by this log" in await refusal(directory)


async def test_a_marker_signed_by_other_keys_is_refused(directory: Path) -> None:
    await append(directory, 3)
    stranger = Signer.generate(ORIGIN, Algorithm.ED25519)
    note = sign_checkpoint(Checkpoint(ORIGIN, 3, b"r" * 32), [stranger], timestamp=1)
    (directory / "HEAD").write_bytes(note)
    assert "is not a checkpoint signed by this log" in await refusal(directory)


async def test_a_signed_head_that_the_tiles_do_not_give_is_refused(directory: Path) -> None:
    await append(directory, 300)
    tamper(directory, lambda store: store.put_state({SIGNED: head(directory, 300, b"r" * 32)}))
    assert "the tree is not what was signed: at size 300" in await refusal(directory)


async def test_a_signed_head_beyond_the_tree_is_refused(directory: Path) -> None:
    await append(directory, 300)
    tamper(directory, lambda store: store.put_state({SIGNED: head(directory, 301, b"r" * 32)}))
    assert "entries are lost" in await refusal(directory)


async def test_a_published_head_beyond_the_signed_one_is_refused(directory: Path) -> None:
    await append(directory, 300)
    tamper(directory, lambda store: store.put_state({PUBLISHED: head(directory, 301, b"r" * 32)}))
    assert "is newer than the signed one" in await refusal(directory)


async def test_entries_without_any_signed_head_are_refused(directory: Path) -> None:
    leaf = leaf_hash(b"smuggled")
    commit = Commit(
        begin=0, size=1, tiles=[(Tile(0, 0, 1), leaf)], entries=[b"smuggled"], leaf_hashes=leaf
    )
    tamper(directory, lambda store: store.commit(commit))
    assert "no signed head" in await refusal(directory)


@pytest.mark.parametrize("size", [3, 256, 300])
async def test_an_unsigned_entry_that_does_not_hash_to_its_leaf_is_named(
    directory: Path, size: int
) -> None:
    await append(directory, size)

    def smuggle(store: RocksStore) -> None:
        edge_tile = Tile(0, size // 256, size % 256 + 1)
        before = store.read_tile(0, size // 256) if size % 256 else b""
        leaf = leaf_hash(b"one thing")
        store.commit(
            Commit(
                begin=size,
                size=size + 1,
                tiles=[(edge_tile, before + leaf)],
                entries=[b"another"],
                leaf_hashes=leaf,
            )
        )

    tamper(directory, smuggle)
    assert f"entry {size} does not hash to the leaf in tile/0/" in await refusal(directory)


async def test_keys_of_another_origin_are_refused(directory: Path) -> None:
    text = (directory / "log.toml").read_text()
    (directory / "log.toml").write_text(text.replace(ORIGIN, "example.com/other"))
    assert "not of the origin" in await refusal(directory)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("checkpoint_interval = -1", "checkpoint_interval"),
        ("max_entry_size = 65536", "max_entry_size"),
        ("surprise = 1", "surprise"),
        ('name = "a b"', "name"),
        ("dedup = ", "log.toml"),
    ],
)
async def test_settings_that_make_no_sense_are_named(
    directory: Path, line: str, expected: str
) -> None:
    key = line.split(" = ", maxsplit=1)[0]
    kept = [
        old
        for old in (directory / "log.toml").read_text().splitlines()
        if not old.startswith(f"{key} =")
    ]
    (directory / "log.toml").write_text("\n".join([*kept, line, ""]))
    assert expected in await refusal(directory)


async def test_a_directory_with_no_log_says_how_to_make_one(tmp_path: Path) -> None:
    assert "tlog init" in await refusal(tmp_path)


async def test_two_openings_of_one_directory_the_second_says_why(directory: Path) -> None:
    async with Log.opened(directory):
        assert "another" in await refusal(directory)


def test_a_directory_that_holds_something_is_not_made_a_log(tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("mine")
    with pytest.raises(LogError, match="not empty"):
        create_log(tmp_path, LogConfig(origin=ORIGIN, name="log"))


def test_fsck_of_a_log_that_was_never_served_finds_nothing(directory: Path) -> None:
    store = RocksStore.open(directory)
    vkeys = [s.vkey for s in load_signers(directory, LogConfig.load(directory), passphrase=None)]
    assert fsck(store, vkeys).problems == ()
    store.close()


async def test_fsck_names_a_head_that_is_missing(directory: Path) -> None:
    await append(directory, 3)
    (directory / "HEAD").unlink()
    store = RocksStore.open(directory)
    vkeys = [s.vkey for s in load_signers(directory, LogConfig.load(directory), passphrase=None)]
    assert fsck(store, vkeys).problems == ("the marker file HEAD is missing: no head is there",)
    store.close()


async def test_a_head_that_does_not_follow_is_never_signed(directory: Path) -> None:
    """The last line of defence: the signer itself refuses, whatever the store says."""
    await append(directory, 300)
    async with Log.opened(directory) as log:
        forged = sign_checkpoint(
            Checkpoint(ORIGIN, 299, b"r" * 32),
            load_signers(directory, log.config, passphrase=None),
            timestamp=1,
        )
        signer = log.publisher._signer
        assert signer.signed is not None
        signer.signed = type(signer.signed)(Checkpoint(ORIGIN, 299, b"r" * 32), forged)
        await log.submit([b"one more"])
        with pytest.raises(StateRefused, match="stopped|refusing to sign"):
            for _ in range(100):
                await log.append_published([b"and more"])
        assert log.published.size == 300
