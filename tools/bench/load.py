"""What is sent: entries, requests, a fixed number of calls in flight for a fixed time."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from tlog.merkle import TILE_WIDTH
from tlog.v1 import log_pb2 as pb
from tlog.v1 import log_pb2_grpc

ENTRY_SIZE = 256

SERVICE = "/tlog.v1.LogService/"
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20),)


async def calls_per_second(
    target: str,
    method: str,
    requests: Iterator[bytes],
    *,
    in_flight: int,
    seconds: float,
    check: Callable[[bytes], None] = lambda answer: None,
) -> float:
    """Rate of unary calls, of the requests in turn, after a short warm-up."""
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        call: Any = channel.unary_unary(SERVICE + method)
        check(await call(next(requests), wait_for_ready=True, timeout=20))
        done = 0
        stop = time.perf_counter() + 0.3

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() < stop:
                await call(next(requests))
                done += 1

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        done, started = 0, time.perf_counter()
        stop = started + seconds
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return done / (time.perf_counter() - started)


def entries(count: int, seed: int = 1) -> list[bytes]:
    """Entries of 256 bytes, all different."""
    chance = random.Random(seed)
    return [chance.randbytes(ENTRY_SIZE) for _ in range(count)]


def hashing_ceiling() -> float:
    """Entries a second that plain hashlib turns into full tiles, on one core."""
    sample = entries(TILE_WIDTH)
    sha = hashlib.sha256
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(40):
            level = [sha(b"\0" + entry).digest() for entry in sample]
            while len(level) > 1:
                pairs = zip(level[::2], level[1::2], strict=True)
                level = [sha(b"\1" + left + right).digest() for left, right in pairs]
        best = max(best, 40 * TILE_WIDTH / (time.perf_counter() - started))
    return best


def batches(size: int) -> Iterator[bytes]:
    """Serialised AppendBatch requests without end, no entry twice.

    Written as wire bytes (field 2, length 256): the client must not cost what the server saves.
    """
    rest = random.Random(size).randbytes(ENTRY_SIZE - 8)
    head = b"\x12\x80\x02"
    for start in itertools.count(time.time_ns(), size):
        yield b"".join([head + n.to_bytes(8) + rest for n in range(start, start + size)])


async def paired(
    first: Callable[[], Awaitable[float]], second: Callable[[], Awaitable[float]], rounds: int
) -> tuple[float, float, float]:
    """Measure two rates in turn; their medians, and the median of first / second."""
    pairs = [(await first(), await second()) for _ in range(rounds)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


async def published_size(target: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = log_pb2_grpc.LogServiceStub(channel)
        answer = await stub.GetCheckpoint(pb.GetCheckpointRequest(), wait_for_ready=True)
        return answer.checkpoint.tree_size
