"""`tlog audit`: check a whole log, and hold it to its past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, one_line
from tlog.cli.options import Verb, output_option, vkey_option
from tlog.cli.output import Output
from tlog.cli.trust import policy_options

if TYPE_CHECKING:
    from tlog.client import Audit, AuditFile, Verifier
    from tlog.notes import Policy, VerifierKey


@click.command(
    cls=Verb,
    examples=(
        "tlog audit https://log.example/mylog --policy policy",
        'tlog audit 127.0.0.1:6962 --vkey "$VKEY"',
        "tlog audit /backup/mylog --policy policy --state backup.json",
    ),
)
@click.argument("source")
@policy_options
@vkey_option("Verifier key of the log; all that are given must have signed.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that remembers what was audited. [default: one for each SOURCE, in ~/.local/state]",
)
@click.option("--full", is_flag=True, help="Hash all entries, also those that were whole before.")
@output_option
def audit(
    *,
    source: str,
    policy: Policy | None,
    vkeys: tuple[VerifierKey, ...],
    state: Path | None,
    full: bool,
    out: Output,
) -> None:
    """Check a whole log, and hold it to what it has shown before.

    SOURCE is the URL of a log's tiles (c2sp.org/tlog-tiles), the HOST:PORT of a server, or a log's
    directory: a backup, or that of a log that is stopped. Every entry is hashed, every tile built
    again and compared, and the root held against the signed head. A later audit goes on where the
    last one ended, whole or interrupted, and exits with 3 when the log was rolled back or forked.
    """
    import uvloop

    from tlog.cli.sources import place_of
    from tlog.client import AuditFile, default_path

    verifier = _verifier(policy, vkeys)
    kept = AuditFile(state or default_path("audit", place_of(source)))
    uvloop.run(_audit(source, verifier, kept, out, full=full))


async def _audit(
    source: str, verifier: Verifier, state: AuditFile, out: Output, *, full: bool
) -> None:
    from tlog.cli.sources import open_log
    from tlog.client import Auditor, VerificationError

    log = open_log(source)
    try:
        with out.progress(f"auditing {source}") as progress:
            found = await Auditor(log, verifier, state).run(full=full, progress=progress)
    except VerificationError as error:
        from tlog.cli.accuse import keep_evidence

        kept = await keep_evidence(error, log, Path(str(state)))
        raise CommandError(
            f"{source}: NOT WHOLE: {one_line(error)}{kept}", Exit.UNVERIFIED
        ) from None
    finally:
        await log.aclose()
    _tell(source, found, out)


def _tell(source: str, found: Audit, out: Output) -> None:
    head = found.head
    keys = [vkey.label for vkey, _ in head.signed_by]
    new = head.size - found.first
    tiles = "" if found.tiles else "; it serves no tiles to compare"
    out.result(
        f"{source}: whole, {head.size} entries, {new} of them new; signed by {', '.join(keys)}"
        f"{tiles}",
        source=source,
        ok=True,
        origin=head.origin,
        tree_size=head.size,
        root_hash=head.root_hash.hex(),
        hashed=new,
        previous_size=None if found.previous is None else found.previous.size,
        tiles_compared=found.tiles,
        signed_by=keys,
    )


def _verifier(policy: Policy | None, vkeys: tuple[VerifierKey, ...]) -> Verifier:
    from tlog.client import Verifier

    if policy is None and not vkeys:
        raise click.UsageError("a --policy or a --vkey is needed: an audit trusts nobody else")
    return Verifier(policy, vkeys=vkeys)
