"""`tlog approver register`: one more who approves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlog.cli.options import Verb, output_option, vkey_option
from tlog.cli.ordering import Draft, carry_out, draft_options
from tlog.cli.output import Output
from tlog.cli.remote import Server, server_options

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=(
        'tlog approver register --vkey "$VKEY" --reason "joins in May" --key dpo.key -o order.json',
        "tlog approver register --order order.json",
    ),
)
@vkey_option("The public key of the new approver, who is called as it is.", variable=None)
@draft_options
@server_options
@output_option
async def register(
    *, vkeys: tuple[VerifierKey, ...], draft: Draft, server: Server, out: Output
) -> None:
    """Register one more approver: with that role alone, and from when it is carried out.

    Two who approve already order it. Who they let in signs orders as they do.
    """
    from tlog.audit.orders import Kind

    if len(vkeys) != (draft.order is None):
        raise click.UsageError("whom? Give one --vkey, or --order FILE")
    await carry_out(Kind.REGISTER, server, draft, out, vkey="".join(map(str, vkeys)))
