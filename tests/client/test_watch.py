"""One log under watch: each way to misbehave raises its own alarm, within one look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.http_log import HttpLog, signed
from tests.client.tiled import KEYS, VERIFIER
from tests.client.watcher import ENTRIES, Clock, Watcher
from tests.notes.keyring import LOG, LOG_ED, LOG_PQ, W_ED, W_PQ
from tlog.client import Verifier
from tlog.client import watch as watching
from tlog.notes import Algorithm, Signer

POLICY = Verifier(
    f"log {LOG_ED.vkey}\nlog {LOG_PQ.vkey}\nwitness w1 {W_ED.vkey}\nwitness w2 {W_PQ.vkey}\n"
    "group g all w1 w2\nquorum g\n".encode()
)


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
        for position in range(0, len(note), 61):
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
    tmp_path: Path, served: HttpLog, how: str, caplog: pytest.LogCaptureFixture
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
        (told,) = [each for each in caplog.records if each.name == "tlog.client.watch"]
        assert told.getMessage().startswith(f"log {watch.name} is not reached: ")
        served.hang.clear()


async def test_a_silent_log_may_be_silent(tmp_path: Path, served: HttpLog) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, served.url, VERIFIER, stale_after=1.0, clock=clock)
    clock.now += 1e9
    assert await watcher.look() == ["stale"]
    silent = Watcher(tmp_path, served.url, VERIFIER, clock=clock)
    assert await silent.look() == []
