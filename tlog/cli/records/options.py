"""Options that the verbs share which read records."""

from __future__ import annotations

import sys
from typing import Any

import click


def _purpose(ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is not None or ctx.resilient_parsing:
        return value
    if sys.stdin.isatty():
        return click.prompt("What for (it is recorded, and public)", err=True)
    raise click.UsageError(
        "what for? Give --purpose (or TLOG_PURPOSE): every read of the records is recorded with it"
    )


purpose_option = click.option(
    "--purpose",
    callback=_purpose,
    envvar="TLOG_PURPOSE",
    help="What you read the records for. It is recorded, and public: it names nobody. "
    "[env: TLOG_PURPOSE; default: asked for]",
)
"""`--purpose`, asked for on a terminal."""

for_request_option = click.option(
    "--for-request", "request_id", default="", help="The request that it is read for."
)
"""`--for-request`, given to the verb as `request_id`."""
