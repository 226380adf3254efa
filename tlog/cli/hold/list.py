"""`tlog hold list`: the holds that stand."""

from __future__ import annotations

from dataclasses import asdict

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.options import for_request_option, purpose_option
from tlog.cli.remote import Server, server_options


@click.command(
    "list",
    cls=Verb,
    examples=(
        'tlog hold list --purpose "before the litigation ends"',
        "tlog hold list --purpose audit --json | jq -r .hold_id",
    ),
)
@for_request_option
@purpose_option
@server_options
@output_option
async def list_holds(*, request_id: str, purpose: str, server: Server, out: Output) -> None:
    """List the holds that stand. Whom one holds is in its record alone, as personal data.

    That is itself recorded, as every search is: see tlog records search --help.
    """
    from tlog.client.orders import Orders

    async with Orders(server.target, log=server.log) as orders:
        holds = await orders.holds(purpose=purpose, request_id=request_id)
    for hold in holds:
        what = f"request {hold.request_id}" if hold.request_id else "a subject"
        out.result(
            f"{hold.hold_id}  {what}  since entry {hold.index}, {hold.placed_at}  {hold.reason}  "
            f"({' and '.join(hold.approvers)})",
            **asdict(hold),
        )
    if not holds:
        out.hint("no hold stands")
