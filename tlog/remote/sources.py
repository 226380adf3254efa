"""Logs that are read from afar: the port `tlog.merkle.TileSource`, over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc

from tlog.merkle import (
    HASH_SIZE,
    MAX_ENTRY_SIZE,
    TILE_WIDTH,
    MerkleError,
    Tile,
    TileCache,
    TileNodeReader,
    TileSource,
    consistency_proof,
    consistency_tiles,
    encode_bundle,
    entries_path,
)
from tlog.notes import MAX_NOTE_SIZE
from tlog.remote.addresses import Address, parse_address
from tlog.remote.fetch import TOTAL_SECONDS, Fetcher, RemoteDamaged, RemoteMissing
from tlog.remote.grpc import GrpcPeer, RemoteRefusal
from tlog.remote.http import RemoteError
from tlog.v1 import log_pb2 as pb

MAX_PROOF_HASHES = 63
MAX_ENTRY_BYTES = 2 + MAX_ENTRY_SIZE
"""Of an entry in a bundle."""

_SERVICE = pb.DESCRIPTOR.services_by_name["LogService"]


def open_source(url: str, *, timeout: float = TOTAL_SECONDS) -> TileSource:
    """The log at a URL: the prefix of its tiles (c2sp.org/tlog-tiles), or grpc://HOST:PORT[/NAME].

    Nothing is sent yet. To be used, and closed, on one event loop.

    Args:
        url: where.
        timeout: seconds for one tile or bundle, over HTTP.

    Raises:
        AddressError: the URL is neither.
    """
    address = parse_address(url)
    return GrpcEntries(address) if address.grpc else HttpTiles(address, timeout=timeout)


class HttpTiles:
    """Any log of c2sp.org/tlog-tiles."""

    serves_tiles = True

    def __init__(self, address: Address, *, timeout: float = TOTAL_SECONDS) -> None:
        self._url = address.url
        # SPEC tlog-tiles: "Clients SHOULD include `gzip` and `identity` in their `Accept-Encoding`
        # headers." On the same machine compression costs more than it saves.
        accept = "identity, gzip;q=0.5" if _is_loopback(address) else "gzip, identity"
        self._fetcher = Fetcher(address, accept=accept, timeout=timeout)

    async def checkpoint(self) -> bytes:
        """See `TileSource.checkpoint`."""
        # SPEC tlog-tiles: "<prefix>/checkpoint"
        return await self._fetcher.get("checkpoint", limit=MAX_NOTE_SIZE)

    async def tile(self, tile: Tile) -> bytes:
        """See `TileSource.tile`."""
        limit = tile.width * HASH_SIZE
        try:
            return await self._fetcher.get(tile.path, limit=limit)
        except RemoteMissing:
            if tile.width == TILE_WIDTH:
                raise
        # SPEC tlog-tiles: "Clients [...] MAY fetch the full tile in parallel as a fallback in case
        # the partial tile is not available anymore."
        whole = Tile(tile.level, tile.index)
        return (await self._fetcher.get(whole.path, limit=TILE_WIDTH * HASH_SIZE))[:limit]

    async def bundle(self, index: int, width: int) -> bytes:
        """See `TileSource.bundle`."""
        try:
            path = entries_path(index, width)
            return await self._fetcher.get(path, limit=width * MAX_ENTRY_BYTES)
        except RemoteMissing:
            if width == TILE_WIDTH:
                raise
        limit = TILE_WIDTH * MAX_ENTRY_BYTES
        whole = await self._fetcher.get(entries_path(index), limit=limit)
        return _first_entries(whole, width)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """See `TileSource.consistency_proof`: made of tiles of the tree of `new_size`."""
        try:
            needed = consistency_tiles(old_size, new_size)
            # All are waited for, so that none is left behind when one fails.
            fetched = await asyncio.gather(*map(self.tile, needed), return_exceptions=True)
            tiles: dict[Tile, bytes] = {}
            for tile, hashes in zip(needed, fetched, strict=True):
                if isinstance(hashes, BaseException):
                    raise hashes
                tiles[tile] = hashes
            cache = TileCache(tiles.__getitem__, capacity=len(tiles))
            return consistency_proof(old_size, new_size, TileNodeReader(cache, new_size))
        except MerkleError as error:
            raise RemoteDamaged(f"{self._url}: no proof from its tiles: {error}") from None

    async def aclose(self) -> None:
        """See `TileSource.aclose`."""
        await self._fetcher.aclose()


class GrpcEntries:
    """A log of this project: entries and proofs. It does not serve tiles over gRPC."""

    serves_tiles = False

    def __init__(self, address: Address) -> None:
        self._name = address.path
        most = TILE_WIDTH * (MAX_ENTRY_BYTES + 8) + MAX_NOTE_SIZE
        self._peer = GrpcPeer(address.target, _SERVICE, limit=most)

    async def checkpoint(self) -> bytes:
        """See `TileSource.checkpoint`."""
        request = pb.GetCheckpointRequest(log=self._name)
        with _refusals("checkpoint"):
            answer = await self._peer.call("GetCheckpoint", request, pb.GetCheckpointResponse)
        return answer.checkpoint.note

    async def tile(self, tile: Tile) -> bytes:
        """See `TileSource.tile`: there is none."""
        raise RemoteMissing(f"{tile.path}: tiles are served over HTTP, not over gRPC")

    async def bundle(self, index: int, width: int) -> bytes:
        """See `TileSource.bundle`."""
        first = index * TILE_WIDTH
        request = pb.StreamEntriesRequest(log=self._name, start=first, end=first + width)
        with _refusals(entries_path(index, width)):
            answer = await self._peer.first("StreamEntries", request, pb.StreamEntriesResponse)
        if answer.first_index != first:
            raise RemoteDamaged(f"the entries from {answer.first_index}, asked was for {first}")
        try:
            # The server may have more by now than the checkpoint that is read.
            return encode_bundle(answer.entries[:width])
        except MerkleError as error:
            raise RemoteDamaged(f"{entries_path(index, width)}: {error}") from None

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """See `TileSource.consistency_proof`."""
        request = pb.GetConsistencyProofRequest(
            log=self._name, old_size=old_size, new_size=new_size
        )
        with _refusals(f"consistency proof from {old_size} to {new_size}"):
            answer = await self._peer.call(
                "GetConsistencyProof", request, pb.GetConsistencyProofResponse
            )
        hashes = list(answer.hashes)
        if len(hashes) > MAX_PROOF_HASHES or any(len(value) != HASH_SIZE for value in hashes):
            raise RemoteDamaged("the log's answer is not a proof: at most 63 hashes of 32 bytes")
        return hashes

    async def aclose(self) -> None:
        """See `TileSource.aclose`."""
        await self._peer.aclose()


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except RemoteRefusal as refusal:
        kind = {
            grpc.StatusCode.NOT_FOUND: RemoteMissing,
            grpc.StatusCode.OUT_OF_RANGE: RemoteMissing,
            grpc.StatusCode.DATA_LOSS: RemoteDamaged,
        }.get(refusal.code, RemoteError)
        raise kind(f"{what}: {refusal}") from None


def _first_entries(bundle: bytes, width: int) -> bytes:
    """The first entries of a bundle that has grown; all of it when it is cut short."""
    end = 0
    for _ in range(width):
        end += 2 + int.from_bytes(bundle[end : end + 2], "big")
    return bundle[:end]


def _is_loopback(address: Address) -> bool:
    host = urlsplit(address.url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
