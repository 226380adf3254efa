"""`make run`: a log with real lines of this machine in it and three witnesses, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools import witnesses
from tools.session import Server, Shell, say

SAMPLE_LINES = 2000
FILES = ("/var/log/syslog", "/var/log/messages", "/var/log/dpkg.log")
COMMANDS = (
    "journalctl --no-pager --quiet --lines=2000",
    "dpkg-query --show",
    "rpm --query --all",
    "apk list --installed",
    "pip list",
)


def main() -> None:
    """Make what is not there, serve it, append, prove, verify; then serve on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the proof")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where to keep all of it")
    options = parser.parse_args()
    # Or the servers would outlive us; a shell starts what it runs in the background deaf to Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    data: Path = options.data
    data.mkdir(parents=True, exist_ok=True)
    servers: list[Server] = []
    try:
        run(Shell(data), servers)
        if not options.once:
            say("\nServing until Ctrl-C.")
            servers[-1].wait()
    except KeyboardInterrupt:
        say("\nstopping")
    finally:
        # The log first: it may have something to publish.
        codes = [server.stop() for server in reversed(servers)]
    raise SystemExit(max(codes))


def run(shell: Shell, servers: list[Server]) -> None:
    """Start the witnesses and the log, and show what they do. What is started goes to `servers`."""
    http = os.environ.get("TLOG_HTTP", "127.0.0.1:6963")
    made = witnesses.make(shell, "demo", f"http://{http}/demo")
    say("\nEach witness is a process of its own, with its own keys and directory:")
    try:
        for one in made:
            servers.append(witnesses.start(shell, one))
        servers.append(shell.start("serve", "demo"))
    except SystemExit:
        say("If a port is taken, choose others:")
        say("  TLOG_WITNESS_PORT=7972 TLOG_GRPC=127.0.0.1:7962 TLOG_HTTP=127.0.0.1:7963 make run")
        raise
    show(servers[-1], shell)


def show(server: Server, shell: Shell) -> None:
    """Append a sample, and prove one line of it to somebody who has only the key."""
    vkey = server.ready["logs"][0]["vkeys"][0]
    # A state of its own: with ./data removed and made anew, the old keys must not be remembered.
    variables = {
        "TLOG_SERVER": server.ready["grpc"],
        "TLOG_VKEY": vkey,
        "XDG_STATE_HOME": str(shell.directory.resolve() / "state"),
    }
    shell.export(variables)
    what, lines = sample()
    (shell.directory / "sample").write_bytes(b"".join(line + b"\n" for line in lines))
    say(f"\n{len(lines)} lines of {what} go into the log; each is an entry:")
    placed = shell.tlog("append", "--lines", "sample", "--wait", "published")
    index = int(placed.split("..")[0]) + len(lines) // 2
    say("\nThe log's checkpoint, verified with its public key; three witnesses have cosigned it:")
    witnesses.wait_for_all(f"{server.ready['http']}/demo/checkpoint", shell.directory / "demo")
    shell.tlog("checkpoint")
    line = lines[len(lines) // 2]
    (shell.directory / "line").write_bytes(line)
    say(f"\nThe proof of one line, {line[:70].decode(errors='replace')!r}, verified offline:")
    shell.tlog("prove", str(index), "-o", "line.tlog-proof")
    shell.tlog("verify", "--vkey", vkey, "line.tlog-proof", "line")
    say("\nNow you, in another terminal:")
    say(f"  cd {shell.directory.resolve()}")
    say(f"  export {' '.join(f'{name}={value}' for name, value in variables.items())}")
    say(f"  alias tlog={sys.executable.removesuffix('python')}tlog")
    say("  tlog append --proof hello.tlog-proof 'hello, world'")
    say("  printf 'hello, world' | tlog verify hello.tlog-proof -")
    say("  tlog entries | tail -3")
    say(f"  curl {server.ready['http']}/demo/checkpoint")


def sample() -> tuple[str, list[bytes]]:
    """The last lines of the first log or list of packages that this machine has, and its name."""
    for what, lines in _sources():
        kept = deque((line for line in lines if 0 < len(line) <= 4096), maxlen=SAMPLE_LINES)
        if kept:
            return what, list(kept)
    raise SystemExit("this machine has neither a readable log nor a list of packages")


def _sources() -> Iterator[tuple[str, Iterable[bytes]]]:
    for file in FILES:
        try:
            with open(file, "rb") as opened:
                yield file, (line.rstrip(b"\n") for line in opened)
        except OSError:
            continue
    for command in COMMANDS:
        try:
            done = subprocess.run(command.split(), capture_output=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        yield f"`{command}`", done.stdout.splitlines()
    yield "/etc/services", Path("/etc/services").read_bytes().splitlines()


if __name__ == "__main__":
    main()
