"""Runs the benchmarks and prints the table."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tools.bench import audit, flat, log, reads, records, search, witness
from tools.bench.table import show


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each figure")
    parser.add_argument(
        "--flat", action="store_true", help="instead, grow a log from 10 thousand to 10 million"
    )
    parser.add_argument(
        "--reads", action="store_true", help="instead, read over HTTP, and append beside it"
    )
    parser.add_argument(
        "--audit", type=int, metavar="ENTRIES", help="instead, audit a log of so many entries"
    )
    parser.add_argument(
        "--witness", action="store_true", help="instead, witnesses of ten thousand logs"
    )
    parser.add_argument(
        "--records", action="store_true", help="instead, signed records beside bare Ed25519"
    )
    parser.add_argument(
        "--search", type=int, metavar="RECORDS", help="instead, search among so many records"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tlog-bench-") as scratch:
        directory = Path(scratch) / "bench"
        if options.flat:
            rows = asyncio.run(flat.flatness(directory))
        elif options.audit:
            rows = audit.measure(directory, options.audit, options.rounds)
        elif options.witness:
            rows = witness.measure(directory, options.seconds)
        elif options.reads:
            rows = asyncio.run(reads.measure(directory, options.seconds, options.rounds))
        elif options.search:
            rows = asyncio.run(search.measure(directory, options.search))
        elif options.records:
            rows = asyncio.run(records.measure(directory, options.rounds))
        else:
            rows = asyncio.run(log.measure(directory, options.seconds, options.rounds))
    show(rows)


if __name__ == "__main__":
    main()
