"""Requests at once, stalled, abandoned, and a store that fails: the record only ever grows."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from pathlib import Path

import pytest

from tests.witness.support import (
    ORIGIN,
    WITNESS_SIGNERS,
    Clock,
    Evidence,
    SomeLog,
    a_witness,
    times_of,
)
from tlog.notes import Checkpoint, NoteSignature, Signer, cosign, parse_unverified
from tlog.store import StoreError, StoreFull
from tlog.store.heads import HeadStore, Swap
from tlog.witness import (
    LogList,
    Refusal,
    SizeConflict,
    TooManyRequests,
    Unavailable,
    UnknownOrigin,
    Witness,
    WitnessConfig,
    hash_origin,
)
from tlog.witness.commits import Change, Cosigned
from tlog.witness.turns import MAX_WAITING_PER_LOG

LOG = SomeLog()
FORKS = [LOG, SomeLog(forked_at=0), SomeLog(forked_at=30)]


class GatedHeads(HeadStore):
    """A real store; a sync waits while the gate is closed, and may be made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self.syncs = 0
        self.fail: Exception | None = None

    def sync(self) -> None:
        self.syncs += 1
        self.arrived.set()
        self.gate.wait(10)
        if self.fail is not None:
            raise self._poison(self.fail)
        super().sync()


@pytest.fixture
def heads(tmp_path: Path) -> GatedHeads:
    store = GatedHeads.create(tmp_path)
    assert isinstance(store, GatedHeads)
    store.syncs = 0
    store.arrived.clear()
    return store


async def arrived(heads: GatedHeads) -> None:
    assert await asyncio.to_thread(heads.arrived.wait, 10)


def stored_size(witness: Witness) -> int:
    try:
        return parse_unverified(witness.checkpoint(hash_origin(ORIGIN))).checkpoint.size
    except UnknownOrigin:
        return 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_hundred_at_once(tmp_path: Path, seed: int) -> None:
    """Clients of a log that forks; each goes on with the size that a 409 tells it."""
    choose = random.Random(seed)
    cosigned: list[tuple[int, bytes]] = []
    evidence = Evidence()

    async def client(witness: Witness, log: SomeLog, size: int) -> None:
        old = choose.choice([0, size // 2, size])
        for _ in range(8):
            try:
                cosignatures = await witness.add_checkpoint(*log.request(old, size))
            except SizeConflict as refusal:
                old = refusal.size
                if old > size:
                    return
            except Refusal:
                return
            else:
                times_of(log.note(size), cosignatures)
                cosigned.append((size, log.root(size)))
                return
            await asyncio.sleep(choose.random() / 100)

    async with a_witness(tmp_path, on_inconsistent=evidence) as witness:
        requests = [(choose.choice(FORKS), choose.randrange(1, 60)) for _ in range(100)]
        await asyncio.gather(*(client(witness, log, size) for log, size in requests))
        assert cosigned
        # Answers of one log leave in the order of its turns: never a smaller tree after a larger.
        assert [size for size, _ in cosigned] == sorted(size for size, _ in cosigned)
        assert any(all(log.root(size) == root for size, root in cosigned) for log in FORKS)
        assert stored_size(witness) == cosigned[-1][0]


async def test_stalled_between_check_and_commit(tmp_path: Path, heads: GatedHeads) -> None:
    """The race that the specification describes: A is checked, B comes, A is stored."""
    async with a_witness(tmp_path, heads=heads) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        heads.arrived.clear()
        heads.gate.clear()
        first = asyncio.create_task(witness.add_checkpoint(*LOG.request(5, 6)))
        await arrived(heads)
        second = asyncio.create_task(witness.add_checkpoint(*LOG.request(5, 9)))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not second.done()
        # What is not durable is not shown.
        assert heads.get(hash_origin(ORIGIN)) is not None
        assert stored_size(witness) == 5
        assert [parse_unverified(note).checkpoint.size for note in witness.checkpoints()] == [5]
        heads.gate.set()
        times_of(LOG.note(6), await first)
        with pytest.raises(SizeConflict) as caught:
            await second
        assert caught.value.size == 6
        await witness.add_checkpoint(*LOG.request(6, 9))
    heads.close()


async def test_the_store_is_the_second_line(tmp_path: Path, heads: GatedHeads) -> None:
    """Two witnesses on one store know nothing of each other's turns: still no way back."""
    async with a_witness(tmp_path, heads=heads) as slow:
        await slow.add_checkpoint(*LOG.request(0, 5))
        fast = Witness(WitnessConfig(name="w"), WITNESS_SIGNERS, LogList(tmp_path), heads)
        checked, go = asyncio.Event(), asyncio.Event()
        commit = slow._commits.commit

        async def stalled(change: Change) -> Cosigned | None:
            checked.set()
            await go.wait()
            return await commit(change)

        slow._commits.commit = stalled  # type: ignore[method-assign]
        late = asyncio.create_task(slow.add_checkpoint(*LOG.request(5, 6)))
        await checked.wait()
        await fast.add_checkpoint(*LOG.request(5, 9))
        go.set()
        with pytest.raises(Unavailable, match="record changed"):
            await late
        assert stored_size(slow) == stored_size(fast) == 9
        await fast.close()
    heads.close()


async def test_a_caller_who_hangs_up_changes_nothing(tmp_path: Path, heads: GatedHeads) -> None:
    async with a_witness(tmp_path, heads=heads) as witness:
        heads.gate.clear()
        gone = asyncio.create_task(witness.add_checkpoint(*LOG.request(0, 5)))
        await arrived(heads)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        second = asyncio.create_task(witness.add_checkpoint(*LOG.request(0, 9)))
        await asyncio.sleep(0.05)
        assert not second.done()
        heads.gate.set()
        with pytest.raises(SizeConflict) as caught:
            await second
        assert caught.value.size == 5
        assert not witness._running
        assert not witness._turns._queues
    heads.close()


async def test_many_logs_share_a_sync(tmp_path: Path, heads: GatedHeads) -> None:
    logs = [SomeLog(f"log.example/{number}") for number in range(60)]
    async with a_witness(tmp_path, *logs, heads=heads) as witness:
        heads.gate.clear()
        requests = [asyncio.create_task(witness.add_checkpoint(*log.request(0, 3))) for log in logs]
        await arrived(heads)
        await asyncio.sleep(0.3)
        heads.gate.set()
        for log, cosignatures in zip(logs, await asyncio.gather(*requests), strict=True):
            times_of(log.note(3), cosignatures)
        assert heads.syncs <= 5
    heads.close()


async def test_a_key_that_cannot_sign_fails_its_own_request(
    tmp_path: Path, heads: GatedHeads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though others are signed and recorded with it, in one trip."""
    ill, well = SomeLog("log.example/ill"), SomeLog("log.example/well")

    def cosign_some(checkpoint: Checkpoint, signer: Signer, *, timestamp: int) -> NoteSignature:
        if checkpoint.origin == ill.origin:
            raise RuntimeError("no randomness")
        return cosign(checkpoint, signer, timestamp=timestamp)

    monkeypatch.setattr("tlog.witness.witness.cosign", cosign_some)
    async with a_witness(tmp_path, LOG, ill, well, heads=heads) as witness:
        heads.gate.clear()
        first = asyncio.create_task(witness.add_checkpoint(*LOG.request(0, 5)))
        await arrived(heads)
        failing = asyncio.create_task(witness.add_checkpoint(*ill.request(0, 5)))
        others = asyncio.create_task(witness.add_checkpoint(*well.request(0, 5)))
        await asyncio.sleep(0.05)
        heads.gate.set()
        times_of(LOG.note(5), await first)
        with pytest.raises(RuntimeError, match="no randomness"):
            await failing
        times_of(well.note(5), await others)
        assert heads.syncs == 2
        assert heads.get(hash_origin(ill.origin)) is None
        assert witness.failure is None
    heads.close()


async def test_a_queue_is_bounded(tmp_path: Path, heads: GatedHeads) -> None:
    other = SomeLog("log.example/two")
    async with a_witness(tmp_path, LOG, other, heads=heads) as witness:
        heads.gate.clear()
        requests = [
            asyncio.create_task(witness.add_checkpoint(*LOG.request(0, 5)))
            for _ in range(MAX_WAITING_PER_LOG + 1)
        ]
        await arrived(heads)
        with pytest.raises(TooManyRequests) as caught:
            await requests[-1]
        assert caught.value.retry_after > 0
        elsewhere = asyncio.create_task(witness.add_checkpoint(*other.request(0, 5)))
        heads.gate.set()
        await elsewhere
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        assert not witness._turns._queues
    heads.close()


@pytest.mark.parametrize("error", ["IO error: No space left on device", "Corruption: bad"])
async def test_a_failed_sync_is_not_an_answer(
    tmp_path: Path, heads: GatedHeads, error: str
) -> None:
    monotonic = Clock()
    async with a_witness(tmp_path, heads=heads, monotonic=monotonic) as witness:
        await witness.add_checkpoint(*LOG.request(0, 5))
        heads.fail = Exception(error)
        monotonic.now += 10
        with pytest.raises(Unavailable):
            await witness.add_checkpoint(*LOG.request(5, 6))
        # What was durable is still shown; what may be is not.
        assert stored_size(witness) == 5
        assert witness.failure is not None
        # The first to come reopens the store, and is served or not by what the disk then does.
        with pytest.raises((Unavailable, SizeConflict)):
            await witness.add_checkpoint(*LOG.request(5, 6))
        heads.fail = None
        monotonic.now += 10
        size = stored_size(witness)
        assert size in {5, 6}
        try:
            await witness.add_checkpoint(*LOG.request(size, 7))
        except SizeConflict as refusal:
            await witness.add_checkpoint(*LOG.request(refusal.size, 7))
        assert stored_size(witness) == 7
        assert witness.failure is None
    heads.close()


async def test_reopening_is_tried_at_intervals(tmp_path: Path, heads: GatedHeads) -> None:
    monotonic = Clock()
    tried = []

    def reopen() -> None:
        tried.append(monotonic.now)
        if len(tried) < 3:
            raise StoreFull("no room")
        HeadStore.reopen(heads)

    async with a_witness(tmp_path, heads=heads, monotonic=monotonic) as witness:
        heads.fail = StoreError("broken")
        with pytest.raises(Unavailable):
            await witness.add_checkpoint(*LOG.request(0, 5))
        heads.fail = None
        heads.reopen = reopen  # type: ignore[method-assign]
        for _ in range(20):
            requests = [witness.add_checkpoint(*LOG.request(0, 5)) for _ in range(5)]
            await asyncio.gather(*requests, return_exceptions=True)
            monotonic.now += 0.25
        assert len(tried) == 3
        assert min(b - a for a, b in itertools.pairwise(tried)) >= 1
        assert stored_size(witness) == 5
    heads.close()


async def test_the_loop_stays_responsive(tmp_path: Path) -> None:
    """ML-DSA-44 and fsync are off the loop: somebody else gets a turn all the time."""
    logs = [SomeLog(f"log.example/{number}") for number in range(40)]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with a_witness(tmp_path, *logs) as witness:
        ticker = asyncio.create_task(tick())
        await asyncio.gather(*(witness.add_checkpoint(*log.request(0, 3)) for log in logs))
        ticker.cancel()
    assert ticks > 40


@pytest.mark.parametrize("damage", [b"", b"\xff" * 9, bytes(8), bytes(8) + b"a\n1\n\n", b"\0" * 99])
async def test_a_damaged_head_is_never_taken_for_none(
    tmp_path: Path, heads: GatedHeads, damage: bytes
) -> None:
    assert heads.swap([Swap(hash_origin(ORIGIN), None, damage)]) == [True]
    async with a_witness(tmp_path, heads=heads) as witness:
        for read in (lambda: stored_size(witness), lambda: list(witness.checkpoints())):
            with pytest.raises(Unavailable, match="damaged"):
                read()
        with pytest.raises(Unavailable, match="damaged"):
            await witness.add_checkpoint(*LOG.request(0, 5))
    heads.close()
