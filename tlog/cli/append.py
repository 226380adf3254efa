"""`tlog append`: put entries into a log."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tlog.cli.options import FILE, Verb, output_option, read_bounded
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options


@click.command(
    cls=Verb,
    examples=(
        'tlog append "door 3 opened"',
        "tlog append --lines audit.log",
        "tail -F audit.log | tlog append --lines -",
        "tlog append --file contract.pdf --proof contract.tlog-proof",
    ),
)
@click.argument("words", metavar="[TEXT]", nargs=-1, type=click.UNPROCESSED)  # an entry is bytes
@click.option("--lines", type=FILE, help="Append each line of a file ('-': standard input).")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=FILE,
    help="Append a whole file as one entry. More files may follow: --file *.pdf",
)
@click.option(
    "--wait",
    type=click.Choice(["durable", "published"]),
    default="durable",
    show_default=True,
    help="Answer when the entries are on disk, or when a checkpoint includes them.",
)
@click.option(
    "--proof",
    type=click.Path(path_type=Path),
    help="Write the proof to this file; several entries need a directory, and each gets "
    "INDEX.tlog-proof in it. Implies --wait published.",
)
@remote_options
@output_option
async def append(
    *,
    words: tuple[str, ...],
    lines: Path | None,
    files: tuple[Path, ...],
    wait: str,
    proof: Path | None,
    remote: Remote,
    out: Output,
) -> None:
    """Append entries: TEXT, each line of a file, or whole files.

    Prints the index of the entry, or the indices of the first and the last one as FIRST..LAST. An
    entry that has an index is on disk. Ctrl-C waits for what was sent, and tells how far it came.
    """
    from tlog.cli.appending import append_files, append_lines, append_one
    from tlog.merkle import MAX_ENTRY_SIZE

    if files:
        files, words = (*files, *map(Path, words)), ()
    if [bool(words), lines is not None, bool(files)].count(True) != 1:
        raise click.UsageError("what to append? One of TEXT, --lines FILE and --file FILE")
    if len(words) > 1:
        raise click.UsageError(f"{len(words)} texts: put the entry in quotes")
    published = wait == "published" or proof is not None
    async with remote.client(out) as client:
        if lines is not None:
            await append_lines(client, lines, published=published, proofs=proof, out=out)
        elif len(files) > 1:
            await append_files(client, files, published=published, proofs=proof, out=out)
        else:
            entry = os.fsencode(words[0]) if words else read_bounded(files[0], MAX_ENTRY_SIZE)
            await append_one(client, entry, published=published, proof=proof, out=out)
