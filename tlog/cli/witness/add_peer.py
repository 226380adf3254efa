"""`tlog witness add-peer`: gossip with another witness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option, vkey_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.notes import VerifierKey


@click.command(
    cls=Verb,
    examples=('tlog witness add-peer ./w1 --vkey "$W2KEY" --url grpc://127.0.0.1:7972',),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@vkey_option("One verifier key of the other witness.", variable=None)
@click.option("--url", required=True, help="Where its gRPC face is: grpc://HOST:PORT.")
@output_option
def add_peer(*, directory: Path, vkeys: tuple[VerifierKey, ...], url: str, out: Output) -> None:
    """Gossip with another witness, from the next start on.

    Peers stand in DIR/witness.toml, and are removed there. Who does not name the key as its own is
    not taken for the peer; what a peer brings counts for the log's signatures alone.
    """
    from tlog.remote import check_peer_url
    from tlog.witness import add_peer as add

    if len(vkeys) != 1:
        raise click.UsageError("one --vkey is needed: one of the keys of the other witness")
    check_peer_url(url)
    peer = add(directory, vkeys[0], url)
    out.result(f"{peer.name} is a peer", name=peer.name, vkey=peer.vkey, url=peer.url)
