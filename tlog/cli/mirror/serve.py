"""`tlog mirror serve`: follow, take uploads, and serve the copies until told to stop."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.mirror import Mirror


@click.command(
    cls=Verb,
    examples=(
        "tlog mirror serve ./m1",
        "tlog mirror serve ./m2 --http 127.0.0.1:7983",
    ),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--http",
    default="127.0.0.1:6983",
    envvar="TLOG_MIRROR_HTTP",
    metavar="HOST:PORT",
    help="HTTP address. [env: TLOG_MIRROR_HTTP; default: 127.0.0.1:6983]",
)
@output_option
def serve(*, directory: Path, http: str, out: Output) -> None:
    """Serve the mirror in DIR over HTTP (c2sp.org/tlog-mirror), and follow the logs with a URL.

    The list of logs is seen as it changes; mirror.toml, with the limits, is read at the start.
    Ctrl-C or SIGTERM stops gracefully, with code 0; a second signal stops at once. Port 0 takes a
    free port.
    """
    import uvloop

    from tlog.cli.logging import configure_logging

    configure_logging(as_json=out.as_json)
    uvloop.run(_serve(directory, http, out))


async def _serve(directory: Path, http: str, out: Output) -> None:
    from tlog.cli.serving import listening, stop_on_signals, until
    from tlog.mirror import Mirror, following
    from tlog.notes import passphrase_from_environment
    from tlog.remote import open_source
    from tlog.serve import mirror_http_server

    stop = stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        passphrase = passphrase_from_environment()
        mirror = await stack.enter_async_context(Mirror.opened(directory, passphrase=passphrase))
        followers = await stack.enter_async_context(following(mirror, open_source))
        port = await stack.enter_async_context(mirror_http_server(mirror, followers, http))
        _ready(directory, mirror, out, http=f"http://{listening(http, port)}")
        await until(stop)
        out.hint("stopping: finishing what was accepted")


def _ready(directory: Path, mirror: Mirror, out: Output, *, http: str) -> None:
    from tlog.witness import hash_origin

    sizes = {copy.origin: copy.size for copy in mirror.copies()}
    logs = [
        {
            "origin": log.origin,
            "tree_size": sizes.get(log.origin, 0),
            "url": log.url,
            "mirrored_at": f"{http}/{hash_origin(log.origin).hex()}",
        }
        for log in mirror.logs
    ]
    lines = [f"  {log['origin']}  {log['tree_size']} entries  {log['mirrored_at']}" for log in logs]
    out.result(
        "\n".join([f"mirror {mirror.config.name}  in {directory}", f"HTTP   {http}/", *lines]),
        name=mirror.config.name,
        directory=str(directory),
        http=http,
        vkeys=list(map(str, mirror.vkeys)),
        logs=logs,
    )
