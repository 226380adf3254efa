from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.witness.simulation import Direct, Node, Source, node, virtually
from tests.witness.support import ORIGIN, SomeLog
from tlog.witness import rules
from tlog.witness.conflict import Conflict, verify_conflict
from tlog.witness.errors import BadRequest, BadSignature, Refusal, UnknownOrigin
from tlog.witness.exchange import MAX_CONFLICTS, MAX_HEADS, MAX_MESSAGE_SIZE
from tlog.witness.limits import MAX_REFUSED, GossipLimits
from tlog.witness.logs import FreezeReason
from tlog.witness.sightings import MAX_CLAIMS, MAX_SETTLED

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


async def test_replayed_heads_cost_one_proof_each_and_not_all_at_once(tmp_path: Path) -> None:
    clock = Clock()
    one = node(tmp_path / "1", LOG, clock=clock)
    one.gossip.submit(LOG.note(60))
    old = [LOG.note(n) for n in range(1, 9)]
    for _ in range(20):
        await one.gossip.receive(old, [])
        await one.gossip.work()
    assert len(one.source.asked) == GossipLimits().proof_burst
    for _ in range(200):
        await one.gossip.receive(old, [])
        await one.gossip.work()
        clock.now += 5
    assert len(one.source.asked) == len(set(one.source.asked)) == 8


async def test_a_flood_of_old_heads_is_bounded_and_does_not_keep_a_fork_out(
    tmp_path: Path,
) -> None:
    one = node(tmp_path / "1", LOG, source=Source({ORIGIN: LOG}, silent=True))
    one.gossip.submit(LOG.note(60))
    flood = [LOG.note(n) for n in range(6, 50)]
    tries = 0
    while frozen(one) is None and tries < 200:
        tries += 1
        await one.gossip.receive(flood, [])
        await one.gossip.receive([FORK.note(61)], [])
        seen = one.gossip._seen[ORIGIN]
        assert len(seen.claims) <= MAX_CLAIMS
        assert len(seen.settled) <= MAX_SETTLED
        await one.gossip.receive([LOG.note(61)], [])
    assert frozen(one) is not None


async def test_settled_heads_are_bounded(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    for size in range(1, 100):
        one.gossip.cosigned(LOG.head(size))
    assert len(one.gossip._seen[ORIGIN].settled) == MAX_SETTLED


async def test_garbage_changes_nothing(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    one.gossip.submit(LOG.note(9))
    other = SomeLog("unknown.example")
    for junk in (b"", b"\n", b"\xff\xfe", LOG.note(8)[:-3], LOG.note(8) * 2, b"\0" * 500):
        await one.gossip.receive([junk, forged(), other.note(4)], [junk])
    assert one.gossip.latest(ORIGIN) == LOG.note(9)
    assert list(one.gossip._seen) == [ORIGIN]
    assert one.source.asked == []
    assert frozen(one) is None


async def test_after_some_bad_signatures_a_message_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(tmp_path / "1", LOG)
    verified: list[object] = []
    real = rules.verify

    def counted(*args: Any) -> Any:
        verified.append(args)
        return real(*args)

    monkeypatch.setattr(rules, "verify", counted)
    await one.gossip.receive([forged(n) for n in range(1, 9)] * 100, [])
    assert len(verified) == MAX_REFUSED
    await one.gossip.receive([SomeLog("unknown.example").note(3)] * 1000, [])
    assert len(verified) == MAX_REFUSED, "no signature of an unknown log is looked at"
    await one.gossip.receive([LOG.note(9)] * 1000, [])
    assert len(verified) == MAX_REFUSED + 1, "what is known is not verified again"


async def test_messages_are_bounded_before_they_are_looked_at(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    gossip = one.gossip
    for heads, conflicts in (
        ([b""] * (MAX_HEADS + 1), []),
        ([], [b""] * (MAX_CONFLICTS + 1)),
        ([b"x" * (256 * 1024 + 1)], []),
        ([b"x" * 1024] * (MAX_MESSAGE_SIZE // 1024 + 1), []),
        ([], [b"x" * (600 * 1024)]),
    ):
        with pytest.raises(BadRequest, match="limit"):
            await gossip.receive(heads, conflicts)
    assert not any(gossip.stats.values())


def test_bad_peers_do_not_keep_good_ones_from_being_heard(tmp_path: Path) -> None:
    async def main() -> None:
        class Hangs:
            async def exchange(self, *_: object) -> tuple[list[bytes], list[bytes]]:
                await asyncio.Event().wait()
                raise AssertionError

        class Breaks:
            async def exchange(self, *_: object) -> tuple[list[bytes], list[bytes]]:
                raise RuntimeError("boom\n" * 1000)

        class Floods:
            async def exchange(self, *_: object) -> tuple[list[bytes], list[bytes]]:
                return [b"x"] * (MAX_HEADS + 1), []

        good = node(tmp_path / "2", LOG)
        good.gossip.submit(FORK.note(9))
        one = node(tmp_path / "1", LOG, limits=GossipLimits(fanout=4))
        one.gossip.submit(LOG.note(9))
        one.peers.update(h=Hangs(), b=Breaks(), f=Floods(), g=Direct(good.gossip))
        await one.gossip.round()
        assert len(evidence(one)) == 1
        assert one.gossip.stats["peer_failures"] == 3
        await one.gossip.work()  # pushed to all: again with three that fail
        assert asyncio.get_running_loop().time() < 25

    virtually(main)


async def test_a_message_of_too_much_is_a_random_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [SomeLog(f"log.example/{n}" + "x" * 200) for n in range(40)]
    one = node(tmp_path / "1", *logs)
    for log in logs:
        one.gossip.submit(log.note(1))
    monkeypatch.setattr("tlog.witness.exchange.MAX_MESSAGE_SIZE", 4000)
    seen: set[bytes] = set()
    for _ in range(60):
        heads, _ = await one.gossip.receive([], [])
        assert sum(map(len, heads)) <= 4000
        seen.update(heads)
    assert len(seen) == 40


async def test_heads_that_were_told_are_not_told_back(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    one.gossip.submit(LOG.note(9))
    assert await one.gossip.receive([LOG.note(9)], []) == ([], [])
    assert await one.gossip.receive([], []) == ([LOG.note(9)], [])


async def test_submitted_heads_are_refused_with_a_reason(tmp_path: Path) -> None:
    one = node(tmp_path / "1", LOG)
    for note, kind in (
        (b"junk", BadRequest),
        (SomeLog("unknown.example").note(3), UnknownOrigin),
        (forged(), BadSignature),
    ):
        with pytest.raises(kind) as caught:
            one.gossip.submit(note)
        assert isinstance(caught.value, Refusal)
        assert "\n" not in str(caught.value)


def test_two_logs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        other = SomeLog("other.example")

        class OneHangs(Source):
            async def consistency_proof(
                self, origin: str, old_size: int, new_size: int
            ) -> list[bytes]:
                if origin == ORIGIN:
                    await asyncio.Event().wait()
                return other.proof(old_size, new_size)

        one = node(tmp_path / "1", LOG, other, source=OneHangs())
        for log in (LOG, other):
            one.gossip.submit(log.note(3))
            one.gossip.submit(log.note(5))
        working = asyncio.create_task(one.gossip.work())
        await asyncio.sleep(1)
        assert one.gossip.latest(other.origin) == other.note(5)
        one.gossip.submit(other.note(6))
        await one.gossip.work()
        assert one.gossip.latest(other.origin) == other.note(6)
        assert not working.done()
        await working
        assert [u.origin for u in one.gossip.unproven()] == [ORIGIN]

    virtually(main)
