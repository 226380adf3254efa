"""`tlog records init`: make a log a records log."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(
    cls=Verb,
    examples=("tlog records init ./mylog --tenant acme",),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--tenant",
    required=True,
    help="Whose records they are: a short name, which stands in every event for ever.",
)
@output_option
def init(*, directory: Path, tenant: str, out: Output) -> None:
    """Make the log in DIR, which has no entries yet, a records log.

    Prints the verifier key of the records that the log makes itself. From now on the log takes
    signed events of registered producers, and nothing else.

    Personal data will lie in DIR/vault, under DIR/keys/tenant.key. Whoever has both can read it;
    without that key nobody can: keep a copy of it, and apart from copies of the vault.
    """
    from pydantic import ValidationError

    from tlog.audit.tenancy import TENANT_KEY, RecordsConfig, create_records
    from tlog.notes import passphrase_from_environment

    try:
        config = RecordsConfig(tenant=tenant)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--tenant {tenant!r}: {reason}") from None
    vkey = create_records(directory, config, passphrase=passphrase_from_environment())
    out.result(str(vkey), directory=str(directory), tenant=tenant, vkey=str(vkey))
    out.hint(f"Keep a copy of {directory / TENANT_KEY}, apart from copies of the vault.")
    out.hint(f"Next: tlog records add-producer {directory} NAME --key NAME.key")
