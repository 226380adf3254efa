"""What is said when keys were made: the public ones to standard output, the rest as a hint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


def tell_made(
    out: Output,
    directory: Path,
    vkeys: Sequence[VerifierKey],
    *,
    sealed: bool,
    following: str,
    **fields: object,
) -> None:
    """Print verifier keys, one a line, and hint at what is `following`."""
    keys = list(map(str, vkeys))
    out.result("\n".join(keys), directory=str(directory), **fields, vkeys=keys)
    if not sealed:
        out.hint(f"The keys in {directory}/keys are not sealed: set TLOG_PASSPHRASE to seal them.")
    out.hint(f"Next: {following}")
