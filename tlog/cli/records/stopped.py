"""A records log whose server is stopped, and the keys of its producers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlog.cli.errors import CommandError

if TYPE_CHECKING:
    from tlog.audit.records import Records
    from tlog.log import Log
    from tlog.notes import VerifierKey


def check_holds_records(directory: Path) -> None:
    """Refuse a directory that is no records log's.

    Raises:
        CommandError: it says how to make it one.
    """
    from tlog.audit.tenancy import holds_records

    if not holds_records(directory):
        raise CommandError(
            f"{directory} is not a records log. Make it one with: tlog records init {directory}"
        )


@contextlib.asynccontextmanager
async def stopped_log(directory: Path) -> AsyncIterator[Log]:
    """The log of the records in a directory, open while inside.

    Raises:
        CommandError: it is no records log.
    """
    from tlog.log import Log
    from tlog.notes import passphrase_from_environment
    from tlog.remote import connections

    check_holds_records(directory)
    passphrase = passphrase_from_environment()
    async with (
        connections() as connect,
        Log.opened(directory, passphrase=passphrase, connect=connect) as log,
    ):
        yield log


@contextlib.asynccontextmanager
async def stopped_records(directory: Path) -> AsyncIterator[Records]:
    """The records in a directory, open while inside.

    Raises:
        CommandError: it is no records log's.
    """
    from tlog.audit.tenancy import recording
    from tlog.notes import passphrase_from_environment

    passphrase = passphrase_from_environment()
    async with (
        stopped_log(directory) as log,
        recording(directory, log, passphrase=passphrase) as records,
    ):
        yield records


@contextlib.contextmanager
def producer_key(path: Path, name: str, passphrase: bytes | None) -> Iterator[VerifierKey]:
    """The key in a file, which is made if need be: so that a verb may be run again.

    It is on the disk before it is recorded inside; a new one goes if its record is refused.
    """
    from tlog.audit import AuditError
    from tlog.notes import Algorithm, Signer, load_signer, save_signer

    if path.exists():
        yield load_signer(path, passphrase=passphrase).vkey
        return
    signer = Signer.generate(name, Algorithm.ED25519)
    # Not under the passphrase, which is the log's and none of the application's business.
    save_signer(path, signer, passphrase=None)
    try:
        yield signer.vkey
    except AuditError:
        path.unlink()
        raise
