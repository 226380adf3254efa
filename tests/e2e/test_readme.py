"""What the README shows is what happens; what it claims has a test."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.processes import PATIENCE, ROOT, TLOG, Terminal, ended
from tests.support import free_port
from tlog.cli.app import HELP

README = (ROOT / "README.md").read_text(encoding="utf-8")
MARK = "~end~"


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the output shown under it, or a piece of Python."""

    language: str
    command: str
    shown: str = ""


def steps(text: str) -> Iterator[Step]:
    """All that the README tells its reader to type, in order."""
    for language, block in re.findall(r"^```(console|python)\n(.*?)^```$", text, re.M | re.S):
        if language == "python":
            yield Step("python", block)
            continue
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            yield Step("console", command, shown)


def matches(shown: str, said: str) -> bool:
    """Whether the output is the one shown, where `...` stands for anything within a line."""
    return re.fullmatch(re.escape(shown).replace(r"\.\.\.", "[^\n]*"), said) is not None


def test_the_commands_do_what_is_shown(terminal: Terminal) -> None:
    text, taken = README, dict[int, str]()
    for port in (6962, 6963, 6972, 6973, 6983, 7962, 7963):
        taken[port] = f"127.0.0.1:{free_port()}"
        text = text.replace(f"127.0.0.1:{port}", taken[port])
    binaries = terminal.directory / "bin"
    binaries.mkdir()
    for name, command in (("tlog", TLOG), ("python3", (sys.executable,))):
        (binaries / name).write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        (binaries / name).chmod(0o755)
    (terminal.directory / "tools").symlink_to(ROOT / "tools")
    terminal.environment |= {
        "PATH": f"{binaries}:{terminal.environment['PATH']}",
        "TLOG_GRPC": taken[6962],
        "TLOG_HTTP": taken[6963],
        "TLOG_SERVER": taken[6962],
        "TLOG_WITNESS": taken[6972],
        "TLOG_WITNESS_GRPC": taken[6972],
        "TLOG_WITNESS_HTTP": taken[6973],
        "TLOG_MIRROR_HTTP": taken[6983],
    }
    with contextlib.ExitStack() as stack:
        shell = stack.enter_context(ended(terminal.start(program=("bash",))))
        server: subprocess.Popen[bytes] | None = None
        for step in steps(text):
            if step.language == "python":
                script = ["-c", step.command]
                done = terminal.start(*script, program=(sys.executable,))
                out, err = done.communicate(timeout=PATIENCE)
                assert (done.returncode, out, err) == (0, b"", b"")
                continue
            if re.match("tlog( witness| mirror)? serve", step.command):
                serving = terminal.start("-c", f"exec {step.command}", program=("bash",))
                stack.enter_context(ended(serving))
                said = _lines(serving, step.shown.count("\n"))
                if "mirror" not in step.command:
                    server = serving
            else:
                if step.command.startswith("tlog fsck") and server:
                    server.terminate()
                    assert server.wait(PATIENCE) == 0
                said = _typed(shell, step.command)
            assert matches(step.shown, said), f"$ {step.command}\n{said}"


def _typed(shell: subprocess.Popen[bytes], command: str) -> str:
    assert shell.stdin is not None
    assert shell.stdout is not None
    # The mark does not touch $?, and comes after what goes to standard error.
    line = f"{{ {command}; }} 2>&1; code=$?; echo {MARK}; (exit $code)\n"
    shell.stdin.write(line.encode())
    shell.stdin.flush()
    said = b""
    while not said.endswith(f"{MARK}\n".encode()):
        said += (line_said := shell.stdout.readline())
        assert line_said, "the shell has ended"
    return said.decode().removesuffix(f"{MARK}\n")


def _lines(process: subprocess.Popen[bytes], count: int) -> str:
    assert process.stdout is not None
    return b"".join(process.stdout.readline() for _ in range(count)).decode()


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`(tests/[^`]*)`", README))))
def test_the_tests_that_hold_the_promises_exist(place: str) -> None:
    path, _, name = place.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {name}(" in text if name else "def test_" in text


def test_exit_codes_are_those_of_the_help() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", README, re.M))
    helped = dict(re.findall(r"^  (\d+) +(.*?)(?: \(serve.*)?$", HELP, re.M))
    assert table == helped


def test_there_is_a_place_for_the_benchmark() -> None:
    assert README.count("<!-- bench -->") == README.count("<!-- /bench -->") == 1
