"""`tlog verify`: check a receipt, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, one_line
from tlog.cli.options import FILE, Verb, output_option, read_bounded, vkey_option
from tlog.cli.output import Output
from tlog.cli.trust import policy_options

if TYPE_CHECKING:
    from tlog.notes import Policy, VerifierKey


@click.command(
    cls=Verb,
    examples=(
        'printf hello | tlog verify --vkey "$VKEY" receipt.tlog-proof -',
        "tlog verify --policy policy receipt.tlog-proof entry",
    ),
)
@vkey_option("Verifier key of the log, as tlog init printed it.")
@policy_options
@click.argument("proof", type=FILE)
@click.argument("entry", metavar="ENTRYFILE", type=FILE)
@output_option
def verify(
    *,
    vkeys: tuple[VerifierKey, ...],
    policy: Policy | None,
    proof: Path,
    entry: Path,
    out: Output,
) -> None:
    """Verify offline that the log holds the bytes of ENTRYFILE where PROOF says.

    Needs nothing but a verifier key or a policy: no server, no network. Every key that is given
    must have signed, and of a policy a log and the quorum. One of the two files may be "-",
    standard input. Every byte of ENTRYFILE counts, a newline at its end too.
    """
    from tlog.client import VerificationError, Verifier
    from tlog.merkle import MAX_ENTRY_SIZE
    from tlog.notes.proof import MAX_PROOF_SIZE

    if not vkeys and policy is None:
        raise click.UsageError(
            "a --vkey or a --policy is needed: without one there is nothing to verify against"
        )
    if str(proof) == str(entry) == "-":
        raise click.UsageError("only one of PROOF and ENTRYFILE can be standard input")
    data = read_bounded(entry, MAX_ENTRY_SIZE)
    receipt = read_bounded(proof, MAX_PROOF_SIZE)
    try:
        verified = Verifier(policy, vkeys=vkeys).proof(receipt, data)
    except VerificationError as error:
        raise CommandError(f"NOT VERIFIED: {one_line(error)}", Exit.UNVERIFIED) from None
    head = verified.head
    keys = [vkey.label for vkey, _ in head.signed_by]
    out.result(
        f"verified: entry {verified.index} of {head.origin}, in the tree of {head.size} signed by "
        f"{', '.join(keys)}",
        verified=True,
        origin=head.origin,
        index=verified.index,
        tree_size=head.size,
        root_hash=head.root_hash.hex(),
        signed_by=keys,
    )
