"""`tlog reindex`: make the search index of a records log anew."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.stopped import stopped_log


@click.command(
    cls=Verb,
    examples=("tlog reindex ./mylog",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@output_option
async def reindex(*, directory: Path, out: Output) -> None:
    """Make the search index of the records log in DIR anew, from the log alone.

    A server does so by itself when it finds the index lost, damaged, or another log's: this is for
    whoever does not want to wait for it then. There is nothing personal in an index, and no key.
    The server must be stopped.
    """
    from tlog.audit.indexer import reindex as make

    async with stopped_log(directory) as log:
        size = log.sequencer.edge.size
        with out.progress(f"indexing {directory}", size) as progress:
            count = await make(directory, log, progress=progress)
    out.result(f"{directory}: {count} entries indexed", directory=str(directory), entries=count)
