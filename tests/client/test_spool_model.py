"""The spool against a model, through kills, power cuts and restarts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.client.spools import SMALL, drained, killed, left_on_disk, opened, put, segments
from tlog.client import spool as spools
from tlog.client.frames import Frame, encode_frame


class SpoolModel(RuleBasedStateMachine):
    """What was appended and not delivered is there, in order, whatever happens in between."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(spools, "_LARGEST_SEGMENT", SMALL)
        self.patch.setattr(os, "fsync", lambda handle: None)  # it is the process that dies here
        self.patch.setattr(os, "fdatasync", lambda handle: None)
        self.path = Path(tempfile.mkdtemp())
        self.spool = opened(self.path)
        self.next = 1
        self.waiting: list[tuple[int, bytes]] = []
        self.taken: list[Frame] = []
        self.seen = 0

    @rule(data=st.binary(max_size=90))
    def append(self, data: bytes) -> None:
        assert put(self.spool, data) == self.next
        self.waiting.append((self.next, data))
        self.next += 1

    @rule()
    def a_record_that_cannot_be_made(self) -> None:
        def fail(number: int) -> bytes:
            assert number == self.next
            raise ValueError("refused")

        with pytest.raises(ValueError, match="refused"):
            self.spool.append(fail)

    @rule(records=st.integers(1, 5), size=st.integers(0, 200))
    def peek(self, records: int, size: int) -> None:
        self.taken = self.spool.peek(records, size)
        shown = [(frame.number, frame.data) for frame in self.taken]
        assert shown == self.waiting[: len(shown)]
        assert bool(shown) == bool(self.waiting)
        assert len(shown) <= records

    @precondition(lambda self: self.taken)
    @rule(part=st.integers(1, 5))
    def advance(self, part: int) -> None:
        done = self.taken[:part]
        self.spool.advance(done)
        del self.waiting[: len(done)]
        self.taken = []

    @rule()
    def tidy(self) -> None:
        self.spool.tidy()
        self.taken = []
        self.only_what_waits_is_there()

    def only_what_waits_is_there(self) -> None:
        assert left_on_disk(self.path) == {number for number, _ in self.waiting}
        if not self.waiting:
            assert [path.stat().st_size for path in segments(self.path)] == [0]

    @rule(tail=st.binary(max_size=60), whole=st.booleans(), cut=st.integers(0, 120))
    def crash(self, tail: bytes, whole: bool, cut: int) -> None:
        """Killed while it wrote a record: any part of it may be there, and so may all of it."""
        durable = self.next - 1
        killed(self.spool)
        torn = encode_frame(self.next, durable, tail)
        torn = torn if whole else torn[: min(cut, len(torn) - 1)]
        with segments(self.path)[-1].open("ab") as file:
            file.write(torn)
        if whole:
            self.waiting.append((self.next, tail))
            self.next += 1
        self.reopen()

    @rule(garbage=st.binary(min_size=1, max_size=60))
    def power_cut(self, garbage: bytes) -> None:
        """Blocks of which nobody was told anything hold whatever was there before."""
        killed(self.spool)
        with segments(self.path)[-1].open("ab") as file:
            file.write(garbage)
        self.reopen()

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.only_what_waits_is_there()
        self.reopen()

    def reopen(self) -> None:
        self.spool = opened(self.path)
        self.taken = []

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.waiting == len(self.waiting)
            files = sum(path.stat().st_size for path in segments(self.path))
            assert self.spool.used_bytes == files

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert drained(self.spool) == dict(self.waiting)
            self.spool.close()
            self.patch.undo()
            shutil.rmtree(self.path)


SpoolModel.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSpoolModel = SpoolModel.TestCase
