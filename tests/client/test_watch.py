"""One log under watch: each way to misbehave raises its own alarm, within one look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.http_log import HttpLog, signed
from tests.client.tiled import KEYS, VERIFIER, numbered
from tests.notes.keyring import LOG, LOG_ED, LOG_PQ, W_ED, W_PQ
from tlog.client import Rule, StateError, Verifier, Watch, WatchFile
from tlog.client import watch as watching
from tlog.client.watchfile import Event
from tlog.log import Log, LogConfig, create_log
from tlog.merkle import split_bundle
from tlog.notes import Algorithm, Signer
from tlog.remote import open_source
from tlog.serve import Logs, grpc_server

POLICY = Verifier(
    f"log {LOG_ED.vkey}\nlog {LOG_PQ.vkey}\nwitness w1 {W_ED.vkey}\nwitness w2 {W_PQ.vkey}\n"
    "group g all w1 w2\nquorum g\n".encode()
)
ENTRIES = numbered(700)
RULE = Rule.parse("tens", regex=r"entry \d*0$")


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """A watch over a file, and what it delivered."""

    def __init__(self, directory: Path, url: str, verifier: Verifier, **more: Any) -> None:
        self.file = WatchFile(directory / "state.json", verifier)
        self.found: list[Event] = []
        self._url = url
        self._verifier = verifier
        self._more = {"rules": [RULE], **more}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Watch]:
        source = open_source(self._url)
        try:
            yield Watch("log", source, self._verifier, self.file, **self._more)
        finally:
            await source.aclose()

    async def look(self, *, patience: float = 10.0) -> list[str]:
        """A process's life: one look, all entries; gives the alarms that stand."""
        async with self.opened() as watch:
            await watch.check(patience=patience)
            await watch.read(self._deliver)
            return sorted(watch.watched.alarms)

    async def _deliver(self, rule: Rule, event: Event) -> None:
        self.found.append(event)

    def told(self) -> list[str]:
        watched = self.file.load()
        assert watched is not None
        return [
            ("" if event["event"] == "alarm" else "-") + str(event["kind"])
            for event in watched.untold
        ]

    def alarm(self, kind: str) -> Event:
        """The first of that kind that was raised."""
        watched = self.file.load()
        assert watched is not None
        return next(event for event in watched.untold if event["kind"] == kind)


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


async def test_a_good_log_raises_nothing_and_every_entry_is_read_once(
    watcher: Watcher, served: HttpLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BUNDLES", 1)
    for size in (0, 1, 2, 255, 256, 257, 300, 512, 513, 700):
        served.show(ENTRIES[:size])
        assert await watcher.look() == []
        watched = watcher.file.load()
        assert watched is not None
        assert watched.head is not None
        assert watched.head.size == watched.edge.size == size
        assert watched.edge.root() == watched.head.root_hash
    assert [event["index"] for event in watcher.found] == list(range(0, 700, 10))
    assert [event["entry"] for event in watcher.found] == [f"entry {n}" for n in range(0, 700, 10)]
    assert watcher.told() == []


# ---- heads ----


async def test_a_rollback_is_an_alarm(watcher: Watcher, served: HttpLog) -> None:
    assert await watcher.look() == []
    served.show(ENTRIES[:299])
    assert await watcher.look() == ["rollback"]
    evidence = watcher.alarm("rollback")["evidence"]
    assert [f"\n{size}\n" in note for size, note in zip((300, 299), evidence, strict=True)] == [  # type: ignore[call-overload]
        True,
        True,
    ]
    # It stands, is told once, and the head before it is still the last one.
    assert await watcher.look() == ["rollback"]
    served.show([])
    assert await watcher.look() == ["rollback"]
    assert watcher.told() == ["rollback"]
    served.show(ENTRIES[:400])
    assert await watcher.look() == []
    assert watcher.told() == ["rollback", "-rollback"]


@pytest.mark.parametrize("size", [300, 301, 512, 700])
async def test_a_fork_is_an_alarm(watcher: Watcher, served: HttpLog, size: int) -> None:
    assert await watcher.look() == []
    for changed in (0, 299):
        forked = list(ENTRIES[:size])
        forked[changed] = b"forged"
        served.show(forked)
        assert await watcher.look() == ["fork"]
    event = watcher.alarm("fork")
    first, second = [note.encode() for note in event["evidence"]]  # type: ignore[attr-defined]
    assert VERIFIER.checkpoint(first).size == 300
    assert VERIFIER.checkpoint(second).root_hash != VERIFIER.checkpoint(first).root_hash
    assert len(watcher.found) == 30  # nothing of the fork was read
    served.show(ENTRIES[:size])
    assert await watcher.look() == []


@pytest.mark.parametrize("end", [False, True])
async def test_a_proof_that_is_not_served_is_no_fork(
    watcher: Watcher, served: HttpLog, end: bool
) -> None:
    assert await watcher.look() == []
    served.show(ENTRIES[:700])
    if end:
        served.lie = lambda path, body: body[:-1] if path.startswith("tile/0") else body
    else:
        served.show(ENTRIES[:300], note=signed(ENTRIES[:700]))
    assert await watcher.look() == ["unproven"]
    served.lie = lambda path, body: body
    served.show(ENTRIES[:700])
    assert await watcher.look() == []


def stranger() -> bytes:
    strangers = [Signer.generate(LOG, kind) for kind in (Algorithm.ED25519, Algorithm.MLDSA44)]
    return signed(ENTRIES[:400], signers=strangers)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff" * 100,
        b"x" * (64 << 10),
        stranger(),
        signed(ENTRIES[:400], signers=[LOG_ED]),
        signed(ENTRIES[:400], signers=[LOG_PQ]),
        signed(ENTRIES[:400]).replace(b"\n400\n", b"\n401\n"),
    ],
    ids=["empty", "noise", "long", "stranger", "one key", "the other", "size"],
)
async def test_what_the_log_did_not_sign_is_an_alarm(
    watcher: Watcher, served: HttpLog, note: bytes
) -> None:
    assert await watcher.look() == []
    served.show(ENTRIES[:400], note=note)
    assert await watcher.look() == ["signature"]
    watched = watcher.file.load()
    assert watched is not None
    assert watched.head is not None
    assert watched.head.size == 300
    served.show(ENTRIES[:400])
    assert await watcher.look() == []
    assert watcher.told() == ["signature", "-signature"]


async def test_a_flipped_bit_anywhere_in_the_note_is_an_alarm(
    watcher: Watcher, served: HttpLog
) -> None:
    note = signed(ENTRIES[:400])
    async with watcher.opened() as watch:
        await watch.check(patience=10)
        for position in range(0, len(note), 37):
            damaged = bytearray(note)
            damaged[position] ^= 1
            served.show(ENTRIES[:400], note=bytes(damaged))
            await watch.check(patience=10)
            assert watch.watched.alarms, position
            assert watch.watched.head is not None
            assert watch.watched.head.size == 300


async def test_a_quorum_that_is_missing_is_an_alarm(tmp_path: Path, served: HttpLog) -> None:
    watcher = Watcher(tmp_path, served.url, POLICY)
    both = [W_ED, W_PQ]
    served.show(ENTRIES[:300], note=signed(ENTRIES[:300], witnesses=both))
    assert await watcher.look() == []
    served.show(ENTRIES[:400], note=signed(ENTRIES[:400], witnesses=both[:1]))
    assert await watcher.look() == ["quorum"]
    assert "'w2'" in str(watcher.alarm("quorum")["message"])
    watched = watcher.file.load()
    assert watched is not None
    assert watched.edge.size == 300  # what is not cosigned is not read
    # What is not cosigned is signed by the log all the same: a fork is one.
    served.show([b"forged", *ENTRIES[1:400]])
    assert await watcher.look() == ["fork", "quorum"]
    served.show(ENTRIES[:400], note=signed(ENTRIES[:400], witnesses=both))
    assert await watcher.look() == []


# ---- age ----


async def test_a_frozen_log_is_stale(tmp_path: Path, served: HttpLog) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=60.0, clock=clock)
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now))
    assert await watcher.look() == []
    clock.now += 60
    assert await watcher.look() == []
    clock.now += 1
    assert await watcher.look() == ["stale"]
    assert "size 5 since 2027-01-15T08:00:00Z, 61 s ago" in str(watcher.alarm("stale")["message"])
    # The same tree, signed anew, is news; an old signature is not.
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now - 61))
    assert await watcher.look() == ["stale"]
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now - 1))
    assert await watcher.look() == []
    clock.now += 60
    assert await watcher.look() == ["stale"]


async def test_a_log_shown_for_the_first_time_may_be_stale_already(
    tmp_path: Path, served: HttpLog
) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=60.0, clock=clock)
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now - 61))
    assert await watcher.look() == ["stale"]


async def test_a_head_from_the_future_grows_old_like_any_other(
    tmp_path: Path, served: HttpLog
) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=60.0, clock=clock)
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now + 1e8))
    assert await watcher.look() == []
    clock.now += 61
    assert await watcher.look() == ["stale"]


async def test_witnesses_not_the_log_say_how_old_a_head_is(tmp_path: Path, served: HttpLog) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, POLICY, stale_after=60.0, clock=clock)
    old = signed(ENTRIES[:5], at=clock.now - 61, witnesses=[W_ED, W_PQ])
    cosignatures = b"".join(line + b"\n" for line in old.splitlines()[-2:])
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now) + cosignatures)
    assert await watcher.look() == ["stale"]


async def test_keys_without_a_time_are_as_old_as_they_were_first_seen(
    tmp_path: Path, served: HttpLog
) -> None:
    clock = Clock()
    verifier = Verifier.with_vkeys(KEYS[:1])
    watcher = Watcher(tmp_path, served.url, verifier, stale_after=60.0, clock=clock)
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], signers=[LOG_ED]))
    assert await watcher.look() == []
    clock.now += 61
    assert await watcher.look() == ["stale"]
    served.show(ENTRIES[:6], note=signed(ENTRIES[:6], signers=[LOG_ED]))
    assert await watcher.look() == []


@pytest.mark.parametrize("how", ["gone", "hangs", "fails", "never there"])
async def test_a_log_that_cannot_be_read_is_stale_in_the_end(
    tmp_path: Path, served: HttpLog, how: str
) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=60.0, clock=clock)
    if how == "never there":
        watcher = Watcher(tmp_path, "http://127.0.0.1:1/", VERIFIER, stale_after=60.0, clock=clock)
    served.show(ENTRIES[:5], note=signed(ENTRIES[:5], at=clock.now))
    async with watcher.opened() as watch:
        await watch.check(patience=5)
        assert watch.reached is (how != "never there")
        assert not watch.watched.alarms
        if how == "hangs":
            served.hang.set()
        served.status = 500
        clock.now += 61
        await watch.check(patience=0.5)
        assert watch.reached is False
        assert list(watch.watched.alarms) == ["stale"]
        served.hang.clear()


async def test_a_silent_log_may_be_silent(tmp_path: Path, served: HttpLog) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=1.0, clock=clock)
    clock.now += 1e9
    assert await watcher.look() == ["stale"]
    silent = Watcher(tmp_path, served.url, VERIFIER, clock=clock)
    assert await silent.look() == []


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
