"""`tlog witness status`: how a witness does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import printable
from tlog.cli.options import Verb, output_option
from tlog.cli.output import Output
from tlog.cli.witness.options import asking, witness_option

if TYPE_CHECKING:
    from tlog.v1 import witness_pb2 as pb


@click.command(
    cls=Verb,
    examples=("tlog witness status", "tlog witness status --json | jq -r .logs[].origin"),
)
@witness_option
@output_option
async def status(*, address: str, out: Output) -> None:
    """Tell how a running witness does: its logs, its peers, and heads that are not proven."""
    async with asking(address) as client:
        told = await client.status()
    out.result(
        "\n".join(map(printable, _lines(told))),
        name=told.name,
        problem=told.problem,
        logs=[
            {
                "origin": log.origin,
                "tree_size": log.tree_size if log.HasField("tree_size") else None,
                "frozen": log.frozen,
                "url": log.url,
            }
            for log in told.logs
        ],
        peers=[{"name": peer.name, "problem": peer.problem} for peer in told.peers],
        unproven=[
            {
                "origin": head.origin,
                "tree_size": head.tree_size,
                "latest_size": head.latest_size,
                "attempts": head.attempts,
                "reason": head.reason,
            }
            for head in told.unproven
        ],
    )


def _lines(told: pb.GetWitnessStatusResponse) -> Iterator[str]:
    yield f"witness   {told.name}  {told.problem or 'ready'}"
    for log in told.logs:
        size = f"cosigned at {log.tree_size}" if log.HasField("tree_size") else "never cosigned"
        frozen = f"  FROZEN: {log.frozen}" if log.frozen else ""
        yield f"log       {log.origin}  {size}{frozen}"
    for peer in told.peers:
        yield f"peer      {peer.name}  {peer.problem or 'answers'}"
    for head in told.unproven:
        yield (
            f"unproven  {head.origin}  size {head.tree_size} with {head.latest_size}, asked "
            f"{head.attempts} times: {head.reason}"
        )
