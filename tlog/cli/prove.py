"""`tlog prove`: get a receipt."""

from __future__ import annotations

from pathlib import Path

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import FILE, INDEX, Verb, output_option, read_bounded
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options


@click.command(
    cls=Verb,
    examples=(
        "tlog prove 41 -o receipt.tlog-proof",
        "tlog prove --entry contract.pdf -o contract.tlog-proof",
    ),
)
@click.argument("index", type=INDEX, required=False)
@click.option("--hash", "leaf_hash", metavar="HEX", help="The entry of this RFC 6962 leaf hash.")
@click.option("--entry", type=FILE, help="The entry of exactly these bytes.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the proof to a file, not to standard output.",
)
@remote_options
@output_option
async def prove(
    *,
    index: int | None,
    leaf_hash: str | None,
    entry: Path | None,
    output: Path | None,
    remote: Remote,
    out: Output,
) -> None:
    """Get the proof that an entry is in the log: one that verifies offline, for ever.

    Name the entry by its INDEX, or by its bytes or leaf hash (then the first such entry is proven).
    The proof is verified before it is given out, and has the format c2sp.org/tlog-proof.
    """
    if [index, leaf_hash, entry].count(None) != 2:
        raise click.UsageError("name the entry by one of INDEX, --hash and --entry")
    wanted = _wanted_hash(leaf_hash, entry)
    async with remote.client(out) as client:
        inclusion = await client.inclusion_proof(index=index, leaf_hash=wanted)
    if inclusion.proof is None:
        raise CommandError("the log moved on while it was asked: ask again")
    proof = inclusion.proof.encode()
    fields = {"index": inclusion.index, "tree_size": inclusion.tree_size}
    if output is None:
        out.raw(proof, **fields, proof=proof.decode())
    else:
        with click.open_file(str(output), "wb") as file:
            file.write(proof)
        out.result(
            f"entry {inclusion.index} in the tree of {inclusion.tree_size}: {output}",
            **fields,
            file=str(output),
        )


def _wanted_hash(leaf_hash: str | None, entry: Path | None) -> bytes | None:
    from tlog.merkle import HASH_SIZE, MAX_ENTRY_SIZE
    from tlog.merkle import leaf_hash as hash_of

    if entry is not None:
        return hash_of(read_bounded(entry, MAX_ENTRY_SIZE))
    if leaf_hash is None:
        return None
    try:
        wanted = bytes.fromhex(leaf_hash)
    except ValueError:
        wanted = b""
    if len(wanted) != HASH_SIZE:
        raise click.UsageError(f"--hash needs {2 * HASH_SIZE} hexadecimal digits")
    return wanted
