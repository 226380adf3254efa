"""A log that `tlog serve` serves, with witnesses in processes of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tlog
from tests.e2e.processes import Served, Terminal, ended
from tests.remote.witnesses import write_policy
from tlog.client import MemoryState
from tlog.notes import Policy, VerifierKey

ORIGIN = "example.com/witnessed"
PORTS = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")


@dataclass(frozen=True)
class Witnessed:
    """A log in a terminal's directory."""

    terminal: Terminal
    vkeys: tuple[VerifierKey, ...]
    policy: Policy
    name: str = "mylog"

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[Served, tlog.Client]]:
        with (
            self.terminal.serving(self.name) as server,
            tlog.Client(server.grpc, vkeys=self.vkeys, state=MemoryState(), timeout=60) as client,
        ):
            yield server, client

    def append(self, client: tlog.Client, entries: Sequence[bytes]) -> tuple[str, ...]:
        """Append and wait for the receipts; who cosigned what they lead to."""
        receipts = client.append_batch(entries, wait="published")
        (note,) = {receipt.proof.checkpoint for receipt in receipts if receipt.proof}
        return self.policy.open(note).cosigned_by


def init(terminal: Terminal) -> tuple[VerifierKey, ...]:
    """Make the log; its keys."""
    return _keys(terminal, "init", "mylog", "--origin", ORIGIN, "--interval", "0")


def require(
    terminal: Terminal, vkeys: tuple[VerifierKey, ...], *witnesses: tuple[VerifierKey, str]
) -> Witnessed:
    """The log with a policy that wants a cosignature of each of these (key, URL)."""
    policy = write_policy(terminal.directory / "mylog", vkeys, witnesses, len(witnesses))
    return Witnessed(terminal, vkeys, policy)


@contextlib.contextmanager
def our_witness(
    terminal: Terminal, name: str, logs: Sequence[VerifierKey]
) -> Iterator[tuple[tuple[VerifierKey, ...], str]]:
    """`tlog witness serve`: its keys, Ed25519 first, and its URL."""
    vkeys = _keys(terminal, "witness", "init", name, "--name", f"witness.example/{name}")
    added = [part for vkey in logs for part in ("--vkey", str(vkey))]
    done = terminal.run("witness", "add-log", name, *added)
    assert done.returncode == 0, done.stderr
    with ended(terminal.start("witness", "serve", "--json", name, *PORTS)) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.communicate()[1].decode()
        ready: dict[str, Any] = json.loads(line)
        yield vkeys, ready["http"]


def _keys(terminal: Terminal, *arguments: str | Path) -> tuple[VerifierKey, ...]:
    done = terminal.run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return tuple(VerifierKey.parse(vkey) for vkey in json.loads(done.stdout)["vkeys"])
