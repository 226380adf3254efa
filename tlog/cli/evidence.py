"""`tlog evidence`: records and what proves them, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError
from tlog.cli.files import whole_file
from tlog.cli.options import INDEX, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.records.options import purpose_option
from tlog.cli.remote import Remote, remote_options

if TYPE_CHECKING:
    from tlog.audit.evidence_check import Verdict
    from tlog.client.evidence import CollectedPackage


@click.command(
    cls=Verb,
    examples=(
        'tlog evidence --request R-1 --purpose "complaint 7" -o case.zip',
        'tlog evidence --request R-1 --purpose "complaint 7" --disclose actor --disclose '
        "subject.id --recipient Agency -o case.zip",
        "tlog evidence --subject alice@example.com --disclose all --recipient Alice "
        "--purpose audit -o alice.zip",
        "tlog evidence --entry 7 --entry 9 --purpose audit -o two.zip",
    ),
)
@click.option("--request", "request_id", default="", help="All records of this request.")
@click.option(
    "--subject",
    default="",
    help="All records about this subject; nothing about other subjects is disclosed.",
)
@click.option(
    "--entry", "indices", type=INDEX, metavar="INDEX", multiple=True, help="This one. Repeatable."
)
@click.option(
    "--disclose",
    multiple=True,
    metavar="NAME|all|none",
    help="Show the personal claim of this name (subject.NAME for one about the subject), or all. "
    "Repeatable. [default: none]",
)
@click.option(
    "--recipient",
    default="",
    help="Who will get it, to be told of a later erasure; needed with --disclose. It is public.",
)
@purpose_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@remote_options
@output_option
async def evidence(
    *,
    request_id: str,
    subject: str,
    indices: tuple[int, ...],
    disclose: tuple[str, ...],
    recipient: str,
    purpose: str,
    output: Path,
    force: bool,
    remote: Remote,
    out: Output,
) -> None:
    """Collect evidence: one file that anybody verifies offline, with tlog verify or without tlog.

    In it are the records, with only the claims that you choose to disclose; their proofs, the
    cosigned checkpoint, time-stamps, the history of the keys they are signed with; a page to read,
    and a guide to verify it with other people's tools. What was erased is shown as erased, under
    which request and by which entry.

    The export is recorded, with its purpose and who asked, before anything is given out. The file
    is verified before it is written.
    """
    from tlog.client.evidence import EvidenceCollector

    if not (request_id or subject or indices):
        raise click.UsageError("evidence of what? Give --request, --subject or --entry")
    if subject and indices:
        raise click.UsageError("--subject or --entry, not both")
    _check_free(output, force=force)
    names = [name for name in disclose if name not in ("all", "none")]
    if "none" in disclose and len(set(disclose)) > 1:
        raise click.UsageError("--disclose none, and something else")
    if (names or "all" in disclose) and not recipient:
        raise click.UsageError("who gets it? Give --recipient with --disclose")
    async with remote.client(out) as client:
        with out.progress("collecting") as progress:
            async with EvidenceCollector(remote.server, log=remote.log) as collector:
                collected = await collector.collect(
                    purpose=purpose,
                    request_id=request_id,
                    subject=subject,
                    indices=indices,
                    disclose=names,
                    disclose_all="all" in disclose,
                    recipient=recipient,
                    progress=progress,
                )
        verdict = await client.evidence(collected.package)
    with whole_file(output) as file:
        file.write(collected.package)
    _tell(output, collected, verdict, names, out)


def _check_free(output: Path, *, force: bool) -> None:
    if output.exists() and not force:
        raise CommandError(f"{output} is there already: choose another name, or give --force")


def _tell(
    output: Path, collected: CollectedPackage, verdict: Verdict, names: list[str], out: Output
) -> None:
    from hashlib import sha256

    shown = [
        ("subject." if number else "") + disclosure.name
        for proven in verdict.chosen()
        for number, part in enumerate(proven.record.parts)
        for disclosure in part.shown
    ]
    gone = sum(any(part.gone for part in each.record.parts) for each in verdict.chosen())
    chosen, size = len(verdict.chosen()), verdict.contents.tree_size
    digest = sha256(collected.package).hexdigest()
    out.result(
        f"{output}: {chosen} {'record' if chosen == 1 else 'records'}, {len(shown)} claims "
        f"disclosed, {gone} erased or expired, in the tree of {size}; sha256 {digest}",
        file=str(output),
        bytes=len(collected.package),
        sha256=digest,
        records=chosen,
        disclosed=sorted(set(shown)),
        claims_disclosed=len(shown),
        gone=gone,
        tree_size=size,
        recorded=collected.recorded,
    )
    for name in sorted(set(names) - set(shown)):
        out.hint(f"Nothing called {name} is disclosed: there is none, or it is gone.")
    out.hint(f"Verify it with: tlog verify {output} --policy POLICY")
