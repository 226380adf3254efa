"""Witnesses of ten thousand logs, ours beside two that others wrote, on the same requests.

Each request brings the next checkpoint of another log: one Ed25519 signature, and a consistency
proof from the one before. Ours answers with two cosignatures, Ed25519 and ML-DSA-44; the others
with the first alone, and ours is measured doing that too. "Per core second" is per second of CPU
time of the witness's processes; the rate depends also on how many checkpoints share a sync of the
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tlog.merkle import consistency_proof, leaf_hash, node_hash
from tlog.notes import Algorithm, Checkpoint, Signer, VerifierKey, sign_checkpoint
from tlog.remote import gossip_connections
from tlog.serve import witness_http_server
from tlog.witness import AddCheckpoint, Node, add_log, create_witness
from tools.bench import servers
from tools.bench.table import Row
from tools.peers import (
    PeerWitness,
    aics_witness,
    answers,
    free_port,
    litewitness,
    running,
    until_ready,
)

LOGS = 10_000
# Sizes of the checkpoints: the first of every log, then those that are measured.
FIRST, STEP = 1_000, 37
CONNECTIONS = 8
# For the first checkpoints. A slow witness knows all the logs, but has no checkpoint of some yet.
FILL_SECONDS = 25.0
OURS = "tlog witness"
TIMESTAMP = 1_700_000_000


class Tree:
    """A small tree in memory, the same for every log: what differs is who signs it."""

    def range_hashes(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [root(begin, end) for begin, end in ranges]


@functools.cache
def root(begin: int, end: int) -> bytes:
    """MTH of these leaves of it (RFC 6962 section 2.1)."""
    if end - begin == 1:
        return leaf_hash(b"entry %d" % begin)
    middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
    return node_hash(root(begin, middle), root(middle, end))


def signers() -> list[Signer]:
    """The key of each log."""
    return [
        Signer.from_seed(f"log.example/{number}", Algorithm.ED25519, number.to_bytes(32))
        for number in range(LOGS)
    ]


def requests(logs: Sequence[Signer], step: int) -> list[bytes]:
    """The whole HTTP request of each log that brings its checkpoint of this step."""
    new = FIRST + step * STEP
    old = new - STEP if step else 0
    proof = tuple(consistency_proof(old, new, Tree()))
    made = []
    for signer in logs:
        checkpoint = Checkpoint(signer.vkey.name, new, root(0, new))
        note = sign_checkpoint(checkpoint, [signer], timestamp=TIMESTAMP)
        body = AddCheckpoint(old, proof, note).encode()
        head = f"POST /add-checkpoint HTTP/1.1\r\nHost: witness\r\nContent-Length: {len(body)}\r\n"
        made.append(head.encode() + b"\r\n" + body)
    return made


@dataclass(frozen=True)
class Load:
    """What a witness did with requests: how many a second and a CPU second; seconds for each."""

    rate: float
    per_core: float
    seconds: list[float]

    def milliseconds(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100)[percent - 1] * 1000


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as it has the answer to the last one."""

    def __init__(self, requests: Iterator[bytes], seconds: list[float]) -> None:
        self._requests = requests
        self._seconds = seconds
        self._received = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._acknowledge()
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().index(b"content-length: ") + 16
        if len(body) < int(head[length:].partition(b"\r\n")[0]):
            return
        self._seconds.append(time.perf_counter() - self._asked)
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")):
            self.ended.set_exception(RuntimeError(self._received.decode()))
            self._transport.close()
        else:
            self._received = b""
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"the witness hung up: {exc}"))

    def _ask(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._acknowledge()
        self._asked = time.perf_counter()
        self._transport.write(request)

    def _acknowledge(self) -> None:
        # aics-witness writes an answer in two pieces, under Nagle's algorithm: it would wait 40 ms
        # for our kernel's delayed acknowledgement of the first, which says nothing of a witness.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def load(peer: PeerWitness, asked: Sequence[bytes], connections: int, limit: float) -> Load:
    """Send requests for so many seconds, or all of them."""
    loop = asyncio.get_running_loop()
    host, _, port = peer.url.removeprefix("http://").rpartition(":")
    seconds: list[float] = []
    before, started = cpu_seconds(peer.pids), time.perf_counter()
    until = started + limit
    rest = itertools.takewhile(lambda _: time.perf_counter() < until, asked)
    opened = [
        await loop.create_connection(lambda: _Connection(rest, seconds), host, int(port))
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.ended for _, connection in opened))
    took, used = time.perf_counter() - started, cpu_seconds(peer.pids) - before
    return Load(len(seconds) / took, len(seconds) / used, seconds)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that processes have used, in user space and in the kernel."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def tlog_witness(
    directory: Path, vkeys: Sequence[VerifierKey], *, one_key: bool = False
) -> Iterator[PeerWitness]:
    """`tlog witness serve` in a new directory; or the same with its Ed25519 key alone."""
    own, _ = create_witness(directory / "witness", name="witness.example/w")
    add_log(directory / "witness", vkeys)
    said, address = directory / "witness.log", f"127.0.0.1:{free_port()}"
    verb = ("tlog.cli", "witness", "serve", "--grpc", f"127.0.0.1:{free_port()}", "--http")
    command = ("tools.bench.witness",) if one_key else verb
    with running(
        said, sys.executable, "-m", *command, address, str(directory / "witness")
    ) as child:
        until_ready(lambda: answers(f"http://{address}/healthz"), child, said)
        yield PeerWitness(own, f"http://{address}", (child.pid,))


async def _serve_one_key(address: str, directory: Path) -> None:
    """What the others do, to compare the same work: no user's witness lacks its second key."""
    async with gossip_connections() as outward, Node.opened(directory, outward) as node:
        node.witness._signers = node.witness._signers[:1]
        node.witness.vkeys = node.witness.vkeys[:1]
        async with witness_http_server(node, address):
            await asyncio.Event().wait()


@dataclass(frozen=True)
class Found:
    """What a witness did: `busy` on several connections, `alone` on one; memory in MiB."""

    busy: Load
    alone: Load
    memory: float


def measure(directory: Path, seconds: float) -> list[Row]:
    logs = signers()
    vkeys = {signer.vkey.name: [signer.vkey] for signer in logs}
    rounds = [requests(logs, step) for step in range(3)]
    witnesses: dict[str, Callable[[Path], AbstractContextManager[PeerWitness]]] = {
        "litewitness": lambda path: litewitness(path, vkeys),
        "aics-witness": lambda path: aics_witness(path, vkeys),
        OURS: lambda path: tlog_witness(path, [signer.vkey for signer in logs]),
        f"{OURS}, Ed25519 alone": lambda path: tlog_witness(
            path, [signer.vkey for signer in logs], one_key=True
        ),
    }
    found: dict[str, Found] = {}
    for name, start in witnesses.items():
        path = directory / str(len(found))
        path.mkdir(parents=True)
        with start(path) as peer:
            found[name] = uvloop.run(_measure(peer, rounds, seconds))
    return [row for name in found for row in _rows(name, found)]


async def _measure(peer: PeerWitness, rounds: Sequence[Sequence[bytes]], seconds: float) -> Found:
    first, second, third = rounds
    filled = await load(peer, first, CONNECTIONS, FILL_SECONDS)
    busy = await load(peer, second[: len(filled.seconds)], CONNECTIONS, seconds)
    memory = servers.resident_mib(peer.pids[0])
    alone = await load(peer, third[: len(busy.seconds)], 1, seconds)
    return Found(busy, alone, memory)


def _rows(name: str, found: Mapping[str, Found]) -> list[Row]:
    busy, alone = found[name].busy, found[name].alone
    ours = name.startswith(OURS)
    others = [other for other in found if ours and not other.startswith(OURS)]

    def compared(of: Callable[[Found], float]) -> str:
        return ", ".join(f"{of(found[name]) / of(found[other]):.2f} of {other}" for other in others)

    return [
        Row(
            f"{name}: add-checkpoint, {LOGS:,} logs, by CPU time",
            busy.per_core,
            "per core second",
            compared(lambda it: it.busy.per_core),
            "0.50 of litewitness" if others else "",
        ),
        Row(
            f"{name}: the same, {CONNECTIONS} connections, "
            f"{busy.milliseconds(50):.1f} ms (99 %: {busy.milliseconds(99):.1f} ms)",
            busy.rate,
            "/s",
            compared(lambda it: it.busy.rate),
            "over 1 of aics-witness" if others else "",
        ),
        Row(
            f"{name}: the same, one after another, "
            f"{alone.milliseconds(50):.1f} ms (99 %: {alone.milliseconds(99):.1f} ms)",
            alone.rate,
            "/s",
            compared(lambda it: it.alone.rate),
            "",
        ),
        Row(f"{name}: memory", found[name].memory, "MiB", compared(lambda it: it.memory), ""),
    ]


if __name__ == "__main__":
    uvloop.run(_serve_one_key(sys.argv[1], Path(sys.argv[2])))
