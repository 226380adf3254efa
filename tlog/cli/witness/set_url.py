"""`tlog witness set-url`: where a log is asked for proofs."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.witness.options import log_url_option


@click.command(
    cls=Verb,
    examples=("tlog witness set-url ./w1 example.com/mylog --url grpc://127.0.0.1:6962/mylog",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("origin")
@log_url_option(required=True)
@output_option
def set_url(*, directory: Path, origin: str, url: str, out: Output) -> None:
    """Ask the log ORIGIN for proofs at this URL, also while the witness serves."""
    from tlog.witness import set_url as change

    change(directory, origin, url)
    out.result(f"{origin} is asked at {url}", origin=origin, url=url)
