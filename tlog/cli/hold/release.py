"""`tlog hold release`: let go what is held."""

from __future__ import annotations

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import Draft, carry_out, draft_options
from tlog.cli.output import Output
from tlog.cli.remote import Server, server_options


@click.command(
    cls=Verb,
    examples=(
        "tlog hold release --hold LIT-7 --reason settled --key dpo.key -o order.json",
        "tlog hold release --order order.json",
    ),
)
@click.option("--hold", "hold_id", default="", help="What the hold is called.")
@draft_options
@server_options
@output_option
async def release(*, hold_id: str, draft: Draft, server: Server, out: Output) -> None:
    """Release a hold: what it kept may be erased again, and expires if its time is over."""
    from tlog.audit.orders import Kind

    if draft.order is None and not hold_id:
        raise click.UsageError("which hold? Give --hold, or --order FILE")
    await carry_out(Kind.RELEASE, server, draft, out, hold_id=hold_id)
