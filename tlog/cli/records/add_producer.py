"""`tlog records add-producer`: register who may record."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output
from tlog.cli.records.stopped import producer_key, stopped_records

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=(
        "tlog records add-producer ./mylog shop --key shop.key",
        'tlog records add-producer ./mylog till --vkey "$VKEY"',
        "tlog records add-producer ./mylog hr --key hr.key --role recorder --role registrar",
        "tlog records add-producer ./mylog fair --key fair.key --valid-until 2026-09-30T00:00:00Z",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("name")
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The producer's key file; a new one is made, not sealed, if there is none.",
)
@vkey_option("Its public key instead: Ed25519, with the name NAME.", variable=None)
@click.option(
    "--role",
    "roles",
    multiple=True,
    default=("recorder",),
    show_default=True,
    type=click.Choice(("recorder", "registrar", "approver")),
    help="Records events, registers producers, or approves orders. Repeatable.",
)
@click.option("--valid-from", metavar="TIME", help="When its key begins (RFC 3339). [default: now]")
@click.option("--valid-until", metavar="TIME", help="When its key ends. [default: never]")
@output_option
async def add_producer(
    *,
    directory: Path,
    name: str,
    key: Path | None,
    vkeys: tuple[VerifierKey, ...],
    roles: tuple[str, ...],
    valid_from: str | None,
    valid_until: str | None,
    out: Output,
) -> None:
    """Register the producer NAME with its key, in the records log in DIR. Prints its vkey.

    That is itself a record, which stays in the log. The server must be stopped.

    Approvers are registered so until two have valid keys, and if fewer have them again; else two of
    them order it: see tlog approver register.
    """
    from tlog.audit import Draft
    from tlog.audit.claims import check_producer_name
    from tlog.notes import passphrase_from_environment

    if (key is not None) + len(vkeys) != 1:
        raise click.UsageError("which key? Give --key FILE, or one --vkey")
    check_producer_name("NAME", name)
    passphrase = passphrase_from_environment()
    claims: dict[str, Any] = {"about_producer": name, "roles": list(roles)}
    validity = (("valid_from", valid_from), ("valid_until", valid_until))
    claims |= {name: time for name, time in validity if time is not None}
    async with stopped_records(directory) as records, contextlib.AsyncExitStack() as stack:
        made = stack.enter_context
        vkey = vkeys[0] if key is None else made(producer_key(key, name, passphrase))
        claims["vkey"] = str(vkey)
        index = (await records.record(Draft("producer.registered", claims, {}))).index
    out.result(
        str(vkey),
        directory=str(directory),
        producer=name,
        roles=list(roles),
        vkey=str(vkey),
        index=index,
    )
    out.hint(f"{name} is registered by entry {index}. Next: tlog serve {directory}")
