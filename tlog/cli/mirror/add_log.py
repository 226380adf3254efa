"""`tlog mirror add-log`: mirror a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


def _tiles_url(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    from tlog.remote import AddressError, parse_address

    try:
        address = parse_address(url)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None
    if address.grpc:
        raise click.BadParameter("a log is followed by its tiles, over http:// or https://")
    return address.url


@click.command(
    cls=Verb,
    examples=(
        'tlog mirror add-log ./m1 --vkey "$VKEY" --vkey "$VKEY2" --url http://127.0.0.1:6963/mylog',
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@vkey_option("Verifier key of the log. Give all: a log is restored with its signatures by each.")
@click.option("--origin", help="The log's origin. [default: the name of the key]")
@click.option(
    "--url",
    callback=_tiles_url,
    help="Follow the log: the prefix of its tiles (c2sp.org/tlog-tiles). Without it the mirror "
    "waits for uploads.",
)
@output_option
def add_log(
    *,
    directory: Path,
    vkeys: tuple[VerifierKey, ...],
    origin: str | None,
    url: str | None,
    out: Output,
) -> None:
    """Mirror a log with this key from now on, also while the mirror serves."""
    from tlog.mirror import MirrorConfig
    from tlog.witness import add_log as add
    from tlog.witness import hash_origin

    if not vkeys:
        raise click.UsageError("a --vkey is needed: the key with which the log signs")
    MirrorConfig.load(directory)
    add(directory, vkeys, origin=origin, url=url)
    origins = sorted({origin or vkey.name for vkey in vkeys})
    out.result(
        "\n".join(f"{name} is mirrored as /{hash_origin(name).hex()}/" for name in origins),
        origins=origins,
        hashes=[hash_origin(name).hex() for name in origins],
        vkeys=list(map(str, vkeys)),
        url=url,
    )
