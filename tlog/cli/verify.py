"""`tlog verify`: check a receipt, or an evidence package, offline."""

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
        "tlog verify --policy policy case.zip",
        'tlog verify --policy policy --service-key "$KEY" --tsa-root tsa-root.pem case.zip',
    ),
)
@vkey_option("Verifier key of the log, as tlog init printed it.")
@policy_options
@vkey_option(
    "Of an evidence package: the first key of the log's own records, which tlog records init "
    "printed. The keys of all producers lead back to it.",
    name="service-key",
    variable="TLOG_SERVICE_KEY",
)
@click.option(
    "--tsa-root",
    "tsa_roots",
    type=FILE,
    multiple=True,
    help="Of an evidence package: a certificate (PEM) of a time-stamp authority that you trust. "
    "Repeatable.",
)
@click.argument("proof", metavar="PROOF|PACKAGE", type=FILE)
@click.argument("entry", metavar="[ENTRYFILE]", type=FILE, required=False)
@output_option
def verify(
    *,
    vkeys: tuple[VerifierKey, ...],
    policy: Policy | None,
    service_keys: tuple[VerifierKey, ...],
    tsa_roots: tuple[Path, ...],
    proof: Path,
    entry: Path | None,
    out: Output,
) -> None:
    """Verify offline that the log holds the bytes of ENTRYFILE where PROOF says.

    Or verify an evidence PACKAGE, which tlog evidence has made, and say of each of its records what
    is proven and what is not.

    Needs nothing but a verifier key or a policy: no server, no network. Every key that is given
    must have signed, and of a policy a log and the quorum. Nothing in a package is trusted. One of
    the two files may be "-", standard input. Every byte of ENTRYFILE counts, a newline at its end
    too.
    """
    from tlog.client import VerificationError, Verifier
    from tlog.merkle import MAX_ENTRY_SIZE
    from tlog.notes.proof import MAX_PROOF_SIZE

    if not vkeys and policy is None:
        raise click.UsageError(
            "a --vkey or a --policy is needed: without one there is nothing to verify against"
        )
    if entry is None:
        from tlog.cli.verdict import verify_package

        verify_package(
            proof,
            Verifier(policy, vkeys=vkeys),
            service_keys=service_keys,
            roots=tsa_roots,
            out=out,
        )
        return
    if service_keys or tsa_roots:
        raise click.UsageError("--service-key and --tsa-root are for an evidence package")
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
