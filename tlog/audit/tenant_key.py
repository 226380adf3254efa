"""The tenant key, which wraps all other keys: from a private file, or from a KMS by a command.

The file has mode 0600 and holds 32 random bytes; or, with a command, what the KMS wrapped. The
command gets that on its standard input and writes the 32 bytes to its standard output: nothing of
it is on a command line, in the environment, or on the disk. What was wrapped may be nothing: then
the command knows by itself which key it is. Against the loss of either there is `escrow`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tlog.audit.errors import AuditError
from tlog.store.disk import sync_directory

KEY_SIZE: Final = 32
MAX_WRAPPED_SIZE: Final = 32 * 1024
COMMAND_SECONDS: Final = 20.0
_MAX_SAID = 300
_PIPE_SIZE = 64 * 1024


def create_tenant_key(path: Path, content: bytes | None = None) -> None:
    """Write a new key, or one that is known, or what a KMS wrapped, to a new private file.

    Raises:
        AuditError: as `write_private`.
    """
    key = secrets.token_bytes(KEY_SIZE) if content is None else content
    write_private(path, key, what="tenant key")


def write_private(path: Path, data: bytes, *, what: str) -> None:
    """Write a new file of mode 0600, durably.

    Raises:
        AuditError: it exists, or cannot be written; `what` says in the message what it was to be.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AuditError(f"{what} {path} not written: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key helps nobody, and is in the way of a whole one
        raise AuditError(f"{what} {path} not written: {error.strerror}") from None


def load_tenant_key(
    path: Path, *, command: Sequence[str] = (), timeout: float = COMMAND_SECONDS
) -> bytes:
    """The 32 bytes of the tenant key.

    Args:
        path: the key, or with a command what the command unwraps.
        command: a program and its arguments; no shell.
        timeout: seconds that it has.

    Raises:
        AuditError: the file is not private, or it or the command gives no key.
    """
    data = _read_private(path)
    if command:
        return unwrap_tenant_key(data, command, timeout=timeout)
    return _sized(data, str(path))


def _sized(data: bytes, what: str) -> bytes:
    if len(data) != KEY_SIZE:
        raise AuditError(f"tenant key: {what} has {len(data)} bytes, a key has {KEY_SIZE}")
    return data


def unwrap_tenant_key(
    wrapped: bytes, command: Sequence[str], *, timeout: float = COMMAND_SECONDS
) -> bytes:
    """What a command makes of what its KMS wrapped; see `load_tenant_key`.

    Raises:
        AuditError: it gives no key, or that is too long.
    """
    if len(wrapped) > MAX_WRAPPED_SIZE:
        raise AuditError(f"tenant key: wrapped, it is longer than {MAX_WRAPPED_SIZE} bytes")
    return _sized(_unwrap(wrapped, command, timeout), f"the output of {command[0]}")


def _read_private(path: Path) -> bytes:
    try:
        # Non-blocking, or somebody's FIFO would hang us before we can look at it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise AuditError(
            f"tenant key {path} is missing: put it back from a copy, or from the shares of its "
            "escrow with tlog records recover"
        ) from None
    except OSError as error:
        raise AuditError(f"tenant key {path} not read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AuditError(f"tenant key {path} is not a regular file")
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise AuditError(f"others may use the tenant key: run chmod 600 {path}, as its owner")
        data = file.read(MAX_WRAPPED_SIZE + 1)
    if len(data) > MAX_WRAPPED_SIZE:
        raise AuditError(f"tenant key {path} is longer than {MAX_WRAPPED_SIZE} bytes")
    return data


def _unwrap(wrapped: bytes, command: Sequence[str], timeout: float) -> bytes:
    """Run the command in a session of its own, read no more than a key, and end all it started."""
    name = command[0]
    try:
        child = subprocess.Popen(  # noqa: S603 -- the operator's own command, and no shell
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise AuditError(f"tenant key: {name} does not run: {error.strerror}") from None
    deadline = time.monotonic() + timeout
    with child:
        try:
            output, said = _exchange(child, wrapped, deadline)
            status = child.wait(max(0.0, deadline - time.monotonic()))
            said += _rest(child)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise AuditError(f"tenant key: {name} gave none within {timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if status:
        # Whoever had a key to give may have said it there, too.
        why = "" if output else _last_line(said)
        raise AuditError(f"tenant key: {name} failed with status {status}{why}")
    return output


def _exchange(
    child: subprocess.Popen[bytes], wrapped: bytes, deadline: float
) -> tuple[bytes, bytes]:
    """Give the command its input; read its output up to what is too long for a key.

    Returns:
        The output, and the end of what it said on its standard error meanwhile.
    """
    assert child.stdin and child.stdout and child.stderr  # noqa: S101, PT018 -- pipes
    with contextlib.suppress(BrokenPipeError):
        # It fits into the pipe, so this waits for nobody.
        child.stdin.write(wrapped)
        child.stdin.close()
    output, said = b"", b""
    reading = [child.stdout, child.stderr]
    while len(output) <= KEY_SIZE:
        ready, _, _ = select.select(reading, [], [], max(0.0, deadline - time.monotonic()))
        if not ready or time.monotonic() > deadline:
            raise TimeoutError
        if child.stderr in ready:
            if more := os.read(child.stderr.fileno(), _PIPE_SIZE):
                said = (said + more)[-_PIPE_SIZE:]
            else:
                reading.remove(child.stderr)
        if child.stdout in ready:
            if not (more := os.read(child.stdout.fileno(), KEY_SIZE + 1 - len(output))):
                return output, said
            output += more
    # Whatever else it has to say, it says to nobody.
    os.killpg(child.pid, signal.SIGKILL)
    raise AuditError(f"tenant key: the command gave more than the {KEY_SIZE} bytes of a key")


def _rest(child: subprocess.Popen[bytes]) -> bytes:
    """What a command that has ended said last; a child of its own may have the pipe still."""
    assert child.stderr  # noqa: S101 -- a pipe
    os.set_blocking(child.stderr.fileno(), False)
    try:
        return os.read(child.stderr.fileno(), _PIPE_SIZE)
    except BlockingIOError:
        return b""


def _last_line(said: bytes) -> str:
    """The last line of it, bounded and printable, after a colon; empty if there is none."""
    lines = said.decode("utf-8", "replace").split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return f": {line[:_MAX_SAID]}" if line else ""
