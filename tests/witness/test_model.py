"""Any sequence of requests, honest and forking, against a model: never back, never both forks."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.witness.support import (
    ORIGIN,
    Clock,
    Evidence,
    SomeLog,
    a_witness,
    times_of,
)
from tlog.notes import parse_unverified
from tlog.witness import Refusal, SizeConflict, UnknownOrigin, hash_origin

LARGEST = 40
HONEST = SomeLog()
FORKS = [HONEST, *(SomeLog(forked_at=at) for at in (0, 1, 7, 8, 20))]

sizes = st.integers(0, LARGEST)
logs = st.sampled_from(FORKS)


class WitnessMachine(RuleBasedStateMachine):
    """The model is the list of (size, root hash) that were cosigned, and the latest time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.clock, self.evidence = Clock(), Evidence()
        self.cosigned: list[tuple[int, bytes]] = []
        self.time = 0
        self.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def start(self) -> None:
        self.context = a_witness(self.directory, clock=self.clock, on_inconsistent=self.evidence)
        self.witness = self.run(self.context.__aenter__())

    @rule()
    def restart(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.start()

    @rule(seconds=st.integers(-1000, 1000))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @property
    def size(self) -> int:
        return self.cosigned[-1][0] if self.cosigned else 0

    @rule(log=logs, size=sizes, old=st.none() | sizes, proof_of=logs, proof_from=st.none() | sizes)
    def submit(
        self, log: SomeLog, size: int, old: int | None, proof_of: SomeLog, proof_from: int | None
    ) -> None:
        old = self.size if old is None else old
        proof = proof_of.proof(old if proof_from is None else proof_from, size)
        head = (size, log.root(size))
        contradicts = old <= size == self.size and bool(self.cosigned) and head != self.cosigned[-1]
        self.evidence.found.clear()
        try:
            cosignatures = self.run(self.witness.add_checkpoint(old, proof, log.note(size)))
        except Refusal as refusal:
            told = refusal.size if isinstance(refusal, SizeConflict) else None
            assert told in {None, self.size} - {old}
            # An honest request is never refused.
            honest = old == self.size <= size and proof == log.proof(old, size)
            follows = not self.cosigned or log.root(self.size) == self.cosigned[-1][1]
            assert not (honest and follows)
            assert contradicts == any(found.contradiction for found in self.evidence.found)
        else:
            assert old == self.size <= size
            times = times_of(log.note(size), cosignatures)
            (time,) = times
            assert time is not None
            assert time == max(int(self.clock.now), self.time)
            self.time = time
            self.cosigned.append(head)
            assert not self.evidence.found

    @rule(log=logs, step=st.integers(0, 5))
    def grow(self, log: SomeLog, step: int) -> None:
        self.submit(log, min(LARGEST, self.size + step), None, log, None)

    @invariant()
    def one_history(self) -> None:
        """All that was ever cosigned lies on one line of one log."""
        assert [size for size, _ in self.cosigned] == sorted(size for size, _ in self.cosigned)
        assert any(all(log.root(size) == root for size, root in self.cosigned) for log in FORKS)

    @invariant()
    def shown(self) -> None:
        try:
            shown = parse_unverified(self.witness.checkpoint(hash_origin(ORIGIN))).checkpoint
        except UnknownOrigin:
            assert not self.cosigned
        else:
            assert (shown.size, shown.root_hash) == self.cosigned[-1]

    def teardown(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.directory)


TestWitness = WitnessMachine.TestCase
TestWitness.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
