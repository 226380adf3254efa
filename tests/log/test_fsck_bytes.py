"""Every byte that a small log stores, flipped once: `fsck` names each."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path

import pytest
import pytest_asyncio

from tlog.log import Log, LogConfig, StateRefused, create_log, fsck, startup
from tlog.notes import VerifierKey
from tlog.store import RocksStore

# In the room's face the function hides it.
module = importlib.import_module("tlog.log.fsck")

# Two bundles, two leaf tiles and one above them, as short as can be.
ENTRIES = [b"%d" % (index % 10) for index in range(258)]
INDEX_OF_256 = (256).to_bytes(8, "big")

PLACES = {
    "tile/0/000": ("tiles", bytes(9)),
    "tile/0/001.p/2": ("tiles", bytes(8) + b"\1"),
    "tile/1/000.p/1": ("tiles", b"\1" + bytes(8)),
    "entry bundle 0": ("bundles", bytes(8)),
    "entry 256": ("tail", INDEX_OF_256),
    "signed": ("state", b"signed"),
    "published": ("state", b"published"),
}


@pytest_asyncio.fixture
async def stored(tmp_path: Path) -> AsyncIterator[tuple[RocksStore, tuple[VerifierKey, ...]]]:
    config = LogConfig(origin="example.com/bytes", name="bytes", checkpoint_interval=0)
    vkeys = create_log(tmp_path / "log", config)
    async with Log.opened(tmp_path / "log") as log:
        await log.append_published(ENTRIES)
    store = RocksStore.open(tmp_path / "log")
    assert fsck(store, vkeys).problems == ()
    yield store, vkeys
    store.close()


@pytest.mark.parametrize("place", PLACES)
async def test_every_flipped_byte_is_named(
    stored: tuple[RocksStore, tuple[VerifierKey, ...]], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, vkeys = stored
    kind, key = PLACES[place]
    family = store._families[kind]
    good: bytes = family[key] or b""
    assert good
    if kind != "state":
        # Heads are verified once, and the leaf index is not read: they are not what is damaged.
        monkeypatch.setattr(module, "read_head", lru_cache(startup.read_head))
        monkeypatch.setattr(store, "find", lambda leaves, *, below: [0] * len(leaves))
    for position in range(0, len(good), 37 if kind == "state" else 1):
        bad = flipped(good, position)
        family[key] = bad
        problems = fsck(store, vkeys).problems
        assert problems, f"byte {position}"
        assert place in problems[0] or (kind == "bundles" and "in tile/0/000" in problems[0])
    family[key] = good
    assert fsck(store, vkeys).problems == ()


async def test_every_flipped_byte_of_a_head_is_named(
    stored: tuple[RocksStore, tuple[VerifierKey, ...]],
) -> None:
    """All three heads are read by one function; and then the marker through the file."""
    store, vkeys = stored
    marker = store.path / "HEAD"
    good = marker.read_bytes()
    assert good == store.get_state("signed")
    for position in range(len(good)):
        bad = flipped(good, position)
        with pytest.raises(StateRefused, match="^the head"):
            startup.read_head(bad, vkeys, "the head")
        if position % 37 == 0:
            marker.write_bytes(bad)
            (problem, *_) = fsck(store, vkeys).problems
            assert "marker file HEAD" in problem
    marker.write_bytes(good)
    assert fsck(store, vkeys).problems == ()


def flipped(data: bytes, position: int) -> bytes:
    bad = bytearray(data)
    bad[position] ^= 1 << position % 8
    return bytes(bad)
