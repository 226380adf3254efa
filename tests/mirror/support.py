"""A log with entries that grows and forks, what a client uploads of it, and a mirror for it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

from tests.witness.support import START, Clock, signer
from tlog.merkle import (
    HASH_SIZE,
    RightEdge,
    Tile,
    TileCache,
    TileNodeReader,
    consistency_proof,
    encode_bundle,
    leaf_hashes,
    subtree_consistency_proof,
)
from tlog.mirror import (
    Accepted,
    Mirror,
    Mirrored,
    Package,
    PackageRange,
    Upload,
    canonical_sequence,
    create_mirror,
    encode_upload,
)
from tlog.notes import Algorithm, Checkpoint, VerifierKey, open_checkpoint, sign_checkpoint
from tlog.witness import add_log

ORIGIN = "log.example/one"
NAME = "mirror.example/m1"
SIZE = 2000


def entry(index: int, fork: bool = False) -> bytes:
    """Of any length, some empty."""
    return (
        b""
        if index % 97 == 5
        else b"%s %d " % (b"fork" if fork else b"main", index) * (index % 4 + 1)
    )


class SomeLog:
    """A log that signs anything: its tree, and from `forked_at` on, another one."""

    def __init__(
        self, origin: str = ORIGIN, *, forked_at: int | None = None, size: int = SIZE
    ) -> None:
        self.origin = origin
        self.signers = [signer(origin, kind) for kind in (Algorithm.ED25519, Algorithm.MLDSA44)]
        self.vkeys = [s.vkey for s in self.signers]
        self.entries = [
            entry(index, forked_at is not None and index >= forked_at) for index in range(size)
        ]
        self._hashes = leaf_hashes(self.entries)
        _, tiles = RightEdge().extend(self._hashes)
        self._tiles = {(tile.level, tile.index): data for tile, data in tiles}
        self._cache = TileCache(self.tile)
        self.note = cache(self._note)

    def tile(self, tile: Tile) -> bytes:
        return self._tiles[tile.level, tile.index][: tile.width * HASH_SIZE]

    def bundle(self, index: int, width: int) -> bytes:
        return encode_bundle(self.entries[index * 256 : index * 256 + width])

    def checkpoint(self, size: int) -> Checkpoint:
        edge, _ = RightEdge().extend(self._hashes[: size * HASH_SIZE])
        return Checkpoint(self.origin, size, edge.root())

    def _note(self, size: int) -> bytes:
        return sign_checkpoint(self.checkpoint(size), self.signers, timestamp=START)

    def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        return tuple(consistency_proof(old, new, TileNodeReader(self._cache, new)))

    def request(self, old: int, new: int) -> tuple[int, tuple[bytes, ...], bytes]:
        return old, self.proof(old, new), self.note(new)

    def package(self, where: PackageRange, size: int) -> Package:
        nodes = TileNodeReader(self._cache, size)
        proof = subtree_consistency_proof(where.base, where.end, size, nodes)
        return Package(tuple(self.entries[where.start : where.end]), tuple(proof))

    def packages(self, start: int, end: int, count: int | None = None) -> list[Package]:
        return [self.package(where, end) for where in canonical_sequence(start, end)][:count]

    def upload(
        self, start: int, end: int, *, ticket: bytes = b"", count: int | None = None
    ) -> bytes:
        """The body of add-entries, of the first `count` packages."""
        head = Upload(self.origin.encode(), start, end, ticket)
        return encode_upload(head, self.packages(start, end, count))


LOG = SomeLog()
FORK = SomeLog(forked_at=300)
OTHER = SomeLog("log.example/other", size=300)
STRANGER = SomeLog("log.example/unknown", size=300)


@cache
def mirror_vkeys(directory: Path) -> tuple[VerifierKey, ...]:
    """Make a mirror of LOG and OTHER."""
    vkeys = create_mirror(directory, name=NAME)
    for log in (LOG, OTHER):
        add_log(directory, log.vkeys)
    return vkeys


@contextlib.asynccontextmanager
async def a_mirror(
    directory: Path, *, clock: Callable[[], float] | None = None
) -> AsyncIterator[Mirror]:
    """The mirror in a directory, which is made unless it is there."""
    if not directory.joinpath("mirror.toml").exists():
        mirror_vkeys(directory)
    async with Mirror.opened(directory, clock=clock or Clock()) as mirror:
        yield mirror


async def send(mirror: Mirror, *pieces: bytes) -> Mirrored | Accepted:
    """An upload, as its body arrives."""

    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return await mirror.add_entries(arriving())


async def mirrored(mirror: Mirror, old: int, size: int, *, start: int | None = None) -> Mirrored:
    """Mirror LOG up to a size, from what is there."""
    await mirror.add_checkpoint(*LOG.request(old, size))
    done = await send(mirror, LOG.upload(old if start is None else start, size))
    assert isinstance(done, Mirrored)
    return done


def check_cosigned(mirror: Mirror, note: bytes, size: int, log: SomeLog = LOG) -> None:
    """The note is the log's head of that size, signed by it and cosigned by the mirror."""
    opened = open_checkpoint(note, [*log.vkeys, *mirror.vkeys], origin=log.origin)
    assert opened.checkpoint == log.checkpoint(size)
    assert {vkey for vkey, _ in opened.signed_by} == {*log.vkeys, *mirror.vkeys}


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
