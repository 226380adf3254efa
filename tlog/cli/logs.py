"""`tlog logs`: what a server holds."""

from __future__ import annotations

import click

from tlog.cli.errors import printable
from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options


@click.command(cls=Verb, examples=("tlog logs", "tlog logs --json | jq -r .vkeys[]"))
@remote_options
@output_option
async def logs(*, remote: Remote, out: Output) -> None:
    """List the logs of a server: name, origin and size, as the server says; nothing is verified."""
    async with remote.client(out) as client:
        infos = await client.list_logs()
    for info in infos:
        out.result(
            printable(f"{info.name}  origin {info.origin}  {info.tree_size} entries"),
            name=info.name,
            origin=info.origin,
            tree_size=info.tree_size,
            vkeys=list(info.vkeys),
        )
