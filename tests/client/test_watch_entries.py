"""The entries of one log under watch: none is delivered unproven, and none forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.http_log import HttpLog, signed
from tests.client.tiled import VERIFIER, numbered
from tests.client.watcher import ENTRIES, Clock, Watcher
from tests.notes.keyring import LOG
from tlog.client import Rule, StateError, Verifier, WatchFile
from tlog.client import watch as watching
from tlog.client.watchfile import Event
from tlog.log import Log, LogConfig, create_log
from tlog.merkle import split_bundle
from tlog.notes import Algorithm, Signer
from tlog.serve import Logs, grpc_server


@pytest.fixture
def served() -> Iterator[HttpLog]:
    with HttpLog(ENTRIES[:300]) as log:
        yield log


@pytest.fixture
def watcher(served: HttpLog, tmp_path: Path) -> Watcher:
    return Watcher(tmp_path, served.url, VERIFIER)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlog.client.walk.PAUSES", (0.01,))


async def test_entries_that_are_not_served_for_long_are_an_alarm(
    tmp_path: Path, served: HttpLog
) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, clock=clock)
    served.show(ENTRIES[:5])
    bundles_fail = True
    served.refuse = lambda path: bundles_fail and "entries" in path
    async with watcher.opened() as watch:
        for _ in range(2):
            await watch.check(patience=10)
            await watch.read(watcher.deliver)
            assert not watch.watched.alarms
            clock.now += watching.UNREAD_SECONDS
        clock.now += 1
        await watch.check(patience=10)
        await watch.read(watcher.deliver)
        assert list(watch.watched.alarms) == ["entry"]
        assert "no entry from 0 on was served for 7201 s" in str(watcher.alarm("entry")["message"])
        bundles_fail = False
        await watch.check(patience=10)
        await watch.read(watcher.deliver)
        assert not watch.watched.alarms


# ---- entries ----


def forge(index: int, forged: bytes) -> Callable[[str, bytes], bytes]:
    def lie(path: str, body: bytes) -> bytes:
        if path.partition(".p")[0] != f"tile/entries/{index // 256:03}":
            return body
        entries = split_bundle(body)
        entries[index % 256 : index % 256 + 1] = [forged]
        return b"".join(len(entry).to_bytes(2) + entry for entry in entries)

    return lie


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 699])
async def test_an_entry_that_is_not_in_the_tree_is_an_alarm(
    watcher: Watcher, served: HttpLog, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    monkeypatch.setattr(watching, "BUNDLES", 1)
    served.show(ENTRIES)
    served.lie = forge(index, b"entry 00")
    assert await watcher.look() == ["entry"]
    before = index // 256 * 256
    watched = watcher.file.load()
    assert watched is not None
    assert watched.edge.size == before
    # Nothing that is not proven reaches anybody.
    assert [event["index"] for event in watcher.found] == list(range(0, before, 10))
    served.lie = lambda path, body: body
    assert await watcher.look() == []
    assert [event["index"] for event in watcher.found] == list(range(0, 700, 10))
    assert watcher.told() == ["entry", "-entry"]


async def test_an_entry_that_was_read_before_and_changes_is_an_alarm(
    watcher: Watcher, served: HttpLog
) -> None:
    assert await watcher.look() == []
    served.show(ENTRIES[:400])
    served.lie = forge(260, b"changed")  # of the bundle that was not full
    assert await watcher.look() == ["entry"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: body + b"\0\0",
        lambda body: b"\xff\xff" + body,
        lambda body: body * 2,
    ],
)
async def test_bundles_of_all_wrong_shapes(
    watcher: Watcher, served: HttpLog, damage: Callable[[bytes], bytes]
) -> None:
    served.lie = lambda path, body: damage(body) if "entries" in path else body
    assert await watcher.look() == ["entry"]
    assert watcher.found == []


async def test_an_entry_that_is_not_served_is_an_alarm(watcher: Watcher, served: HttpLog) -> None:
    served.show(ENTRIES[:200], note=signed(ENTRIES[:300]))
    assert await watcher.look() == ["entry"]


async def test_entries_that_are_not_text(watcher: Watcher, served: HttpLog) -> None:
    served.show([b"\xffentry 0"])
    assert await watcher.look() == []
    (event,) = watcher.found
    assert event["entry_base64"] == "/2VudHJ5IDA="
    assert event["id"] == f"{LOG}/0/tens"


# ---- what it remembers ----


async def test_what_was_not_delivered_is_found_again(watcher: Watcher, served: HttpLog) -> None:
    async def dies(rule: Rule, event: Event) -> None:
        if event["index"] == 100:
            raise KeyboardInterrupt
        watcher.found.append(event)

    async with watcher.opened() as watch:
        await watch.check(patience=10)
        with pytest.raises(KeyboardInterrupt):
            await watch.read(dies)
    assert [event["index"] for event in watcher.found] == list(range(0, 100, 10))
    await watcher.look()
    indices = [event["index"] for event in watcher.found]
    # The bundle that was told of only in part is told of again.
    assert indices == [*range(0, 100, 10), *range(0, 300, 10)]


async def test_what_was_delivered_is_not_found_again(watcher: Watcher, served: HttpLog) -> None:
    async def dies(rule: Rule, event: Event) -> None:
        if event["index"] == 290:
            raise KeyboardInterrupt
        watcher.found.append(event)

    async with watcher.opened() as watch:
        await watch.check(patience=10)
        with pytest.raises(KeyboardInterrupt):
            await watch.read(dies)
        assert watch.watched.edge.size == 256
    await watcher.look()
    indices = [event["index"] for event in watcher.found]
    assert indices == [*range(0, 290, 10), *range(260, 300, 10)]


async def test_alarms_of_another_life_are_told(watcher: Watcher, served: HttpLog) -> None:
    await watcher.look()
    served.show(ENTRIES[:10])
    await watcher.look()
    async with watcher.opened() as watch:
        assert watch.untold.is_set()
        (event,) = watch.watched.untold
        assert (event["event"], event["kind"]) == ("alarm", "rollback")
        watch.told()
        assert not watch.untold.is_set()
    assert watcher.told() == []
    assert await watcher.look() == ["rollback"]  # it stands, and was told


async def test_an_alarm_that_comes_and_goes_does_not_fill_the_disk(
    watcher: Watcher, served: HttpLog
) -> None:
    good = signed(ENTRIES[:300])
    async with watcher.opened() as watch:
        for _ in range(watching.MAX_UNTOLD):
            for note in (b"", good):
                served.show(ENTRIES[:300], note=note)
                await watch.check(patience=10)
        assert len(watch.watched.untold) == watching.MAX_UNTOLD
        # There is room again: what holds then is raised.
        served.show(ENTRIES[:299])
        await watch.check(patience=10)
        assert "rollback" not in watch.watched.alarms
        watch.told()
        await watch.check(patience=10)
        assert "rollback" in watch.watched.alarms


async def test_a_disk_that_does_not_remember_stops_the_watch(
    watcher: Watcher, served: HttpLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watcher.opened() as watch:
        await watch.check(patience=10)
        before = watch.watched
        served.show(ENTRIES[:10])

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tlog.client.sealed.replace_file", full)
        with pytest.raises(StateError, match="cannot be written: No space left"):
            await watch.check(patience=10)
        assert watch.watched is before


async def test_a_damaged_file_is_refused(watcher: Watcher, served: HttpLog, tmp_path: Path) -> None:
    served.show(ENTRIES[:290])
    await watcher.look()
    file = tmp_path / "state.json"
    good = file.read_bytes()
    for position in range(0, len(good), 53):
        damaged = bytearray(good)
        damaged[position] ^= 1
        file.write_bytes(bytes(damaged))
        with contextlib.suppress(StateError):
            assert watcher.file.load() == WatchFile(file, VERIFIER).load()
            assert bytes(damaged).split() == good.split()  # white space says nothing
    for data in (b"", b"{}", b"[]", good[:-10], b"[" * 100_000, b" " * (9 << 20)):
        file.write_bytes(data)
        with pytest.raises(StateError, match="is damaged"):
            watcher.file.load()
    file.write_bytes(good)
    assert watcher.file.load() is not None
    strangers = Verifier.with_vkeys([Signer.generate(LOG, Algorithm.ED25519).vkey])
    with pytest.raises(StateError, match="the keys given now do not verify"):
        WatchFile(file, strangers).load()


def test_two_monitors_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    with (
        WatchFile(path, VERIFIER).held(),
        pytest.raises(StateError, match="in use by another process"),
        WatchFile(path, VERIFIER).held(),
    ):
        pass
    with WatchFile(path, VERIFIER).held():
        pass


# ---- over gRPC ----


async def test_a_log_over_grpc(tmp_path: Path) -> None:
    config = LogConfig(origin="example.com/log", name="log", checkpoint_interval=0)
    create_log(tmp_path / "log", config)
    async with (
        Log.opened(tmp_path / "log") as log,
        grpc_server(Logs([log]), "127.0.0.1:0") as port,
    ):
        verifier = Verifier.with_vkeys(log.vkeys)
        watcher = Watcher(tmp_path, f"grpc://127.0.0.1:{port}", verifier)
        begin = 0
        for size in (300, 5000):
            await log.append_published(numbered(size)[begin:])
            begin = size
            assert await asyncio.wait_for(watcher.look(), 30) == []
        assert [event["index"] for event in watcher.found] == list(range(0, 5000, 10))
