"""`tlog witness submit`: bring a head that was seen elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.errors import CommandError, Exit
from tlog.cli.options import DIRECTORY, FILE, Verb, output_option, read_bounded
from tlog.cli.output import Output
from tlog.cli.witness.evidence import save_conflict, tell_conflict
from tlog.cli.witness.options import asking, witness_option


@click.command(
    cls=Verb,
    examples=(
        "tlog checkpoint | tlog witness submit -",
        "tlog witness submit head.txt --witness 127.0.0.1:6972 --output evidence/",
    ),
)
@click.argument("file", metavar="CHECKPOINT", type=FILE)
@witness_option
@click.option("--output", type=DIRECTORY, help="Write evidence into this directory, a file each.")
@output_option
async def submit(*, file: Path, address: str, output: Path | None, out: Output) -> None:
    """Bring a signed head that you were shown, in CHECKPOINT ("-": standard input), to a witness.

    The witness compares it with the heads that it and its peers have seen. It says "known", "new"
    when it is the first of its log, or "claimed" when the log is asked for a proof: see status
    later. If the log is in conflict, the evidence is told, and the exit code is 3.
    """
    from tlog.notes import MAX_NOTE_SIZE
    from tlog.v1 import witness_pb2 as pb

    note = read_bounded(file, MAX_NOTE_SIZE)
    async with asking(address) as client:
        told = await client.submit(note)
    verdict = pb.HeadVerdict.Name(told.verdict).removeprefix("HEAD_VERDICT_").lower()
    out.result(verdict, verdict=verdict)
    for data in told.conflicts:
        tell_conflict(data, save_conflict(data, output) if output else None, out)
    if told.verdict == pb.HEAD_VERDICT_CONFLICT:
        raise CommandError(
            "the log is in conflict: it signed heads that contradict each other. Verify the "
            "evidence with: tlog witness verify-conflict FILE --vkey VKEY",
            Exit.UNVERIFIED,
        )
