"""`tlog approver rotate`: another key for one who approves."""

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
        'tlog approver rotate --old-vkey "$OLD" --vkey "$VKEY" --reason yearly --key dpo.key '
        "-o order.json",
        "tlog approver rotate --order order.json",
    ),
)
@vkey_option("The new public key.", variable=None)
@vkey_option("The one that it takes the place of.", name="old-vkey", variable=None)
@draft_options
@server_options
@output_option
async def rotate(
    *,
    vkeys: tuple[VerifierKey, ...],
    old_vkeys: tuple[VerifierKey, ...],
    draft: Draft,
    server: Server,
    out: Output,
) -> None:
    """Give an approver another key. The old one, which may sign the order, ends with it.

    Two approvers order it. tlog records search --type producer.registered shows the keys.
    """
    from tlog.audit.orders import Kind

    if (len(vkeys), len(old_vkeys)) != ((1, 1) if draft.order is None else (0, 0)):
        raise click.UsageError("which keys? Give one --vkey and one --old-vkey, or --order FILE")
    vkey, old_vkey = ("".join(map(str, keys)) for keys in (vkeys, old_vkeys))
    await carry_out(Kind.ROTATE, server, draft, out, vkey=vkey, old_vkey=old_vkey)
