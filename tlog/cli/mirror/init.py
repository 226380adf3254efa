"""`tlog mirror init`: make a mirror."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.making import tell_made
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(
    cls=Verb,
    examples=("tlog mirror init ./m1 --name mirror.example/1 > m1.vkeys",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--name",
    required=True,
    help="Its identity for ever: a name like a URL without its scheme, of a domain you own.",
)
@output_option
def init(*, directory: Path, name: str, out: Output) -> None:
    """Make a mirror in DIR, and print its two verifier keys, one a line.

    Its cosignature says more than a witness's: give it keys and a name of its own. The private
    keys lie in DIR/keys; they are sealed when TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE is set.
    """
    from tlog.mirror import create_mirror
    from tlog.notes import passphrase_from_environment

    passphrase = passphrase_from_environment()
    tell_made(
        out,
        directory,
        create_mirror(directory, name=name, passphrase=passphrase),
        sealed=passphrase is not None,
        following=f"tlog mirror add-log {directory} --vkey VKEY --url URL",
        name=name,
    )
