"""`tlog log status`: how a log and its witnesses do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.cli.errors import CommandError
from tlog.cli.options import DIRECTORY, Verb, output_option
from tlog.cli.output import Output
from tlog.cli.remote import Remote, remote_options

if TYPE_CHECKING:
    from tlog.client import LogStatus, WitnessStatus


@click.command(
    cls=Verb,
    examples=(
        "tlog log status",
        "tlog log status ./mylog",
        "tlog log status --log mylog --json | jq '.witnesses[] | select(.away)'",
    ),
)
@click.argument("directory", metavar="[DIR]", required=False, type=DIRECTORY)
@remote_options
@output_option
async def status(*, directory: Path | None, remote: Remote, out: Output) -> None:
    """Tell how far a log has come, whether its quorum cosigns, and how each witness does.

    Asks the running server, by its address; with DIR, for the log of that directory. Nothing of
    the answer is signed.
    """
    origin = None
    if directory is not None:
        remote, origin = _of(directory, remote)
    async with remote.client(out) as client:
        told = await client.log_status()
    if origin not in (None, told.origin):
        raise CommandError(
            f"{remote.server} serves another log of that name, {told.origin!r}: give the --server "
            f"that serves {directory}"
        )
    out.result("\n".join(_lines(told)), **asdict(told))


def _of(directory: Path, remote: Remote) -> tuple[Remote, str]:
    """The log of a directory on that server, and its origin."""
    from tlog.log import LogConfig

    config = LogConfig.load(directory)
    if remote.log not in ("", config.name):
        raise click.UsageError(
            f"--log {remote.log} is not the log in {directory}: give one of them"
        )
    return replace(remote, log=config.name), config.origin


def _lines(told: LogStatus) -> Iterator[str]:
    yield f"log      {told.name}  origin {told.origin}"
    yield (
        f"entries  {told.integrated_size} durable, {told.signed_size} signed, "
        f"{told.published_size} published"
    )
    if told.refusal:
        yield f"REFUSES  {told.refusal}"
    if told.fail_open:
        yield (
            "FAIL OPEN: checkpoints are published without their quorum, so that the witnesses "
            "protect nobody. Set fail_open = false in log.toml and start the server again"
        )
    if told.quorum:
        yield f"quorum   {told.quorum}: {told.no_quorum or 'it has cosigned'}"
    for witness in told.witnesses:
        yield f"witness  {', '.join(witness.names)}  {witness.url}  {_state(witness)}"


def _state(witness: WitnessStatus) -> str:
    said = "never cosigned"
    if witness.last_seconds:
        said = f"cosigned at {witness.cosigned_size} in {witness.last_seconds * 1000:.0f} ms"
    failing = "AWAY" if witness.away else "failing" if witness.last_error else ""
    if not failing:
        return said
    return f"{failing}, {said}, {witness.failures} failures, the last: {witness.last_error}"
