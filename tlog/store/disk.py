"""What the disk itself is asked: durable names, and room."""

import errno
import os
from pathlib import Path
from typing import Final

from tlog.store.errors import StoreError, StoreFull

# What opening a database writes beside the tables: a manifest, an options file.
_ROOM_TO_OPEN: Final = 4 << 20


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: fsync of a file does not cover its own name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file whole, and durably. One at a time: the caller sees to that.

    Raises:
        OSError: it is as it was.
    """
    # One fixed name: what a crash leaves behind is overwritten by the next edit.
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def check_room(database: Path) -> None:
    """Find out whether a RocksDB database can be opened, by taking the room and giving it back.

    Opening it writes all that is in its write-ahead log into tables.

    Raises:
        StoreFull: there is not enough.
        StoreError: its directory cannot be written to.
    """
    log_bytes = sum(file.stat().st_size for file in database.glob("*.log"))
    probe = database.with_name("room.probe")
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM_TO_OPEN + log_bytes)
    except OSError as error:
        raise os_error(error, f"{database}: no room to go on writing") from error
    finally:
        probe.unlink(missing_ok=True)


def os_error(error: OSError, what: str) -> StoreError:
    """The typed error for an error of the operating system."""
    kind = StoreFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
    return kind(f"{what}: {error}")
