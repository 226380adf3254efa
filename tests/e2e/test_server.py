"""`tlog serve` as a process: how it starts, refuses to start, and stops."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
import urllib.request
from pathlib import Path

import pytest

import tlog
from tests.e2e.processes import PATIENCE, Terminal, ended
from tlog.client import ClientError, MemoryState

PORTS = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")


def test_append_prove_verify_offline(terminal: Terminal, mylog: Path) -> None:
    lines = [f"line {number}".encode() for number in range(5000)]
    (terminal.directory / "lines").write_bytes(b"\n".join(lines))
    (terminal.directory / "entry").write_bytes(lines[1234])
    with terminal.serving("mylog") as server:
        done = terminal.run("append", "--lines", "lines", "--wait", "published")
        assert (done.returncode, done.stdout) == (0, b"0..4999\n"), done.stderr
        assert terminal.run("prove", 1234, "-o", "proof").returncode == 0
        assert server.stop() == (0, "")
    assert terminal.run("verify", "proof", "entry").returncode == 0
    (terminal.directory / "entry").write_bytes(lines[1235])
    assert terminal.run("verify", "proof", "entry").returncode == 3
    assert terminal.run("checkpoint").returncode == 4
    assert terminal.run("fsck", "mylog").stdout == b"mylog: whole, 5000 entries\n"


def test_ctrl_c_stops_it_with_code_0(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog") as server:
        assert server.stop(signal.SIGINT) == (0, "")


def test_sigterm_under_load_finishes_what_was_accepted(terminal: Terminal, mylog: Path) -> None:
    appended: list[int] = []
    with (
        terminal.serving("mylog") as server,
        tlog.Client(
            server.grpc, vkeys=server.ready["logs"][0]["vkeys"], state=MemoryState(), timeout=5
        ) as client,
    ):
        with contextlib.suppress(ClientError):
            while True:
                batch = [b"load %d" % len(appended)] * 20
                appended += [one.index for one in client.append_batch(batch)]
                if len(appended) == 200:
                    server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(PATIENCE) == 0
    assert appended == list(range(len(appended)))
    with terminal.serving("mylog") as server:
        said = json.loads(terminal.run("checkpoint", "--json").stdout)
        assert said["tree_size"] >= len(appended)
        entries = terminal.run("entries", 0, len(appended)).stdout.splitlines()
    assert entries == [b"load %d" % (number - number % 20) for number in range(len(appended))]


def test_a_watcher_does_not_hold_up_the_stop(terminal: Terminal, mylog: Path) -> None:
    with (
        terminal.serving("mylog") as server,
        tlog.Client(
            server.grpc, vkeys=server.ready["logs"][0]["vkeys"], state=MemoryState(), timeout=1
        ) as client,
    ):
        next(iter(client.watch()))
        started = time.monotonic()
        code, _ = server.stop()
        assert code == 0
        assert time.monotonic() - started < 8


def test_two_servers_on_one_directory(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog"):
        done = terminal.run("serve", "mylog", *PORTS)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"another tlog server" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert terminal.run("append", "still here").returncode == 0


@pytest.mark.parametrize("face", ["grpc", "http"])
def test_two_servers_on_one_port(terminal: Terminal, mylog: Path, face: str) -> None:
    terminal.run("init", "other", "--origin", "example.com/other")
    with terminal.serving("mylog") as server:
        address = {"grpc": server.grpc, "http": server.http.removeprefix("http://")}[face]
        done = terminal.run("serve", "other", *PORTS, f"--{face}", address, "--json")
        assert (done.returncode, done.stdout) == (1, b"")
        said = json.loads(done.stderr)["error"]
        assert "taken" in said
        assert f"--{face}" in said
    with terminal.serving("other"):
        pass  # and the refused server has left nothing locked


def test_all_logs_open_or_none(terminal: Terminal, mylog: Path) -> None:
    done = terminal.run("serve", "mylog", "gone", *PORTS)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"gone" in done.stderr
    shutil.copytree(mylog, terminal.directory / "copy")
    done = terminal.run("serve", "mylog", "copy", *PORTS)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"two logs are named 'mylog'" in done.stderr


def test_many_logs_each_by_its_name(terminal: Terminal, mylog: Path) -> None:
    terminal.run("init", "other", "--origin", "example.com/other")
    with terminal.serving("mylog", "other") as server:
        for log in server.ready["logs"]:
            terminal.environment["TLOG_VKEY"] = " ".join(log["vkeys"])
            assert terminal.run("append", "one", "--log", log["name"]).stdout == b"0\n"
            said = json.loads(terminal.run("checkpoint", "--json", "--log", log["name"]).stdout)
            assert said["origin"] == log["origin"]
        done = terminal.run("append", "one")
        assert done.returncode == 1
        assert b"mylog, other" in done.stderr


@pytest.mark.parametrize(
    ("face", "address"), [("grpc", "0.0.0.0:0"), ("http", "example.com:1"), ("http", "6963")]
)
def test_addresses_that_are_refused(
    terminal: Terminal, mylog: Path, face: str, address: str
) -> None:
    done = terminal.run("serve", "mylog", *PORTS, f"--{face}", address)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1


def test_nothing_to_serve(terminal: Terminal) -> None:
    assert terminal.run("serve").returncode == 2


def test_the_config_file(terminal: Terminal, mylog: Path) -> None:
    (terminal.directory / "etc").mkdir()
    config = terminal.directory / "etc" / "tlog.toml"
    config.write_text('grpc = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\nlogs = ["../mylog"]\n')
    with ended(terminal.start("serve", "--config", "etc/tlog.toml", "--json")) as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert ready["logs"][0]["name"] == "mylog"


def test_http_serves_the_same_log(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog") as server:
        terminal.run("append", "one", "--wait", "published")
        with urllib.request.urlopen(f"{server.http}/mylog/checkpoint", timeout=10) as answer:
            assert answer.read() == terminal.run("checkpoint").stdout


def test_a_key_file_that_others_may_read_is_refused(terminal: Terminal, mylog: Path) -> None:
    (mylog / "keys" / "ed25519.key").chmod(0o644)
    for verb in (("serve", "mylog", *PORTS), ("fsck", "mylog")):
        done = terminal.run(*verb)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"chmod 600" in done.stderr


def test_sealed_keys(terminal: Terminal) -> None:
    secret = terminal.directory / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    made = terminal.run(
        *("init", "mylog", "--origin", "example.com/mylog"),
        variables={"TLOG_PASSPHRASE": "correct horse"},
    )
    assert made.returncode == 0
    refused: tuple[tuple[dict[str, str], bytes], ...] = (
        ({}, b"TLOG_PASSPHRASE"),
        ({"TLOG_PASSPHRASE": "wrong"}, b"wrong passphrase"),
        ({"TLOG_PASSPHRASE": ""}, b"empty"),
        ({"TLOG_PASSPHRASE": "x", "TLOG_PASSPHRASE_FILE": "secret"}, b"both set"),
        ({"TLOG_PASSPHRASE_FILE": "gone"}, b"gone"),
    )
    for variables, says in refused:
        done = terminal.run("serve", "mylog", *PORTS, variables=variables)
        assert (done.returncode, done.stdout) == (1, b""), variables
        assert says in done.stderr
        assert done.stderr.count(b"\n") == 1
    terminal.environment["TLOG_PASSPHRASE_FILE"] = "secret"
    with terminal.serving("mylog"):
        assert terminal.run("append", "one").stdout == b"0\n"


def test_an_old_copy_of_the_database_is_code_3(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog") as server:
        terminal.run("append", "one", "--wait", "published")
        server.stop()
    shutil.copytree(mylog / "db", terminal.directory / "old")
    with terminal.serving("mylog") as server:
        terminal.run("append", "two", "--wait", "published")
        server.stop()
    shutil.rmtree(mylog / "db")
    (terminal.directory / "old").rename(mylog / "db")
    done = terminal.run("serve", "mylog", *PORTS)
    assert done.returncode == 3
    assert b"mylog: rollback" in done.stderr


def test_a_second_signal_does_not_wait(terminal: Terminal, mylog: Path) -> None:
    with terminal.serving("mylog") as server:
        # Both are there when it wakes up, however fast it would have stopped.
        os.kill(server.child.pid, signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(server.child.pid, number)
        os.kill(server.child.pid, signal.SIGCONT)
        assert server.child.wait(PATIENCE) == 130
