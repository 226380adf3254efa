"""`tlog log`: what an operator asks of a log."""

from __future__ import annotations

import click

from tlog.cli.log_stamps import stamps
from tlog.cli.log_status import status
from tlog.cli.options import Verbs


@click.group(
    cls=Verbs,
    examples=("tlog log status", "tlog log status ./mylog --json", "tlog log stamps ./mylog"),
)
def log() -> None:
    """Ask how a log does: a running server, or its directory for its time-stamps."""


log.add_command(status)
log.add_command(stamps)
