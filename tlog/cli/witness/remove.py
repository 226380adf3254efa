"""`tlog witness remove`: do not know a log any more."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(cls=Verb, examples=("tlog witness remove ./w1 example.com/mylog",))
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@output_option
def remove(*, directory: Path, origin: str, out: Output) -> None:
    """Do not know the log ORIGIN any more, also while the witness serves.

    The last head that was cosigned is kept: added again, the log has to go on from there.
    """
    from tlog.witness import remove as change

    change(directory, origin)
    out.result(f"{origin} is not known any more", origin=origin)
