from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.witness.simulation import Direct, Node, Source, node, virtually
from tests.witness.support import ORIGIN, SomeLog, a_witness, signer, write_list
from tlog.notes import Algorithm, Checkpoint, Note
from tlog.notes.note import sign_text
from tlog.witness import Unprocessable
from tlog.witness.conflict import Conflict, ConflictKind, verify_conflict
from tlog.witness.errors import WitnessError
from tlog.witness.limits import GossipLimits
from tlog.witness.logs import FreezeReason, freeze
from tlog.witness.sightings import Verdict

LOG, FORK = SomeLog(), SomeLog(forked_at=5)
VKEYS = [s.vkey for s in LOG.signers]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def frozen(one: Node) -> FreezeReason | None:
    return one.trust.logs[ORIGIN].frozen


def evidence(one: Node) -> list[Conflict]:
    return [verify_conflict(data, VKEYS) for data in one.evidence.files(ORIGIN)]


def forged(size: int = 9) -> bytes:
    return LOG.note(size).replace(f"\n{size}\n".encode(), f"\n{size + 1}\n".encode())


async def settle(one: Node, clock: Clock, *, times: int = 40) -> None:
    for _ in range(times):
        await one.gossip.work()
        clock.now += 10


# ---- conflicts


async def test_a_split_view_shown_to_two_witnesses_is_caught_within_two_rounds(
    tmp_path: Path,
) -> None:
    first = node(tmp_path / "1", LOG)
    second = node(tmp_path / "2", LOG)
    first.peers["2"] = Direct(second.gossip)
    second.peers["1"] = Direct(first.gossip)
    first.gossip.cosigned(LOG.head(9))
    second.gossip.cosigned(FORK.head(9))
    for _ in range(2):
        await first.gossip.round()
        await second.gossip.round()
    for one in (first, second):
        (found,) = evidence(one)
        assert found.kind is ConflictKind.SAME_SIZE
        assert frozen(one) is FreezeReason.CONFLICT
        assert one.source.asked == []
        assert one.gossip.latest(ORIGIN) is None


async def test_one_exchange_is_enough_for_both_sides(tmp_path: Path) -> None:
    first, second = node(tmp_path / "1", LOG), node(tmp_path / "2", LOG)
    first.peers["2"] = Direct(second.gossip)
    first.gossip.submit(LOG.note(9))
    second.gossip.submit(FORK.note(9))
    await first.gossip.round()
    assert evidence(first) == evidence(second) != []
    assert first.gossip.stats["conflicts_received"] + first.gossip.stats["conflicts_found"] == 1


@pytest.mark.parametrize(("old", "new"), [(6, 9), (7, 8), (8, 9), (8, 10), (16, 17), (6, 7)])
@pytest.mark.parametrize("newer_first", [True, False])
async def test_a_log_that_proves_against_itself(
    tmp_path: Path, old: int, new: int, newer_first: bool
) -> None:
    one = node(tmp_path / "1", LOG, source=Source({ORIGIN: FORK}))
    heads = [LOG.note(old), FORK.note(new)]
    for head in reversed(heads) if newer_first else heads:
        one.gossip.submit(head)
    await one.gossip.work()
    (found,) = evidence(one)
    assert found.kind is ConflictKind.INCONSISTENT
    assert found.root == FORK.root(old)
    assert frozen(one) is FreezeReason.CONFLICT


@pytest.mark.parametrize("old", [1, 2])
async def test_the_smallest_trees_cannot_be_shown_but_are_no_reason_to_accuse(
    tmp_path: Path, old: int
) -> None:
    other = SomeLog(forked_at=0)
    one = node(tmp_path / "1", LOG, source=Source({ORIGIN: other}))
    one.gossip.submit(LOG.note(old))
    one.gossip.submit(other.note(3))
    await one.gossip.work()
    assert evidence(one) == []
    assert len(one.gossip.unproven()) == 1


async def test_an_impossible_empty_tree_is_a_conflict_by_itself(tmp_path: Path) -> None:
    body = Checkpoint(ORIGIN, 0, b"\1" * 32).body()
    head = Note(body, (sign_text(body, signer(ORIGIN, Algorithm.ED25519)),)).encode()
    for number, before in enumerate(([], [LOG.note(4)])):
        one = node(tmp_path / str(number), LOG)
        for note in before:
            one.gossip.submit(note)
        assert one.gossip.submit(head) is Verdict.CONFLICT
        assert [c.kind for c in evidence(one)] == [ConflictKind.EMPTY_TREE]


@pytest.mark.parametrize("where", ["latest", "settled", "claim"])
async def test_another_root_is_a_conflict_with_any_head_that_is_remembered(
    tmp_path: Path, where: str
) -> None:
    one = node(tmp_path / "1", LOG)
    one.gossip.submit(LOG.note(9))
    if where != "latest":
        assert one.gossip.submit(LOG.note(12)) is Verdict.CLAIMED
    if where == "settled":
        await one.gossip.work()
    size = 12 if where == "claim" else 9
    assert one.gossip.submit(FORK.note(size)) is Verdict.CONFLICT
    assert len(evidence(one)) == 1
    assert one.gossip.submit(FORK.note(30)) is Verdict.CONFLICT
    assert one.gossip.unproven() == []


async def test_who_finds_a_conflict_pushes_it_to_all_and_others_pass_it_on_in_rounds(
    tmp_path: Path,
) -> None:
    nodes = [node(tmp_path / str(n), LOG) for n in range(6)]
    for n in (1, 2, 3):
        nodes[0].peers[str(n)] = Direct(nodes[n].gossip)
    nodes[3].peers["4"] = Direct(nodes[4].gossip)
    nodes[5].peers["4"] = Direct(nodes[4].gossip)
    nodes[0].gossip.submit(LOG.note(9))
    nodes[0].gossip.submit(FORK.note(9))
    await nodes[0].gossip.work()
    assert [len(evidence(one)) for one in nodes] == [1, 1, 1, 1, 0, 0]
    await nodes[3].gossip.work()
    assert evidence(nodes[4]) == []
    await nodes[3].gossip.round()
    assert len(evidence(nodes[4])) == 1
    await nodes[5].gossip.round()
    assert len(evidence(nodes[5])) == 1, "pulled, not pushed"


async def test_a_lie_about_a_conflict_is_not_believed(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    true = Conflict.between(LOG.note(9), FORK.note(9)).encode()
    stranger = SomeLog("stranger.example"), SomeLog("stranger.example", forked_at=1)
    lies = [
        b"",
        true.replace(b"same-size", b"empty-tree"),
        Conflict.between(LOG.note(10), forged()).encode(),
        Conflict.between(*(log.note(4) for log in stranger)).encode(),
        LOG.note(9),
    ]
    await one.gossip.receive([], lies)
    assert evidence(one) == []
    assert frozen(one) is None
    assert list((tmp_path / "1" / "conflicts").iterdir()) == []
    await one.gossip.receive([], [true])
    assert len(evidence(one)) == 1


async def test_evidence_of_one_log_is_bounded_and_says_nothing_about_others(
    tmp_path: Path,
) -> None:
    other = SomeLog("other.example")
    one = node(tmp_path / "1", LOG, other)
    conflicts = [Conflict.between(LOG.note(n), FORK.note(n)).encode() for n in range(6, 30)]
    await one.gossip.receive([other.note(4)], conflicts)
    assert len(one.evidence.files(ORIGIN)) == 8
    assert one.trust.logs[other.origin].frozen is None
    heads, told = await one.gossip.receive([], [])
    assert heads == [other.note(4)]
    assert len(told) == 1


async def test_after_a_crash_between_evidence_and_freezing_the_log_is_frozen(
    tmp_path: Path,
) -> None:
    one = node(tmp_path / "1", LOG)
    one.evidence.keep(Conflict.between(LOG.note(9), FORK.note(9)))
    again = node(tmp_path / "1", LOG)
    assert frozen(again) is None
    await again.gossip.round()
    assert frozen(again) is FreezeReason.CONFLICT


async def test_a_disk_that_refuses_evidence_still_freezes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(tmp_path / "1", LOG)
    one.gossip.submit(LOG.note(9))

    def refuse(_: object) -> bool:
        raise WitnessError("full")

    with monkeypatch.context() as patch:
        patch.setattr(one.evidence, "keep", refuse)
        one.gossip.submit(FORK.note(9))
    assert frozen(one) is FreezeReason.CONFLICT
    assert evidence(one) == []
    one.gossip.submit(FORK.note(9))
    assert len(evidence(one)) == 1


async def test_cleared_by_the_operator_the_same_evidence_does_not_come_back(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "1"
    one = node(directory, LOG)
    write_list(directory, LOG)
    data = Conflict.between(LOG.note(9), FORK.note(9)).encode()
    await one.gossip.receive([], [data])
    freeze(directory, ORIGIN, reason=FreezeReason.CONFLICT)
    one.evidence.clear(ORIGIN)
    one.trust.logs = one.trust.of(LOG).logs
    await one.gossip.receive([LOG.note(9)], [data])
    assert frozen(one) is None
    assert one.gossip.latest(ORIGIN) == LOG.note(9)
    await one.gossip.receive([FORK.note(10), LOG.note(10)], [])
    assert frozen(one) is FreezeReason.CONFLICT


# ---- the witness's own findings


async def test_the_witness_and_its_gossip_together(tmp_path: Path) -> None:
    directory = tmp_path / "w"
    one = node(directory, LOG, source=Source({ORIGIN: FORK}))
    async with a_witness(directory, on_inconsistent=one.gossip.on_inconsistent) as witness:
        await witness.add_checkpoint(*LOG.request(0, 9))
        with pytest.raises(Unprocessable):
            await witness.add_checkpoint(9, [], FORK.note(9))
    (found,) = evidence(one)
    assert found.kind is ConflictKind.SAME_SIZE
    assert all(len(head.split(b"\n\n")[1].splitlines()) == 1 for head in found.heads), "log's only"
    assert frozen(one) is FreezeReason.CONFLICT


async def test_a_bad_proof_given_to_the_witness_accuses_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "w"
    one = node(directory, LOG)
    async with a_witness(directory, on_inconsistent=one.gossip.on_inconsistent) as witness:
        await witness.add_checkpoint(*LOG.request(0, 9))
        with pytest.raises(Unprocessable):
            await witness.add_checkpoint(9, [bytes(32)], LOG.note(12))
    assert one.source.asked == [], "nobody is asked while the log's turn is held"
    await one.gossip.work()
    assert one.gossip.latest(ORIGIN) == LOG.note(12)
    assert evidence(one) == []
    assert one.gossip.unproven() == []


async def test_what_the_witness_cosigned_needs_no_proof_again(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    assert [one.gossip.cosigned(LOG.head(n)) for n in (4, 6, 6, 9)] == [
        Verdict.NEW, Verdict.NEW, Verdict.KNOWN, Verdict.NEW,
    ]  # fmt: skip
    await one.gossip.work()
    assert one.source.asked == []
    assert one.gossip.submit(FORK.note(6)) is Verdict.CONFLICT


async def test_what_the_witness_cosigned_does_not_hide_what_peers_have_seen(
    tmp_path: Path,
) -> None:
    one = node(tmp_path / "1", LOG, source=Source({ORIGIN: FORK}))
    one.gossip.cosigned(FORK.head(4))
    one.gossip.submit(FORK.note(8))
    await one.gossip.work()
    assert one.gossip.cosigned(LOG.head(9)) is Verdict.CLAIMED
    await one.gossip.work()
    assert evidence(one) == []
    assert [u.size for u in one.gossip.unproven()] == [9]


# ---- unproven


def test_a_silent_log_is_unproven_and_asked_ever_more_rarely(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source({ORIGIN: LOG}, silent=True)
        limits = GossipLimits(first_retry=10, last_retry=100, proof_timeout=5)
        one = node(tmp_path / "1", LOG, source=source, limits=limits)
        loop = asyncio.get_running_loop()
        one.gossip.submit(LOG.note(6))
        one.gossip.submit(FORK.note(9))
        running = asyncio.create_task(one.gossip.run())
        await asyncio.sleep(6)
        (unproven,) = one.gossip.unproven()
        assert (unproven.size, unproven.latest_size, unproven.attempts) == (9, 6, 1)
        assert "in time" in unproven.reason
        await asyncio.sleep(3600)
        assert 30 <= len(source.asked) <= 60
        assert one.gossip.stats["unproven"] == 1
        assert evidence(one) == []
        assert frozen(one) is None
        heads, _ = await one.gossip.receive([], [])
        assert {*heads} == {LOG.note(6), FORK.note(9)}, "others may know more"
        source.silent = False
        source.views[ORIGIN] = FORK
        await asyncio.sleep(200)
        assert len(evidence(one)) == 1
        running.cancel()
        assert loop.time() < 4000

    virtually(main)


@pytest.mark.parametrize(
    "proof",
    [[], [b""], [bytes(32)], [bytes(32)] * 200, [bytes(31)] * 4, [b"\xff" * 32] * 4],
)
async def test_a_bad_answer_of_the_log_is_unproven_and_no_conflict(
    tmp_path: Path, proof: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(tmp_path / "1", LOG)

    monkeypatch.setattr(LOG.__class__, "proof", lambda *_: proof)
    one.gossip.submit(LOG.note(6))
    one.gossip.submit(LOG.note(9))
    one.gossip.submit(LOG.note(4))
    await one.gossip.work()
    assert len(one.gossip.unproven()) == 2
    assert evidence(one) == []
    assert frozen(one) is None


async def test_the_log_proves_at_last(tmp_path: Path) -> None:
    clock = Clock()
    one = node(tmp_path / "1", LOG, source=Source(), clock=clock)
    one.gossip.submit(LOG.note(6))
    one.gossip.submit(LOG.note(9))
    await one.gossip.work()
    assert "KeyError" in one.gossip.unproven()[0].reason
    one.source.views[ORIGIN] = LOG
    await settle(one, clock)
    assert one.gossip.unproven() == []
    assert one.gossip.latest(ORIGIN) == LOG.note(9)
