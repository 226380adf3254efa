"""`tlog approve`: sign an order as the second approver."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import KEY, describe, read_file, tell_order, write_private
from tlog.cli.output import Output


@click.command(
    cls=Verb,
    examples=(
        "tlog approve order.json --key ciso.key",
        "tlog approve order.json --key ciso.key --yes --json",
    ),
)
@click.argument("order", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", required=True, type=KEY, help="The key of an approver.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@output_option
def approve(*, order: Path, key: Path, yes: bool, out: Output) -> None:
    """Show what the order in a file says, and add a signature to it.

    What is shown is what is signed, the name of the subject included. Whose signature is in it
    already is what the order says: the server verifies it.
    """
    from tlog.notes import load_signer, passphrase_from_environment

    document, said = read_file(order)
    if not said.subject and "_sd" in document.payload.decode():
        raise CommandError(f"{order} does not say whose data: the disclosure was taken away")
    signer = load_signer(key, passphrase=passphrase_from_environment())
    approved = document.approved(signer)
    out.hint(describe(document, said))
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked: give --yes")
        click.confirm(f"Sign it as {signer.vkey.name}?", abort=True, err=True)
    write_private(order, approved.encode(), replace=True)
    tell_order(approved, order, out)
