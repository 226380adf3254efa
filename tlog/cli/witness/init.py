"""`tlog witness init`: make a witness."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.making import tell_made
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(
    cls=Verb,
    examples=("tlog witness init ./w1 --name witness.example/1 > w1.vkeys",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--name",
    required=True,
    help="Its identity for ever: a name like a URL without its scheme, of a domain you own.",
)
@output_option
def init(*, directory: Path, name: str, out: Output) -> None:
    """Make a witness in DIR, and print its two verifier keys, one a line.

    Whoever is to count its cosignatures needs one of these keys, from you. The private keys lie in
    DIR/keys; they are sealed when TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE is set.
    """
    from tlog.notes import passphrase_from_environment
    from tlog.witness import create_witness

    passphrase = passphrase_from_environment()
    tell_made(
        out,
        directory,
        create_witness(directory, name=name, passphrase=passphrase),
        sealed=passphrase is not None,
        following=f"tlog witness add-log {directory} --vkey VKEY",
        name=name,
    )
