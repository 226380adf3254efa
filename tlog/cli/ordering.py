"""What the verbs that order something share: how an order is made, signed, shown and submitted."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from tlog.cli.errors import CommandError, printable
from tlog.cli.options import FILE, read_bounded
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.audit.orders import Document, Kind, Order
    from tlog.cli.remote import Server
    from tlog.client.orders import OrderReceipt

F = TypeVar("F", bound=Callable[..., Coroutine[None, None, None]])
KEY = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is said of an order on the command line, whatever it orders."""

    reason: str | None
    keys: tuple[Path, ...]
    order: Path | None
    output: Path | None
    tenant: str
    days: int


def draft_options(verb: F) -> F:
    """What every order needs: given to the verb as one `draft`."""

    @click.option("--reason", help="Why, for the record: it is public, so it names nobody.")
    @click.option(
        "--key",
        "keys",
        multiple=True,
        type=KEY,
        help="Sign with the key of an approver. With one, the order is written; with two, "
        "submitted.",
    )
    @click.option(
        "--order", type=FILE, help="Submit this order, signed by two ('-': standard input)."
    )
    @click.option(
        "-o",
        "--output",
        type=NEW_FILE,
        help="Write the order to this new file, or its receipt once it is submitted.",
    )
    @click.option(
        "--tenant", default="", help="Whose records; the server is asked if this is not given."
    )
    @click.option(
        "--days",
        default=7,
        show_default=True,
        type=click.IntRange(1, 31),
        help="How long the order may be submitted.",
    )
    @functools.wraps(verb)
    def call(
        *,
        reason: str | None,
        keys: tuple[Path, ...],
        order: Path | None,
        output: Path | None,
        tenant: str,
        days: int,
        **others: object,
    ) -> Coroutine[None, None, None]:
        return verb(draft=Draft(reason, keys, order, output, tenant, days), **others)

    return cast("F", call)


async def carry_out(
    kind: Kind,
    server: Server,
    draft: Draft,
    out: Output,
    **about: str,
) -> None:
    """Submit the order that was given; or make one, and submit it if two signed it.

    Args:
        kind: what is ordered.
        server: whose log it is.
        draft: what is said of it on the command line.
        out: where to say what came of it.
        about: what the order says beside that, as `new_order` has it; empty if one was given.
    """
    _check_usage(draft, scoped=any(about.values()))
    if draft.output is not None and draft.output.exists():
        raise CommandError(f"{draft.output} exists: give another --output")
    if draft.order is not None:
        document, order = read_file(draft.order)
        if order.kind is not kind:
            raise CommandError(f"{draft.order} orders another thing: {order.kind}")
    else:
        document = await _made(kind, server, draft, about)
    if len(document.signatures) > 1 or draft.order is not None:
        await _submit(document, server, draft.output, out)
        return
    if draft.output is None:
        raise click.UsageError("where to? Give --output FILE, for the second approver to sign")
    write_private(draft.output, document.encode())
    tell_order(document, draft.output, out)


def _check_usage(draft: Draft, *, scoped: bool) -> None:
    making = bool(scoped or draft.reason or draft.keys)
    if making is (draft.order is not None):
        raise click.UsageError("what to order? Either --order FILE, or what it says, and --key")
    if making and not (draft.reason and draft.keys):
        missing = "--key: an approver signs an order" if draft.reason else "--reason"
        raise click.UsageError(f"an order needs {missing}")


async def _made(kind: Kind, server: Server, draft: Draft, about: Mapping[str, str]) -> Document:
    from tlog.audit import default_catalogue
    from tlog.audit.orders import new_order, read_order
    from tlog.client.orders import Orders
    from tlog.notes import load_signer, passphrase_from_environment

    tenant = draft.tenant
    if not tenant:
        async with Orders(server.target, log=server.log) as orders:
            tenant = await orders.tenant()
    document = new_order(
        kind,
        tenant=tenant,
        reason=draft.reason or "",
        now=datetime.now(UTC),
        lifetime=timedelta(days=draft.days),
        **about,
    )
    read_order(document, default_catalogue())
    for key in draft.keys:
        signer = load_signer(key, passphrase=passphrase_from_environment())
        document = document.approved(signer)
    return document


def read_file(path: Path) -> tuple[Document, Order]:
    """An order in a file, and what it says; its signatures are the server's to verify."""
    from tlog.audit import default_catalogue
    from tlog.audit.orders import MAX_DOCUMENT_SIZE, parse_document, read_order

    document = parse_document(read_bounded(path, MAX_DOCUMENT_SIZE))
    return document, read_order(document, default_catalogue())


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file that its owner alone reads: an order names a subject."""
    new = path.with_name(f".{path.name}.{os.getpid()}") if replace else path
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    if replace:
        new.rename(path)


def describe(document: Document, order: Order) -> str:
    """An order for somebody who is to sign it."""
    from tlog.audit.orders import signers
    from tlog.audit.times import format_time

    says = {
        "order": f"{order.kind}  {order.order_id}",
        "tenant": order.tenant,
        "subject": order.subject,
        "request": order.request_id,
        "hold": order.hold_id,
        "new key": order.vkey,
        "old key": order.old_vkey,
        "reason": order.reason,
        "valid": f"{format_time(order.made_at)} to {format_time(order.expires_at)}",
        "signed by": " and ".join(signers(document)),
    }
    return "\n".join(f"{name:<10} {printable(text)}" for name, text in says.items() if text)


def tell_order(document: Document, path: Path, out: Output) -> None:
    """An order was written to a file: what is to be done with it."""
    from tlog.audit.orders import APPROVALS, signers

    _, order = read_file(path)
    names = signers(document)
    out.result(
        f"{path}  signed by {' and '.join(names)}",
        order=str(path),
        order_id=order.order_id,
        kind=order.kind,
        signed_by=names,
    )
    verb = order.kind.replace(".", " ")
    if len(names) < APPROVALS:
        out.hint(f"Next, by another approver: tlog approve {path} --key KEY")
    else:
        out.hint(f"Next: tlog {verb} --order {path}")


async def _submit(document: Document, server: Server, output: Path | None, out: Output) -> None:
    import json

    from tlog.client.orders import Orders

    async with Orders(server.target, log=server.log) as orders:
        receipt = await orders.submit(document.encode())
    fields = asdict(receipt)
    if output is not None:
        write_private(output, json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    out.result("\n".join(_lines(receipt)), **fields)
    if document.disclosure:
        out.hint("The order names the subject: destroy every copy of it.")


def _lines(receipt: OrderReceipt) -> Sequence[str]:
    if receipt.outcome == "nothing":
        return ["nothing is known of the subject: there was nothing to erase"]
    at = f"entry {receipt.index}, {receipt.recorded_at}"
    by = f"approved by {' and '.join(receipt.approvers)}"
    before = {
        "done before": "carried out before: ",
        "erased before": "by another order, before: ",
    }.get(receipt.outcome, "")
    if receipt.vkey:
        return [f"{before}an approver has the key {receipt.vkey}: {at}, {by}"]
    if receipt.kind != "erase":
        verb = "stands" if receipt.kind == "hold.place" else "is released"
        return [f"{before}hold {receipt.hold_id} {verb}: {at}, {by}"]
    results = receipt.system_results or ["of no system is in the record"]
    return [
        f"{before}erased: {at}, {by}",
        f"key     {receipt.key_id}, and {receipt.parts} sealed parts",
        *[f"notify  {name}" for name in receipt.recipients],
        *[f"result  {each}" for each in results],
        f"copies  of the vault may hold the key until {receipt.complete_by}",
    ]
