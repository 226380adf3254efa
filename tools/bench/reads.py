"""Reads over HTTP: how fast, and what a load of them costs the appends beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tlog.merkle import TILE_WIDTH, entries_path, tile_path
from tools.bench import servers
from tools.bench.load import batches, calls_per_second
from tools.bench.table import Row

ENTRIES = 1 << 20
CONNECTIONS = 64
KINDS = ("tile", "bundle", "gzip")


@dataclass(frozen=True)
class Read:
    """What readers got: answers with 200, their bytes (bodies only), and other answers."""

    answers: float
    size_bytes: float
    refused: float


async def measure(directory: Path, seconds: float, rounds: int) -> list[Row]:
    rows: list[Row] = []
    with servers.log_and_http(directory) as (grpc, http):
        await _fill(grpc)
        for kind, what in zip(KINDS, ("tile", "bundle", "bundle, gzip"), strict=True):
            rates = []
            for _ in range(rounds):
                with _readers(http, kind) as read:
                    await asyncio.sleep(seconds)
                rates.append(read())
            answers = statistics.median(rate.answers for rate in rates)
            mib = statistics.median(rate.size_bytes for rate in rates) / (1 << 20)
            rows.append(
                Row(
                    f"GET {what}, {CONNECTIONS} connections",
                    answers,
                    "reads/s",
                    f"{mib:,.0f} MiB/s",
                    "",
                )
            )
        for size, in_flight in ((1, 256), (1024, 4)):
            rows += await _beside(grpc, http, size, in_flight, seconds, rounds)
    return rows


async def _beside(
    grpc: str, http: str, size: int, in_flight: int, seconds: float, rounds: int
) -> list[Row]:
    """Appends alone and beside readers that ask for all they can get.

    In many short turns, every other pair the other way around: a log is not equally busy with
    itself at all times, and must not be so at the readers' cost or favour.
    """
    # One entry of AppendBatch is, on the wire, an Append: field 2 of both.
    requests = batches(size)
    method = "Append" if size == 1 else "AppendBatch"
    reads: list[Read] = []

    async def alone() -> float:
        return size * await calls_per_second(
            grpc, method, requests, in_flight=in_flight, seconds=seconds / 2
        )

    async def beside() -> float:
        with _readers(http, "mixed") as read:
            rate = await alone()
        reads.append(read())
        return rate

    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        pairs.append((await alone(), await beside()))
        later = await beside()
        pairs.append((await alone(), later))
    what = f"{method}, {size} entries, {in_flight} in flight"
    got = statistics.median(one.answers for one in reads)
    refused = statistics.median(one.refused for one in reads)
    ratio = statistics.median(with_readers / without for without, with_readers in pairs)
    return [
        Row(
            f"{what}, nobody reads", statistics.median(a for a, _ in pairs), "entries/s", "1.00", ""
        ),
        Row(
            f"the same, beside {CONNECTIONS} readers without pause",
            statistics.median(b for _, b in pairs),
            "entries/s",
            f"{ratio:.2f} of it",
            "0.90",
        ),
        Row("what these readers get meanwhile", got, "reads/s", f"{refused:,.0f} refused/s", ""),
    ]


async def _fill(grpc: str) -> None:
    requests = batches(4096)
    done = 0.0
    while done < ENTRIES:
        done += 4096 * await calls_per_second(
            grpc, "AppendBatch", requests, in_flight=4, seconds=1.0
        )
    await asyncio.sleep(2)  # the last entries are published


@contextlib.contextmanager
def _readers(http: str, kind: str) -> Iterator[Callable[[], Read]]:
    """Readers in a process of their own; what they got during the block is known after it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tools.bench.reads", http, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()  # they read by now
    got: list[Read] = []
    yield lambda: got[0]
    out, _ = child.communicate(b"", timeout=60)
    got.append(Read(**json.loads(out)))


# ---- the process of the readers ----


class _Reader(asyncio.Protocol):
    """One connection that asks for the next resource as soon as it has the last."""

    def __init__(self, requests: Iterator[bytes], count: Callable[[int, int], None]) -> None:
        self._requests = requests
        self._count = count
        self._head = b""
        self._left = 0
        self._status = self._size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._status = int(head[9:12])
            at = head.lower().index(b"content-length: ") + 16
            self._size = self._left = int(head[at:].partition(b"\r\n")[0])
            self._head, data = b"", body
        self._left -= len(data)
        if self._left == 0:
            self._count(self._status, self._size)
            self._transport.write(next(self._requests))


def _requests(host: str, kind: str) -> Iterator[bytes]:
    chance = random.Random()
    while True:
        chosen = chance.choice(KINDS) if kind == "mixed" else kind
        index = chance.randrange(ENTRIES // TILE_WIDTH)
        path = tile_path(0, index) if chosen == "tile" else entries_path(index)
        coding = "gzip" if chosen == "gzip" else "identity"
        yield (
            f"GET /bench/{path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {coding}\r\n\r\n"
        ).encode()


async def _read(address: str, kind: str) -> Read:
    answers = refused = size_bytes = 0

    def count(status: int, size: int) -> None:
        nonlocal answers, refused, size_bytes
        answers += status == 200
        size_bytes += size if status == 200 else 0
        refused += status != 200

    host, _, port = address.rpartition(":")
    requests = _requests(address, kind)
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Reader(requests, count), host, int(port))
    await asyncio.sleep(0.3)
    print("reading", flush=True)
    answers = refused = size_bytes = 0
    started = loop.time()
    await asyncio.to_thread(sys.stdin.read)
    took = loop.time() - started
    return Read(answers / took, size_bytes / took, refused / took)


if __name__ == "__main__":
    print(json.dumps(vars(uvloop.run(_read(*sys.argv[1:])))))
