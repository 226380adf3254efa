"""`tlog witness add-log`: trust a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output
from tlog.cli.witness.options import log_url_option

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=('tlog witness add-log ./w1 --vkey "$VKEY" --url http://127.0.0.1:6963/mylog',),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@vkey_option("Verifier key of the log.")
@click.option("--origin", help="The log's origin. [default: the name of the key]")
@log_url_option(required=False)
@output_option
def add_log(
    *,
    directory: Path,
    vkeys: tuple[VerifierKey, ...],
    origin: str | None,
    url: str | None,
    out: Output,
) -> None:
    """Cosign a log with this key from now on, also while the witness serves.

    A log that is known keeps the keys that it has, and is trusted with each: see rekey. Without
    --url, nobody can be asked for proofs when peers have seen heads of other sizes.
    """
    from tlog.witness import add_log as add

    if not vkeys:
        raise click.UsageError("a --vkey is needed: the key with which the log signs")
    add(directory, vkeys, origin=origin, url=url)
    origins = sorted({origin or vkey.name for vkey in vkeys})
    out.result(
        "\n".join(f"{name} is trusted" for name in origins),
        origins=origins,
        vkeys=list(map(str, vkeys)),
        url=url,
    )
