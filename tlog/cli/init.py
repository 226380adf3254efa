"""`tlog init`: make a log."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output

NAME_RULE = (
    "a name is 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first"
)


@click.command(
    cls=Verb,
    examples=("tlog init ./mylog --origin example.com/mylog > mylog.vkeys",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--origin",
    required=True,
    help="The log's identity for ever: a name like a URL without its scheme, of a domain you own.",
)
@click.option("--name", help="How requests and URLs address the log. [default: the name of DIR]")
@click.option("--dedup", is_flag=True, help="Give equal entries one index.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Least time between two checkpoints; 0 signs every commit.",
)
@output_option
def init(
    *, directory: Path, origin: str, name: str | None, dedup: bool, interval: float, out: Output
) -> None:
    """Make a log in DIR, and print its two verifier keys, one a line.

    Whoever is to verify the log needs these keys, from you and not from the server. The private
    keys lie in DIR/keys; they are sealed when TLOG_PASSPHRASE or TLOG_PASSPHRASE_FILE is set.
    """
    from pydantic import ValidationError

    from tlog.log import LogConfig, create_log
    from tlog.notes import passphrase_from_environment

    try:
        config = LogConfig(
            origin=origin,
            name=name or directory.resolve().name,
            dedup=dedup,
            checkpoint_interval=interval,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        reason = NAME_RULE if field == "name" else first["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--{field} {first['input']!r}: {reason}") from None
    passphrase = passphrase_from_environment()
    vkeys = [str(vkey) for vkey in create_log(directory, config, passphrase=passphrase)]
    out.result("\n".join(vkeys), directory=str(directory), **config.model_dump(), vkeys=vkeys)
    if passphrase is None:
        out.hint(f"The keys in {directory}/keys are not sealed: set TLOG_PASSPHRASE to seal them.")
    out.hint(f"Next: tlog serve {directory}")
