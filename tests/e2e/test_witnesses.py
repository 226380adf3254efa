"""Witnesses as processes: they cosign, gossip, catch a log that lies, and survive being killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE, Served, Terminal, ended
from tests.support import free_port
from tlog.log import LogConfig, create_log
from tlog.notes import open_checkpoint, parse_policy, parse_proof
from tlog.witness import AddCheckpoint, add_log, add_peer, create_witness, hash_origin

INTERVAL = 0.5


class WitnessProcess:
    """A witness with its own directory and keys, which is started, killed and started again."""

    def __init__(self, terminal: Terminal, number: int) -> None:
        self.name = f"w{number}"
        self.grpc, self.http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._terminal = terminal
        self._stack = contextlib.ExitStack()
        self.directory = terminal.directory / self.name
        self.vkeys = create_witness(self.directory, name=f"witness.example/{number}")
        toml = self.directory / "witness.toml"
        text = toml.read_text()
        assert "gossip_interval = 30.0\n" in text
        toml.write_text(text.replace("interval = 30.0\n", f"interval = {INTERVAL}\n"))

    def tlog(self, verb: str, *words: str) -> str:
        done = self._terminal.run("witness", verb, self.name, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def start(self) -> None:
        ready = self._terminal.ready("witness", "serve", self.name, grpc=self.grpc, http=self.http)
        self.server = self._stack.enter_context(ready)

    def kill(self) -> None:
        self.server.child.kill()
        self._stack.close()

    def end(self) -> None:
        self._stack.close()

    def add_checkpoint(self, old: int, note: bytes) -> tuple[int, bytes]:
        """The status code and the body of the answer."""
        body = AddCheckpoint(old, (), note).encode()
        return fetch(f"http://{self.http}/add-checkpoint", body)

    def metric(self, name: str) -> float:
        lines = fetch(f"http://{self.http}/metrics")[1].decode().splitlines()
        (line,) = (line for line in lines if line.startswith(name + " "))
        return float(line.removeprefix(name))


@contextlib.contextmanager
def three_witnesses(terminal: Terminal) -> Iterator[list[WitnessProcess]]:
    """Started, and each a peer of the others."""
    witnesses = [WitnessProcess(terminal, number) for number in range(3)]
    with contextlib.ExitStack() as stack:
        for one, other in permutations(witnesses, 2):
            add_peer(one.directory, other.vkeys[0], f"grpc://{other.grpc}")
        for one in witnesses:
            one.start()
            stack.callback(one.end)
        yield witnesses


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, body, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def head(server: Served, log: str, size: int) -> bytes:
    """The published head of a log when it has that size."""
    note = b""

    def arrived() -> bool:
        nonlocal note
        note = fetch(f"{server.http}/{log}/checkpoint")[1]
        return note.split(b"\n")[1] == b"%d" % size

    until(arrived)
    return note


def append(server: Served, log: str, *entries: bytes) -> None:
    for entry in entries:
        assert fetch(f"{server.http}/{log}/add", entry)[0] == 200


# ---- a log that lies


def test_a_log_with_two_histories_is_caught_by_gossip(terminal: Terminal) -> None:
    """Of one size, and of two sizes, for which the log itself gives the proof against itself."""
    vkeys = {}
    for name in ("same", "longer"):
        config = LogConfig(origin=f"example.com/{name}", name=name, checkpoint_interval=0)
        vkeys[name] = create_log(terminal.directory / name, config)
        # Whoever has the keys can serve two logs.
        shutil.copytree(terminal.directory / name, terminal.directory / "forked" / name)
    with (
        three_witnesses(terminal) as witnesses,
        terminal.ready("serve", "same", "longer") as one,
        terminal.ready("serve", "forked/same", "forked/longer") as other,
    ):
        for witness in witnesses:
            for name, keys in vkeys.items():
                add_log(witness.directory, keys, url=f"{one.http}/{name}")
        append(one, "same", b"the truth")
        append(other, "same", b"a lie")
        append(one, "longer", *(b"%d" % number for number in range(9)))
        append(other, "longer", *(b"%d" % number for number in range(5)), b"a lie")
        for name, sizes in {"same": (1, 1), "longer": (9, 6)}.items():
            assert witnesses[0].add_checkpoint(0, head(one, name, sizes[0]))[0] == 200
            assert witnesses[1].add_checkpoint(0, head(other, name, sizes[1]))[0] == 200
        rounds = 'tlog_witness_gossip_total{event="rounds"}'
        before = [witness.metric(rounds) for witness in witnesses]
        took: dict[int, float] = {}

        def caught() -> bool:
            for number, witness in enumerate(witnesses):
                if number not in took and witness.metric("tlog_witness_conflicting_logs") == 2:
                    took[number] = witness.metric(rounds) - before[number]
            return len(took) == 3

        until(caught)
        assert min(took.values()) <= 2
        kinds = {"same": "same-size", "longer": "inconsistent"}
        for number, witness in enumerate(witnesses):
            lines = witness.tlog("conflicts", "--json").splitlines()
            found = {said["origin"]: said for said in map(json.loads, lines)}
            assert {o: said["kind"] for o, said in found.items()} == {
                f"example.com/{name}": kind for name, kind in kinds.items()
            }
            for name in kinds:
                said = found[f"example.com/{name}"]
                # Offline, with one key of the log, and with that of another log.
                verify = ("witness", "verify-conflict", said["file"], "--vkey")
                if number == 2:
                    assert terminal.run(*verify, str(vkeys[name][1])).returncode == 0
                    (stranger,) = vkeys.keys() - {name}
                    assert terminal.run(*verify, str(vkeys[stranger][0])).returncode == 3
                status, why = witness.add_checkpoint(0, head(one, name, 1 if name == "same" else 9))
                assert status == 403
                assert b"contradict" in why
        # The operator may clear it, while the witness serves.
        last = witnesses[2]
        last.tlog("clear", "example.com/same")
        until(lambda: last.add_checkpoint(0, head(one, "same", 1))[0] == 200)


# ---- a log that does not


def test_a_witness_that_is_killed_goes_on_where_it_was(terminal: Terminal, mylog: Path) -> None:
    witness = WitnessProcess(terminal, 0)
    with terminal.serving("mylog") as log, contextlib.closing(contextlib.ExitStack()) as stack:
        witness.start()
        stack.callback(witness.end)
        append(log, "mylog", b"one")
        first = head(log, "mylog", 1)
        assert witness.add_checkpoint(0, first)[0] == 404
        words = [word for vkey in log.ready["logs"][0]["vkeys"] for word in ("--vkey", vkey)]
        witness.tlog("add-log", *words, "--url", f"{log.http}/mylog")  # while it serves
        status, lines = witness.add_checkpoint(0, first)
        assert status == 200
        cosigned = open_checkpoint(first + lines, witness.vkeys, origin="example.com/mylog")
        assert len(cosigned.signed_by) == 2
        where = f"http://{witness.http}/{hash_origin('example.com/mylog').hex()}/checkpoint"
        kept = fetch(where)
        witness.kill()
        witness.start()
        assert fetch(where) == kept
        append(log, "mylog", b"two")
        second = head(log, "mylog", 2)
        assert witness.add_checkpoint(0, second) == (409, b"1\n")
        (known,) = json.loads(
            terminal.run("witness", "status", "--json", "--witness", witness.grpc).stdout
        )["logs"]
        assert (known["origin"], known["tree_size"]) == ("example.com/mylog", 1)
        code, said = witness.server.stop()
        assert (code, said) == (0, "")


def test_a_quorum_of_witnesses_that_come_and_go(terminal: Terminal) -> None:
    """Two of three: one killed changes nothing, two killed stop publication and lose nothing."""
    with three_witnesses(terminal) as witnesses:
        policy = [
            f"witness {one.name} {one.vkeys[number % 2]} "
            + (f"grpc://{one.grpc}" if number % 2 else f"http://{one.http}")
            for number, one in enumerate(witnesses)
        ]
        policy += ["group both 2 w0 w1 w2", "quorum both"]
        config = LogConfig(
            origin="example.com/mylog", name="mylog", checkpoint_interval=0, quorum_timeout=0.5
        )
        text = "".join(f"{line}\n" for line in policy).encode()
        vkeys = create_log(terminal.directory / "mylog", config, policy=text)
        trusted = parse_policy((terminal.directory / "mylog" / "policy").read_bytes())
        for one in witnesses:
            add_log(one.directory, vkeys)
        with terminal.serving("mylog") as server:

            def cosigned_by(note: bytes) -> tuple[str, ...]:
                return trusted.open(note).cosigned_by

            def receipt(name: str) -> tuple[str, ...]:
                data = (terminal.directory / name).read_bytes()
                return cosigned_by(parse_proof(data).checkpoint)

            appended = ("append", "--proof")
            assert terminal.run(*appended, "three", "of three").returncode == 0
            until(lambda: len(cosigned_by(head(server, "mylog", 1))) == 3)
            witnesses[0].kill()
            assert terminal.run(*appended, "two", "one is gone").returncode == 0
            assert receipt("two") == ("w1", "w2")
            witnesses[1].kill()
            with ended(terminal.start(*appended, "late", "two are gone")) as waiting:
                assert terminal.run("append", "durable").stdout in {b"2\n", b"3\n"}
                with pytest.raises(subprocess.TimeoutExpired):
                    waiting.wait(1)
                assert len(cosigned_by(head(server, "mylog", 2))) == 2
                witnesses[0].start()
                assert waiting.wait(PATIENCE) == 0
            assert set(receipt("late")) == {"w0", "w2"}
            head(server, "mylog", 4)
            assert server.stop()[0] == 0
