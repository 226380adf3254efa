"""`tlog records add-producer`: register who may record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.audit import Draft
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=(
        "tlog records add-producer ./mylog shop --key shop.key",
        'tlog records add-producer ./mylog till --vkey "$VKEY"',
        "tlog records add-producer ./mylog hr --key hr.key --role recorder --role registrar",
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
@output_option
async def add_producer(
    *,
    directory: Path,
    name: str,
    key: Path | None,
    vkeys: tuple[VerifierKey, ...],
    roles: tuple[str, ...],
    out: Output,
) -> None:
    """Register the producer NAME with its key, in the records log in DIR. Prints its vkey.

    That is itself a record, which stays in the log. The server must be stopped.
    """
    from tlog.audit import Draft
    from tlog.audit.claims import check_producer_name
    from tlog.notes import passphrase_from_environment

    if (key is not None) + len(vkeys) != 1:
        raise click.UsageError("which key? Give --key FILE, or one --vkey")
    check_producer_name("NAME", name)
    passphrase = passphrase_from_environment()
    vkey = vkeys[0] if key is None else _key(key, name, passphrase)
    claims = {"about_producer": name, "vkey": str(vkey), "roles": list(roles)}
    index = await _record(directory, Draft("producer.registered", claims, {}), passphrase)
    out.result(
        str(vkey),
        directory=str(directory),
        producer=name,
        roles=list(roles),
        vkey=str(vkey),
        index=index,
    )
    out.hint(f"{name} is registered by entry {index}. Next: tlog serve {directory}")


def _key(path: Path, name: str, passphrase: bytes | None) -> VerifierKey:
    """The key in a file, which is made if need be: so that this may be run again."""
    from tlog.notes import Algorithm, Signer, load_signer, save_signer

    if path.exists():
        return load_signer(path, passphrase=passphrase).vkey
    signer = Signer.generate(name, Algorithm.ED25519)
    # Not under the passphrase, which is the log's and none of the application's business.
    save_signer(path, signer, passphrase=None)
    return signer.vkey


async def _record(directory: Path, draft: Draft, passphrase: bytes | None) -> int:
    from tlog.audit.tenancy import holds_records, recording
    from tlog.log import Log
    from tlog.remote import connections

    if not holds_records(directory):
        raise CommandError(
            f"{directory} is not a records log. Make it one with: tlog records init {directory}"
        )
    async with (
        connections() as connect,
        Log.opened(directory, passphrase=passphrase, connect=connect) as log,
        recording(directory, log, passphrase=passphrase) as records,
    ):
        return (await records.record(draft)).index
