"""`tlog serve`: serve logs until told to stop."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError, Exit, exit_code
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlog.audit.records import Records
    from tlog.audit.stamper import Stamper
    from tlog.cli.settings import ServerSettings
    from tlog.log import Connect, Log


@click.command(
    cls=Verb,
    examples=(
        "tlog serve ./mylog",
        "tlog serve ./logs/* --grpc 127.0.0.1:7000 --http 127.0.0.1:7001",
    ),
)
@click.argument("directories", metavar="DIR...", nargs=-1, type=DIRECTORY)
@click.option("--grpc", metavar="HOST:PORT", help="gRPC address. [default: 127.0.0.1:6962]")
@click.option("--http", metavar="HOST:PORT", help="HTTP address. [default: 127.0.0.1:6963]")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with grpc, http and logs; TLOG_GRPC, TLOG_HTTP and TLOG_LOGS win over it.",
)
@output_option
def serve(
    *,
    directories: tuple[Path, ...],
    grpc: str | None,
    http: str | None,
    config: Path | None,
    out: Output,
) -> None:
    """Serve the logs in DIR... over gRPC and HTTP, all of them or none.

    A log with a file DIR/policy (see tlog init --policy) asks its witnesses to cosign, and
    publishes what a quorum has cosigned. While the quorum is away, appends stay durable. One with a
    file DIR/timestamps.toml has its checkpoints stamped by the authorities in it (see tlog log
    stamps), and never waits for them. A records log (see tlog records) takes signed events only.

    Ctrl-C or SIGTERM stops gracefully: what was accepted is finished and published, and the exit
    code is 0. A second signal stops at once. Port 0 takes a free port.
    """
    from tlog.cli.settings import load_settings

    settings = load_settings(config, grpc=grpc, http=http, logs=directories)
    if not settings.logs:
        raise click.UsageError("nothing to serve: name the directory of a log")
    import uvloop

    from tlog.cli.logging import configure_logging

    configure_logging(as_json=out.as_json)
    uvloop.run(_serve(settings, out))


async def _serve(settings: ServerSettings, out: Output) -> None:
    from tlog.audit.stamper import stamping
    from tlog.cli.serving import listening, stop_on_signals, until
    from tlog.remote import connections, time_stampers
    from tlog.serve import Logs, grpc_server, http_server

    stop = stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        connect = await stack.enter_async_context(connections())
        opened = [await _open(stack, directory, connect) for directory in settings.logs]
        logs = Logs(opened)
        records = await _open_records(stack, settings.logs, opened)
        stampers: dict[str, Stamper] = {}
        ways = await stack.enter_async_context(time_stampers())
        for directory, log in zip(settings.logs, opened, strict=True):
            stamper = await stack.enter_async_context(stamping(directory, log, ways))
            if stamper is not None:
                stampers[log.name] = stamper
        grpc_port = await stack.enter_async_context(
            grpc_server(logs, settings.grpc, records=records, stampers=stampers)
        )
        http_port = await stack.enter_async_context(
            http_server(
                logs,
                settings.http,
                stamps={name: stamper.status for name, stamper in stampers.items()},
                records=records,
            )
        )
        _ready(
            settings.logs,
            opened,
            records,
            out,
            grpc=listening(settings.grpc, grpc_port),
            http=listening(settings.http, http_port),
        )
        await until(stop)
        out.hint("stopping: finishing what was accepted")


async def _open(stack: contextlib.AsyncExitStack, directory: Path, connect: Connect) -> Log:
    from tlog.log import Log, LogError
    from tlog.notes import passphrase_from_environment

    passphrase = passphrase_from_environment()
    try:
        return await stack.enter_async_context(
            Log.opened(directory, passphrase=passphrase, connect=connect)
        )
    except LogError as error:
        if str(directory) in str(error):
            raise
        raise CommandError(f"{directory}: {error}", exit_code(error) or Exit.FAILED) from None


async def _open_records(
    stack: contextlib.AsyncExitStack, directories: Sequence[Path], logs: Sequence[Log]
) -> dict[str, Records]:
    """Open the records of those that are records logs, by the log's name."""
    from tlog.audit.tenancy import holds_records, recording
    from tlog.notes import passphrase_from_environment

    keeping = [each for each in zip(directories, logs, strict=True) if holds_records(each[0])]
    if not keeping:
        return {}
    from tlog.audit.verifying import Verifiers
    from tlog.cli.hooks import alert_ways

    # One process beside this one doubles what is verified: signatures cost most.
    verifiers = stack.enter_context(Verifiers(1))
    passphrase = passphrase_from_environment()
    ways = await stack.enter_async_context(alert_ways())
    found = {}
    for directory, log in keeping:
        kept = recording(
            directory, log, passphrase=passphrase, verifiers=verifiers, serving=True, ways=ways
        )
        found[log.name] = await stack.enter_async_context(kept)
    return found


def _ready(
    directories: Sequence[Path],
    logs: Sequence[Log],
    records: Mapping[str, Records],
    out: Output,
    *,
    grpc: str,
    http: str,
) -> None:
    lines = [
        f"log   {log.name}  origin {log.origin}  {log.tree_size} entries  in {directory}"
        f"{_witnesses(log)}{_records(records.get(log.name))}"
        for directory, log in zip(directories, logs, strict=True)
    ]
    out.result(
        "\n".join([*lines, f"gRPC  {grpc}", f"HTTP  http://{http}/"]),
        grpc=grpc,
        http=f"http://{http}",
        logs=[
            {
                "name": log.name,
                "origin": log.origin,
                "directory": str(directory),
                "tree_size": log.tree_size,
                "vkeys": list(map(str, log.vkeys)),
                "tenant": records[log.name].tenant if log.name in records else None,
            }
            for directory, log in zip(directories, logs, strict=True)
        ],
    )


def _witnesses(log: Log) -> str:
    if log.cosigners is None:
        return ""
    count = len(log.cosigners.policy.witnesses)
    return f"\n      published with quorum {log.cosigners.policy.quorum!r} of {count} witnesses"


def _records(records: Records | None) -> str:
    return "" if records is None else f"\n      records of {records.tenant}"
