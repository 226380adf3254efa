"""The port to a log that somebody else keeps: checkpoint, tiles and bundles, all unverified.

Mirrors, monitors and auditors read through it; over HTTP, gRPC or out of a directory, they do not
know. An implementation bounds every answer in bytes and in time, and believes nothing.
"""

from typing import Protocol

from tlog.merkle.tiles import Tile


class SourceError(Exception):
    """The log cannot be read now: nobody is there, or not in time. Asking again may help."""


class SourceMissing(SourceError):
    """Whoever keeps the log says that it does not have this."""


class SourceDamaged(SourceError):
    """What came is not what was asked for, or what lies there is damaged. Asking again is idle."""


class TileSource(Protocol):
    """A log that is read. All methods raise SourceError, and may be called concurrently.

    Attributes:
        serves_tiles: whether `tile` answers. Where only entries are to be had, the tree is still
            rebuilt from them; there are just no tiles to hold against it.
    """

    serves_tiles: bool

    async def checkpoint(self) -> bytes:
        """The latest checkpoint, a signed note of at most 64 KiB."""

    async def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile: at most width * 32 bytes, maybe fewer."""

    async def bundle(self, index: int, width: int) -> bytes:
        """The first `width` entries of a bundle, encoded (tlog-tiles.md): maybe not as many."""

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """The hashes of the proof between two sizes (RFC 6962 section 2.1.2)."""

    async def aclose(self) -> None:
        """Close what was opened."""
