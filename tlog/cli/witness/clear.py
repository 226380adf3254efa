"""`tlog witness clear`: cosign a log again that was in conflict."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.witness.options import open_evidence


@click.command(cls=Verb, examples=("tlog witness clear ./w1 example.com/mylog",))
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@output_option
def clear(*, directory: Path, origin: str, out: Output) -> None:
    """Cosign the log ORIGIN again, although it contradicted itself, also while the witness serves.

    The evidence stays in DIR/conflicts, as cleared: the same conflict is not taken up again, but
    any other is. A log that signed two histories is not to be trusted again for nothing.
    """
    cleared = [str(path) for path in open_evidence(directory).clear(origin)]
    out.result(f"{origin} is cosigned again", origin=origin, cleared=cleared)
