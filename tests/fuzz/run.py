"""Fuzz the parsers, guided by coverage: `make fuzz`, with SECONDS for all targets together.

Each target gets a process and its share of the time. A finding stops its target, is printed, and
is added to the corpus, where `make test` replays it. With --keep, the smallest inputs that reached
something new are added too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

# It tells of every module.
with (
    contextlib.redirect_stderr(io.StringIO()),
    atheris.instrument_imports(include=["tlog", "tools", "tomllib"]),
):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import corpus, keep, seeds

MAX_INPUT = 8192  # bytes: a checkpoint with two ML-DSA-44 signatures has 7 KiB
MAX_KEPT = 12  # inputs of one run for one target
MAX_KEPT_SIZE = 1024  # bytes of one of them
INPUT_SECONDS = 5
MEMORY_MIB = 1024


def fuzz(target: str, directory: Path, seconds: int) -> int:
    """Run libFuzzer in a child, which is where it ends; its exit code."""
    options = {
        "max_total_time": seconds,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MIB,
        "max_len": MAX_INPUT,
        "artifact_prefix": f"{directory}/finding-",
        "print_final_stats": 1,
    }
    arguments = [target, *(f"-{name}={value}" for name, value in options.items())]
    if (child := os.fork()) == 0:
        log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        atheris.Setup([*arguments, str(directory / "corpus")], TARGETS[target])
        atheris.Fuzz()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def smallest(target: str, directory: Path) -> list[bytes]:
    """The smallest of the inputs that reached something new."""
    known = {*seeds()[target], *corpus(target)}
    found = {file.read_bytes() for file in (directory / "corpus").iterdir()}
    return sorted((data for data in found - known if len(data) <= MAX_KEPT_SIZE), key=len)[
        :MAX_KEPT
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}")
    arguments = parser.parse_args()
    chosen, failed = arguments.targets or list(TARGETS), False
    beginnings = seeds()
    for target in chosen:
        directory = Path(tempfile.mkdtemp(prefix="tlog-fuzz-"))
        (directory / "corpus").mkdir()
        for number, data in enumerate([*beginnings[target], *corpus(target)]):
            (directory / "corpus" / f"seed{number}").write_bytes(data)
        code = fuzz(target, directory, max(1, arguments.seconds // len(chosen)))
        log = (directory / "log").read_text(errors="replace")
        findings = [file.read_bytes() for file in directory.glob("finding-*")]
        runs = [line.split()[-1] for line in log.splitlines() if "number_of_executed" in line]
        said = f"{runs[0] if runs else '?'} inputs"
        if findings or code:
            failed = True
            said = f"A FINDING, kept in tests/fuzz/corpus/{target}\n{log[-3000:]}"
            keep(target, findings)
        elif arguments.keep:
            inputs = smallest(target, directory)
            keep(target, inputs)
            said += f", {len(inputs)} kept"
        print(f"{target}: {said}", flush=True)
        shutil.rmtree(directory)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
