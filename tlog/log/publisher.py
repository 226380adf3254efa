"""The publisher signs the newest durable tree, persists what it signed, and shows it.

Which state is owned by whom: the store holds two texts, `signed` and `published`. `signed` is
written, synced and copied to the marker file before anything leaves the process, so that no later
start can sign a head that contradicts it. Only `published` is ever shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Protocol

import structlog

from tlog.log.errors import NoQuorum, StateRefused, Unavailable
from tlog.log.head import Head
from tlog.log.reader import Reader
from tlog.log.sequencer import Sequencer
from tlog.merkle import EMPTY_ROOT, ProofError, RightEdge, verify_consistency
from tlog.notes import Checkpoint, Signer, sign_checkpoint
from tlog.store import LogStore, StoreError

SIGNED = "signed"
PUBLISHED = "published"

_log = structlog.get_logger(__name__)


class HeadSigner:
    """Signs heads of one log, and refuses any that is not proven to follow the last one.

    Args:
        store: where the last signed head is kept.
        reader: gives the consistency proofs, from the stored tiles.
        signers: keys under one name, the log's origin.
        clock: POSIX time, in seconds, for the time in the ML-DSA-44 signature.
        signed: the last head that was signed, None for a log that never signed one.
    """

    def __init__(
        self,
        store: LogStore,
        reader: Reader,
        signers: Sequence[Signer],
        *,
        clock: Callable[[], float],
        signed: Head | None,
    ) -> None:
        self._store = store
        self._reader = reader
        self._signers = signers
        self._clock = clock
        self.signed = signed

    @property
    def origin(self) -> str:
        """The log's identity."""
        return self._signers[0].vkey.name

    def sign(self, edge: RightEdge) -> Head:
        """Sign the head of a durable tree and hand it to the store.

        Nothing of it may leave the process before `persist` has returned.

        Raises:
            StateRefused: the tree does not follow from the last signed head. Nothing was signed.
            StoreError: the store did not take it.
        """
        root = edge.root()
        # SPEC tlog-checkpoint: "A log MUST not sign any checkpoint which is inconsistent with any
        # checkpoint it previously signed."
        self._prove_follows(edge.size, root)
        checkpoint = Checkpoint(origin=self.origin, size=edge.size, root_hash=root)
        note = sign_checkpoint(checkpoint, self._signers, timestamp=int(self._clock()))
        self.signed = Head(checkpoint, note)
        self._store.put_state({SIGNED: note})
        return self.signed

    def persist(self, head: Head) -> None:
        """Make a signed head durable, in the store and in the marker file. Blocks on the disk.

        Raises:
            StoreError: it is not known to be durable: it must not be shown.
        """
        self._store.sync()
        self._store.write_marker(head.note)

    def _prove_follows(self, size: int, root: bytes) -> None:
        old_size, old_root = 0, EMPTY_ROOT
        if self.signed is not None:
            old_size, old_root = self.signed.size, self.signed.checkpoint.root_hash
        try:
            if size < old_size:
                raise ProofError(f"the tree has {size} entries")
            verify_consistency(
                old_size=old_size,
                new_size=size,
                old_root=old_root,
                new_root=root,
                proof=self._reader.consistency_proof(old_size, size),
            )
        except ProofError as error:
            raise StateRefused(
                f"refusing to sign a tree of size {size}: it does not follow from the head signed "
                f"at size {old_size} ({error}). Run: tlog fsck DIR"
            ) from None


class Witnessing(Protocol):
    """How a signed head becomes one that may be published."""

    async def cosign(self, head: Head) -> Head:
        """Give the head with enough cosignatures, or raise NoQuorum."""

    def so_far(self, head: Head) -> Head:
        """The head with the cosignatures that there are by now."""

    def close(self) -> None:
        """From now on, wait for no quorum that is known to be away."""


class Publisher:
    """Publishes heads, at most one in each interval, and tells whoever waits for one.

    Args:
        store: where the published head is kept.
        sequencer: gives the durable tree.
        signer: signs it.
        executor: where blocking calls run.
        interval: least seconds between two publications.
        published: the last published head, None for a log that never published one.
        witnessing: how a head becomes cosigned; None publishes what is signed.
        refresh_interval: seconds after which an unchanged head is cosigned anew.

    Attributes:
        latest: the latest published head, None while the first one waits for its quorum.
        refusal: why the newest head is not published, or its cosignatures are not renewed; empty
            when they are.
    """

    def __init__(
        self,
        store: LogStore,
        sequencer: Sequencer,
        signer: HeadSigner,
        *,
        executor: Executor,
        interval: float,
        published: Head | None,
        witnessing: Witnessing | None = None,
        refresh_interval: float = 3600.0,
    ) -> None:
        self._store = store
        self._witnessing = witnessing
        self._refresh_interval = refresh_interval
        # On the loop's clock. A log that starts asks at once: its witnesses may have changed.
        self._cosigned_at = -refresh_interval
        self._sequencer = sequencer
        self._signer = signer
        self._executor = executor
        self._interval = interval
        self.latest = published
        self.refusal = ""
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def published(self) -> Head:
        """The latest published head: the only one that may be shown to anybody."""
        if self.latest is None:
            raise Unavailable("nothing is published yet: the first head waits for its quorum")
        return self.latest

    def integrated(self) -> None:
        """The tree has grown."""
        self._wake.set()

    async def wait_for(self, size: int) -> Head:
        """Wait until a published head has at least this size.

        Raises:
            Unavailable: the log shuts down before that.
        """
        while self.latest is None or self.latest.size < size:
            await asyncio.shield(self._next)
        return self.latest

    async def run(self) -> None:
        """Publish whenever the tree has grown, until closed and up to date.

        Raises:
            StateRefused: the tree is not what was signed. Nothing is published any more.
        """
        try:
            while True:
                work = await self._work()
                closing = self._closed.is_set()
                started = time.monotonic()
                if not self._sequencer.halted:
                    try:
                        await work()
                    except StoreError as error:
                        # The sequencer wakes this task again when the store is proven.
                        self._sequencer.halt(error)
                    except NoQuorum as error:
                        if not self.refusal:
                            _log.warning("waiting for a quorum", reason=str(error))
                        self.refusal = str(error)
                        self._wake.set()
                if closing:
                    return
                await self._pause(started + self._interval - time.monotonic())
        finally:
            self._next.add_done_callback(lambda done: done.exception())
            self._next.set_exception(Unavailable("the log stopped before it published the entry"))

    async def _work(self) -> Callable[[], Awaitable[None]]:
        """Wait until there is something to publish, or cosignatures have grown old."""
        due = self._cosigned_at + self._refresh_interval
        try:
            async with asyncio.timeout_at(None if self._witnessing is None else due):
                await self._wake.wait()
        except TimeoutError:
            return self.refresh
        self._wake.clear()
        return self.publish

    def close(self) -> None:
        """Publish what is durable, release whoever still waits, and let `run` return."""
        self._closed.set()
        if self._witnessing is not None:
            self._witnessing.close()
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the log closes."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), seconds)

    async def publish(self) -> None:
        """Sign the durable tree and publish it, unless that is done already.

        Raises:
            StateRefused, StoreError: see `HeadSigner.sign`. Nothing new was shown.
            NoQuorum: too few witnesses cosigned. Nothing new was shown.
        """
        edge = self._sequencer.edge
        if self.latest is not None and edge.size == self.latest.size:
            return
        await self._cosign_and_show(await self.sign())
        waiting, self._next = self._next, asyncio.get_running_loop().create_future()
        waiting.set_result(None)

    async def sign(self) -> Head:
        """Sign the durable tree and make the head durable, unless that is done already.

        Raises:
            StateRefused, StoreError: see `HeadSigner.sign`.
        """
        edge = self._sequencer.edge
        head = self._signer.signed
        if head is None or head.size != edge.size:
            head = self._signer.sign(edge)
            await self._blocking(self._signer.persist, head)
        return head

    async def refresh(self) -> None:
        """Collect new cosignatures for the published head, so that their times stay fresh."""
        if self._witnessing is not None and self._signer.signed is not None:
            await self._cosign_and_show(replace(self._signer.signed))

    def amend(self, head: Head) -> None:
        """Show cosignatures that came after the quorum, if their head is still the current one."""
        if self.latest is not None and head.checkpoint == self.latest.checkpoint:
            self._shown(head)
            if not self._sequencer.halted:
                self._store.put_state({PUBLISHED: head.note})

    async def _cosign_and_show(self, signed: Head) -> None:
        if self._witnessing is None:
            await self._show(signed)
            return
        self._cosigned_at = asyncio.get_running_loop().time()
        await self._show(await self._witnessing.cosign(signed))
        # A cosignature that came while the head was persisted found it not yet published.
        self.amend(self._witnessing.so_far(signed))

    async def _show(self, head: Head) -> None:
        self._store.put_state({PUBLISHED: head.note})
        await self._blocking(self._store.sync)
        self._shown(head)

    def _shown(self, head: Head) -> None:
        self.latest = head
        if self.refusal:
            _log.info("a quorum has cosigned", size=head.size)
            self.refusal = ""

    async def _blocking(self, call: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)
