"""Whether throughput and memory stay what they are while a log grows to ten million entries."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tools.bench import servers
from tools.bench.load import batches, calls_per_second, published_size
from tools.bench.table import Row

BATCH, IN_FLIGHT = 1024, 4
SMALL, LARGE = 10_000, 10_000_000
MARKS = (SMALL, 1_000_000, 4_000_000, 7_000_000, LARGE)
LAST = 20_000_000
# A scrub, once a day, takes memory of its own while it runs: it is measured apart.
UNSCRUBBED, SCRUBBED = {"scrub_interval": 0.0}, {"scrub_interval": 1.0}
SCRUBBED_MARKS = (1_000_000, 7_000_000)
# Five seconds of appends bring a small log to about a million: flushes and compactions included.
LOGS, SECONDS = 4, 5


async def flatness(directory: Path) -> list[Row]:
    """Grow a log to ten million entries; then compare it, in turn, with logs of ten thousand.

    In turn, because a machine that slows down over a minute is not a log that does.
    """
    requests = batches(BATCH)
    memory: dict[int, float] = {}
    pairs: list[tuple[float, float]] = []
    with servers.log(directory / "large", **UNSCRUBBED) as (large, pid):
        for mark in MARKS:
            await grow(large, requests, mark)
            memory[mark] = servers.resident_mib(pid)
        for number in range(LOGS):
            async with small_log(directory / f"small{number}", requests) as small:
                for _ in range(SECONDS):
                    pairs.append((await rate(large, requests), await rate(small, requests)))
        memory[await published_size(large)] = servers.resident_mib(pid)
        await grow(large, requests, LAST)
        memory[LAST] = servers.resident_mib(pid)
    scrubbed: dict[int, float] = {}
    with servers.log(directory / "scrubbed", **SCRUBBED) as (target, pid):
        for mark in SCRUBBED_MARKS:
            await grow(target, requests, mark)
            scrubbed[mark] = servers.resident_mib(pid)
    ratio = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
    return [
        Row(
            f"AppendBatch of {BATCH}, from {SMALL:,} entries on",
            statistics.mean(b for _, b in pairs),
            "entries/s",
            "1.00",
            "",
        ),
        Row(
            f"AppendBatch of {BATCH}, from {LARGE:,} entries on, in turn",
            statistics.mean(a for a, _ in pairs),
            "entries/s",
            f"{ratio:.2f} of those",
            "0.90",
        ),
        *(
            Row(f"server memory at {size:,} entries", m, "MiB", "", "flat")
            for size, m in memory.items()
        ),
        *(
            Row(f"the same, while it is scrubbed, at {size:,} entries", m, "MiB", "", "")
            for size, m in scrubbed.items()
        ),
    ]


async def grow(target: str, requests: Iterator[bytes], size: int) -> None:
    """Append until the log has published so many entries."""
    while (missing := size - await published_size(target)) > 0:
        await rate(target, requests, seconds=min(1.0, max(0.01, missing / 250_000)))


async def rate(target: str, requests: Iterator[bytes], *, seconds: float = 1.0) -> float:
    """Entries a second that are appended durably."""
    return BATCH * await calls_per_second(
        target, "AppendBatch", requests, in_flight=IN_FLIGHT, seconds=seconds
    )


@contextlib.asynccontextmanager
async def small_log(directory: Path, requests: Iterator[bytes]) -> AsyncIterator[str]:
    """A log of its own process, of ten thousand entries."""
    with servers.log(directory, **UNSCRUBBED) as (target, _):
        await grow(target, requests, SMALL)
        yield target
