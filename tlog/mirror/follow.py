"""Following logs: what they publish is fetched, and taken in as if they had uploaded it.

Nothing that is fetched is believed: a head has to follow from the pending one, and every bundle is
held against it by a proof made of the log's tiles. What a source cannot have, being honest, is
refused and named; the copy stays as it was, and the source is asked again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import structlog

from tlog.log import LogError
from tlog.merkle import (
    MerkleError,
    SourceDamaged,
    SourceError,
    Tile,
    TileCache,
    TileNodeReader,
    TileSource,
    split_bundle,
    subtree_consistency_proof,
    subtree_consistency_tiles,
)
from tlog.mirror.copy import Copy
from tlog.mirror.mirror import Mirror
from tlog.mirror.uploads import Package, PackageRange, canonical_sequence
from tlog.notes import Checkpoint
from tlog.notes.codec import shown
from tlog.store import StoreError
from tlog.witness import BadRequest, Refusal, TrustedLog, Unprocessable, rules

WINDOW = 16
# Packages between two syncs: as many as a request of the recommended length has.
SYNC_PACKAGES = 32
# 8 KiB each; consecutive packages share nearly all of theirs.
MAX_TILES = 256
# How soon a change in the list of logs is seen.
LOOK_SECONDS = 1.0

_logger = structlog.get_logger(__name__)

Connect = Callable[[str], TileSource]


class Follower:
    """Follows one log.

    Args:
        mirror: takes in what is fetched.
        origin: of the log.
        source: where it is read; it is closed by whoever made it.

    Attributes:
        problem: why the last look at the log brought nothing; None when all is well.
    """

    def __init__(self, mirror: Mirror, origin: str, source: TileSource) -> None:
        self.problem: str | None = None
        self._mirror = mirror
        self._origin = origin
        self._source = source
        self._tiles: OrderedDict[Tile, bytes] = OrderedDict()

    async def run(self, interval: float) -> None:
        """Look at the log every `interval` seconds, until cancelled."""
        while True:
            try:
                await self.step()
            except (SourceError, Refusal, StoreError, LogError) as error:
                self._tiles.clear()
                if (problem := str(error)) != self.problem:
                    _logger.warning("a log is not followed", origin=self._origin, reason=problem)
                self.problem = problem
            else:
                if self.problem is not None:
                    _logger.info("a log is followed again", origin=self._origin)
                self.problem = None
            await asyncio.sleep(interval)

    async def step(self) -> None:
        """Mirror what the log shows now.

        Raises:
            SourceError: it cannot be read, or what is there is damaged.
            Refusal: it is not what the log has signed, or the mirror cannot take it.
        """
        log = self._mirror.find(self._origin.encode())
        stale = await self._take_head(log)
        copy = await self._mirror.copy_of(self._origin)
        await copy.recover()
        tree = self._mirror.pending_checkpoint(log)
        if copy.head is None or copy.size < tree.checkpoint.size:
            await self._fill(copy, tree.checkpoint)
            await copy.commit(tree)
        if stale is not None:
            raise stale

    async def _take_head(self, log: TrustedLog) -> Unprocessable | None:
        """Make the log's checkpoint the pending one; what is wrong with it if it is an old one."""
        note = await self._source.checkpoint()
        signed = rules.parse(note)
        if signed.checkpoint.origin != log.origin:
            raise BadRequest(
                f"the log {shown(log.origin)} shows a checkpoint of "
                f"{shown(signed.checkpoint.origin)}"
            )
        size = signed.checkpoint.size
        pending = self._mirror.pending.cosigned_size(log.origin)
        if pending is not None:
            if size < pending:
                return Unprocessable(
                    f"the log shows a head of {size} entries, but it has signed one of {pending}"
                )
            if self._mirror.pending_checkpoint(log).checkpoint == signed.checkpoint:
                return None
        proof: tuple[bytes, ...] = ()
        if pending and pending < size:
            proof = tuple(await self._source.consistency_proof(pending, size))
        await self._mirror.add_checkpoint(pending or 0, proof, note)
        return None

    async def _fill(self, copy: Copy, tree: Checkpoint) -> None:
        """Take in all entries of the tree that the copy has not."""
        async with aclosing(self._packages(copy.next_entry, tree)) as packages:
            number = 0
            async for where, package in packages:
                copy.add(where, package, tree)
                number += 1
                if number % SYNC_PACKAGES == 0:
                    await copy.sync()

    async def _packages(
        self, start: int, tree: Checkpoint
    ) -> AsyncGenerator[tuple[PackageRange, Package], None]:
        """The packages from `start` on, in order; the next few are on their way meanwhile."""
        wanted = canonical_sequence(start, tree.size)
        pending: deque[asyncio.Task[tuple[PackageRange, Package]]] = deque()
        try:
            for where in itertools.islice(wanted, WINDOW):
                pending.append(await self._begin(where, tree))
            while pending:
                yield await pending[0]
                pending.popleft()
                if (following := next(wanted, None)) is not None:
                    pending.append(await self._begin(following, tree))
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _begin(
        self, where: PackageRange, tree: Checkpoint
    ) -> asyncio.Task[tuple[PackageRange, Package]]:
        proof = await self._proof(where, tree)
        return asyncio.create_task(self._download(where, proof))

    async def _download(
        self, where: PackageRange, proof: tuple[bytes, ...]
    ) -> tuple[PackageRange, Package]:
        width = where.end - where.base
        bundle = await self._source.bundle(where.base >> 8, width)
        try:
            entries = split_bundle(bundle)
        except MerkleError as error:
            raise SourceDamaged(f"the bundle from entry {where.base} on: {error}") from None
        if len(entries) != width:
            raise SourceDamaged(
                f"the bundle from entry {where.base} on has {len(entries)} entries, not {width}"
            )
        return where, Package(tuple(entries[where.start - where.base :]), proof)

    async def _proof(self, where: PackageRange, tree: Checkpoint) -> tuple[bytes, ...]:
        """The package's proof, from the log's tiles; those that are wrong make a wrong proof."""
        needed = subtree_consistency_tiles(where.base, where.end, tree.size)
        tiles = {tile: await self._tile(tile) for tile in needed}
        nodes = TileNodeReader(TileCache(tiles.__getitem__, capacity=len(tiles)), tree.size)
        try:
            return tuple(subtree_consistency_proof(where.base, where.end, tree.size, nodes))
        except MerkleError as error:
            raise SourceDamaged(f"no proof from the log's tiles: {error}") from None

    async def _tile(self, tile: Tile) -> bytes:
        hashes = self._tiles.pop(tile, None)
        if hashes is None:
            hashes = await self._source.tile(tile)
        self._tiles[tile] = hashes
        if len(self._tiles) > MAX_TILES:
            self._tiles.popitem(last=False)
        return hashes


class Followers:
    """Follows all logs of a mirror that have a URL, as the list of logs says at any time.

    Args:
        mirror: takes in what is fetched.
        connect: gives the way to the tiles of a log by its URL.
    """

    def __init__(self, mirror: Mirror, connect: Connect) -> None:
        self._mirror = mirror
        self._connect = connect
        self._running: dict[tuple[str, str], tuple[Follower, asyncio.Task[None]]] = {}

    def problems(self) -> dict[str, str | None]:
        """By the origin of each log that is followed: what is wrong, if anything is."""
        return {origin: follower.problem for (origin, _), (follower, _) in self._running.items()}

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                self._mirror.logs.refresh()
                self._adjust()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _adjust(self) -> None:
        wanted = {(log.origin, str(log.url)) for log in self._mirror.logs if log.url is not None}
        for key in self._running.keys() - wanted:
            self._running.pop(key)[1].cancel()
        for origin, url in wanted - self._running.keys():
            try:
                source = self._connect(url)
            except LogError as error:
                _logger.warning("a log cannot be followed", origin=origin, reason=str(error))
                continue
            follower = Follower(self._mirror, origin, source)
            task = asyncio.create_task(self._follow(follower, source), name="follow")
            self._running[origin, url] = follower, task

    async def _follow(self, follower: Follower, source: TileSource) -> None:
        try:
            await follower.run(self._mirror.config.interval)
        finally:
            await source.aclose()


@asynccontextmanager
async def following(mirror: Mirror, connect: Connect) -> AsyncIterator[Followers]:
    """Follow the logs of a mirror until it is left."""
    followers = Followers(mirror, connect)
    task = asyncio.create_task(followers.run(), name="followers")
    try:
        yield followers
    finally:
        task.cancel()
        await asyncio.wait([task])
