"""`tlog records show`: one record."""

from __future__ import annotations

import click

from tlog.cli.options import INDEX, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.options import for_request_option, purpose_option
from tlog.cli.records.telling import tell
from tlog.cli.remote import Server, server_options


@click.command(
    cls=Verb,
    examples=(
        'tlog records show 7 --purpose "complaint 7"',
        "tlog records show 7 --json | jq -r .leaf",
    ),
)
@click.argument("index", type=INDEX)
@for_request_option
@purpose_option
@server_options
@output_option
async def show(*, index: int, request_id: str, purpose: str, server: Server, out: Output) -> None:
    """Show the record at INDEX, with what is personal in it as far as it can still be opened.

    That is itself recorded, as every search is: see tlog records search --help.
    """
    from tlog.client.reading import RecordReader

    async with RecordReader(server.target, log=server.log) as reader:
        record = await reader.read(index, purpose=purpose, request_id=request_id)
    tell([record], out, whole=True)
