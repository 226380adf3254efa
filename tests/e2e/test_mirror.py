"""A log and its mirror as processes: followed, killed, lost, and made again."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.processes import PATIENCE, Terminal, ended
from tests.mirror.support import LOG, mirror_vkeys, sha256
from tlog.notes import open_checkpoint, parse_unverified
from tlog.notes.keys import VerifierKey
from tlog.witness import AddCheckpoint, hash_origin

OCTETS = {"content-type": "application/octet-stream"}


@contextmanager
def mirroring(
    terminal: Terminal, directory: str = "m1"
) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    child = terminal.start("mirror", "serve", directory, "--http", "127.0.0.1:0", "--json")
    with ended(child):
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise AssertionError(child.communicate()[1].decode())
        yield child, json.loads(line)


def wait_for(url: str, size: int) -> bytes:
    """The mirror's checkpoint, once it has the size."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = httpx.get(f"{url}/checkpoint", trust_env=False)
        if answer.status_code == 200 and parse_unverified(answer.content).checkpoint.size >= size:
            return answer.content
        time.sleep(0.05)
    raise AssertionError(f"{url} has no checkpoint of {size}: {answer.text}")


def append(terminal: Terminal, count: int) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(count))
    done = terminal.run("append", "--lines", "-", stdin=lines)
    assert done.returncode == 0, done.stderr


def test_a_log_is_lost_and_goes_on_from_its_mirror(terminal: Terminal, mylog: Path) -> None:
    made = terminal.run("mirror", "init", "m1", "--name", "mirror.example/m1")
    mirror_keys = [VerifierKey.parse(line) for line in made.stdout.decode().split()]
    settings = terminal.directory / "m1" / "mirror.toml"
    settings.write_text(settings.read_text().replace("interval = 5.0", "interval = 0.1"))
    with terminal.serving("mylog") as server:
        vkeys = server.ready["logs"][0]["vkeys"]
        keys = [argument for vkey in vkeys for argument in ("--vkey", vkey)]
        url = f"{server.http}/mylog"
        assert terminal.run("mirror", "add-log", "m1", *keys, "--url", url).returncode == 0
        append(terminal, 700)
        with mirroring(terminal) as (child, ready):
            copy = ready["logs"][0]["mirrored_at"]
            assert copy.endswith(hash_origin("example.com/mylog").hex())
            wait_for(copy, 700)
            append(terminal, 300)
            child.kill()  # while it fetches, or just before
        with mirroring(terminal) as (child, ready):
            copy = ready["logs"][0]["mirrored_at"]
            note = wait_for(copy, 1000)
            # Tools that read logs read the copy.
            audit = terminal.run("audit", copy, *keys)
            assert (audit.returncode, b"whole, 1000 entries" in audit.stdout) == (0, True)
            child.terminate()
            assert child.wait(PATIENCE) == 0
        server.child.kill()
    known = [VerifierKey.parse(vkey) for vkey in vkeys]
    before = open_checkpoint(note, [*known, *mirror_keys], origin="example.com/mylog")
    assert {vkey for vkey, _ in before.signed_by} == {*known, *mirror_keys}
    # All is lost but the keys.
    shutil.move(mylog / "keys", terminal.directory / "backup")
    shutil.rmtree(mylog)
    done = terminal.run("mirror", "restore", "m1/example.com/mylog", "mylog")
    assert done.returncode == 0, done.stderr
    assert b"Put mylog/keys back" in done.stderr
    shutil.move(terminal.directory / "backup", mylog / "keys")
    with terminal.serving("mylog") as server:
        # This client has seen the heads before the loss, and checks that these follow.
        append(terminal, 1)
        again = open_checkpoint(
            wait_for(f"{server.http}/mylog", 1001), known, origin="example.com/mylog"
        )
        # The mirror follows it on.
        logs = terminal.directory / "m1" / "logs"
        lines = [line for line in logs.read_text().splitlines() if not line.startswith("url ")]
        logs.write_text("\n".join([*lines, f"url {server.http}/mylog example.com/mylog", ""]))
        with mirroring(terminal) as (_, ready):
            wait_for(ready["logs"][0]["mirrored_at"], 1001)
    assert again.checkpoint.size == 1001
    assert terminal.run("fsck", "mylog").stdout == b"mylog: whole, 1001 entries\n"


def test_killed_at_any_time_while_entries_are_uploaded(terminal: Terminal) -> None:
    directory = terminal.directory / "m1"
    vkeys = mirror_vkeys(directory)
    answered = 0
    for _ in range(3):
        with mirroring(terminal) as (child, ready):
            answered = max(answered, _upload(ready["http"], child, answered))
    with mirroring(terminal) as (_, ready):
        if answered:
            note = wait_for(f"{ready['http']}/{sha256(LOG.origin).hex()}", answered)
            opened = open_checkpoint(note, [*LOG.vkeys, *vkeys], origin=LOG.origin)
            assert opened.checkpoint == LOG.checkpoint(opened.checkpoint.size)
            assert {vkey for vkey, _ in opened.signed_by} == {*LOG.vkeys, *vkeys}
            assert opened.checkpoint.size >= answered


def _upload(url: str, child: subprocess.Popen[bytes], answered: int) -> int:
    """Mirror the log in small steps until the mirror is killed; the last size it answered for."""
    timer = threading.Timer(random.uniform(0.1, 0.6), child.kill)
    timer.start()
    size = answered
    with (
        contextlib.suppress(httpx.TransportError),
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client,
    ):
        while answered < len(LOG.entries):
            body = AddCheckpoint(0, (), LOG.note(1)).encode()
            pending = client.post("/add-checkpoint", content=body)
            size = int(pending.content) if pending.status_code == 409 else 1
            assert size >= answered
            if (end := min(size + 37, len(LOG.entries))) > size:
                add = AddCheckpoint(*LOG.request(size, end)).encode()
                assert client.post("/add-checkpoint", content=add).status_code == 200
            size = end
            upload = LOG.upload(answered, size)
            done = client.post("/add-entries", content=upload, headers=OCTETS)
            assert done.status_code == 200, done.text
            answered = size
    timer.join()
    return answered
