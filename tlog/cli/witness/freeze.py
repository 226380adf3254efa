"""`tlog witness freeze`: do not cosign a log."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(cls=Verb, examples=("tlog witness freeze ./w1 example.com/mylog",))
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@output_option
def freeze(*, directory: Path, origin: str, out: Output) -> None:
    """Do not cosign the log ORIGIN until unfreeze, also while the witness serves."""
    from tlog.witness import freeze as change

    change(directory, origin)
    out.result(f"{origin} is frozen", origin=origin, frozen="operator")
