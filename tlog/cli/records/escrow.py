"""`tlog records escrow`: shares of the tenant key, for several people to keep."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.stopped import check_holds_records, stopped_records

if TYPE_CHECKING:
    from tlog.audit.escrow import Owner


@click.command(
    cls=Verb,
    examples=(
        "tlog records escrow ./mylog --shares 5 --threshold 3 -o ./shares",
        "tlog records escrow ./mylog --shares 2 --threshold 2 -o /run/user/1000/shares",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--shares",
    default=5,
    show_default=True,
    type=click.IntRange(2, 16),
    help="How many shares are made.",
)
@click.option(
    "--threshold",
    default=3,
    show_default=True,
    type=click.IntRange(2, 16),
    help="How many of them give the key back; fewer say nothing of it.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=DIRECTORY,
    help="A new directory for the shares, outside of DIR; best on no disk that stays.",
)
@output_option
async def escrow(
    *, directory: Path, shares: int, threshold: int, output: Path, out: Output
) -> None:
    """Split the tenant key of the records log in DIR into shares, a file each.

    Without that key all that is personal is lost for ever, as if everybody were erased. Give each
    share to somebody else, none to where copies of the vault are, and remove the directory of the
    shares: together they are the key. tlog records recover puts the key back from as many as
    --threshold says.

    A share is a text that tells whoever finds it what to do. Its words are a share after SLIP-39,
    without a passphrase, which other programs combine, too. The shares are tried before this ends.

    It works the same with a key that a command of a KMS gives. It is recorded in the log, with the
    two numbers and a check value that tells the key from others. That does not take back the shares
    of before, which stay good: have them destroyed, if they are not to be. The server must be
    stopped.
    """
    from tlog.audit import Draft
    from tlog.audit.escrow import key_check, split_key

    key, owner = _tenant_key(directory)
    today = datetime.now(UTC).date()
    texts = split_key(key, owner, shares=shares, threshold=threshold, made=today)
    claims = {
        "key_check": key_check(key),
        "escrow_shares": shares,
        "escrow_threshold": threshold,
    }
    with _new_directory(output, outside=directory):
        async with stopped_records(directory) as records:
            # First the record: there are no shares that the log does not know of.
            index = (await records.record(Draft("log.tenant_key_escrowed", claims, {}))).index
        files = _write(output, owner, texts, key)
    out.result(
        f"{shares} shares are in {output}: any {threshold} of them give the tenant key back",
        directory=str(directory),
        shares=[str(file) for file in files],
        threshold=threshold,
        key_check=key_check(key),
        index=index,
    )
    out.hint(f"Entry {index} records it, with the check value {key_check(key)}.")
    out.hint(f"Give each to somebody else, apart from copies of the vault, and remove {output}.")


def _tenant_key(directory: Path) -> tuple[bytes, Owner]:
    """The tenant key, which opens the vault, and whose it is."""
    from tlog.audit.escrow import Owner
    from tlog.audit.tenancy import TENANT_KEY, RecordsConfig, check_tenant_key
    from tlog.audit.tenant_key import load_tenant_key
    from tlog.log import LogConfig

    origin = LogConfig.load(directory).origin
    check_holds_records(directory)
    config = RecordsConfig.load(directory)
    key = load_tenant_key(directory / TENANT_KEY, command=config.tenant_key_command)
    check_tenant_key(directory, key)
    return key, Owner(config.tenant, origin)


@contextlib.contextmanager
def _new_directory(path: Path, *, outside: Path) -> Iterator[None]:
    """Make a private directory, which goes again if what is done inside fails."""
    if outside.resolve() in path.resolve().parents:
        raise CommandError(f"{path} is in {outside}: a copy of that would hold vault and key")
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise CommandError(f"{path} exists: shares go into a directory of their own") from None
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _write(directory: Path, owner: Owner, texts: Sequence[str], key: bytes) -> list[Path]:
    """Write the shares, and try what was written."""
    from tlog.audit.escrow import check_shares
    from tlog.audit.tenant_key import write_private

    files = [
        directory / f"{owner.tenant}-share-{number}-of-{len(texts)}.txt"
        for number in range(1, len(texts) + 1)
    ]
    for file, text in zip(files, texts, strict=True):
        write_private(file, text.encode(), what="share")
    written = {str(file): file.read_text(encoding="utf-8") for file in files}
    check_shares(written, owner, key)
    return files
