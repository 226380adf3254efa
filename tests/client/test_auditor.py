"""Audits: whole logs pass, every damaged byte is named, and the past is not forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.tiled import KEYS, VERIFIER, TiledLog, numbered
from tests.notes.keyring import LOG_ED, TIME, W_ED
from tlog.client import (
    AuditFile,
    Auditor,
    AuditState,
    Head,
    MemoryAudit,
    Progress,
    StateError,
    Unreachable,
    VerificationError,
    Verifier,
)
from tlog.client import opinion as second
from tlog.client import walk as walking
from tlog.merkle import RightEdge, SourceDamaged, SourceError, SourceMissing, leaf_hashes
from tlog.notes import Checkpoint, Signer, cosign, sign_checkpoint

SIZES = (0, 1, 2, 255, 256, 257, 511, 512, 1000, 4096, 4097, 8192)
ENTRIES = numbered(66_000)


async def audit(
    log: TiledLog,
    state: AuditState | None = None,
    *,
    full: bool = False,
    verifier: Verifier = VERIFIER,
) -> int:
    """Audit, and give the number of entries that were hashed."""
    found = await Auditor(log, verifier, state).run(full=full)
    assert found.head.size == log.size
    return found.head.size - found.first


async def refused(
    log: TiledLog, state: AuditState | None = None, *, verifier: Verifier = VERIFIER
) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        await audit(log, state, verifier=verifier)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tiles", [True, False])
async def test_whole_logs(size: int, tiles: bool) -> None:
    log = TiledLog(ENTRIES[:size], serves_tiles=tiles)
    assert await audit(log) == size
    # All of it was read, and once.
    read = [path for path in log.resources() if tiles or "entries" in path]
    assert sorted(log.asked) == sorted(["checkpoint", *read])


async def test_levels_above_the_leaves() -> None:
    log = TiledLog(ENTRIES)
    assert await audit(log) == 66_000
    assert {"tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"} < set(log.asked)


async def test_entries_as_long_as_they_get() -> None:
    assert await audit(TiledLog([b"", bytes(65_535), b"x"])) == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1500), min_size=1, max_size=6), st.data())
def test_from_audit_to_audit(growth: list[int], data: st.DataObject) -> None:
    """Whatever it grows by, only the new entries and the bundle they begin in are read."""
    state, before = MemoryAudit(), 0
    for size in sorted(growth):
        log = TiledLog(ENTRIES[:size], serves_tiles=data.draw(st.booleans()))
        assert asyncio.run(audit(log, state)) == size - before
        bundles = [path for path in log.asked if path.startswith("tile/entries")]
        assert len(bundles) == (
            -(-size // 256) - before // 256 if size > before or size % 256 else 0
        )
        before = size


@pytest.mark.parametrize("stop", [1, 17, 40, 69])
async def test_an_interrupted_audit_goes_on(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at any moment, and even if the log has grown meanwhile."""
    monkeypatch.setattr(walking, "SAVE_SECONDS", 0)
    monkeypatch.setattr(walking, "BATCH", 3)
    monkeypatch.setattr(walking, "PAUSES", ())
    state = AuditFile(tmp_path / "state")

    def fails(path: str, answer: bytes) -> bytes:
        if path == f"tile/entries/{stop:03d}":
            raise SourceError("gone")
        return answer

    with pytest.raises(Unreachable, match="gone"):
        await audit(TiledLog(ENTRIES[:18_000], lie=fails), state)
    progress = state.load()
    assert progress is not None
    assert progress.audited is None
    assert progress.edge.size == stop // 3 * 3 * 256
    log = TiledLog(ENTRIES[:20_000])
    assert await audit(log, state) == 20_000 - progress.edge.size
    assert f"tile/entries/{max(0, stop // 3 * 3 - 1):03d}" not in log.asked or stop < 3
    assert await audit(TiledLog(ENTRIES[:20_000]), state) == 0


async def test_cancelled_it_keeps_what_was_done(tmp_path: Path) -> None:
    state, reached = AuditFile(tmp_path / "state"), asyncio.Event()

    class Slow(TiledLog):
        async def bundle(self, index: int, width: int) -> bytes:
            if index == 40:
                reached.set()
                await asyncio.Event().wait()
            return await super().bundle(index, width)

    running = asyncio.create_task(audit(Slow(ENTRIES[:18_000]), state))
    await asyncio.wait_for(reached.wait(), 10)
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    progress = state.load()
    assert progress is not None
    assert progress.edge.size == 32 * 256
    assert await audit(TiledLog(ENTRIES[:18_000]), state) == 18_000 - 32 * 256


# ---- damage ----

# Two bundles, two leaf tiles and one above them, as short as can be.
SMALL = TiledLog([b"%d" % (index % 10) for index in range(258)])
EACH_BYTE = {"checkpoint": SMALL.head, **SMALL.resources()}


@pytest.mark.parametrize("path", sorted(EACH_BYTE))
def test_every_flipped_byte_is_named(path: str) -> None:
    async def flip_each() -> None:
        for position in range(len(EACH_BYTE[path])):
            log = replaced(SMALL, path, flipped(EACH_BYTE[path], position))
            if path == "checkpoint":
                assert (await refused(log)).check == "signature"
            else:
                error = await refused(log, verifier=Remembering.with_vkeys(KEYS))
                assert path in str(error)
                assert error.check in {"tile", "bundle"}

    asyncio.run(flip_each())


class Remembering(Verifier):
    """Verifies one head once: it is not what is damaged, and costs more than all the rest."""

    def checkpoint(self, note: bytes) -> Head:
        assert note == SMALL.head
        return SMALL_HEAD


SMALL_HEAD = VERIFIER.checkpoint(SMALL.head)


def flipped(data: bytes, position: int) -> bytes:
    bad = bytearray(data)
    bad[position] ^= 1 << position % 8
    return bytes(bad)


def replaced(log: TiledLog, at: str, by: bytes | Exception) -> TiledLog:
    """The log with one answer replaced."""

    def lie(path: str, answer: bytes) -> bytes:
        if path == at and isinstance(by, Exception):
            raise by
        return by if path == at and isinstance(by, bytes) else answer

    log.lie = lie
    return log


async def test_every_flipped_byte_of_a_proof_is_refused() -> None:
    old, new = TiledLog(ENTRIES[:300]), TiledLog(ENTRIES[:900])
    state = MemoryAudit()
    await audit(old, state)
    kept = state.load()
    proof = b"".join(await new.consistency_proof(300, 900))
    assert len(proof) > 256
    for position in range(len(proof)):
        error = await refused(replaced(new, "proof", flipped(proof, position)), state)
        assert error.check == "consistency"
        assert error.evidence == (old.head, new.head)
        assert state.load() is kept
    for wrong in (b"", proof[:-32], proof + bytes(32), proof[:-1]):
        assert (await refused(replaced(new, "proof", wrong), state)).check == "consistency"


@pytest.mark.parametrize(
    ("at", "by", "check"),
    [
        ("tile/entries/002", b"", "bundle"),
        ("tile/entries/002", bytes(2 * 255), "bundle"),
        ("tile/entries/002", bytes(2 * 257), "bundle"),
        ("tile/entries/002", bytes(2 * 256), "tile"),
        ("tile/entries/002", b"\xff\xff", "bundle"),
        ("tile/entries/003.p/232", bytes(2 * 256), "bundle"),
        ("tile/0/001", b"", "tile"),
        ("tile/0/001", bytes(8191), "tile"),
        ("tile/0/001", bytes(8192), "tile"),
        ("tile/0/003.p/232", bytes(8192), "tile"),
        ("tile/1/000.p/3", bytes(64), "tile"),
        ("tile/1/000.p/3", bytes(96), "tile"),
        ("tile/1/000.p/3", SourceMissing("tile/1/000.p/3: 404"), "missing"),
        ("tile/entries/001", SourceMissing("tile/entries/001: 404"), "missing"),
        ("tile/entries/001", SourceDamaged("tile/entries/001 is a bomb"), "bundle"),
        ("checkpoint", SourceDamaged("checkpoint is a bomb"), "message"),
        ("checkpoint", b"", "signature"),
        ("checkpoint", bytes(300_000), "signature"),
    ],
)
async def test_what_is_not_served_right(at: str, by: bytes | Exception, check: str) -> None:
    error = await refused(replaced(TiledLog(ENTRIES[:1000]), at, by))
    assert error.check == check
    assert at in str(error) or at == "checkpoint"


async def test_what_cannot_be_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAUSES", (0.0, 0.0))
    for failures, passes in ((2, True), (3, False)):
        left = {"tile/0/001": failures, "tile/entries/001": failures, "tile/1/000.p/3": failures}

        def lie(path: str, answer: bytes, left: dict[str, int] = left) -> bytes:
            if left.get(path):
                left[path] -= 1
                raise SourceError("not now")
            return answer

        log = TiledLog(ENTRIES[:1000], lie=lie)
        if passes:
            assert await audit(log) == 1000
        else:
            with pytest.raises(Unreachable, match="not now"):
                await audit(log)
    with pytest.raises(Unreachable, match="no checkpoint"):
        await audit(replaced(log, "checkpoint", SourceError("not now")))


async def test_entries_that_fit_their_tiles_but_not_the_head() -> None:
    """Another log under the true head: only the root tells."""
    for tiles in (True, False):
        log = TiledLog(numbered(1000, b"other"), serves_tiles=tiles)
        error = await refused(replaced(log, "checkpoint", TiledLog(ENTRIES[:1000]).head))
        assert error.check == "root"


# ---- the past ----


async def test_a_rollback() -> None:
    state = MemoryAudit()
    old, new = TiledLog(ENTRIES[:700]), TiledLog(ENTRIES[:1000])
    await audit(new, state)
    error = await refused(old, state)
    assert (error.check, error.evidence) == ("rollback", (new.head, old.head))
    assert await audit(new, state) == 0


@pytest.mark.parametrize("size", [1000, 1001, 1300, 9000])
@pytest.mark.parametrize("tiles", [True, False])
async def test_a_fork(size: int, tiles: bool) -> None:
    """The log signs another history, and all of what it serves fits that."""
    state, forked = MemoryAudit(), [*ENTRIES[:size]]
    seen = TiledLog(ENTRIES[:1000])
    await audit(seen, state)
    forked[123] = b"changed"
    log = TiledLog(forked, serves_tiles=tiles)
    error = await refused(log, state)
    assert error.check == ("fork" if size == 1000 else "consistency")
    assert error.evidence == (seen.head, log.head)
    # Alone it is whole: without the memory nobody would know.
    assert await audit(log) == size


async def test_a_head_counts_as_shown_before_it_is_whole() -> None:
    state = MemoryAudit()
    log = TiledLog(ENTRIES[:1000])
    await refused(replaced(log, "tile/0/001", bytes(8192)), state)
    progress = state.load()
    assert progress is not None
    assert progress.audited is None
    assert (await refused(TiledLog(ENTRIES[:999]), state)).check == "rollback"
    assert (await refused(TiledLog(numbered(1000, b"other")), state)).check == "fork"


async def test_a_log_that_freezes() -> None:
    """Its last head stays true for ever; that it is the last one, its witnesses must say anew."""
    log, now = TiledLog(ENTRIES[:700]), float(TIME)
    policy = f"log {LOG_ED.vkey}\nwitness w {W_ED.vkey}\nquorum w\n".encode()
    verifier = Verifier(policy, max_age=3600, clock=lambda: now)
    head = VERIFIER.checkpoint(log.head).checkpoint
    log.head += cosign(head, W_ED, timestamp=TIME).encode()
    state = MemoryAudit()
    assert await audit(log, state, verifier=verifier) == 700
    now += 3600
    assert await audit(log, state, verifier=verifier) == 0
    now += 1
    assert (await refused(log, state, verifier=verifier)).check == "freshness"


async def test_an_old_entry_that_changed() -> None:
    """In the bundle that an audit begins in it is seen at once; in older ones by a full audit."""
    state = MemoryAudit()
    await audit(TiledLog(ENTRIES[:700]), state)
    changed = [*ENTRIES[:1000]]
    changed[600] = b"changed"
    bundle, tile = (
        TiledLog(changed).resources()[path] for path in ("tile/entries/002", "tile/0/002")
    )
    log = TiledLog(ENTRIES[:1000])
    log.lie = {"tile/entries/002": bundle, "tile/0/002": tile}.get
    error = await refused(log, state)
    assert (error.check, "entry 600" in str(error)) == ("consistency", True)
    whole = TiledLog(ENTRIES[:1000])
    assert await audit(whole, state) == 300
    replaced(whole, "tile/entries/001", bytes(512))
    assert await audit(whole, state) == 0
    with pytest.raises(VerificationError, match="tile/entries/001"):
        await audit(whole, state, full=True)


async def test_what_an_interrupted_audit_was_fooled_into_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walking, "PAUSES", ())
    state = MemoryAudit()
    log = TiledLog(numbered(9000, b"other"))
    head = TiledLog(ENTRIES[:9000]).head
    gone = SourceError("gone")

    def lie(path: str, answer: bytes) -> bytes:
        if path == "tile/entries/020":
            raise gone
        return head if path == "checkpoint" else answer

    log.lie = lie
    with pytest.raises(Unreachable):
        await audit(log, state)
    true = TiledLog(ENTRIES[:9000])
    error = await refused(true, state)
    assert (error.check, "in full" in str(error)) == ("consistency", True)
    assert await audit(true, state, full=True) == 9000


async def test_a_state_of_another_log() -> None:
    other = Signer.generate("example.com/other", LOG_ED.vkey.algorithm)
    note = sign_checkpoint(
        Checkpoint("example.com/other", 0, RightEdge().root()), [other], timestamp=1
    )
    state = MemoryAudit()
    await audit(TiledLog(ENTRIES[:10]), state)
    log = replaced(TiledLog([]), "checkpoint", note)
    with pytest.raises(StateError, match="example.com/other"):
        await Auditor(log, Verifier.with_vkeys([other.vkey]), state).run()


# ---- the second opinion ----


async def test_a_disagreement_is_an_alarm_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    state = MemoryAudit()
    await audit(TiledLog(ENTRIES[:300]), state)
    log = TiledLog(ENTRIES[:1000])
    with monkeypatch.context() as broken:
        broken.setattr(second._Row, "get_root", lambda row: bytes(32))
        error = await refused(log, state)
        assert (error.check, "pymerkle" in str(error)) == ("opinion", True)
    with monkeypatch.context() as broken:
        broken.setattr(pymerkle.ConsistencyProof, "compute_root", lambda proof: bytes(32))
        error = await refused(TiledLog(ENTRIES[:1001]), state)
        assert (error.check, "consistency proof from 1000 to 1001" in str(error)) == (
            "opinion",
            True,
        )
    assert await audit(log, state) == 700


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_pymerkle_agrees_at_every_size(steps: Sequence[int]) -> None:
    edge = RightEdge()
    opinion = second.SecondOpinion(edge)
    for step in steps:
        hashes = leaf_hashes(ENTRIES[edge.size : edge.size + step])
        edge, _ = edge.extend(hashes)
        opinion.extend(hashes)
        opinion.check(edge)
        second.SecondOpinion(edge).check(edge)


# ---- the state file ----


async def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = AuditFile(path)
    await audit(TiledLog(ENTRIES[:3]), state)
    good, progress = path.read_bytes(), state.load()
    for position in range(0, len(good), 11):
        path.write_bytes(flipped(good, position))
        damaged = pytest.raises(StateError, match="damaged")
        # Whatever is read all the same, such as another space between two fields, is the same.
        with contextlib.suppress(pytest.fail.Exception), damaged:
            assert state.load() == progress
    fields = json.loads(good)
    for key in fields:
        path.write_text(json.dumps({**fields, key: None}))
        with pytest.raises(StateError, match="damaged"):
            state.load()
    for bad in (b"", b"[]", b"null", b"[" * 100_000, b"x" * 2_000_000, good[:-9]):
        path.write_bytes(bad)
        with pytest.raises(StateError, match="damaged"):
            state.load()
    path.unlink()
    path.mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        state.load()


async def test_a_state_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Its digest fits: somebody, or another program, wrote it so."""
    state = AuditFile(tmp_path / "state")
    head = VERIFIER.checkpoint(TiledLog(ENTRIES[:300]).head)
    for entries in (numbered(300, b"other"), ENTRIES[:301]):
        edge, _ = RightEdge().extend(leaf_hashes(entries))
        state.save(Progress(head, edge))
        with pytest.raises(StateError, match="not those of its head"):
            await audit(TiledLog(ENTRIES[:300]), state)


async def test_two_audits_do_not_share_a_state(tmp_path: Path) -> None:
    state = AuditFile(tmp_path / "new" / "state")
    with state.held(), pytest.raises(StateError, match="in use"):
        await audit(TiledLog(ENTRIES[:3]), AuditFile(tmp_path / "new" / "state"))
    assert await audit(TiledLog(ENTRIES[:3]), state) == 3


async def test_memory_does_not_grow_with_the_log() -> None:
    """What is in flight at once is what was promised."""
    most = now = 0

    class Counting(TiledLog):
        async def bundle(self, index: int, width: int) -> bytes:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return await super().bundle(index, width)

    assert await audit(Counting(ENTRIES[:30_000])) == 30_000
    assert 8 < most <= walking.WINDOW
