"""`tlog entries`: read a log."""

from __future__ import annotations

import base64

import click

from tlog.cli.options import INDEX, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options


@click.command(
    cls=Verb,
    examples=("tlog entries", "tlog entries 1000 1010", "tlog entries --json 41 42"),
)
@click.argument("start", type=INDEX, default=0)
@click.argument("end", type=INDEX, required=False)
@remote_options
@output_option
async def entries(*, start: int, end: int | None, remote: Remote, out: Output) -> None:
    """Print the entries from START up to, not including, END; by default all of them.

    Each is followed by a newline. Entries that hold newlines or binary data are told apart with
    --json, which gives objects of index and base64. Every entry is proven to be in the log.
    """
    async with remote.client(out) as client:
        index = start
        async for bundle in client.bundles(start, end):
            if out.as_json:
                for number, entry in enumerate(bundle, index):
                    out.result("", index=number, base64=base64.b64encode(entry).decode())
            else:
                out.raw(b"".join(entry + b"\n" for entry in bundle))
            index += len(bundle)
