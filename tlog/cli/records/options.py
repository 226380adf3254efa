"""Options that the verbs share which read records."""

from __future__ import annotations

import sys
from typing import Any

import click

_HELP = (
    "What you read the records for. It is recorded, and public: it names nobody. "
    "[env: TLOG_PURPOSE; default: asked for]"
)


def need_purpose(value: str | None) -> str:
    """The purpose that was given, or that somebody at the terminal gives now.

    Raises:
        UsageError: neither.
    """
    if value is not None:
        return value
    if sys.stdin.isatty():
        return str(click.prompt("What for (it is recorded, and public)", err=True))
    raise click.UsageError(
        "what for? Give --purpose (or TLOG_PURPOSE): every read of the records is recorded with it"
    )


def _purpose(ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    return value if ctx.resilient_parsing else need_purpose(value)


purpose_option = click.option("--purpose", callback=_purpose, envvar="TLOG_PURPOSE", help=_HELP)
"""`--purpose`, asked for on a terminal."""

dry_run_purpose_option = click.option(
    "--purpose", envvar="TLOG_PURPOSE", help=f"With --dry-run: {_HELP[0].lower()}{_HELP[1:]}"
)
"""The same, for a verb of which only the dry run reads: it calls `need_purpose` then."""

for_request_option = click.option(
    "--for-request", "request_id", default="", help="The request that it is read for."
)
"""`--for-request`, given to the verb as `request_id`."""
