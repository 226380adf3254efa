"""`tlog records recover`: the tenant key, back from its shares."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, FILE, Verb, output_option, read_bounded
from tlog.cli.output import Output
from tlog.cli.records.stopped import check_holds_records


@click.command(
    cls=Verb,
    examples=(
        "tlog records recover ./mylog acme-share-1-of-5.txt acme-share-4-of-5.txt from-paper.txt",
        "tlog records recover ./mylog shares/*.txt -o /run/user/1000/tenant.key",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.argument("shares", metavar="SHARE...", nargs=-1, required=True, type=FILE)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the 32 bytes of the key to this new file instead.",
)
@output_option
def recover(*, directory: Path, shares: tuple[Path, ...], output: Path | None, out: Output) -> None:
    """Put the tenant key of the records log in DIR back from shares of its escrow.

    A share is a file of tlog records escrow, or one with its words alone, as from paper. The key is
    written to DIR/keys/tenant.key, which must not be there, and only if it opens the vault in DIR.
    The server must be stopped.

    Of a key that a command of a KMS gives, -o FILE writes the 32 bytes to a file: wrap them anew,
    put what was wrapped to DIR/keys/tenant.key, and destroy FILE. With tenant_key_command taken out
    of DIR/records.toml the key is one in a file from now on. -o is also how to try shares while the
    key is still there.

    Nothing is recorded: whoever has enough shares needs neither tlog nor the log.
    """
    from tlog.audit.escrow import MAX_SHARE_SIZE, Owner, combine_shares, key_check
    from tlog.audit.tenancy import TENANT_KEY, RecordsConfig, check_tenant_key
    from tlog.audit.tenant_key import create_tenant_key
    from tlog.log import LogConfig

    origin = LogConfig.load(directory).origin
    check_holds_records(directory)
    config = RecordsConfig.load(directory)
    if config.tenant_key_command and output is None:
        raise CommandError(
            f"{config.tenant_key_command[0]} gives the tenant key: write it to a file with "
            "-o FILE, and have it wrapped anew"
        )
    target = output or directory / TENANT_KEY
    if target.exists():
        raise CommandError(f"{target} exists: a key is never overwritten. Move it away first")
    texts = {
        # Some editors begin a file with a BOM. What is not text is no word, and refused as that.
        str(share): read_bounded(share, MAX_SHARE_SIZE).decode("utf-8-sig", "replace")
        for share in shares
    }
    key = combine_shares(texts, Owner(config.tenant, origin))
    check_tenant_key(directory, key)
    create_tenant_key(target, key)
    check = key_check(key)
    out.result(
        f"{target} holds the tenant key again, with the check value {check}",
        directory=str(directory),
        path=str(target),
        key_check=check,
    )
    if output is None:
        out.hint(f"Next: tlog serve {directory}")
    else:
        out.hint(f"Destroy {output} when it has served: it opens the vault.")
