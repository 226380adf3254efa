"""Options that several verbs of `tlog witness` share, and what they ask."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlog.cli.errors import CommandError, Exit, one_line

if TYPE_CHECKING:
    from tlog.remote import WitnessClient
    from tlog.witness import EvidenceStore

F = TypeVar("F", bound=Callable[..., Any])

witness_option = click.option(
    "--witness",
    "address",
    default="127.0.0.1:6972",
    envvar="TLOG_WITNESS",
    metavar="HOST:PORT",
    help="gRPC address of a running witness. [env: TLOG_WITNESS; default: 127.0.0.1:6972]",
)


def _log_url(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    from tlog.remote import AddressError, parse_address

    try:
        return parse_address(url).url
    except AddressError as error:
        raise click.BadParameter(str(error)) from None


def log_url_option(*, required: bool) -> Callable[[F], F]:
    """`--url` of a log."""
    return click.option(
        "--url",
        required=required,
        callback=_log_url,
        help="Where the log is asked for proofs: the prefix of its tiles (c2sp.org/tlog-tiles), "
        "or grpc://HOST:PORT/NAME.",
    )


def open_evidence(directory: Path) -> EvidenceStore:
    """The evidence of a witness.

    Raises:
        WitnessError: the directory holds no witness.
    """
    from tlog.cli.logging import configure_logging
    from tlog.witness import EvidenceStore, WitnessConfig

    configure_logging(as_json=False)  # files that cannot be read are told of
    WitnessConfig.load(directory)
    return EvidenceStore(directory)


@contextlib.asynccontextmanager
async def asking(address: str) -> AsyncIterator[WitnessClient]:
    """A running witness.

    Raises:
        CommandError: what it was asked inside failed.
    """
    import grpc

    from tlog.remote import RemoteError, RemoteRefusal, WitnessClient

    client = WitnessClient(f"grpc://{address}")
    try:
        yield client
    except RemoteRefusal as refusal:
        away = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        code = Exit.UNREACHABLE if refusal.code in away else Exit.FAILED
        raise CommandError(one_line(refusal), code) from None
    except RemoteError as error:
        raise CommandError(one_line(error)) from None
    finally:
        await client.aclose()
