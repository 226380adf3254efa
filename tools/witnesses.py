"""The three witnesses of `make run`: made, introduced to the log and to one another, and served."""

from __future__ import annotations

import os
import time
import urllib.request
from itertools import permutations
from pathlib import Path

from tlog.log import LogConfig, load_signers
from tlog.notes import VerifierKey, parse_policy, passphrase_from_environment
from tlog.witness import LogList, WitnessConfig, add_peer
from tools.session import Server, Shell, say

COUNT = 3
QUORUM = 2
PATIENCE = 30.0
HOST = "127.0.0.1"
FIRST_PORT = int(os.environ.get("TLOG_WITNESS_PORT", "6972"))
"""Of the first witness, for gRPC; HTTP has the next one, and so on for the others."""


class Witness:
    """One of them.

    Attributes:
        name: of its directory, and in the policy.
        directory: where it lives.
        grpc: its address.
        http: its address.
    """

    def __init__(self, data: Path, number: int) -> None:
        self.name = f"witness{number + 1}"
        self.directory = data / self.name
        port = FIRST_PORT + 2 * number
        self.grpc, self.http = f"{HOST}:{port}", f"{HOST}:{port + 1}"

    @property
    def vkey(self) -> str:
        """The one of its keys that the policy counts."""
        return (self.directory / "vkeys").read_text().split()[0]


def make(shell: Shell, log: str, url: str) -> list[Witness]:
    """Make the witnesses and the log that they cosign, as far as they are not there.

    Args:
        shell: to run the verbs in.
        log: the directory of the log.
        url: where its tiles will be.
    """
    data = shell.directory
    witnesses = [Witness(data, number) for number in range(COUNT)]
    for one in witnesses:
        if not (one.directory / "vkeys").exists():
            made = shell.tlog("witness", "init", one.name, "--name", f"localhost/{one.name}")
            (one.directory / "vkeys").write_text(made)
    policy = [f"witness {one.name} {one.vkey} http://{one.http}" for one in witnesses]
    policy += [f"group quorum-of-witnesses {QUORUM} {' '.join(one.name for one in witnesses)}"]
    policy += ["quorum quorum-of-witnesses"]
    text = "".join(f"{line}\n" for line in policy)
    if not (data / log / "log.toml").exists():
        (data / "witnesses").write_text(text)
        say(f"Two of three witnesses must cosign each checkpoint: {data / 'witnesses'} says so.")
        shell.tlog("init", log, "--origin", f"localhost/{log}", "--policy", "witnesses")
    vkeys = _vkeys(data / log)
    # Other ports than the last time, or a log that had no witnesses yet.
    (data / log / "policy").write_text("".join(f"log {vkey}\n" for vkey in vkeys) + text)
    shell.export({"TLOG_VKEY": " ".join(map(str, vkeys))})
    for one in witnesses:
        known = {trusted.origin: trusted.url for trusted in LogList(one.directory)}
        origin = vkeys[0].name
        if origin not in known:
            shell.tlog("witness", "add-log", one.name, "--url", url)  # the keys: TLOG_VKEY
        elif known[origin] != url:
            shell.tlog("witness", "set-url", one.name, origin, "--url", url)
    _introduce(witnesses)
    return witnesses


def start(shell: Shell, witness: Witness) -> Server:
    """Serve one, in a process of its own."""
    ports = ("--grpc", witness.grpc, "--http", witness.http)
    return shell.start("witness", "serve", witness.name, *ports)


def wait_for_all(url: str, log: Path) -> None:
    """Wait until all witnesses have cosigned the published checkpoint: a quorum comes first.

    Raises:
        SystemExit: one does not.
    """
    policy = parse_policy((log / "policy").read_bytes())
    deadline = time.monotonic() + PATIENCE
    while True:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            cosigned_by = policy.open(answer.read()).cosigned_by
        if len(cosigned_by) == COUNT:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"only {', '.join(cosigned_by)} cosigned the checkpoint")
        time.sleep(0.1)


def _introduce(witnesses: list[Witness]) -> None:
    """Make each a peer of the others, at the ports that they have this time."""
    for one in witnesses:
        urls = {f"grpc://{other.grpc}" for other in witnesses if other is not one}
        if {peer.url for peer in WitnessConfig.load(one.directory).peers} != urls:
            toml = one.directory / "witness.toml"
            toml.write_text(toml.read_text().partition("\n[[peers]]")[0] + "\n")
    for one, other in permutations(witnesses, 2):
        peers = WitnessConfig.load(one.directory).peers
        if other.vkey not in {peer.vkey for peer in peers}:
            add_peer(one.directory, VerifierKey.parse(other.vkey), f"grpc://{other.grpc}")


def _vkeys(log: Path) -> list[VerifierKey]:
    signers = load_signers(log, LogConfig.load(log), passphrase=passphrase_from_environment())
    return [signer.vkey for signer in signers]
