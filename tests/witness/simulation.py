"""Witnesses that gossip on virtual time, over a network that loses, delays and reorders.

Everything but the network and the clock is real: notes, signatures, evidence files, the rules.
An event loop whose clock jumps to the next timer makes hours pass in milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.witness.support import SomeLog
from tlog.witness.evidence import EvidenceStore
from tlog.witness.exchange import Peer
from tlog.witness.gossip import Gossip
from tlog.witness.limits import GossipLimits
from tlog.witness.logs import FreezeReason, TrustedLog

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time passes only when nothing is ready, and then at once."""

    def __init__(self) -> None:
        super().__init__(_NoWaiting(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _NoWaiting(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        # A little more than asked for: adding small to large numbers rounds down.
        self._loop.now += timeout + 1e-9 if timeout > 0 else 0
        return super().select(0)


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@dataclass
class Trust:
    """A list of logs without a file."""

    logs: dict[str, TrustedLog]

    @classmethod
    def of(cls, *logs: SomeLog) -> Trust:
        return cls(
            {g.origin: TrustedLog(g.origin, tuple(s.vkey for s in g.signers), None) for g in logs}
        )

    def find(self, origin: str) -> TrustedLog | None:
        return self.logs.get(origin)

    def freeze(self, origin: str) -> None:
        log = self.logs[origin]
        self.logs[origin] = TrustedLog(log.origin, log.vkeys, FreezeReason.CONFLICT)


@dataclass
class Source:
    """Logs that are asked for proofs: each answers from its one view, or not at all."""

    views: dict[str, SomeLog] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    silent: bool = False

    async def consistency_proof(self, origin: str, old_size: int, new_size: int) -> list[bytes]:
        self.asked.append((origin, old_size, new_size))
        if self.silent:
            await asyncio.Event().wait()
        return list(self.views[origin].proof(old_size, new_size))


@dataclass
class Node:
    """An honest witness, as far as gossip goes."""

    gossip: Gossip
    evidence: EvidenceStore
    trust: Trust
    source: Source
    peers: dict[str, Peer]


def node(
    directory: Path,
    *logs: SomeLog,
    source: Source | None = None,
    peers: dict[str, Peer] | None = None,
    limits: GossipLimits | None = None,
    clock: Callable[[], float] | None = None,
    seed: int = 0,
) -> Node:
    directory.mkdir(exist_ok=True)
    trust = Trust.of(*logs)
    evidence = EvidenceStore(directory)
    source = source or Source({log.origin: log for log in logs})
    peers = {} if peers is None else peers
    gossip = Gossip(
        trust,
        evidence,
        peers,
        source,
        freeze=trust.freeze,
        limits=limits,
        clock=clock or asyncio.get_running_loop().time,
        rng=random.Random(seed),
    )
    return Node(gossip, evidence, trust, source, peers)


@dataclass
class Direct:
    """A peer reached by calling it."""

    other: Gossip

    async def exchange(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        return await self.other.receive(heads, conflicts)


@dataclass
class Lossy:
    """A peer behind a bad network: requests and answers are lost, late, and overtake each other."""

    other: Peer
    rng: random.Random
    loss: float
    delay: float

    async def exchange(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        await self._travel()
        answer = await self.other.exchange(heads, conflicts)
        await self._travel()
        return answer

    async def _travel(self) -> None:
        if self.rng.random() < self.loss:
            await asyncio.Event().wait()  # until the other side's patience ends
        await asyncio.sleep(self.rng.expovariate(1 / self.delay))


@dataclass
class Liar:
    """Hides what it was told, and answers with whatever might hurt."""

    rng: random.Random
    old_heads: Sequence[bytes]
    forged: Sequence[bytes]
    lies: Sequence[bytes]

    async def exchange(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        match self.rng.randrange(6):
            case 0:
                await asyncio.Event().wait()
            case 1:
                raise ConnectionError("reset")
            case 2:
                return [self.rng.randbytes(200) for _ in range(50)], [self.rng.randbytes(500)]
            case 3:
                return list(self.old_heads), list(self.lies)
            case 4:
                return [*self.forged] * 10, []
        return [], []


@dataclass(frozen=True)
class Outcome:
    """Rounds until every honest witness had evidence.

    And the most proofs asked for by one that was shown the history which the log can prove.
    """

    rounds: int
    proofs: int


async def split_view(
    directory: Path,
    *,
    seed: int,
    witnesses: int = 50,
    liars: float = 0.3,
    degree: int | None = None,
    loss: float = 0.2,
    delay: float = 2.0,
    limits: GossipLimits,
) -> Outcome:
    """One log shows one history to one honest witness, and another to all others.

    `degree` is how many peers each witness has; None for all. Rounds are counted by time: of each
    witness one in an `interval`, and the last one is counted in full.
    """
    rng = random.Random(seed)
    honest_log, forked = SomeLog(), SomeLog(forked_at=5)
    old = [honest_log.note(size) for size in (3, 4, 5)]
    other = SomeLog("unknown.example")
    forged = [honest_log.note(9).replace(b"\n9\n", b"\n10\n"), other.note(4)]
    lies = [hashlib.sha256(b"lie").hexdigest().encode()]
    honest = rng.sample(range(witnesses), witnesses - round(witnesses * liars))
    nodes: dict[int, Node] = {}
    peers: dict[int, Peer] = {}
    for number in range(witnesses):
        if number in honest:
            where = directory / f"{seed}-{number}"
            nodes[number] = node(
                where,
                honest_log,
                source=Source({honest_log.origin: honest_log}),
                limits=limits,
                seed=rng.randrange(1 << 32),
                peers={},
            )
            peers[number] = Direct(nodes[number].gossip)
        else:
            peers[number] = Liar(random.Random(rng.random()), old, forged, lies)
    for number, one in nodes.items():
        others = [n for n in range(witnesses) if n != number]
        for n in others if degree is None else rng.sample(others, degree):
            link = Lossy(peers[n], random.Random(rng.random()), loss, delay)
            one.peers[str(n)] = link
        one.gossip.cosigned((forked if number == honest[0] else honest_log).head(9))
    loop = asyncio.get_running_loop()
    begin = loop.time()
    running = [asyncio.create_task(one.gossip.run()) for one in nodes.values()]
    while not all(honest_log.origin in one.evidence for one in nodes.values()):
        await asyncio.sleep(limits.interval / 10)
        assert loop.time() - begin < 1000 * limits.interval, "not all learn of it"
    rounds = -int(-(loop.time() - begin) // limits.interval)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return Outcome(rounds, max(len(one.source.asked) for n, one in nodes.items() if n != honest[0]))
