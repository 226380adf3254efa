"""`tlog witness serve`: cosign and gossip until told to stop."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.witness import Node


@click.command(
    cls=Verb,
    examples=(
        "tlog witness serve ./w1",
        "tlog witness serve ./w2 --grpc 127.0.0.1:7972 --http 127.0.0.1:7973",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--grpc",
    default="127.0.0.1:6972",
    envvar="TLOG_WITNESS_GRPC",
    metavar="HOST:PORT",
    help="gRPC address. [env: TLOG_WITNESS_GRPC; default: 127.0.0.1:6972]",
)
@click.option(
    "--http",
    default="127.0.0.1:6973",
    envvar="TLOG_WITNESS_HTTP",
    metavar="HOST:PORT",
    help="HTTP address. [env: TLOG_WITNESS_HTTP; default: 127.0.0.1:6973]",
)
@output_option
def serve(*, directory: Path, grpc: str, http: str, out: Output) -> None:
    """Serve the witness in DIR over gRPC and HTTP (c2sp.org/tlog-witness), and gossip.

    The logs that it trusts, and what freezes them, are seen as they change; witness.toml, with the
    limits and the peers, is read at the start. Ctrl-C or SIGTERM stops gracefully, with code 0; a
    second signal stops at once. Port 0 takes a free port.
    """
    import uvloop

    from tlog.cli.logging import configure_logging

    configure_logging(as_json=out.as_json)
    uvloop.run(_serve(directory, grpc, http, out))


async def _serve(directory: Path, grpc: str, http: str, out: Output) -> None:
    from tlog.cli.serving import listening, stop_on_signals, until
    from tlog.notes import passphrase_from_environment
    from tlog.remote import gossip_connections
    from tlog.serve import witness_grpc_server, witness_http_server
    from tlog.witness import Node

    stop = stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        outward = await stack.enter_async_context(gossip_connections())
        passphrase = passphrase_from_environment()
        node = await stack.enter_async_context(
            Node.opened(directory, outward, passphrase=passphrase)
        )
        grpc_port = await stack.enter_async_context(witness_grpc_server(node, grpc))
        http_port = await stack.enter_async_context(witness_http_server(node, http))
        _ready(
            directory,
            node,
            out,
            grpc=listening(grpc, grpc_port),
            http=f"http://{listening(http, http_port)}",
        )
        await until(stop)
        out.hint("stopping: finishing what was accepted")


def _ready(directory: Path, node: Node, out: Output, *, grpc: str, http: str) -> None:
    name, logs, peers = node.witness.config.name, len(node.witness.logs), node.gossip.peers
    out.result(
        f"witness {name}  logs: {logs}  peers: {len(peers)}  in {directory}\n"
        f"gRPC    {grpc}\nHTTP    {http}/",
        name=name,
        directory=str(directory),
        grpc=grpc,
        http=http,
        vkeys=list(map(str, node.witness.vkeys)),
        logs=logs,
        peers=peers,
    )
