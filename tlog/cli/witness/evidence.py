"""How conflicts are told, and written down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlog.cli.errors import printable
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.witness import Conflict


def described(conflict: Conflict) -> dict[str, object]:
    """What a program is told of a conflict."""
    heads = [
        {"tree_size": head.size, "root_hash": head.root_hash.hex()}
        for head in conflict.checkpoints()
    ]
    return {
        "origin": conflict.origin,
        "kind": str(conflict.kind),
        "digest": conflict.digest,
        "heads": heads,
    }


def tell_conflict(data: bytes, path: Path | None, out: Output) -> None:
    """Say what a file of evidence claims, and where it lies.

    Raises:
        ConflictError: it is no conflict.
    """
    from tlog.witness import parse_conflict

    conflict = parse_conflict(data)
    where = f"{path}: " if path else ""
    file = str(path) if path else None
    out.result(printable(where + conflict.summary), **described(conflict), file=file)


def save_conflict(data: bytes, directory: Path) -> Path:
    """Write a file of evidence that somebody gave into a directory, under its digest.

    Raises:
        ConflictError: it is no conflict.
    """
    from tlog.witness import parse_conflict

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{parse_conflict(data).digest}.conflict"
    path.write_bytes(data)
    return path
