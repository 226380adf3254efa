"""`tlog log`: what an operator asks of a log that is being served."""

from __future__ import annotations

import click

from tlog.cli.log_status import status
from tlog.cli.options import Verbs


@click.group(
    cls=Verbs,
    examples=("tlog log status", "tlog log status ./mylog --json"),
)
def log() -> None:
    """Ask a running server how one of its logs does."""


log.add_command(status)
