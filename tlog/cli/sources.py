"""Where an audit reads a log: at a URL, at a gRPC address, or in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator
from pathlib import Path

from tlog.cli.errors import CommandError
from tlog.log import Reader
from tlog.log.publisher import PUBLISHED
from tlog.merkle import SourceDamaged, SourceError, SourceMissing, Tile, TileSource
from tlog.remote import open_source
from tlog.store import RocksStore, StoreCorrupt, StoreError, StoreMissing

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^/:\s]+):[0-9]+")


def place_of(source: str) -> str:
    """The one name of a source: a URL, or the absolute path of a directory."""
    if _ADDRESS.fullmatch(source) and not Path(source).exists():
        source = f"grpc://{source}"
    return source.rstrip("/") if "://" in source else str(Path(source).resolve())


def open_log(source: str) -> TileSource:
    """The log at a URL, at HOST:PORT (gRPC), or in a directory, which is only read.

    Raises:
        AddressError, StoreError, CommandError: there is none.
    """
    place = place_of(source)
    return open_source(place) if "://" in place else DirectoryTiles(Path(source))


class DirectoryTiles:
    """A log's directory, or a copy of one."""

    serves_tiles = True

    def __init__(self, directory: Path) -> None:
        _refuse_if_served(directory)
        self._store = RocksStore.open(directory, read_only=True)
        self._reader = Reader(self._store)

    async def checkpoint(self) -> bytes:
        """See `TileSource.checkpoint`: the one that was published last."""
        with _errors("the published head"):
            note = self._store.get_state(PUBLISHED)
        if note is None:
            raise SourceMissing(f"{self._store.path}: no head was ever published")
        return note

    async def tile(self, tile: Tile) -> bytes:
        """See `TileSource.tile`."""
        with _errors(tile.path):
            return self._reader.tile(tile)

    async def bundle(self, index: int, width: int) -> bytes:
        """See `TileSource.bundle`."""
        with _errors(f"entry bundle {index}"):
            return self._reader.encoded_bundle(index, width)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """See `TileSource.consistency_proof`."""
        with _errors("the consistency proof"):
            return self._reader.consistency_proof(old_size, new_size)

    async def aclose(self) -> None:
        """See `TileSource.aclose`."""
        self._store.close()


def _refuse_if_served(directory: Path) -> None:
    # Read-only, RocksDB takes no lock; and what a server compacts away would look like damage.
    try:
        with (directory / "db" / "LOCK").open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandError(
            f"{directory} is being served: audit it over HTTP, or audit a copy"
        ) from None
    except OSError:
        return  # no database, or one on a medium that nobody can write to


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except StoreMissing as error:
        raise SourceMissing(f"{what}: {error}") from None
    except StoreCorrupt as error:
        raise SourceDamaged(f"{what}: {error}") from None
    except StoreError as error:
        raise SourceError(f"{what}: {error}") from None
