"""`tlog records init`: make a log a records log."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output


@click.command(
    cls=Verb,
    examples=(
        "tlog records init ./mylog --tenant acme",
        'tlog records init ./mylog --tenant acme --tenant-key-command "./kms unwrap" '
        "--wrapped-key wrapped.key",
        'tlog records init ./mylog --tenant acme --tenant-key-command "./secrets get tlog/acme"',
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--tenant",
    required=True,
    help="Whose records they are: a short name, which stands in every event for ever.",
)
@click.option(
    "--tenant-key-command",
    "command",
    metavar="CMD",
    help="The tenant key comes from this program and its arguments: no shell, and 20 seconds.",
)
@click.option(
    "--wrapped-key",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="What CMD unwraps: the tenant key, as a KMS wrapped it.",
)
@output_option
def init(
    *, directory: Path, tenant: str, command: str | None, wrapped_key: Path | None, out: Output
) -> None:
    """Make the log in DIR, which has no entries yet, a records log.

    Prints the verifier key of the records that the log makes itself. From now on the log takes
    signed events of registered producers, and nothing else.

    Personal data will lie in DIR/vault, under the tenant key in DIR/keys/tenant.key. Whoever has
    both can read it; without that key nobody can: split it among several people with tlog records
    escrow, or keep a copy of it, and apart from copies of the vault.

    With --tenant-key-command the tenant key is never written to a disk here: have your KMS make 32
    random bytes and wrap them, and give what it wrapped as --wrapped-key. At each start CMD gets
    that on its standard input, and writes the 32 bytes, and nothing else, to its standard output.
    Without --wrapped-key it gets nothing, and knows by itself which key is meant. CMD becomes
    tenant_key_command in DIR/records.toml.
    """
    from pydantic import ValidationError

    from tlog.audit.tenancy import TENANT_KEY, RecordsConfig, create_records
    from tlog.audit.tenant_key import MAX_WRAPPED_SIZE
    from tlog.notes import passphrase_from_environment

    if wrapped_key is not None and command is None:
        raise click.UsageError("--wrapped-key is of no use without the --tenant-key-command for it")
    try:
        config = RecordsConfig(
            tenant=tenant, tenant_key_command=() if command is None else _program(command)
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--tenant {tenant!r}: {reason}") from None
    wrapped = b""
    if wrapped_key is not None:
        with wrapped_key.open("rb") as file:
            wrapped = file.read(MAX_WRAPPED_SIZE + 1)
    passphrase = passphrase_from_environment()
    vkey = create_records(directory, config, passphrase=passphrase, wrapped=wrapped)
    out.result(str(vkey), directory=str(directory), tenant=tenant, vkey=str(vkey))
    if command is None or wrapped:
        out.hint(f"Keep a copy of {directory / TENANT_KEY}, apart from copies of the vault.")
    if command is not None:
        out.hint("The tenant key is nowhere on this disk: without its command, nothing is read.")
    out.hint(f"Against the loss of the tenant key: tlog records escrow {directory} -o SHARES_DIR")
    out.hint(f"Next: tlog records add-producer {directory} NAME --key NAME.key")


def _program(command: str) -> tuple[str, ...]:
    """A program and its arguments; a path to it is made absolute, as servers start anywhere."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--tenant-key-command: {error}") from None
    if not words or not all(word.isprintable() for word in words):
        raise click.UsageError("--tenant-key-command: a program and its arguments, on one line")
    if "/" in words[0]:
        words[0] = str(Path(words[0]).absolute())
    return tuple(words)
