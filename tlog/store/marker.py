"""The marker file: replaced whole or not at all, and durable when that is reported."""

import os
from pathlib import Path
from typing import Final

from tlog.store.disk import os_error, sync_directory
from tlog.store.errors import StoreCorrupt, StoreError

MAX_MARKER_SIZE: Final = 1 << 20


def read_marker(path: Path) -> bytes | None:
    """The marker's bytes; None when there is no such file.

    Raises:
        StoreCorrupt: the file is over 1 MiB, which no marker is.
        StoreError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            marker = file.read(MAX_MARKER_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: the marker cannot be read: {error}") from error
    if len(marker) > MAX_MARKER_SIZE:
        raise StoreCorrupt(f"{path}: over {MAX_MARKER_SIZE} bytes, so it is no marker of ours")
    return marker


def write_marker(path: Path, marker: bytes) -> None:
    """Replace the marker: a reader, or a crash, sees the old one or the new one.

    Raises:
        StoreFull: the disk is full; the old marker stands.
        StoreError: the marker is over 1 MiB, or cannot be written; the old marker stands.
    """
    if len(marker) > MAX_MARKER_SIZE:
        raise StoreError(f"a marker of {len(marker)} bytes is over {MAX_MARKER_SIZE}")
    # One fixed name: what a crash leaves behind is overwritten by the next marker.
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(marker)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise os_error(error, f"{path}: the marker was not written") from error
