"""`tlog checkpoint`: the log's latest head."""

from __future__ import annotations

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options


@click.command(
    cls=Verb,
    examples=(
        "tlog checkpoint > checkpoint",
        "tlog checkpoint --policy policy --max-age 24h",
    ),
)
@remote_options
@output_option
async def checkpoint(*, remote: Remote, out: Output) -> None:
    """Print the latest checkpoint, byte for byte as the log published it.

    Its signatures are verified, and that it continues the last checkpoint seen from here.
    """
    async with remote.client(out) as client:
        head = await client.checkpoint()
    out.raw(
        head.note,
        origin=head.origin,
        tree_size=head.size,
        root_hash=head.root_hash.hex(),
        note=head.note.decode(),
    )
