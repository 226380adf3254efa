"""`tlog hold list`: the holds that stand."""

from __future__ import annotations

import click

from tlog.cli.errors import printable
from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import Desk, desk_options
from tlog.cli.output import Output


@click.command(
    "list", cls=Verb, examples=("tlog hold list", "tlog hold list --json | jq -r .hold_id")
)
@desk_options
@output_option
async def list_holds(*, desk: Desk, out: Output) -> None:
    """List the holds that stand. Whom one holds is in its record alone, as personal data."""
    async with desk.client() as client:
        answer = await client.holds()
    for hold in answer.holds:
        what = f"request {hold.request_id}" if hold.request_id else "a subject"
        out.result(
            printable(
                f"{hold.hold_id}  {what}  since entry {hold.index}, {hold.placed_at}  "
                f"{hold.reason}  ({' and '.join(hold.approvers)})"
            ),
            hold_id=hold.hold_id,
            index=hold.index,
            request_id=hold.request_id,
            reason=hold.reason,
            approvers=list(hold.approvers),
            placed_at=hold.placed_at,
        )
    if not answer.holds:
        out.hint("no hold stands")
