"""`tlog witness rekey`: trust a log with other keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=('tlog witness rekey ./w1 example.com/mylog --vkey "$NEWKEY"',),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@vkey_option("Verifier key of the log.")
@output_option
def rekey(*, directory: Path, origin: str, vkeys: tuple[VerifierKey, ...], out: Output) -> None:
    """Trust the log ORIGIN with these keys and no others, also while the witness serves.

    What was cosigned stays: a new key has to go on where the old one was.
    """
    from tlog.witness import rekey as change

    if not vkeys:
        raise click.UsageError("a --vkey is needed: the key with which the log signs from now on")
    change(directory, origin, vkeys)
    keys = list(map(str, vkeys))
    out.result(f"{origin} is trusted with {len(keys)} keys", origin=origin, vkeys=keys)
