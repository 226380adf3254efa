"""`tlog witness unfreeze`: cosign a log again."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.witness.options import open_evidence


@click.command(cls=Verb, examples=("tlog witness unfreeze ./w1 example.com/mylog",))
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@output_option
def unfreeze(*, directory: Path, origin: str, out: Output) -> None:
    """Cosign the log ORIGIN again, which its operator had frozen; for a conflict, see clear."""
    from tlog.witness import unfreeze as change

    if origin in open_evidence(directory):
        raise CommandError(
            f"{origin} is frozen for a conflict. See what it did with: tlog witness conflicts "
            f"{directory}; then tlog witness clear {directory} {origin}"
        )
    change(directory, origin)
    out.result(f"{origin} is cosigned again", origin=origin, frozen="")
