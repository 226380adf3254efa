"""What gossip asks logs for: the latest checkpoint, and consistency proofs. All unverified."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tlog.merkle import TileSource
from tlog.notes.codec import shown
from tlog.remote.addresses import AddressError
from tlog.remote.http import RemoteError
from tlog.remote.sources import open_source

MAX_LOGS = 64
"""Logs to which connections stay open: more than are ever asked at once."""


class RemoteLogs:
    """Logs by their origins, reached where the operator says they are.

    Args:
        url_of: gives for an origin, as it is now, the prefix of its tiles (c2sp.org/tlog-tiles)
            or grpc://HOST:PORT[/NAME]; the name may be left out where a server has one log.
            None when nobody said.
    """

    def __init__(self, url_of: Callable[[str], str | None]) -> None:
        self._url_of = url_of
        self._logs: OrderedDict[str, TileSource] = OrderedDict()  # by URL

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

    async def _log(self, origin: str) -> TileSource:
        if (url := self._url_of(origin)) is None:
            raise RemoteError(f"nobody said where the log {shown(origin)} is reached")
        if (log := self._logs.get(url)) is None:
            try:
                log = self._logs[url] = open_source(url)
            except AddressError as error:
                raise RemoteError(str(error)) from None
        self._logs.move_to_end(url)
        if len(self._logs) > MAX_LOGS:
            await self._logs.popitem(last=False)[1].aclose()
        return log
