"""What the log of a server says of errors, and what it does not."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PERSONAL = "alice@example.com by post"
CHILD = f"""
import asyncio, gc, logging, sys
import structlog
from tlog.cli.logging import configure_logging
from tlog.store import StoreError

configure_logging(as_json=False)
log = structlog.get_logger()

def seal(secret, plaintext):
    raise KeyError(plaintext)

def look_up(name):
    try:
        seal(b"KEYKEYKEY", name)
    except KeyError as error:
        raise ValueError(f"nobody is called {{name}}") from error

try:
    look_up({PERSONAL!r})
except ValueError:
    log.exception("internal error")
    logging.getLogger("grpc").exception("a servicer raised")
try:
    try:
        seal(b"KEYKEYKEY", {PERSONAL!r})
    except KeyError:
        both = [StoreError("the disk is full"), ValueError({PERSONAL!r})]
        raise ExceptionGroup({PERSONAL!r}, both)
except ExceptionGroup as error:
    log.critical("log stopped", exc_info=error)

async def forgotten(name):
    look_up(name)

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(look_up, {PERSONAL!r})
    task = asyncio.create_task(forgotten({PERSONAL!r}))
    await asyncio.sleep(0.01)
    del task
    gc.collect()

asyncio.run(main())
"""


def in_terminal(directory: Path) -> str:
    """Standard error of the child, where it is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", CHILD], cwd=directory, stderr=theirs) as child:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 1 << 16):
                said += piece
        except OSError:  # the other end is closed
            pass
        assert child.wait(30) == 0
    os.close(ours)
    return said.decode()


def in_pipe(directory: Path) -> str:
    child = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=directory, capture_output=True, check=True, timeout=60
    )
    lines = child.stderr.decode().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == [
        "internal error", "a servicer raised", "log stopped",
        *["an error that nobody waited for"] * 2,
    ]  # fmt: skip
    return "\n".join(f"{event['event']} {event['exception']}" for event in events)


@pytest.mark.parametrize("where", [in_terminal, in_pipe])
def test_errors_are_told_without_what_was_recorded(
    where: Callable[[Path], str], tmp_path: Path
) -> None:
    said = where(tmp_path)
    assert "KEYKEYKEY" not in said
    assert "alice" not in said
    assert said.count("builtins.ValueError: (what it says is withheld") == 5
    assert said.count("builtins.KeyError: (what it says is withheld") == 5
    # The places are told, causes first, and what the machine says.
    assert said.count("in seal") == 5
    assert said.index("builtins.KeyError") < said.index("which led to") < said.index("builtins.Va")
    assert "tlog.store.errors.StoreError: the disk is full" in said
