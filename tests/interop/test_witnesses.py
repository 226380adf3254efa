"""Witnesses that others wrote cosign our log, and count in its quorum."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.remote.witnesses import ORIGIN, make_log, opened, until, write_policy
from tlog.log import Log
from tlog.log.cosigners import CosignerStatus
from tlog.notes import Policy, VerifierKey, parse_proof
from tools.peers import Logs, PeerWitness, aics_witness, free_port, litewitness

PATIENCE = 60


@contextlib.contextmanager
def both(tmp_path: Path, logs: Logs) -> Iterator[tuple[PeerWitness, PeerWitness]]:
    with litewitness(tmp_path / "lite", logs) as lite, aics_witness(tmp_path / "aics", logs) as it:
        yield lite, it


async def append(log: Log, policy: Policy, entries: list[bytes]) -> tuple[str, ...]:
    """Append and wait for the receipts; who cosigned what they lead to."""
    async with asyncio.timeout(PATIENCE):
        receipts = await log.append_published(entries)
    (note,) = {parse_proof(receipt.tlog_proof()).checkpoint for receipt in receipts}
    return policy.open(note).cosigned_by


def require_both(directory: Path, vkeys: tuple[VerifierKey, ...], *peers: PeerWitness) -> Policy:
    return write_policy(directory, vkeys, [(peer.vkey, peer.url) for peer in peers], len(peers))


async def test_both_cosign_and_a_quorum_of_both_is_met(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    vkeys = make_log(directory)
    with both(tmp_path, {ORIGIN: vkeys}) as peers:
        policy = require_both(directory, vkeys, *peers)
        async with opened(directory) as log:
            # The head of the empty log first: it is cosigned like every other.
            async with asyncio.timeout(PATIENCE):
                await until(lambda: log.publisher._published is not None)
            assert log.published.size == 0
            assert policy.open(log.published.note).cosigned_by == ("w0", "w1")
            # Growth within a tile, over its edge, by a power of two, and by one.
            for count in (1, 1, 253, 1, 1, 255, 512, 3000, 1):
                entries = [b"%d of %d" % (number, count) for number in range(count)]
                assert await append(log, policy, entries) == ("w0", "w1")
            assert log.published.size == 4025
            assert log.cosigners is not None
            assert not any(status.failures for status in log.cosigners.status())
        # A log that was started again goes on with the same witnesses.
        async with opened(directory) as log:
            assert await append(log, policy, [b"after a restart"]) == ("w0", "w1")


async def test_receipts_wait_for_a_peer_that_is_away(tmp_path: Path) -> None:
    directory, port = tmp_path / "log", free_port()
    vkeys = make_log(directory)
    logs = {ORIGIN: vkeys}
    with aics_witness(tmp_path / "aics", logs) as aics:
        with litewitness(tmp_path / "lite", logs, port=port) as lite:
            policy = require_both(directory, vkeys, lite, aics)
        async with opened(directory) as log:
            waiting = asyncio.create_task(append(log, policy, [b"one", b"two"]))
            assert log.cosigners is not None
            await until(lambda: log.cosigners and log.cosigners.status()[0].failures)
            assert log.sequencer.edge.size == 2
            assert not waiting.done()
            with litewitness(tmp_path / "lite", logs, port=port):
                assert await waiting == ("w0", "w1")
                assert log.published.size == 2


async def test_they_refuse_a_second_history_and_it_is_never_published(tmp_path: Path) -> None:
    directory, other = tmp_path / "log", tmp_path / "other"
    vkeys = make_log(directory, quorum_timeout=0.5)
    shutil.copytree(directory, other)
    with both(tmp_path, {ORIGIN: vkeys}) as peers:
        policy = require_both(directory, vkeys, *peers)
        shutil.copy(directory / "policy", other / "policy")
        async with opened(directory) as log:
            await append(log, policy, [b"one", b"two", b"three"])
        # One that is behind what they have seen; and one ahead of it, with a proof from its own.
        for size, reason in ((2, "has cosigned size 3, this log has signed"), (9, "422")):
            shutil.copytree(other, tmp_path / f"fork{size}")
            async with opened(tmp_path / f"fork{size}") as fork:
                await fork.submit([b"another %d" % number for number in range(size)])
                assert fork.cosigners is not None
                await until(partial(_all_say, fork.cosigners.status, reason))
                assert fork.publisher._published is None


def _all_say(status: Callable[[], Sequence[CosignerStatus]], reason: str) -> bool:
    return all(reason in one.last_error for one in status())
