"""What a client remembers of one log between runs: its keys and the last head it saw.

Without this memory a server could show a rolled back or forked log after every restart of its
client, so a record is never lost silently: a damaged file is refused, and two processes take turns
by compare-and-swap.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tlog.client.errors import StateError, TrustError, VerificationError
from tlog.client.files import replace_file
from tlog.client.verification import Head, open_head, parse_vkeys
from tlog.notes import VerifierKey

FORMAT = "tlog client state 1"
MAX_FILE_SIZE = 1 << 20
LOCK_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """One log: the vkeys that were pinned, and the last head verified with them, None before it."""

    vkeys: tuple[VerifierKey, ...]
    head: Head | None = None


class State(Protocol):
    """Keeps the record of one log.

    Both methods block for a write to the disk, a few milliseconds, and raise StateError.
    """

    def load(self) -> Record | None:
        """The record; None when there is none yet."""

    def swap(self, old: Record | None, new: Record) -> bool:
        """Replace `old` by `new`, durably and as one step, unless somebody else was faster.

        Returns:
            False when the record is no longer `old`: then nothing was changed.
        """


class MemoryState:
    """A record that lasts as long as the process."""

    def __init__(self) -> None:
        self._record: Record | None = None

    def __str__(self) -> str:
        return "this client"

    def load(self) -> Record | None:
        """See `State.load`."""
        return self._record

    def swap(self, old: Record | None, new: Record) -> bool:
        """See `State.swap`."""
        if self._record != old:
            return False
        self._record = new
        return True


class FileState:
    """A record in a JSON file of its own, with a lock file beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def load(self) -> Record | None:
        """See `State.load`."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from None
        return self._parse(data)

    def swap(self, old: Record | None, new: Record) -> bool:
        """See `State.swap`."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                if self.load() != old:
                    return False
                self._write(new)
                return True
        except OSError as error:
            raise self._error(f"cannot be written: {error.strerror}") from None

    def _parse(self, data: bytes) -> Record:
        try:
            if len(data) > MAX_FILE_SIZE:
                raise ValueError(f"longer than {MAX_FILE_SIZE} bytes")
            fields = json.loads(data)
            if not isinstance(fields, dict) or fields.get("format") != FORMAT:
                raise ValueError(f"not of the format {FORMAT!r}")
            vkeys, note = fields["vkeys"], fields["head"]
            if not isinstance(vkeys, list) or not all(isinstance(vkey, str) for vkey in vkeys):
                raise ValueError("no list of vkeys")
            parsed = parse_vkeys(vkeys)
            # Also finds damage: a note with a flipped bit does not verify.
            return Record(parsed, None if note is None else open_head(note.encode(), parsed))
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise self._damaged(error) from None
        except (TrustError, VerificationError) as error:
            raise self._damaged(error) from None

    def _write(self, record: Record) -> None:
        fields = {
            "format": FORMAT,
            "vkeys": [str(vkey) for vkey in record.vkeys],
            "head": None if record.head is None else record.head.note.decode(),
        }
        replace_file(self._path, json.dumps(fields, indent=1, ensure_ascii=False).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Beside the file, because the file itself is replaced.
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            patience = time.monotonic() + LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > patience:
                        raise self._error(
                            f"has been locked by another process for {LOCK_PATIENCE:g} s: find it "
                            f"with `fuser {self._path}.lock`"
                        ) from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(lock)

    def _damaged(self, error: Exception) -> StateError:
        what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        return self._error(
            f"is damaged ({what}). It is all that protects from a rolled back log: restore it from "
            "a copy, or remove it to begin anew with keys that you trust"
        )

    def _error(self, what: str) -> StateError:
        return StateError(f"the state file {self._path} {what}")


def default_path(target: str, log: str) -> Path:
    """Where the state of a log lies when the caller names no place: by the XDG base directories."""
    base = os.environ.get("XDG_STATE_HOME", "")
    directory = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{target} {log}".strip())[:80]
    # Two names must not become one file.
    digest = hashlib.sha256(f"{target}\0{log}".encode()).hexdigest()[:8]
    return directory / "tlog" / f"{readable}-{digest}.json"
