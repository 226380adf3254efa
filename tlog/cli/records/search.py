"""`tlog records search`, and `tlog records` without a verb: what happened to whose data."""

from __future__ import annotations

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.options import for_request_option, purpose_option
from tlog.cli.records.telling import tell
from tlog.cli.remote import Server, server_options


@click.command(
    cls=Verb,
    examples=(
        'tlog records --subject alice@example.com --purpose "complaint 7"',
        "tlog records search --request R-1 --all",
        "tlog records --type access.read --since 2026-01-01T00:00:00Z --newest --limit 20",
        "tlog records --actor eve --all --json | jq -r 'select(.claims) | .claims.type'",
    ),
)
@click.option("--subject", default="", help="Records about this subject.")
@click.option("--actor", default="", help="Records of what this actor did.")
@click.option("--type", "types", multiple=True, help="Records of a type. Repeatable.")
@click.option("--request", "of_request", default="", help="Records of this request.")
@click.option(
    "--resource",
    default="",
    help="Records of what was done to this; if it is over 128 people's, give --subject too.",
)
@click.option("--resource-type", default="", help="Records of what was done to such things.")
@click.option(
    "--outcome",
    default="",
    metavar="[success|failure|denied|partial|unknown]",
    type=click.Choice(("", "success", "failure", "denied", "partial", "unknown")),
    help="Records with this outcome.",
)
@click.option("--producer", default="", help="Records of this producer.")
@click.option("--since", default="", metavar="TIME", help="What happened then or later (RFC 3339).")
@click.option("--until", default="", metavar="TIME", help="What happened before (RFC 3339).")
@click.option("--newest", "newest_first", is_flag=True, help="The newest first.")
@click.option(
    "--limit", default=25, show_default=True, type=click.IntRange(1, 100), help="Of one page."
)
@click.option("--cursor", default="", help="Go on where the page ended that gave it.")
@click.option("--all", "every", is_flag=True, help="All pages.")
@for_request_option
@purpose_option
@server_options
@output_option
async def search(
    *,
    limit: int,
    cursor: str,
    every: bool,
    request_id: str,
    purpose: str,
    server: Server,
    out: Output,
    **what: str | bool | tuple[str, ...],
) -> None:
    """Find records, and show them by request: what happened, when, by whom, to whose data.

    All that are not left out by an option, by the time at which they happened, with what is
    personal in them as far as it can still be opened. What cannot says why: "erased at entry 9
    under request R-1", "expired at entry 12".

    Every search is itself recorded, with its purpose and who asked, before anything is shown; and
    under each subject whose data it shows.

    After an erasure, --subject finds records of requests, which must be kept, but not those of
    accesses and the like: their pseudonyms go with the subject's key.

    With --json, the last object has the cursor of the next page, and no record.

    What is disclosed is held against what was signed. For proofs, see tlog evidence.
    """
    from tlog.client.reading import RecordReader, Search

    count = 0
    async with RecordReader(server.target, log=server.log) as reader:
        while True:
            page = await reader.search(
                Search(**what),  # type: ignore[arg-type]
                purpose=purpose,
                request_id=request_id,
                limit=limit,
                cursor=cursor,
            )
            tell(page.records, out)
            count += len(page.records)
            cursor = page.cursor
            if not (every and cursor):
                break
    if out.as_json:
        out.result("", cursor=cursor, complete_to=page.complete_to)
    more = f". More: --cursor {cursor}, or --all" if cursor else ""
    noun = "record" if count == 1 else "records"
    out.hint(f"{count} {noun}, of {page.complete_to} entries of the log{more}")
