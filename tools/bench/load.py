"""A load generator: a fixed number of calls in flight, for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

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
