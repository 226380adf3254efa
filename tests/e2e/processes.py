"""The `tlog` command in real processes, with an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TLOG = (sys.executable, "-m", "tlog.cli")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60


class Terminal:
    """A directory and an environment to run commands in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TLOG_")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(directory / "state"),
        }

    def run(
        self,
        *args: str | Path | int,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `tlog` to its end."""
        return subprocess.run(
            [*TLOG, *map(str, args)],
            cwd=self.directory,
            env={**self.environment, **(variables or {})},
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(
        self, *args: str | Path | int, program: tuple[str, ...] = TLOG
    ) -> subprocess.Popen[bytes]:
        """Start a process, with pipes on all sides."""
        return subprocess.Popen(
            [*program, *map(str, args)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @contextmanager
    def serving(self, *directories: str) -> Iterator[Served]:
        """A server on free ports, which later commands of this terminal talk to."""
        with self.ready("serve", *directories) as server:
            self.environment["TLOG_SERVER"] = server.grpc
            self.environment["TLOG_VKEY"] = " ".join(server.ready["logs"][0]["vkeys"])
            yield server

    @contextmanager
    def ready(
        self, *words: str, grpc: str = "127.0.0.1:0", http: str = "127.0.0.1:0"
    ) -> Iterator[Served]:
        """Whatever serves, when it is ready; free ports unless others are given."""
        with ended(self.start(*words, "--json", "--grpc", grpc, "--http", http)) as child:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                raise AssertionError(child.communicate()[1].decode())
            yield Served(child, json.loads(line))


class Served:
    """A running server and what it said when it was ready."""

    def __init__(self, child: subprocess.Popen[bytes], ready: Mapping[str, Any]) -> None:
        self.child = child
        self.ready = ready
        self.grpc: str = ready["grpc"]
        self.http: str = ready["http"]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit code and what was said on standard error."""
        self.child.send_signal(number)
        _, err = self.child.communicate(timeout=PATIENCE)
        return self.child.returncode, err.decode()


@contextmanager
def ended(child: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Nothing is left behind, whatever the test does."""
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()
