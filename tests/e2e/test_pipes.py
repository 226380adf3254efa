"""The command in pipelines: standard input, readers that go away, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE, TLOG, Terminal, ended


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A log that is served to several tests, so not an empty one."""
    terminal = Terminal(tmp_path_factory.mktemp("busy"))
    terminal.run("init", "mylog", "--origin", "example.com/mylog", "--interval", "0.1")
    with terminal.serving("mylog"):
        yield terminal


def test_a_reader_that_goes_away_ends_it_quietly(busy: Terminal) -> None:
    (busy.directory / "long").write_bytes((b"x" * 1000 + b"\n") * 3000)
    busy.run("append", "--lines", "long", "--wait", "published")
    with ended(busy.start("entries")) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
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


def test_ctrl_c_before_anything_was_sent(busy: Terminal) -> None:
    with ended(busy.start("append", "--lines", "-", "--json")) as child:
        assert child.stderr is not None
        time.sleep(2)
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
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
        done = terminal.run("append", "--lines", "-", stdin=b"one\n\nthree")
        assert (done.returncode, done.stdout) == (0, b"0..2\n")
        done = terminal.run("append", "--file", "-", "--proof", "proof", stdin=b"whole\ninput\n")
        assert (done.returncode, done.stdout) == (0, b"3\n")
        done = terminal.run("verify", "proof", "-", stdin=b"whole\ninput\n")
        assert done.returncode == 0
        assert terminal.run("prove", "--entry", "-", stdin=b"three").stdout.count(b"index 2\n") == 1


def test_json_is_one_object_a_line(busy: Terminal) -> None:
    (busy.directory / "lines").write_text("a\nb\n")
    (busy.directory / "entry").write_text("first")
    busy.run("append", "--proof", "receipt", "first")
    for verb, count in (
        (("append", "text"), 1),
        (("append", "--lines", "lines", "--wait", "published"), 1),
        (("append", "--file", "lines", "--proof", "proof"), 1),
        (("checkpoint",), 1),
        (("prove", "0"), 1),
        (("prove", "0", "-o", "proof"), 1),
        (("verify", "receipt", "entry"), 1),
        (("entries", "0", "2"), 2),
        (("logs",), 1),
    ):
        done = busy.run(*verb, "--json")
        assert (done.returncode, done.stderr) == (0, b"")
        said = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(said) == count
        assert all(isinstance(one, dict) for one in said)


def test_a_terminal_sees_progress_and_the_result_stays_clean(busy: Terminal) -> None:
    (busy.directory / "many").write_text("line\n" * 1000)
    # `script` gives the command a terminal on standard error; its output goes to a file.
    done = subprocess.run(
        ["script", "-qec", f"{' '.join(TLOG)} append --lines many > result", "/dev/null"],
        cwd=busy.directory,
        env={**busy.environment, "TERM": "xterm"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0
    assert b"appending" in done.stdout
    assert re.fullmatch(r"\d+\.\.\d+\n", (busy.directory / "result").read_text())


def _until_size(terminal: Terminal, size: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while json.loads(terminal.run("checkpoint", "--json").stdout)["tree_size"] < size:
        assert time.monotonic() < deadline
