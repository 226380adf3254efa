"""A witness in service: with its gossip, and its evidence on the disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from tlog.witness.config import PeerConfig, WitnessConfig
from tlog.witness.evidence import EvidenceStore
from tlog.witness.exchange import Peer
from tlog.witness.gossip import Gossip
from tlog.witness.limits import GossipLimits
from tlog.witness.logs import LogList
from tlog.witness.proving import LogSource
from tlog.witness.witness import Witness

_logger = structlog.get_logger(__name__)


class Outward(Protocol):
    """The ways out; implemented in `tlog.remote`. Nothing is sent before it is needed."""

    def peer(self, peer: PeerConfig) -> Peer:
        """How to reach a peer."""

    def logs(self, url_of: Callable[[str], str | None]) -> LogSource:
        """How to reach logs, of which `url_of` gives the URL by the origin, as it is now."""


@dataclass(slots=True)
class Node:
    """A witness that cosigns and gossips. Make one with `Node.opened`.

    Attributes:
        witness: cosigns.
        gossip: hears of every head that was cosigned, and of every one that was refused as
            inconsistent.
        evidence: what the gossip has found.
        failure: why something of it has stopped; None when all is well.
    """

    witness: Witness
    gossip: Gossip
    evidence: EvidenceStore
    _gossip_failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the witness cannot do all of its work; None when all is well."""
        return self.witness.failure or self._gossip_failure

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, directory: Path, outward: Outward, *, passphrase: bytes | None = None
    ) -> AsyncIterator[Node]:
        """Open the witness of a directory, and gossip until it is left.

        Raises:
            WitnessError, NoteError, StoreError: it cannot be opened; the message says why.
        """
        config = WitnessConfig.load(directory)
        logs = LogList(directory)

        def url_of(origin: str) -> str | None:
            log = logs.find(origin)
            return None if log is None else log.url

        evidence = EvidenceStore(directory)
        gossip = Gossip(
            logs,
            evidence,
            {peer.name: outward.peer(peer) for peer in config.peers},
            outward.logs(url_of),
            freeze=logs.freeze,
            limits=GossipLimits(interval=config.gossip_interval),
        )
        gossip.stop_conflicting()  # before anything is cosigned
        async with Witness.opened(
            directory,
            passphrase=passphrase,
            logs=logs,
            on_inconsistent=gossip.on_inconsistent,
            on_cosigned=gossip.cosigned,
        ) as witness:
            node = cls(witness, gossip, evidence)
            gossiping = asyncio.create_task(node._gossip(), name="gossip")
            try:
                yield node
            finally:
                gossiping.cancel()
                await asyncio.wait([gossiping])

    async def _gossip(self) -> None:
        try:
            with contextlib.closing(self.witness.checkpoints()) as cosigned:
                await self.gossip.run(cosigned)
        except Exception:
            # It goes on cosigning what is proven to follow, but its operator must know.
            self._gossip_failure = "the gossip has stopped: see the witness's log, and restart it"
            _logger.exception("the gossip has stopped")
