"""`tlog witness conflicts`: the evidence that a witness has."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.witness.evidence import save_conflict, tell_conflict
from tlog.cli.witness.options import asking, open_evidence, witness_option


@click.command(
    cls=Verb,
    examples=(
        "tlog witness conflicts ./w1",
        "tlog witness conflicts --witness 127.0.0.1:6972 --output evidence/",
    ),
)
@click.argument("directory", metavar="[DIR]", required=False, type=DIRECTORY)
@witness_option
@click.option(
    "--output",
    type=DIRECTORY,
    help="Write what a running witness has into this directory, a file each.",
)
@output_option
async def conflicts(
    *, directory: Path | None, address: str, output: Path | None, out: Output
) -> None:
    """List conflicts: logs that contradicted themselves, and the files that prove it.

    With DIR, those of the witness in it, served or not; without, those of a running one, as it
    gives them. What they are worth says verify-conflict.
    """
    from tlog.witness import parse_conflict

    if directory is not None:
        if output is not None:
            raise click.UsageError(f"--output: the files are in {directory}/conflicts already")
        evidence = open_evidence(directory)
        for data in (data for origin in evidence.origins() for data in evidence.files(origin)):
            tell_conflict(data, evidence.path_of(parse_conflict(data).digest), out)
        return
    async with asking(address) as client:
        found = await client.conflicts()
    for data in found:
        tell_conflict(data, save_conflict(data, output) if output else None, out)
