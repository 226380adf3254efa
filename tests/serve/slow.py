"""Clients that do not read what they asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tlog.client import Refused

_OPTIONS = [
    # What is not read is not fetched either, but for some 128 KiB.
    ("grpc.http2.lookahead_bytes", 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def slow(port: int, count: int) -> list[grpc.aio.Channel]:
    """Connections, each of its own."""
    return [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) for _ in range(count)]


async def until(call: Callable[[], Awaitable[Any]]) -> Any:
    """Its answer, once it is not too much for the server any more."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                code = error.code()
            except Refused as error:
                code = error.code
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            await asyncio.sleep(0.02)
