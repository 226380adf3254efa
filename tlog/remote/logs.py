"""What gossip asks logs for: the latest checkpoint, and consistency proofs. All unverified."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from tlog.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    MerkleError,
    Tile,
    TileCache,
    TileNodeReader,
    consistency_proof,
)
from tlog.notes import MAX_NOTE_SIZE
from tlog.notes.codec import shown
from tlog.remote.addresses import Address, AddressError, parse_address
from tlog.remote.grpc import GrpcPeer
from tlog.remote.http import HttpPeer, RemoteError
from tlog.v1 import log_pb2 as pb

MAX_PROOF_HASHES = 63
MAX_LOGS = 64
"""Logs to which connections stay open: more than are ever asked at once."""

_SERVICE = pb.DESCRIPTOR.services_by_name["LogService"]


class _RemoteLog(Protocol):
    async def checkpoint(self) -> bytes: ...

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]: ...

    async def aclose(self) -> None: ...


class RemoteLogs:
    """Logs by their origins, reached where the operator says they are.

    Args:
        url_of: gives for an origin, as it is now, the prefix of its tiles (c2sp.org/tlog-tiles)
            or grpc://HOST:PORT[/NAME]; the name may be left out where a server has one log.
            None when nobody said.
    """

    def __init__(self, url_of: Callable[[str], str | None]) -> None:
        self._url_of = url_of
        self._logs: OrderedDict[str, _RemoteLog] = OrderedDict()  # by URL

    async def checkpoint(self, origin: str) -> bytes:
        """The latest checkpoint that the log shows, unverified.

        Raises:
            RemoteError: there is none to be had.
        """
        return await (await self._log(origin)).checkpoint()

    async def consistency_proof(self, origin: str, old_size: int, new_size: int) -> list[bytes]:
        """The log's proof (RFC 6962 section 2.1.2) between two sizes that it signed, unverified.

        Raises:
            RemoteError: there is none to be had.
        """
        if not 0 <= old_size <= new_size < 1 << 63:
            raise RemoteError(f"no log proves {new_size} entries consistent with {old_size}")
        if old_size in {0, new_size}:
            return []
        return await (await self._log(origin)).consistency_proof(old_size, new_size)

    async def aclose(self) -> None:
        """Close the connections."""
        logs, self._logs = list(self._logs.values()), OrderedDict()
        for log in logs:
            await log.aclose()

    async def _log(self, origin: str) -> _RemoteLog:
        if (url := self._url_of(origin)) is None:
            raise RemoteError(f"nobody said where the log {shown(origin)} is reached")
        if (log := self._logs.get(url)) is None:
            try:
                address = parse_address(url)
            except AddressError as error:
                raise RemoteError(str(error)) from None
            log = self._logs[url] = _GrpcLog(address) if address.grpc else _TiledLog(address)
        self._logs.move_to_end(url)
        if len(self._logs) > MAX_LOGS:
            await self._logs.popitem(last=False)[1].aclose()
        return log


class _GrpcLog:
    """A log of this project."""

    def __init__(self, address: Address) -> None:
        self._name = address.path
        self._peer = GrpcPeer(address.target, _SERVICE)

    async def checkpoint(self) -> bytes:
        request = pb.GetCheckpointRequest(log=self._name)
        answer = await self._peer.call("GetCheckpoint", request, pb.GetCheckpointResponse)
        return answer.checkpoint.note

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        request = pb.GetConsistencyProofRequest(
            log=self._name, old_size=old_size, new_size=new_size
        )
        answer = await self._peer.call(
            "GetConsistencyProof", request, pb.GetConsistencyProofResponse
        )
        hashes = list(answer.hashes)
        if len(hashes) > MAX_PROOF_HASHES or any(len(value) != HASH_SIZE for value in hashes):
            raise RemoteError("the log's answer is not a proof: at most 63 hashes of 32 bytes")
        return hashes

    async def aclose(self) -> None:
        await self._peer.aclose()


class _TiledLog:
    """Any log of c2sp.org/tlog-tiles."""

    def __init__(self, address: Address) -> None:
        self._url = address.url
        self._peer = HttpPeer(secure=address.url.startswith("https:"))

    async def checkpoint(self) -> bytes:
        # SPEC tlog-tiles: "GET <prefix>/checkpoint"
        return await self._get("checkpoint", limit=MAX_NOTE_SIZE)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        # Which tiles a proof takes depends on the sizes alone: a first pass over none finds out.
        needed: list[Tile] = []

        def note_down(tile: Tile) -> bytes:
            needed.append(tile)
            return bytes(tile.width * HASH_SIZE)

        try:
            consistency_proof(old_size, new_size, TileNodeReader(TileCache(note_down), new_size))
            # All are waited for, so that none is left behind when one fails.
            fetched = await asyncio.gather(*map(self._tile, needed), return_exceptions=True)
            tiles: dict[Tile, bytes] = {}
            for tile, hashes in zip(needed, fetched, strict=True):
                if isinstance(hashes, BaseException):
                    raise hashes
                tiles[tile] = hashes
            cache = TileCache(tiles.__getitem__, capacity=len(tiles))
            return consistency_proof(old_size, new_size, TileNodeReader(cache, new_size))
        except MerkleError as error:
            raise RemoteError(f"{self._url}: no proof from its tiles: {error}") from None

    async def _tile(self, tile: Tile) -> bytes:
        try:
            return await self._get(tile.path, limit=tile.width * HASH_SIZE)
        except RemoteError:
            if tile.width == TILE_WIDTH:
                raise
        # SPEC tlog-tiles: "Clients [...] MAY fetch the full tile in parallel as a fallback in case
        # the partial tile is not available anymore."
        whole = await self._get(Tile(tile.level, tile.index).path, limit=TILE_WIDTH * HASH_SIZE)
        return whole[: tile.width * HASH_SIZE]

    async def _get(self, path: str, *, limit: int) -> bytes:
        answer = await self._peer.exchange("GET", f"{self._url}/{path}", limit=limit)
        if answer.status != 200:
            raise RemoteError(f"{self._url}/{path}: {answer.reason()}")
        return answer.body

    async def aclose(self) -> None:
        await self._peer.aclose()
