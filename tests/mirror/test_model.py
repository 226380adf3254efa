"""A mirror against a model of it: any order of checkpoints, uploads, damage and restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mirror.support import FORK, LOG, a_mirror, check_cosigned, send, sha256
from tlog.mirror import (
    Accepted,
    Mirror,
    Mirrored,
    Upload,
    UploadConflict,
    canonical_sequence,
    encode_upload,
)
from tlog.mirror.mirror import MAX_EXCESS
from tlog.store import StoreMissing
from tlog.witness import Refusal

SIZES = st.sampled_from([0, 1, 255, 256, 257, 300, 511, 512, 700, 768, 1000, 1024, 1300])


@dataclass(frozen=True)
class Grow:
    size: int
    fork: bool


@dataclass(frozen=True)
class Send:
    start: int
    end: int
    count: int | None
    ticket: bool
    damage: int | None  # which package


class Restart:
    pass


STEPS = st.one_of(
    st.builds(Grow, SIZES, st.sampled_from([False, False, True])),
    st.builds(
        Send,
        # -1: where the mirror says; likewise the end.
        st.just(-1) | SIZES,
        st.just(-1) | SIZES,
        st.none() | st.integers(0, 3),
        st.booleans(),
        st.none() | st.none() | st.integers(0, 3),
    ),
    st.builds(Restart),
)


class Model:
    """What the mirror has to be, by the sentences of the specification."""

    def __init__(self) -> None:
        self.pending: int | None = None
        self.tickets: dict[int, bytes] = {}
        self.mirrored: int | None = None
        self.next_entry = 0

    async def grow(self, mirror: Mirror, step: Grow) -> None:
        log = FORK if step.fork else LOG
        old = min(self.pending or 0, step.size)
        expected = 200
        if old != (self.pending or 0):
            expected = 409
        elif step.fork and step.size > 300:
            if old <= 300:
                return  # it may be either history: not what this test is about
            expected = 422
        status, _ = await outcome(mirror.add_checkpoint(*log.request(old, step.size)))
        assert status == expected
        if status == 200:
            self.pending = step.size

    async def send(self, mirror: Mirror, step: Send) -> None:
        end = (self.pending or 0) if step.end < 0 else step.end
        start = min(self.next_entry, end) if step.start < 0 else step.start
        if start > end:
            return
        ticket = self.tickets.get(end, b"") if step.ticket else b""
        packages = LOG.packages(start, end, step.count)
        damaged = step.damage is not None and step.damage < len(packages)
        if damaged:
            broken = packages[step.damage or 0]
            packages[step.damage or 0] = replace(broken, entries=(*broken.entries[:-1], b"bad"))
        expected, saved = self.expect(start, end, bool(ticket), len(packages), step)
        body = encode_upload(Upload(LOG.origin.encode(), start, end, ticket), packages)
        status, done = await outcome(send(mirror, body))
        if isinstance(done, Accepted):
            status = 202
        assert status == expected
        if isinstance(done, UploadConflict):
            self.tickets[done.info.tree_size] = done.info.ticket
            assert done.info.next_entry == self.next_entry
        if isinstance(done, Mirrored):
            lines = b"".join(signature.encode() for signature in done.cosignatures)
            check_cosigned(mirror, LOG.note(end) + lines, end)
        if saved:
            reached = list(canonical_sequence(start, end))[saved - 1].end
            self.next_entry = max(self.next_entry, reached)
        if expected == 200:
            self.mirrored = end

    def expect(self, start: int, end: int, ticket: bool, count: int, step: Send) -> tuple[int, int]:
        """The status, and how many packages are saved."""
        if self.pending is None:
            return 422, 0
        if not (end in {self.pending, self.mirrored} or (ticket and end <= self.pending)):
            return 409, 0
        if end < (self.mirrored or 0) or start > self.next_entry:
            return 409, 0
        if min(end, self.next_entry) - start > MAX_EXCESS:
            return 409, 0
        if step.damage is not None and step.damage < count:
            return 422, step.damage
        if count == len(list(canonical_sequence(start, end))):
            return 200, count
        return (202, count) if count else (400, 0)

    def check(self, mirror: Mirror) -> None:
        """What is served is the log's, cosigned, and nothing is beyond it."""
        if self.pending is None:
            return
        try:
            copy = mirror.copy(sha256(LOG.origin))
        except Refusal:
            assert self.mirrored is None
            return
        assert copy.next_entry == self.next_entry
        assert (None if copy.head is None else copy.size) == self.mirrored
        if copy.head is not None:
            check_cosigned(mirror, copy.head.note, copy.size)
        for index in range(-(-self.next_entry // 256)):
            width = min(256, self.next_entry - index * 256)
            assert copy.reader.encoded_bundle(index, width) == LOG.bundle(index, width)
        try:
            copy.reader.encoded_bundle(self.next_entry // 256, self.next_entry % 256 + 1)
        except StoreMissing:
            pass
        else:
            raise AssertionError("there are entries that nobody has sent")


async def outcome(call: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """The status, and what was answered or refused."""
    try:
        return 200, await call
    except Refusal as refusal:
        return refusal.status, refusal


@settings(max_examples=10, deadline=None)
@given(st.lists(STEPS, max_size=18))
def test_any_order(steps: list[object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(Path(directory) / "m", steps))


async def _run(directory: Path, steps: list[object]) -> None:
    model = Model()
    while steps:
        async with a_mirror(directory) as mirror:
            model.check(mirror)
            while steps and not isinstance(step := steps.pop(0), Restart):
                if isinstance(step, Grow):
                    await model.grow(mirror, step)
                elif isinstance(step, Send):
                    await model.send(mirror, step)
                model.check(mirror)
