"""The log: appends and proofs over gRPC, beside a server that does nothing."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections.abc import Iterable
from pathlib import Path

from tlog.v1 import log_pb2 as pb
from tools.bench import servers
from tools.bench.load import (
    batches,
    calls_per_second,
    entries,
    hashing_ceiling,
    paired,
    published_size,
)
from tools.bench.table import Row

# As many leaves as the cache of tiles covers (4096 tiles, 64 MiB).
PROVEN_AMONG = 1_000_000


async def measure(directory: Path, seconds: float, rounds: int) -> list[Row]:
    # The best of several moments: whatever else runs must not lower the bar.
    ceiling = max(hashing_ceiling() for _ in range(5))
    rows = [Row("hashlib ceiling: tiles from entries, one core", ceiling, "entries/s", "1.00", "")]
    single = [pb.AppendRequest(entry=entry).SerializeToString() for entry in entries(4096, 2)]
    with servers.noop() as (noop, _), servers.log(directory) as (log, _):
        for size, in_flight in ((256, 4), (1024, 4), (4096, 8)):
            requests = batches(size)
            rate = statistics.median(
                [
                    size
                    * await calls_per_second(
                        log, "AppendBatch", requests, in_flight=in_flight, seconds=seconds
                    )
                    for _ in range(rounds)
                ]
            )
            rows.append(
                Row(
                    f"AppendBatch, {size} entries, {in_flight} in flight",
                    rate,
                    "entries/s",
                    f"{rate / ceiling:.2f} of the ceiling",
                    "0.25" if size >= 1024 else "",
                )
            )

        async def rate_of(target: str, method: str, requests: Iterable[bytes]) -> float:
            return await calls_per_second(
                target, method, itertools.cycle(requests), in_flight=256, seconds=seconds
            )

        ours, base, ratio = await paired(
            lambda: rate_of(log, "Append", single), lambda: rate_of(noop, "Append", single), rounds
        )
        rows.append(Row("no-op unary handler, 256 in flight", base, "calls/s", "1.00", ""))
        rows.append(
            Row("Append, 256 in flight", ours, "entries/s", f"{ratio:.2f} of the no-op", "0.80")
        )
        await asyncio.sleep(2)  # the last entries are published
        size = await published_size(log)
        among = min(size, PROVEN_AMONG)
        chance = random.Random(3)
        lookups = [
            pb.GetInclusionProofRequest(
                index=chance.randrange(among), tree_size=size
            ).SerializeToString()
            for _ in range(20_000)
        ]
        await rate_of(log, "GetInclusionProof", lookups)  # the tiles are cached from here on
        ours, base, ratio = await paired(
            lambda: rate_of(log, "GetInclusionProof", lookups),
            lambda: rate_of(noop, "GetInclusionProof", lookups),
            rounds,
        )
        rows.append(
            Row(
                f"GetInclusionProof, random among {among:,}, tiles cached",
                ours,
                "proofs/s",
                f"{ratio:.2f} of the no-op",
                "0.80",
            )
        )
    return rows
