"""`tlog report`: the metrics of a year."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.files import STANDARD_OUTPUT, whole_file
from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Server, server_options

if TYPE_CHECKING:
    from tlog.client.reports import CountedBy, ReportFormat


@click.command(
    cls=Verb,
    examples=(
        "tlog report --year 2025 --format html -o metrics-2025.html",
        "tlog report --year 2025 --format csv --jurisdiction US-CO > colorado.csv",
        "tlog report --year 2025 | jq '.figures.California.delete.received'",
    ),
)
@click.option("--year", required=True, type=click.IntRange(0, 9999), help="The calendar year.")
@click.option(
    "--jurisdiction",
    "jurisdictions",
    multiple=True,
    help="Count the requests that name it alone, such as US-CO. Repeatable.",
)
@click.option(
    "--counted-by",
    default="received",
    show_default=True,
    type=click.Choice(("received", "answered")),
    help="Which date puts what became of a request into the year.",
)
@click.option(
    "--format",
    "format_",
    default="json",
    show_default=True,
    type=click.Choice(("json", "csv", "html")),
)
@click.option(
    "-o",
    "--output",
    default=STANDARD_OUTPUT,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="A file for it; standard output, if not given.",
)
@server_options
@output_option
async def report(
    *,
    year: int,
    jurisdictions: tuple[str, ...],
    counted_by: CountedBy,
    format_: ReportFormat,
    output: Path,
    server: Server,
    out: Output,
) -> None:
    """Count the requests of a year, as 11 CCR 7102 asks, with the entries behind each figure.

    For each type: received, complied with in whole or in part, denied, and the median and mean days
    to the response; denials also by ground and by basis. For data brokers, the same of what came
    through DROP, and denials by the exemption that they name. Whoever has the entries that a figure
    names counts them again. What the regulation leaves open is a setting, and is printed.

    Counted from the public claims of the records: no personal data is read, and no purpose asked
    for. Not legal advice, and no proof of compliance.
    """
    from tlog.client.reports import Reports

    size = 0
    async with (
        Reports(server.target, log=server.log) as client,
        client.report(
            year, format=format_, jurisdictions=jurisdictions, counted_by=counted_by
        ) as pieces,
    ):
        with whole_file(output) as file:
            async for piece in pieces:
                size += file.write(piece)
    if output != STANDARD_OUTPUT:
        out.result(f"{output}: {size} bytes", output=str(output), bytes=size)
