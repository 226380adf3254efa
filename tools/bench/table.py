"""The benchmark table: its rows, and how they are printed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from tlog.merkle import BACKEND
from tlog.notes import mldsa
from tools.bench.load import ENTRY_SIZE


@dataclass(frozen=True)
class Row:
    what: str
    rate: float
    unit: str
    ratio: str
    target: str


def show(rows: list[Row]) -> None:
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SHA-256 by {BACKEND}, ML-DSA-44 by {mldsa.backend()}; entries of {ENTRY_SIZE} bytes; "
        "client and server on this machine\n"
    )
    print("| what | measured | ratio in the same run | goal |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.rate:,.0f} {row.unit} | {row.ratio} | {row.target} |")
