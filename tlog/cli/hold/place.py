"""`tlog hold place`: hold a subject, or a request."""

from __future__ import annotations

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import Draft, carry_out, draft_options
from tlog.cli.output import Output
from tlog.cli.remote import Server, server_options


@click.command(
    cls=Verb,
    examples=(
        "tlog hold place --hold LIT-7 --subject alice@example.com --reason litigation "
        "--key dpo.key -o order.json",
        "tlog hold place --hold LIT-8 --request R-1 --reason litigation --key dpo.key "
        "--key ciso.key",
        "tlog hold place --order order.json",
    ),
)
@click.option("--hold", "hold_id", default="", help="What the hold is called.")
@click.option("--subject", default="", help="Whom it holds.")
@click.option("--request", "request_id", default="", help="Or the request it holds.")
@draft_options
@server_options
@output_option
async def place(
    *, hold_id: str, subject: str, request_id: str, draft: Draft, server: Server, out: Output
) -> None:
    """Hold a subject, or a request: nothing of it is erased or expires until it is released.

    Somebody of whom nothing is recorded yet can be held too.
    """
    from tlog.audit.orders import Kind

    if draft.order is None and not (hold_id and bool(subject) is not bool(request_id)):
        raise click.UsageError("what to hold? Give --hold, and one of --subject and --request")
    await carry_out(
        Kind.PLACE, server, draft, out, subject=subject, request_id=request_id, hold_id=hold_id
    )
