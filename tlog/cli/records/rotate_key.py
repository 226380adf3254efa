"""`tlog records rotate-key`: another key for a producer, or for the log's own records."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output
from tlog.cli.records.stopped import producer_key, stopped_records

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=(
        "tlog records rotate-key ./mylog shop --key shop-2026.key",
        'tlog records rotate-key ./mylog till --vkey "$VKEY" --days 1',
        "tlog records rotate-key ./mylog log",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("name")
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The new key file; one is made, not sealed, if there is none.",
)
@vkey_option("The new public key instead: Ed25519, with the name NAME.", variable=None)
@click.option("--old", default="", metavar="LABEL", help="Which key ends, if there are several.")
@click.option(
    "--days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(0, 366),
    help="How long the old key is still good: for what waits in spools.",
)
@output_option
async def rotate_key(
    *,
    directory: Path,
    name: str,
    key: Path | None,
    vkeys: tuple[VerifierKey, ...],
    old: str,
    days: float,
    out: Output,
) -> None:
    """Give the producer NAME of the records log in DIR another key. Prints its vkey.

    What the old key signed stays good for ever; it signs nothing more once its days are over. With
    the NAME "log" it is the key of the log's own records, which is made and put in place here; if
    that is cut short, run it again. The server must be stopped.

    The key of an approver is rotated so only while fewer than two have valid keys; else two of them
    order it: see tlog approver rotate.
    """
    from tlog.audit import rotation
    from tlog.audit.tenancy import SERVICE
    from tlog.notes import passphrase_from_environment

    passphrase = passphrase_from_environment()
    given = (key is not None) + len(vkeys)
    if given != (name != SERVICE):
        raise click.UsageError(
            "the key of the log's own records is made here: leave --key and --vkey out"
            if given
            else "which key? Give --key FILE, or one --vkey"
        )
    until = datetime.now(UTC) + timedelta(days=days)
    index: int | None = None
    async with stopped_records(directory) as records, contextlib.AsyncExitStack() as stack:
        if name == SERVICE:
            old = old or records.vkey.label
            vkey = rotation.next_service_key(directory, passphrase=passphrase).vkey
        else:
            made = stack.enter_context
            vkey = vkeys[0] if key is None else made(producer_key(key, name, passphrase))
        async with records.alone() as state:
            known = state.registry.keys.get(vkey.label)
        if known is None:
            index = await rotation.rotate_key(records, name, vkey, old=old, until=until)
        elif name != SERVICE:
            raise CommandError(f"{vkey.label} is a key of {name} already")
        signed_with = records.vkey
    if name == SERVICE:
        rotation.replace_service_key(directory, signed_with)
    out.result(str(vkey), directory=str(directory), producer=name, vkey=str(vkey), index=index)
    out.hint(f"The old key of {name} is good until {until:%Y-%m-%d %H:%M} UTC")
