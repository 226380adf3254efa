"""`tlog export`: records for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.files import STANDARD_OUTPUT, whole_file
from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.options import purpose_option
from tlog.cli.remote import Server, server_options

if TYPE_CHECKING:
    from tlog.client.reports import ExportFormat


@click.command(
    cls=Verb,
    examples=(
        'tlog export --purpose "SIEM feed" --format ocsf --since 2026-01-01T00:00:00Z -o feed.json',
        'tlog export --purpose "yearly audit" --type access.read --type access.modify -o audit.csv',
        'tlog export --subject alice@example.com --disclose all --recipient "Alice\'s lawyer" '
        '--purpose "request R-1" --for-request R-1 --format jsonl -o alice.jsonl',
    ),
)
@click.option(
    "--format",
    "format_",
    default="csv",
    show_default=True,
    type=click.Choice(("csv", "jsonl", "ocsf", "cloudevents")),
)
@click.option("--subject", default="", help="Records about this subject.")
@click.option("--type", "types", multiple=True, help="Records of a type. Repeatable.")
@click.option("--request", "of_request", default="", help="Records of this request.")
@click.option("--producer", default="", help="Records of this producer.")
@click.option(
    "--outcome",
    default="",
    metavar="[success|failure|denied|partial|unknown]",
    type=click.Choice(("", "success", "failure", "denied", "partial", "unknown")),
    help="Records with this outcome.",
)
@click.option("--since", default="", metavar="TIME", help="What happened then or later (RFC 3339).")
@click.option("--until", default="", metavar="TIME", help="What happened before (RFC 3339).")
@click.option(
    "--disclose",
    multiple=True,
    metavar="NAME|all|none",
    help="Give out the personal claim of this name (subject.NAME for one about the subject), or "
    "all. Repeatable. [default: none]",
)
@click.option(
    "--recipient",
    default="",
    help="Who gets it, to be told of a later erasure; needed with --disclose. It is public.",
)
@click.option("--for-request", "request_id", default="", help="The request that it is made for.")
@purpose_option
@click.option(
    "-o",
    "--output",
    default=STANDARD_OUTPUT,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="A file for it, written whole or not at all; standard output, if not given.",
)
@server_options
@output_option
async def export(
    *,
    format_: ExportFormat,
    disclose: tuple[str, ...],
    recipient: str,
    request_id: str,
    purpose: str,
    output: Path,
    server: Server,
    out: Output,
    **selection: str | tuple[str, ...],
) -> None:
    """Give records out as CSV, JSON Lines, OCSF 1.3.0 or CloudEvents 1.0.

    All that are not left out by an option. What is personal stays in the vault, unless it is
    disclosed by name. The export is itself recorded, with its purpose and who asked, before its
    first byte; and under each subject whose data it gives out.
    """
    from tlog.client.reports import Reports

    names = [name for name in disclose if name not in ("all", "none")]
    if "none" in disclose and len(set(disclose)) > 1:
        raise click.UsageError("--disclose none, and something else")
    if (names or "all" in disclose) and not recipient:
        raise click.UsageError("who gets it? Give --recipient with --disclose")
    async with Reports(server.target, log=server.log) as client:
        with whole_file(output) as file, out.progress("exporting") as progress:
            count = await client.export(
                file.write,
                format=format_,
                purpose=purpose,
                request_id=request_id,
                recipient=recipient,
                disclose=names,
                disclose_all="all" in disclose,
                progress=progress,
                **selection,
            )
    if output == STANDARD_OUTPUT:
        out.hint(f"{count} records")
    else:
        out.result(f"{output}: {count} records", output=str(output), records=count)
