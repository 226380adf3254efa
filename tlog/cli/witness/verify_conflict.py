"""`tlog witness verify-conflict`: check evidence, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, one_line, printable
from tlog.cli.options import FILE, Verb, output_option, read_bounded, vkey_option
from tlog.cli.output import Output
from tlog.cli.witness.evidence import described

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=('tlog witness verify-conflict --vkey "$VKEY" split-view.conflict',),
)
@vkey_option("Verifier key of the log, as tlog init printed it.")
@click.option("--origin", help="The log's origin. [default: the name of the key]")
@click.argument("file", type=FILE)
@output_option
def verify_conflict(
    *, vkeys: tuple[VerifierKey, ...], origin: str | None, file: Path, out: Output
) -> None:
    """Verify offline that a log contradicted itself, as FILE ("-": standard input) says.

    Needs nothing but a verifier key of the log: no witness, no network, no trust in who brings the
    file. Exits with 0 when it is proven that the log signed what no honest log signs, and with 3
    when it is not.
    """
    from tlog.witness import MAX_CONFLICT_SIZE, ConflictError
    from tlog.witness import verify_conflict as verify

    if not vkeys:
        raise click.UsageError("a --vkey is needed: without one there is nothing to verify against")
    try:
        conflict = verify(read_bounded(file, MAX_CONFLICT_SIZE), vkeys, origin=origin)
    except ConflictError as error:
        raise CommandError(f"NOT PROVEN: {one_line(error)}", Exit.UNVERIFIED) from None
    out.result(printable(f"proven: {conflict.summary}"), proven=True, **described(conflict))
