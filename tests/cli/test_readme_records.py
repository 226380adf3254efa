"""What README tells its reader to type of records, as it stands, in one session of a shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE, ROOT, Terminal
from tests.support import free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("\n## Records\n") : README.index("\n## What is promised")]
GRPC = "127.0.0.1:6962"
"""Where README's server listens: the one word that is another here, as others may listen there."""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell with nobody at its terminal, and no variable that README does not set."""
    (tmp_path / "bin").mkdir()
    for name, words in (("tlog", "-m tlog.cli "), ("python3", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    port = f"127.0.0.1:{free_port()}"
    moved = {"GRPC": port, "HTTP": f"127.0.0.1:{free_port()}", "SERVER": port}
    environment = Terminal(tmp_path).environment | {f"TLOG_{k}": v for k, v in moved.items()}
    environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    lines = []
    for language, block in re.findall(r"^```(sh|py)\n(.*?)^```$", SECTION, re.M | re.S):
        if language == "sh":
            lines.append(block)
            if "tlog serve" in block:  # a reader waits until it says that it is ready
                lines.append("until tlog logs 2>/dev/null; do sleep 0.1; done\n")
        else:
            lines.append(f"python3 <<'PROGRAM'\n{block.replace(GRPC, port)}PROGRAM\n")
    (tmp_path / "README.sh").write_text("".join(lines))
    with subprocess.Popen(
        ["sh", "-euv", "README.sh"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=(tmp_path / "out").open("wb"),
        stderr=(tmp_path / "err").open("wb"),
        start_new_session=True,
    ) as shell:
        yield shell
        # The server, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


def test_the_commands_run_as_they_stand(session: subprocess.Popen[bytes], tmp_path: Path) -> None:
    code = session.wait(3 * PATIENCE)
    out, err = ((tmp_path / name).read_text() for name in ("out", "err"))
    assert code == 0, err
    # It shows what was recorded, of one search after the other; and what went upon whose order.
    assert len(re.findall(r"subject id +alice@example\.com", out)) == 2
    assert "approved by ciso and dpo" in out
    ordered = (
        r"upon an order signed by ciso\+[0-9a-f]{8} of entry \d+ and dpo\+[0-9a-f]{8} of entry"
    )
    assert re.search(rf"gone of subject 1: erased .* {ordered}", out)
    assert "verified: 3 records of example.com/mylog" in out
    for name in ("metrics-2025.html", "feed.json", "alice.csv", "receipt.json", "case.zip"):
        assert (tmp_path / name).stat().st_size, name
