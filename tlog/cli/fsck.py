"""`tlog fsck`: re-hash whole logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, one_line
from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=("tlog fsck ./mylog",),
)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=DIRECTORY)
@vkey_option("Verifier key of the log, in place of the keys in DIR.")
@output_option
def fsck(*, directories: tuple[Path, ...], vkeys: tuple[VerifierKey, ...], out: Output) -> None:
    """Re-hash every entry of the logs in DIR..., and hold them against their signed heads.

    Names the first bad tile, bundle or entry, and exits with 3. The server must be stopped: a log
    that is being written is refused.
    """
    damaged = 0
    for directory in directories:
        damaged += _check(directory, vkeys, out)
    if damaged:
        raise CommandError(
            f"{damaged} of {len(directories)} logs damaged: do not serve them; restore a copy",
            Exit.UNVERIFIED,
        )


def _check(directory: Path, vkeys: Sequence[VerifierKey], out: Output) -> bool:
    """Check one log; True when it is damaged."""
    from tlog.log import LogConfig, load_signers
    from tlog.log.fsck import fsck as check
    from tlog.notes import passphrase_from_environment
    from tlog.store import RocksStore, StoreCorrupt

    config = LogConfig.load(directory)
    if not vkeys:
        signers = load_signers(directory, config, passphrase=passphrase_from_environment())
        vkeys = [signer.vkey for signer in signers]
    problems: Sequence[str]
    size, root = None, None
    try:
        store = RocksStore.open(directory)
    except StoreCorrupt as error:
        problems = [one_line(error)]
    else:
        try:
            with out.progress(f"checking {directory}", store.tree_size()) as progress:
                report = check(store, vkeys, progress=progress)
        finally:
            store.close()
        size, root, problems = report.size, report.root_hash, report.problems
    verdict = f"DAMAGED: {problems[0]}" if problems else f"whole, {size} entries"
    more = f" (and {len(problems) - 1} more, see --json)" if len(problems) > 1 else ""
    out.result(
        f"{directory}: {verdict}{more}",
        directory=str(directory),
        origin=config.origin,
        ok=not problems,
        tree_size=size,
        root_hash=root.hex() if root else None,
        problems=list(problems),
    )
    return bool(problems)
