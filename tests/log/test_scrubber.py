"""The scrubber finds what flips on the disk below a running log, and nothing where all is well."""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.test_damage import damage
from tlog.log import Log, LogConfig, StateRefused, create_log, scrubber
from tlog.merkle import leaf_hashes
from tlog.store import StoreError, StoreView

ENTRIES = [b"entry number %d of a log that is scrubbed" % number for number in range(1000)]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubber, "FIRST_PAUSE", 0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def make(directory: Path) -> None:
    """A log whose entries lie in tables, as all old ones do."""
    config = LogConfig(
        origin="example.com/scrubbed", name="scrubbed", checkpoint_interval=0, scrub_interval=0
    )
    create_log(directory, config)
    async with Log.opened(directory) as log:
        await log.append_published(ENTRIES)
        assert log.scrubber is None
        for family in log._store._families.values():  # type: ignore[attr-defined]
            family.flush()
        del family
    settings = directory / "log.toml"
    text = settings.read_text()
    assert "scrub_interval = 0" in text
    settings.write_text(text.replace("scrub_interval = 0.0", "scrub_interval = 0.05"))


async def test_a_log_that_grows_is_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(tmp_path / "log")
    monkeypatch.setattr(scrubber, "REST", 0.5)
    async with Log.opened(tmp_path / "log") as log:
        assert log.scrubber is not None
        seen: set[float] = set()
        number = 0
        async with asyncio.timeout(120):
            while len(seen) < 4:
                await log.append_published([b"%d %d" % (number, i) for i in range(40)])
                number += 1
                if log.scrubber.finished_at:
                    seen.add(log.scrubber.finished_at)
        assert log.sequencer.refusal is None


async def test_what_a_log_has_in_memory_is_not_there_twice(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    create_log(directory, LogConfig(origin="example.com/big", name="big", scrub_interval=0))
    async with Log.opened(directory) as log:
        await log.append_published([b"%d" % number + bytes(4000) for number in range(1000)])
        before = replayed(directory, tmp_path / "before")
        log._store.write_out()  # type: ignore[attr-defined]
        after = replayed(directory, tmp_path / "after")
        assert before > 4_000_000 > 100_000 > after
        # Nor is anything lost, and the log goes on.
        await log.append_published([b"one more"])
        assert log.reader.entry(999, 1001).startswith(b"999")
    with pytest.raises(StoreError):
        log._store.write_out()  # type: ignore[attr-defined]


def replayed(directory: Path, scratch: Path) -> int:
    """The bytes that a view of the log holds in memory."""
    view = StoreView(directory, scratch)
    try:
        assert view.tree_size() == 1000
        return view.stats()["memtable_bytes"]
    finally:
        view.close()


@pytest.mark.parametrize("place", ["bundle", "tile"])
async def test_a_bit_that_flips_below_a_running_log_stops_it(tmp_path: Path, place: str) -> None:
    await make(tmp_path / "log")
    if place == "bundle":
        needle, named = ENTRIES[300], "entry bundle 1"
    else:
        needle, named = leaf_hashes(ENTRIES[512:768]), "tile/0/002"
    async with Log.opened(tmp_path / "log") as log:
        assert log.scrubber is not None
        await until(lambda: log.scrubber is not None and log.scrubber.finished_at > 0)
        # In the caches of this process, and of the kernel.
        assert log.reader.entry(300, 1000) == ENTRIES[300]
        assert log.reader.inclusion_proof(600, 1000)
        signed = log.signed_size
        damage(tmp_path / "log", needle)
        await until(lambda: log.sequencer.halted)
        with pytest.raises(StateRefused, match=f"scrub found damage: .*{named}.*tlog fsck"):
            log.submit([b"one more"])
        assert log.signed_size == signed


async def test_leaving_does_not_wait_for_a_scrub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    await make(tmp_path / "log")
    monkeypatch.setattr(scrubber, "REST", 1e9)
    async with asyncio.timeout(20):
        async with Log.opened(tmp_path / "log"):
            await asyncio.sleep(0.2)
        async with Log.opened(tmp_path / "log") as log:
            assert await log.submit([b"one more"])
    gc.collect()
    assert unheard == []
