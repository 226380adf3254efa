"""Tessera's load tool writes to our log and reads it over HTTP, and finds nothing wrong."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.processes import Terminal
from tools.peers import program

GOAL = 2000


@pytest.mark.parametrize("dedup", [False, True])
def test_hammer_ends_without_an_error(terminal: Terminal, dedup: bool) -> None:
    options = ("--origin", "example.com/hammered", "--interval", "0.2")
    made = terminal.run("init", "hammered", *options, *(["--dedup"] if dedup else []))
    assert made.returncode == 0, made.stderr
    with terminal.serving("hammered") as server:
        (log,) = server.ready["logs"]
        done = subprocess.run(
            [
                program("hammer"),
                *(
                    "--log_url",
                    f"{server.http}/{log['name']}/",
                    "--log_public_key",
                    log["vkeys"][0],
                ),
                *("--num_writers", "20", "--max_write_ops", "400"),
                *("--num_readers_random", "4", "--num_readers_full", "2", "--max_read_ops", "100"),
                *("--leaf_min_size", "200", "--dup_chance", "0.2"),
                # It ends with 0 when the log has grown by so much, with 1 when that takes too long.
                *("--leaf_write_goal", str(GOAL), "--max_runtime", "30s"),
                *("--show_ui=false", "--logtostderr"),
            ],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == 0, said
        # Its log's lines begin with their severity: it had nothing but information to give. Once
        # its goal is reached it cancels the requests that are under way, and may warn of each.
        working, reached, ending = said.partition("Reached tree size goal")
        assert reached, said
        assert {line[:1] for line in working.splitlines()} == {"I"}, said
        complaints = [line for line in ending.splitlines()[1:] if line[:1] != "I"]
        assert all(line.endswith("context canceled") for line in complaints), said
        assert server.stop() == (0, "")
    whole = terminal.run("fsck", "hammered")
    assert whole.returncode == 0, whole.stderr
    assert int(whole.stdout.split()[2]) >= GOAL
