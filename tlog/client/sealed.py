"""A small JSON file with a digest over it: damaged, it is refused, and not held against a log."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tlog.client.errors import StateError
from tlog.client.files import replace_file
from tlog.merkle import MerkleError, RightEdge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SealedFile:
    """Fields in a file of its own, with a lock file beside it. All methods raise StateError.

    Attributes:
        path: where.
        what: what it is, for messages: "the audit state".
        format: what it says it is.
        limit: its size in bytes, at most.
        busy: what to do while another process has it.
        lost: what to do when it is damaged, and what that costs.
    """

    path: Path
    what: str
    format: str
    limit: int
    busy: str
    lost: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else uses the file meanwhile. Killed, the process lets go of it."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.error(f"cannot be locked: {error.strerror}") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self.error(f"is in use by another process: {self.busy}") from None
            yield
        finally:
            os.close(lock)

    def load(self, read: Callable[[dict[str, Any]], T]) -> T | None:
        """What `read` makes of the fields; None when there is no file.

        Whatever `read` finds missing or of another kind is damage.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(self.limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from None
        try:
            return read(self._unsealed(data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            raise self.error(f"is damaged ({reason}). {self.lost}") from None

    def save(self, fields: dict[str, Any]) -> None:
        """Replace the file, durably and as one step."""
        written = {"format": self.format, **fields, "sha256": _digest(fields)}
        data = json.dumps(written, indent=1, ensure_ascii=False).encode() + b"\n"
        try:
            replace_file(self.path, data)
        except OSError as error:
            raise self.error(f"cannot be written: {error.strerror}") from None

    def error(self, what: str) -> StateError:
        """Say something of the file."""
        return StateError(f"{self.what} {self.path} {what}")

    def _unsealed(self, data: bytes) -> dict[str, Any]:
        if len(data) > self.limit:
            raise ValueError(f"longer than {self.limit} bytes")
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.pop("format", None) != self.format:
            raise ValueError(f"not of the format {self.format!r}")
        if fields.pop("sha256", None) != _digest(fields):
            raise ValueError("its digest does not fit")
        return fields


def edge_fields(edge: RightEdge) -> dict[str, Any]:
    """A right edge, as fields."""
    partials = [base64.b64encode(row).decode() for row in edge.partials]
    return {"size": edge.size, "partials": partials}


def read_edge(fields: dict[str, Any]) -> RightEdge:
    """What `edge_fields` wrote. Raises ValueError, KeyError, TypeError."""
    partials = tuple(base64.b64decode(row, validate=True) for row in fields["partials"])
    try:
        return RightEdge(fields["size"], partials)
    except MerkleError as error:
        raise ValueError(str(error)) from None


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
