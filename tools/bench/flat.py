"""Whether throughput and memory stay what they are while a log grows to ten million entries."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from tools.bench import servers
from tools.bench.load import batches, calls_per_second, hashing_ceiling, published_size
from tools.bench.table import Row

BATCH, IN_FLIGHT = 1024, 4
FIRST, MILLION, TOTAL = 10_000, 1_000_000, 10_000_000


@dataclass(frozen=True)
class Window:
    """About a million appends: long enough to hold its share of flushes and compactions."""

    end: int
    rate: float
    of_ceiling: float
    memory_mib: float


async def flatness(directory: Path) -> list[Row]:
    """Append ten million entries; compare the first million with the fifth and the last.

    Each rate is divided by the hashing ceiling of the same seconds, since a machine that slows
    down over a minute is not a log that does.
    """
    requests = batches(BATCH)
    windows: list[Window] = []
    with servers.log(directory) as (log, pid):

        async def append(seconds: float) -> tuple[float, float]:
            started = time.perf_counter()
            rate = BATCH * await calls_per_second(
                log, "AppendBatch", requests, in_flight=IN_FLIGHT, seconds=seconds
            )
            return rate, rate * (time.perf_counter() - started)

        while await published_size(log) < FIRST:
            await append(0.01)
        size = 0
        while size < TOTAL:
            rates, ceilings, done = [], [], 0.0
            while done < MILLION:
                ceilings.append(hashing_ceiling())
                rate, appended = await append(1.0)
                rates.append(rate)
                done += appended
            await asyncio.sleep(1.2)  # the last of them are published
            size = await published_size(log)
            rate, ceiling = sum(rates) / len(rates), sum(ceilings) / len(ceilings)
            windows.append(Window(size, rate, rate / ceiling, servers.resident_mib(pid)))
    first, middle, last = windows[0], windows[len(windows) // 2], windows[-1]
    rows = []
    for what, window in (("first", first), ("middle", middle), ("last", last)):
        flat = f"{window.of_ceiling / first.of_ceiling:.2f} of the first, by the ceiling"
        rows.append(
            Row(
                f"AppendBatch, {what} million up to {window.end:,} entries",
                window.rate,
                "entries/s",
                flat,
                "0.90",
            )
        )
    for what, window in (("first", first), ("middle", middle), ("last", last)):
        rows.append(
            Row(f"server memory after the {what} of these", window.memory_mib, "MiB", "", "flat")
        )
    return rows
