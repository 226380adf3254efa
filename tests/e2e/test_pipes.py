"""The command in pipelines: standard input, readers that go away, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE, TLOG, Terminal, ended


def test_a_reader_that_goes_away_ends_it_quietly(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog"):
        (terminal.directory / "lines").write_bytes(b"x" * 1000 + b"\n" * 3000)
        terminal.run("append", "--lines", "lines", "--wait", "published")
        child = terminal.start("entries")
        with ended(child):
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.readline() == b"x" * 1000 + b"\n"
            child.stdout.close()
            assert child.wait(PATIENCE) == 1
            assert child.stderr.read() == b""


def test_lines_are_durable_as_they_come_and_ctrl_c_tells_how_far(
    terminal: Terminal, mylog: Path
) -> None:
    with terminal.serving("mylog"), ended(terminal.start("append", "--lines", "-")) as child:
        assert child.stdin is not None
        child.stdin.write(b"one\ntwo\nthree without an end")
        child.stdin.flush()
        _until_size(terminal, 2)
        child.send_signal(signal.SIGINT)
        # Standard input is still open: it must not be waited for.
        assert child.wait(PATIENCE) == 130
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read() == b""
        assert child.stderr.read() == b"tlog: interrupted. 2 entries are durable: 0..1\n"


def test_ctrl_c_before_anything_was_sent(terminal: Terminal, mylog: Path) -> None:
    with (
        terminal.serving("mylog"),
        ended(terminal.start("append", "--lines", "-", "--json")) as child,
    ):
        time.sleep(2)
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        assert json.loads(child.stderr.read())["exit_code"] == 130


def test_a_server_that_dies_in_mid_stream_is_code_4_and_the_count_is_told(
    terminal: Terminal, mylog: Path
) -> None:
    with (
        terminal.serving("mylog") as server,
        ended(terminal.start("append", "--lines", "-")) as child,
    ):
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(b"one\ntwo\n")
        child.stdin.flush()
        _until_size(terminal, 2)
        server.child.kill()
        assert child.wait(PATIENCE) == 4
        assert b"2 entries are durable: 0..1" in child.stderr.read()


def test_a_pipeline(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog"):
        done = terminal.run("append", "--lines", "-", stdin=b"one\n\nthree", TLOG_LOG="mylog")
        assert (done.returncode, done.stdout) == (0, b"0..2\n")
        done = terminal.run("append", "--file", "-", "--proof", "proof", stdin=b"whole\ninput\n")
        assert (done.returncode, done.stdout) == (0, b"3\n")
        done = terminal.run("verify", "proof", "-", stdin=b"whole\ninput\n")
        assert done.returncode == 0
        assert terminal.run("prove", "--entry", "-", stdin=b"three").stdout.count(b"index 2\n") == 1


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (("append", "text"), 1),
        (("append", "--lines", "lines"), 1),
        (("append", "--file", "lines", "--proof", "proof"), 1),
        (("checkpoint",), 1),
        (("prove", "0"), 1),
        (("prove", "0", "-o", "proof"), 1),
        (("verify", "receipt", "entry"), 1),
        (("entries",), 2),
        (("logs",), 1),
    ],
)
def test_json_is_one_object_a_line(
    terminal: Terminal, mylog: Path, args: tuple[str, ...], lines: int
) -> None:
    (terminal.directory / "lines").write_text("a\nb\n")
    (terminal.directory / "entry").write_text("first")
    with terminal.serving("mylog"):
        terminal.run("append", "--proof", "receipt", "first")
        terminal.run("append", "--wait", "published", "second")
        done = terminal.run(*args, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == lines
    assert all(isinstance(one, dict) for one in said)


def test_a_terminal_sees_progress_and_the_result_stays_clean(
    terminal: Terminal, mylog: Path
) -> None:
    (terminal.directory / "lines").write_text("line\n" * 1000)
    with terminal.serving("mylog"):
        # `script` gives the command a terminal on standard error; its output goes to a file.
        done = subprocess.run(
            ["script", "-qec", f"{' '.join(TLOG)} append --lines lines > result", "/dev/null"],
            cwd=terminal.directory,
            env={**terminal.environment, "TERM": "xterm"},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0
    assert b"appending" in done.stdout
    assert (terminal.directory / "result").read_text() == "0..999\n"


def _until_size(terminal: Terminal, size: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while json.loads(terminal.run("checkpoint", "--json").stdout)["tree_size"] < size:
        assert time.monotonic() < deadline
