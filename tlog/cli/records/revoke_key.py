"""`tlog records revoke-key`: an end to a key that is lost."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.stopped import stopped_records


@click.command(
    cls=Verb,
    examples=(
        'tlog records revoke-key ./mylog shop --reason "the laptop was stolen"',
        "tlog records revoke-key ./mylog shop --old shop+1b2c3d4e --reason lost",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("name")
@click.option("--reason", required=True, help="Why: it stays in the log, in the clear.")
@click.option("--old", default="", metavar="LABEL", help="Which key, if there are several.")
@output_option
async def revoke_key(*, directory: Path, name: str, reason: str, old: str, out: Output) -> None:
    """Take nothing more that a key of the producer NAME signs, in the records log in DIR.

    What it signed before stays good: it was judged when it came in. A producer without a key is
    given another one with rotate-key --old. The server must be stopped.

    This needs no order for the key of an approver either, so that one that is stolen ends at once.
    With fewer than two left, no order is carried out until add-producer or rotate-key, which then
    need none, have made them two; all of that stays in the log.
    """
    from tlog.audit import rotation

    async with stopped_records(directory) as records:
        vkey, index = await rotation.revoke_key(records, name, old=old, reason=reason)
    out.result(
        f"{vkey.label} is revoked by entry {index}",
        directory=str(directory),
        producer=name,
        vkey=str(vkey),
        index=index,
    )
