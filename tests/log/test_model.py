"""A whole log, driven by Hypothesis against a plain-Python model: append, restart, prove."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tlog.log import EntryNotFound, Log, LogConfig, OutOfRange, create_log
from tlog.merkle import (
    CompactRange,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)
from tlog.notes import open_checkpoint, parse_proof, verify_proof

# Few values, so that duplicates are common; a long one, so that bundles differ in size.
entry_values = st.one_of(
    st.integers(0, 40).map(lambda n: b"entry %d" % n), st.binary(max_size=3), st.just(b"x" * 65535)
)


class LogMachine(RuleBasedStateMachine):
    """The model is a list of entries."""

    @initialize(dedup=st.booleans())
    def start(self, dedup: bool) -> None:
        self.runner = asyncio.Runner()
        self.scratch = tempfile.TemporaryDirectory()
        self.directory = Path(self.scratch.name) / "log"
        self.dedup = dedup
        config = LogConfig(
            origin="example.com/model", name="model", dedup=dedup, checkpoint_interval=0
        )
        self.vkeys = create_log(self.directory, config)
        self.model: list[bytes] = []
        self.tree = CompactRange()
        self.roots = [self.tree.root()]
        self.heads: dict[int, bytes] = {}
        self.open()

    def open(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.log = self.runner.run(self.stack.enter_async_context(Log.opened(self.directory)))

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
            self.runner.close()
            self.scratch.cleanup()

    def settle(self) -> None:
        """Wait until all is published: what a rule sees must not depend on the clock."""
        self.runner.run(self.log.publisher.wait_for(len(self.model)))

    def place(self, entry: bytes) -> int:
        """Where the model says that an entry goes."""
        if self.dedup and entry in self.model:
            return self.model.index(entry)
        self.model.append(entry)
        self.tree.append(leaf_hash(entry))
        self.roots.append(self.tree.root())
        return len(self.model) - 1

    @rule(entries=st.lists(entry_values, min_size=1, max_size=12))
    def append_batch(self, entries: list[bytes]) -> None:
        indices = self.runner.run(self._submit(entries))
        assert indices == [self.place(entry) for entry in entries]
        self.settle()

    @rule(count=st.integers(200, 600))
    def append_many(self, count: int) -> None:
        entries = [b"many %d" % (len(self.model) + i) for i in range(count)]
        indices = self.runner.run(self._submit(entries))
        assert indices == [self.place(entry) for entry in entries]
        self.settle()

    @rule(batches=st.lists(st.lists(entry_values, min_size=1, max_size=4), min_size=2, max_size=6))
    def append_concurrently(self, batches: list[list[bytes]]) -> None:
        async def together() -> list[list[int]]:
            accepted = [self.log.submit(batch) for batch in batches]
            return [list(await each) for each in accepted]

        for batch, indices in zip(batches, self.runner.run(together()), strict=True):
            assert indices == [self.place(entry) for entry in batch]
        self.settle()

    @rule(entry=entry_values)
    def append_published(self, entry: bytes) -> None:
        (receipt,) = self.runner.run(self.log.append_published([entry]))
        assert receipt.index == self.place(entry)
        proof = parse_proof(receipt.tlog_proof())
        assert verify_proof(proof, entry, [self.vkeys[0]]).checkpoint.size > receipt.index
        verify_proof(proof, entry, [self.vkeys[1]])

    @rule()
    def restart(self) -> None:
        self.runner.run(self.stack.aclose())
        self.open()

    @rule(data=st.data())
    @precondition(lambda self: self.log.published.size > 0)
    def prove(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, self.log.published.size), "tree size")
        index = data.draw(st.integers(0, size - 1), "index")
        old = data.draw(st.integers(0, size), "old size")
        roots = self.roots
        reader = self.log.reader
        assert reader.entry(index, size) == self.model[index]
        verify_inclusion(
            index=index,
            size=size,
            leaf_hash=leaf_hash(self.model[index]),
            root_hash=roots[size],
            proof=reader.inclusion_proof(index, size),
        )
        verify_consistency(
            old_size=old,
            new_size=size,
            old_root=roots[old],
            new_root=roots[size],
            proof=reader.consistency_proof(old, size),
        )
        entries, proof = reader.bundle(index // 256, size)
        start = index // 256 * 256
        assert entries == self.model[start : min(start + 256, size)]
        subtree = CompactRange()
        for entry in entries:
            subtree.append(leaf_hash(entry))
        verify_subtree_consistency(
            start=start,
            end=start + len(entries),
            size=size,
            subtree_root=subtree.root(),
            root=roots[size],
            proof=proof,
        )
        assert reader.index_of(leaf_hash(self.model[index]), size) == self.model.index(
            self.model[index]
        )

    @rule(beyond=st.integers(0, 3))
    def ask_beyond(self, beyond: int) -> None:
        size = self.log.published.size
        with pytest.raises(OutOfRange):
            self.log.reader.entry(size + beyond, size)
        with pytest.raises(OutOfRange):
            self.log.published_size(size + beyond + 1)
        with pytest.raises(EntryNotFound):
            self.log.reader.index_of(leaf_hash(b"never appended"), size)

    @invariant()
    def heads_are_those_of_the_model(self) -> None:
        head = self.log.published
        assert self.heads.setdefault(head.size, head.checkpoint.root_hash) == (
            head.checkpoint.root_hash
        )
        assert head.checkpoint.root_hash == self.roots[head.size]
        assert open_checkpoint(head.note, self.vkeys).checkpoint == head.checkpoint

    async def _submit(self, entries: list[bytes]) -> list[int]:
        return list(await self.log.submit(entries))


LogMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLogAgainstModel = LogMachine.TestCase
