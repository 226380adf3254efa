"""`tlog log stamps`: the time-stamps of a log, and what they prove."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, one_line
from tlog.cli.options import DIRECTORY, INDEX, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.audit.authorities import StampSettings
    from tlog.audit.stamp_store import StampStore
    from tlog.audit.stamps import Authority
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=(
        "tlog log stamps ./mylog",
        "tlog log stamps ./mylog --entry 4711",
        "tlog log stamps ./mylog --list --json | jq -r 'select(.ok | not).problem'",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--list", "listed", is_flag=True, help="Show every stamp too.")
@click.option("--entry", type=INDEX, metavar="INDEX", help="Bound the time of this entry instead.")
@vkey_option("Verifier key of the log, in place of the keys in DIR.")
@output_option
def stamps(
    *,
    directory: Path,
    listed: bool,
    entry: int | None,
    vkeys: tuple[VerifierKey, ...],
    out: Output,
) -> None:
    """Verify the time-stamps (RFC 3161) over the checkpoints of the log in DIR.

    DIR/timestamps.toml names the authorities and their certificates; those of authorities that it
    named earlier are kept with their stamps. Each stamp is verified with these, and its checkpoint
    with the keys of the log; exits with 3 if one does not verify. The server may run.

    An entry was there when the first stamped checkpoint that includes it was stamped, which is the
    authority's word; and not yet when the last stamped one without it was signed, which is the
    log's own.
    """
    from tlog.audit.authorities import load_settings
    from tlog.audit.stamp_store import StampStore

    settings = load_settings(directory)
    if settings is None:
        raise CommandError(
            f"{directory} has no timestamps.toml: nothing is stamped. Put authorities into it (see "
            "the README), and start the server again"
        )
    keys = vkeys or _own_keys(directory)
    with contextlib.closing(StampStore(directory, create=False)) as store:
        if entry is None:
            _verify(store, settings, keys, out, listed=listed)
        else:
            _bound(store, settings, keys, entry, out)


def _verify(
    store: StampStore,
    settings: StampSettings,
    vkeys: Sequence[VerifierKey],
    out: Output,
    *,
    listed: bool,
) -> None:
    from tlog.audit.stamp_store import not_kept
    from tlog.audit.stamps import StampError, verify_checkpoint_stamp
    from tlog.audit.times import format_time

    asked = {authority.name for authority in settings.authorities}
    authorities = _known(store, settings)
    bad = 0
    for stamp in store.all():
        said, problem = None, ""
        try:
            if (authority := authorities.get(stamp.authority)) is None:
                raise StampError(not_kept([stamp.authority]))
            said, _ = verify_checkpoint_stamp(stamp, authority, vkeys)
        except StampError as error:
            problem = one_line(error)
            bad += 1
        if listed or problem:
            out.result(
                f"size {stamp.size}  {stamp.authority}  "
                + (f"NOT VERIFIED: {problem}" if said is None else format_time(said.not_after)),
                size=stamp.size,
                authority=stamp.authority,
                ok=said is not None,
                problem=problem,
                time=said and format_time(said.time),
                accuracy=said and said.accuracy and said.accuracy.total_seconds(),
                not_after=said and format_time(said.not_after),
            )
    for name in authorities:
        tally = store.tally(name)
        since = (
            None if tally.since is None else format_time(datetime.fromtimestamp(tally.since, UTC))
        )
        waiting = f", {tally.waiting} waiting since {since}" if since else ""
        if name not in asked:
            waiting = ", asked no more"
        out.result(
            f"{name}  {tally.stamped} checkpoints stamped, the last of size {tally.size}{waiting}",
            authority=name,
            asked=name in asked,
            stamped=tally.stamped,
            stamped_size=tally.size,
            waiting=tally.waiting,
            waiting_since=since,
        )
    if bad:
        raise CommandError(f"{bad} stamps do not verify: see above", Exit.UNVERIFIED)


def _bound(
    store: StampStore,
    settings: StampSettings,
    vkeys: Sequence[VerifierKey],
    index: int,
    out: Output,
) -> None:
    from tlog.audit.stamps import StampError, entry_time
    from tlog.audit.times import format_time

    found = 0
    for authority in filter(None, _known(store, settings).values()):
        including = store.including(index, authority.name)
        if including is None:
            continue
        try:
            bound = entry_time(
                index, including, store.excluding(index, authority.name), authority, vkeys
            )
        except StampError as error:
            raise CommandError(str(error), Exit.UNVERIFIED) from None
        found += 1
        before = bound.not_before and format_time(bound.not_before)
        out.result(
            f"entry {index}  by {format_time(bound.not_after)}, says {authority.name} of size "
            f"{bound.including}"
            + (f"; after {before}, says the log of size {bound.excluding}" if before else ""),
            entry=index,
            authority=authority.name,
            not_after=format_time(bound.not_after),
            including=bound.including,
            not_before=before,
            excluding=bound.excluding,
        )
    if not found:
        raise CommandError(
            f"no stamped checkpoint includes entry {index} yet: see what waits with tlog log stamps"
        )


def _known(store: StampStore, settings: StampSettings) -> Mapping[str, Authority | None]:
    """Whose stamps there are or will be; None for one whose certificates are not there."""
    asked = settings.authorities
    return {**{each.name: each for each in asked}, **store.earlier(asked)}


def _own_keys(directory: Path) -> list[VerifierKey]:
    from tlog.log import LogConfig, load_signers
    from tlog.notes import passphrase_from_environment

    config = LogConfig.load(directory)
    signers = load_signers(directory, config, passphrase=passphrase_from_environment())
    return [signer.vkey for signer in signers]
