"""Full audits, end to end: every entry hashed, every tile compared, pymerkle asked as well."""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from tlog.cli.sources import open_log
from tlog.client import Auditor, Verifier
from tlog.log import LogConfig, load_signers
from tools.bench import servers
from tools.bench.load import batches, calls_per_second, hashing_ceiling, published_size
from tools.bench.table import Row

BATCH, IN_FLIGHT = 4096, 4


def measure(directory: Path, entries: int, rounds: int) -> list[Row]:
    """Audit a log of so many entries over HTTP, over gRPC, and in its directory."""
    audits: dict[str, list[dict[str, float]]] = {}
    size = 0

    def audit(name: str, source: str) -> None:
        ceiling = hashing_ceiling()
        found = _in_a_process(source, directory)
        assert found["size"] == size
        audits.setdefault(name, []).append({**found, "of_ceiling": found["rate"] / ceiling})

    with servers.log_and_http(directory) as (grpc, http):
        size = asyncio.run(_fill(grpc, entries))
        for _ in range(rounds):
            audit("over HTTP", f"http://{http}/bench")
            audit("over gRPC, entries only", grpc)
    for _ in range(rounds):
        audit("of a directory", str(directory))
    rows = []
    for name, found in audits.items():
        rate, of_ceiling, memory = (
            statistics.median(one[figure] for one in found)
            for figure in ("rate", "of_ceiling", "memory_mib")
        )
        goal = "0.30" if name == "over HTTP" else ""
        what = f"audit {name}, {size:,} entries"
        rows.append(Row(what, rate, "entries/s", f"{of_ceiling:.2f} of the ceiling", goal))
        rows.append(Row("memory of that auditor", memory, "MiB", "", "1,024"))
    return rows


async def _fill(grpc: str, entries: int) -> int:
    requests = batches(BATCH)
    while (size := await published_size(grpc)) < entries:
        await calls_per_second(
            grpc, "AppendBatch", requests, in_flight=IN_FLIGHT, seconds=min(5.0, entries / 400_000)
        )
        await asyncio.sleep(1.2)  # the last entries are published
    return size


def _in_a_process(source: str, directory: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tools.bench.audit", source, str(directory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


async def _audit(source: str, directory: Path) -> dict[str, float]:
    signers = load_signers(directory, LogConfig.load(directory), passphrase=None)
    verifier = Verifier.with_vkeys([signer.vkey for signer in signers])
    log = open_log(source)
    started = time.perf_counter()
    found = await Auditor(log, verifier).run()
    rate = found.head.size / (time.perf_counter() - started)
    await log.aclose()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": rate, "memory_mib": memory, "size": found.head.size}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_audit(sys.argv[1], Path(sys.argv[2])))))
