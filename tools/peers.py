"""Programs that others wrote, as processes on loopback; `make interop` installs them in .interop.

litewitness         a witness (filippo.io/torchwood), whose key is in an ssh-agent
aics-witness        a witness (PyPI)
aics-tlog           a verifier of checkpoints, tiles and proofs (PyPI)
tlog-tiles          a reader of tiles (PyPI, tlog-scales)
hammer              Tessera's load tool (github.com/transparency-dev/tessera)
sumdb               tests/interop/go/sumdb, over Go's checksum database packages
proof               tests/interop/go/proof, over torchwood's policies and .tlog-proof files
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from tlog.merkle import EMPTY_ROOT
from tlog.notes import Algorithm, VerifierKey
from tlog.notes.codec import encode_base64

HOME = Path(__file__).resolve().parents[1] / ".interop"
PATIENCE = 30.0

Logs = Mapping[str, Sequence[VerifierKey]]
"""Origins, and the keys that sign for them."""


@dataclass(frozen=True)
class PeerWitness:
    """A witness that runs.

    Attributes:
        pids: its processes; with litewitness, the agent that signs for it too.
    """

    vkey: VerifierKey
    url: str
    pids: tuple[int, ...]


def program(name: str) -> str:
    """Where a peer's program is."""
    for directory in (HOME / "bin", HOME / "venv" / "bin"):
        if (path := directory / name).exists():
            return str(path)
    raise FileNotFoundError(f"no {name} in {HOME}: `make interop` installs it")


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def litewitness(
    directory: Path, logs: Logs, *, name: str = "lite.example/w", port: int | None = None
) -> Iterator[PeerWitness]:
    """litewitness in a directory, made when it is not there, with these logs added."""
    directory.mkdir(exist_ok=True)
    key, address = directory / "key", f"127.0.0.1:{port or free_port()}"
    if not key.exists():
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    fingerprint = _run("ssh-keygen", "-l", "-f", f"{key}.pub").split()[1]
    # The path of a socket has 107 bytes at most, those of tests may be longer.
    with tempfile.TemporaryDirectory(prefix="agent-") as short, contextlib.ExitStack() as stack:
        agent_socket = Path(short) / "s"
        agent = stack.enter_context(
            running(directory / "agent.log", "ssh-agent", "-D", "-a", str(agent_socket))
        )
        until_ready(agent_socket.exists, agent, directory / "agent.log")
        _run("ssh-add", "-q", str(key), SSH_AUTH_SOCK=str(agent_socket))
        said, database = directory / "litewitness.log", directory / "litewitness.db"
        child = stack.enter_context(
            running(
                said,
                *(program("litewitness"), "-name", name, "-db", str(database), "-key", fingerprint),
                *("-ssh-agent", str(agent_socket), "-listen", address),
            )
        )
        until_ready(lambda: answers(f"http://{address}/"), child, said)
        page = html.unescape(_get(f"http://{address}/"))
        found = re.search(rf"^{re.escape(name)}\+\S+$", page, re.MULTILINE)
        assert found, page
        _add_to_litewitness(database, logs)
        vkey = VerifierKey.parse(found[0])
        yield PeerWitness(vkey, f"http://{address}", (child.pid, agent.pid))


def _add_to_litewitness(database: Path, logs: Logs) -> None:
    """What its `witnessctl add-log` and `add-key` do: that program needs a module that is gone."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT OR IGNORE INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)",
            [(origin, encode_base64(EMPTY_ROOT)) for origin in logs],
        )
        keys = [(origin, str(vkey)) for origin, vkeys in logs.items() for vkey in vkeys]
        connection.executemany(
            "INSERT INTO key (origin, key) SELECT ?1, ?2 "
            "WHERE NOT EXISTS (SELECT 1 FROM key WHERE origin = ?1 AND key = ?2)",
            keys,
        )


@contextlib.contextmanager
def aics_witness(
    directory: Path, logs: Logs, *, name: str = "aics.example/w", port: int | None = None
) -> Iterator[PeerWitness]:
    """aics-witness in a directory, made when it is not there, with these logs and no others.

    It knows Ed25519 only, and refuses a log's other keys: they are left out.
    """
    directory.mkdir(exist_ok=True)
    config, address = directory / "witness.json", f"127.0.0.1:{port or free_port()}"
    told = _run(program("aics-witness"), "init", "--config", str(config), "--name", name)
    found = re.search(rf"{re.escape(name)}\+\S+", told)
    assert found, told
    settings = json.loads(config.read_text())
    settings["logs"] = [
        {
            "origin": origin,
            "vkeys": [str(vkey) for vkey in vkeys if vkey.algorithm is Algorithm.ED25519],
        }
        for origin, vkeys in logs.items()
    ]
    config.write_text(json.dumps(settings))
    said = directory / "aics.log"
    serve = (program("aics-witness"), "serve", "--config", str(config), "--listen", address)
    with running(said, *serve) as child:
        until_ready(lambda: answers(f"http://{address}/healthz"), child, said)
        yield PeerWitness(VerifierKey.parse(found[0]), f"http://{address}", (child.pid,))


@contextlib.contextmanager
def running(said: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block, with what it says in a file."""
    with said.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _run(*command: str, **variables: str) -> str:
    """Run a program to its end; what it printed."""
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def until_ready(ready: Callable[[], object], child: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{child.args!r} did not start: {said.read_text()}")
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        _get(url)
    except URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return False
        raise
    return True


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text
