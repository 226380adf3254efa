"""What `run` and `demo` share: the `tlog` command as a child process, shown as it is typed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TLOG = (sys.executable, "-m", "tlog.cli")
ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100


def say(text: str = "") -> None:
    """Narrate."""
    print(text, flush=True)


class Shell:
    """A directory and an environment to run `tlog` in, as a person would in a terminal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def export(self, variables: Mapping[str, str]) -> None:
        """Set variables for the commands that follow."""
        self._environment.update(variables)

    def tlog(self, *words: str, expect: int = 0) -> str:
        """Run a verb, show the command and what it says, and give its output.

        Raises:
            SystemExit: its exit code is not the one expected.
        """
        say(f"$ tlog {shlex.join(words)}")
        done = subprocess.run(
            [*TLOG, *words],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            say(f"  {line if len(line) <= WIDTH else f'{line[: WIDTH - 1]}…'}")
        if done.returncode != expect:
            raise SystemExit(f"tlog {words[0]} ended with {done.returncode}, not {expect}")
        return done.stdout

    def start(self, *words: str) -> Server:
        """Start a verb that serves, and wait until it is ready.

        Raises:
            SystemExit: it does not start; it has said why.
        """
        say(f"$ tlog {shlex.join(words)} &")
        return Server(
            subprocess.Popen(
                [*TLOG, *words, "--json"],
                cwd=self.directory,
                env=self._environment,
                stdout=subprocess.PIPE,
                # Ctrl-C is for us to see; the server is then asked to stop, once.
                start_new_session=True,
            )
        )


class Server:
    """A verb that serves, as a child process.

    Attributes:
        ready: what it said when it was ready.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise SystemExit(child.wait())
        self.ready: dict[str, Any] = json.loads(line)

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        return self._child.wait()

    def stop(self) -> int:
        """Ask it to stop, as Ctrl-C would; its exit code. Interrupted, do not ask."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait()
        except KeyboardInterrupt:
            self._child.kill()
            raise
