"""SIGKILL at random moments under load: nothing acknowledged is lost, no head is contradicted."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tests.support import ServerProcess
from tlog.log import LogConfig, create_log
from tlog.merkle import CompactRange, leaf_hash, verify_consistency
from tlog.notes import Checkpoint, VerifierKey, open_checkpoint
from tlog.v1 import log_pb2 as pb
from tlog.v1 import log_pb2_grpc

KILLS = 50


@dataclass
class _Seen:
    """All that a client was ever told."""

    acknowledged: dict[int, bytes] = field(default_factory=dict)
    heads: dict[int, Checkpoint] = field(default_factory=dict)
    counter: itertools.count[int] = field(default_factory=itertools.count)
    # What was read back and proven by the check after the last restart, and the heads shown since,
    # from the one of that check on: those before are consistent with it.
    stored: list[bytes] = field(default_factory=list)
    unproven: list[Checkpoint] = field(default_factory=list)
    tree: CompactRange = field(default_factory=CompactRange)

    def entry(self, chance: random.Random) -> bytes:
        return b"%d:" % next(self.counter) + chance.randbytes(chance.choice((0, 40, 300, 2000)))

    def acknowledge(self, index: int, entry: bytes) -> None:
        assert index not in self.acknowledged, f"index {index} was given twice"
        self.acknowledged[index] = entry

    def show(self, note: bytes, vkeys: tuple[VerifierKey, ...]) -> None:
        head = open_checkpoint(note, vkeys).checkpoint
        if head.size not in self.heads:
            self.unproven.append(head)
        assert self.heads.setdefault(head.size, head) == head, "two heads of one size"


async def _load(
    target: str, seen: _Seen, vkeys: tuple[VerifierKey, ...], chance: random.Random
) -> None:
    """Append in every way there is, and watch the heads, until the server is gone."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = log_pb2_grpc.LogServiceStub(channel)

        async def single() -> None:
            while True:
                entry = seen.entry(chance)
                wait = chance.choice((pb.WAIT_FOR_DURABLE, pb.WAIT_FOR_PUBLISHED))
                answer = await stub.Append(pb.AppendRequest(entry=entry, wait_for=wait))
                seen.acknowledge(answer.index, entry)

        async def batch() -> None:
            while True:
                entries = [seen.entry(chance) for _ in range(chance.choice((1, 5, 256, 700)))]
                answer = await stub.AppendBatch(pb.AppendBatchRequest(entries=entries))
                for index, entry in zip(answer.indices, entries, strict=True):
                    seen.acknowledge(index, entry)
                await asyncio.sleep(0.005)

        async def watch() -> None:
            async for step in stub.WatchCheckpoints(pb.WatchCheckpointsRequest()):
                seen.show(step.checkpoint.note, vkeys)

        results = await asyncio.gather(
            *(single() for _ in range(6)), batch(), batch(), watch(), return_exceptions=True
        )
        for result in results:
            if not isinstance(result, grpc.aio.AioRpcError):
                raise AssertionError("the load broke") from result


async def _check(target: str, seen: _Seen, vkeys: tuple[VerifierKey, ...]) -> None:
    """After a restart: all that was acknowledged is there, under a head that follows them all."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = log_pb2_grpc.LogServiceStub(channel)
        answer = await stub.GetCheckpoint(pb.GetCheckpointRequest(), wait_for_ready=True)
        seen.show(answer.checkpoint.note, vkeys)
        head = seen.heads[answer.checkpoint.tree_size]
        assert head.size > max(seen.acknowledged, default=-1), "acknowledged entries are missing"
        for old in seen.unproven:
            proof = await stub.GetConsistencyProof(
                pb.GetConsistencyProofRequest(old_size=old.size, new_size=head.size)
            )
            verify_consistency(
                old_size=old.size,
                new_size=head.size,
                old_root=old.root_hash,
                new_root=head.root_hash,
                proof=list(proof.hashes),
            )
        seen.unproven = [head]
        # The head follows from the one before, so only what is new needs to be read each time.
        known = len(seen.stored)
        request = pb.StreamEntriesRequest(start=known, tree_size=head.size)
        async for bundle in stub.StreamEntries(request):
            for entry in bundle.entries[max(0, known - bundle.first_index) :]:
                seen.stored.append(entry)
                seen.tree.append(leaf_hash(entry))
        assert len(seen.stored) == head.size
        assert seen.tree.root() == head.root_hash
        for index, entry in seen.acknowledged.items():
            assert seen.stored[index] == entry, f"entry {index} is not what was acknowledged"


def test_kill_9_under_load_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    vkeys = create_log(
        directory, LogConfig(origin="example.com/crash", name="crash", checkpoint_interval=0.05)
    )
    seen = _Seen()
    chance = random.Random()
    print("seed", seed := chance.randrange(1 << 32))
    chance.seed(seed)
    server = ServerProcess(directory).wait_ready()
    for _ in range(KILLS):
        asyncio.run(_under_fire(server, seen, vkeys, chance))
        server = ServerProcess(directory).wait_ready()
        asyncio.run(_check(server.target, seen, vkeys))
    # And once more from the first entry on, and the first head.
    seen.stored, seen.tree, seen.unproven = [], CompactRange(), list(seen.heads.values())
    asyncio.run(_check(server.target, seen, vkeys))
    assert server.stop() == 0
    assert len(seen.acknowledged) > KILLS, "there was no load"
    assert len(seen.heads) > KILLS, "no heads were shown"


async def _under_fire(
    server: ServerProcess, seen: _Seen, vkeys: tuple[VerifierKey, ...], chance: random.Random
) -> None:
    load = asyncio.create_task(_load(server.target, seen, vkeys, chance))
    await asyncio.sleep(chance.uniform(0.02, 0.4))
    await asyncio.to_thread(server.kill)
    await load
