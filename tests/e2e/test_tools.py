"""`make run` and `make demo`, as the Makefile starts them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.processes import PATIENCE, ROOT, Terminal, ended
from tests.support import free_port

RUN = (sys.executable, "-m", "tools.run")


def ports(terminal: Terminal) -> None:
    """Let the servers of `make run` use free ports."""
    terminal.environment["TLOG_WITNESS_PORT"] = str(free_range(6))
    terminal.environment["TLOG_GRPC"] = f"127.0.0.1:{free_port()}"
    terminal.environment["TLOG_HTTP"] = f"127.0.0.1:{free_port()}"


def free_range(count: int) -> int:
    """The first of consecutive ports on which nothing listens at the moment."""
    while True:
        first = min(free_port(), 65_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def test_run_once_and_again(terminal: Terminal) -> None:
    ranges = []
    for _ in range(2):
        ports(terminal)  # other ones the second time
        child = terminal.start("--once", program=RUN)
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, err) == (0, b"")
        said = out.decode()
        assert "verified: entry" in said
        assert "localhost/demo\n" in said
        for number in (1, 2, 3):
            assert f"\n  — localhost/witness{number} " in said
        found = re.search(r"^  (\d+)\.\.(\d+)$", said, re.M)
        assert found
        ranges.append((int(found[1]), int(found[2])))
    assert ranges[0][0] == 0
    assert ranges[1][0] == ranges[0][1] + 1
    assert (terminal.directory / "data" / "demo" / "HEAD").exists()
    keys = {
        (terminal.directory / "data" / f"witness{number}" / "keys" / "ed25519.key").read_bytes()
        for number in (1, 2, 3)
    }
    assert len(keys) == 3


def test_run_serves_until_ctrl_c(terminal: Terminal) -> None:
    ports(terminal)
    with ended(terminal.start(program=RUN)) as child:
        assert child.stdout is not None
        while (line := child.stdout.readline()) != b"Serving until Ctrl-C.\n":
            assert line
        terminal.environment["TLOG_SERVER"] = terminal.environment["TLOG_GRPC"]
        assert terminal.run("append", "mine").returncode == 0
        second = terminal.start(program=RUN)
        out, err = second.communicate(timeout=PATIENCE)
        assert second.returncode == 1
        assert b"another tlog witness" in err
        assert b"choose others" in out
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 0


def test_demo(terminal: Terminal) -> None:
    child = terminal.start(program=(sys.executable, "-m", "tools.demo"))
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (0, b"")
    assert out.count(b"NOT VERIFIED") == 2
    assert b"log: whole, 1002 entries" in out


def test_the_makefile_starts_them_so() -> None:
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m tools.run $(if $(ONCE),--once)" in makefile
    assert "-m tools.demo" in makefile
    said = subprocess.run(
        ["make", "-n", "run", "ONCE=1"], cwd=ROOT, capture_output=True, check=True
    )
    assert b"--once" in said.stdout
