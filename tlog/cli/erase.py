"""`tlog erase`: destroy what is personal about somebody."""

from __future__ import annotations

from dataclasses import asdict

import click

from tlog.cli.options import Verb, output_option
from tlog.cli.ordering import Draft, carry_out, draft_options
from tlog.cli.output import Output
from tlog.cli.records.options import dry_run_purpose_option, need_purpose
from tlog.cli.remote import Server, server_options


@click.command(
    cls=Verb,
    examples=(
        'tlog erase --subject alice@example.com --request R-1 --dry-run --purpose "request R-1"',
        "tlog erase --subject alice@example.com --request R-1 --reason asked --key dpo.key "
        "-o order.json",
        "tlog approve order.json --key ciso.key",
        "tlog erase --order order.json -o receipt.json",
        "tlog erase --subject alice@example.com --request R-1 --reason asked --key dpo.key "
        "--key ciso.key",
    ),
)
@click.option("--subject", default="", help="Whose data: the identifier that records have.")
@click.option("--request", "request_id", default="", help="The request it is done for.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@dry_run_purpose_option
@draft_options
@server_options
@output_option
async def erase(
    *,
    subject: str,
    request_id: str,
    dry_run: bool,
    purpose: str | None,
    draft: Draft,
    server: Server,
    out: Output,
) -> None:
    """Destroy the key of a subject, and with it all that is personal about them in the records.

    Two approvers order it (tlog records add-producer --role approver): the first makes and signs
    the order, the second approves it, and whoever has both signatures submits it. The order stays
    in the record of the erasure, without the subject's name. All proofs go on verifying.

    A legal hold on the subject, on a request of theirs, or on somebody they share a record with,
    refuses it. An order that was carried out gives its receipt again.

    What each system has said that it did for the request (records of the types delete.*) stands in
    the record of the erasure, and in the receipt, as it was then; a dry run with --request tells
    what is said so far, before and after.

    A dry run is a reading, and is recorded as every search is: see tlog records search --help.
    """
    from tlog.audit.orders import Kind

    if dry_run:
        if not subject or draft.order or draft.keys:
            raise click.UsageError("--dry-run needs --subject, and no order")
        await _preview(subject, request_id, need_purpose(purpose), server, out)
        return
    if draft.order is None and not (subject and request_id):
        raise click.UsageError("whom, and why? Give --subject and --request, or --order FILE")
    await carry_out(Kind.ERASE, server, draft, out, subject=subject, request_id=request_id)


async def _preview(
    subject: str, request_id: str, purpose: str, server: Server, out: Output
) -> None:
    from tlog.client.orders import Orders

    async with Orders(server.target, log=server.log) as orders:
        seen = await orders.dry_run(subject, purpose=purpose, request_id=request_id)
    lines = [] if seen.erased_at is None else [f"erased before, by entry {seen.erased_at}"]
    if seen.key_id:
        lines += [
            f"key      {seen.key_id}, and {seen.parts} sealed parts",
            *[f"records  {count:>8}  {name}" for name, count in seen.types.items()],
            *[f"class    {count:>8}  {name}" for name, count in seen.retention_classes.items()],
            f"shared   {seen.shared:>8}  say something of others too, which goes as well",
            *[f"notify   {name}" for name in seen.recipients],
            *[
                f"MERGED   key {key_id} is of the same person, and stays: tlog records show {entry}"
                for key_id, entry in seen.merged.items()
            ],
            f"HELD     by {', '.join(seen.holds)}: it would be refused"
            if seen.holds
            else "held     by nothing",
        ]
    lines = lines or ["nothing is known of this subject"]
    if request_id:
        results = seen.system_results or ["of no system is in the log yet"]
        lines += [f"result   {each}" for each in results]
    out.result("\n".join(lines), **asdict(seen))
