"""The verified copy of one log: entries that are proven to belong to it, and the mirror's head.

On the disk it is a log's directory without keys (`db/`, `HEAD`), and it is proven at the start as a
log's is; the head in it is signed by the log and cosigned by the mirror. Entries beyond that head
are the pending ones: durable sooner or later, and served when a head covers them.

One event loop owns the store; blocking calls run in the copy's own thread.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tlog.log import Head, Reader, StateRefused
from tlog.log.publisher import PUBLISHED, SIGNED
from tlog.log.startup import Recovered, recover
from tlog.merkle import (
    HASH_SIZE,
    MerkleError,
    ProofError,
    RightEdge,
    Tile,
    leaf_hashes,
    verify_subtree_consistency,
)
from tlog.mirror.uploads import Package, PackageRange
from tlog.notes import (
    Checkpoint,
    Note,
    NoteSignature,
    Signer,
    VerifiedCheckpoint,
    VerifierKey,
    cosign,
)
from tlog.notes.note import parse_note
from tlog.store import Commit, LogStore, RocksStore, StoreCorrupt, StoreError
from tlog.store.disk import sync_directory
from tlog.witness import Unavailable, UnknownOrigin, Unprocessable, hash_origin
from tlog.witness.rules import verified_signatures

REFRESH_SECONDS = 60
"""A head that is submitted again is cosigned anew when its cosignature is older than this."""
RECOVERY_PAUSE = 1.0

T = TypeVar("T")

_logger = structlog.get_logger(__name__)


class Copy:
    """One log's copy, open. Made by `open_copy`.

    Args:
        origin: of the log.
        store: where it lives; nobody else writes to it.
        signers: the mirror's keys.
        clock: POSIX time in seconds, for the time in cosignatures.

    Raises:
        StateRefused, StoreError: what the disk holds is not what was cosigned, or cannot be read.
    """

    def __init__(
        self,
        origin: str,
        store: LogStore,
        signers: Sequence[Signer],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.origin = origin
        self.origin_hash = hash_origin(origin)
        self.vkeys = tuple(signer.vkey for signer in signers)
        self.reader = Reader(store)
        self._store = store
        self._signers = signers
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tlog-copy")
        self._committing = asyncio.Lock()
        self._failure: str | None = None
        self._retry_at = 0.0
        self._take(_recover(store, self.vkeys, origin))

    def _take(self, recovered: Recovered) -> None:
        self._edge = recovered.edge
        self._head = recovered.signed
        self._cosigned_at = 0 if self._head is None else _timestamp(self._head.note, self.vkeys)

    @property
    def next_entry(self) -> int:
        """The index of the first entry that the copy does not have."""
        return self._edge.size

    @property
    def head(self) -> Head | None:
        """The mirror checkpoint; None while there is none. All of its entries are durable."""
        return self._head

    @property
    def size(self) -> int:
        """The tree size of the mirror checkpoint; 0 while there is none."""
        return 0 if self._head is None else self._head.size

    @property
    def published(self) -> Head:
        """The mirror checkpoint: what is served.

        Raises:
            UnknownOrigin: there is none yet.
        """
        if self._head is None:
            raise UnknownOrigin(f"nothing of {self.origin} is mirrored yet")
        return self._head

    @property
    def failure(self) -> str | None:
        """Why nothing can be stored now; None when all is well."""
        return self._failure

    async def recover(self) -> None:
        """Reopen the store if it has failed, and prove it anew; cheap when it has not.

        Raises:
            Unavailable: it still fails, or was tried a moment ago.
        """
        if self._failure is None:
            return
        async with self._committing:
            if self._failure is None:
                return
            if time.monotonic() < self._retry_at:
                raise Unavailable(self._failure)
            self._retry_at = time.monotonic() + RECOVERY_PAUSE
            try:
                self._take(await self._blocking(self._reopen))
            except (StoreError, StateRefused) as error:
                raise self._fail(error) from None
            self._failure = None
            _logger.info("the copy is open again", origin=self.origin)

    def add(self, where: PackageRange, package: Package, tree: Checkpoint) -> None:
        """Save the entries of a package that are not there yet, if they belong to `tree`.

        They are not durable until `sync`. `tree` was a pending checkpoint.

        Raises:
            Unprocessable: they are not proven to belong to it. Nothing was saved.
            Unavailable: the store refuses, or has lost entries before these.
        """
        if where.start > self.next_entry:
            raise Unavailable(f"the disk has failed: go on at entry {self.next_entry}")
        # SPEC tlog-mirror: "First, it reconstructs the subtree hash based on the received entries
        # and entries already in the log. It then verifies the subtree consistency proof using
        # this hash and the checkpoint at `upload_end`."
        received = leaf_hashes(package.entries)
        hashes = self._stored_leaves(where) + received
        try:
            verify_subtree_consistency(
                start=where.base,
                end=where.end,
                size=tree.size,
                subtree_root=RightEdge().extend(hashes)[0].root(),
                root=tree.root_hash,
                proof=package.proof,
            )
        except ProofError as error:
            raise Unprocessable(
                f"entries {where.start} to {where.end - 1} are not those of the tree of "
                f"{tree.size} that the log has signed: {error}"
            ) from None
        # SPEC tlog-mirror: "If some entry has already been written to the log or the pending
        # entry list, the mirror MUST skip saving that entry."
        known = min(self.next_entry, where.end) - where.start
        if known < len(package.entries):
            self._save(package.entries[known:], received[known * HASH_SIZE :])

    def _stored_leaves(self, where: PackageRange) -> bytes:
        """The leaf hashes of [base, start)."""
        width = where.start - where.base
        if not width:
            return b""
        self._check()
        try:
            return self.reader.tile(Tile(0, where.base >> 8, width))
        except StoreError as error:
            raise self._fail(error) from None

    def _save(self, entries: Sequence[bytes], hashes: bytes) -> None:
        self._check()
        edge, tiles = self._edge.extend(hashes)
        try:
            self._store.commit(
                Commit(
                    begin=self._edge.size,
                    size=edge.size,
                    tiles=tiles,
                    entries=entries,
                    leaf_hashes=hashes,
                )
            )
        except StoreError as error:
            raise self._fail(error) from None
        self._edge = edge

    async def sync(self) -> None:
        """Make durable what was saved.

        Raises:
            Unavailable: it is not known to be.
        """
        self._check()
        try:
            await self._blocking(self._store.sync)
        except StoreError as error:
            raise self._fail(error) from None

    async def commit(self, verified: VerifiedCheckpoint) -> list[NoteSignature] | None:
        """Make a pending checkpoint, all of whose entries were saved, the mirror checkpoint.

        A call that was begun is finished, also when the caller does not wait for it.

        Returns:
            The mirror's cosignatures; None when the mirror checkpoint is ahead of it by now.

        Raises:
            Unavailable: the store refuses, or holds something else. Nothing was cosigned.
        """
        committing = asyncio.ensure_future(self._commit(verified))
        committing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(committing)

    async def _commit(self, verified: VerifiedCheckpoint) -> list[NoteSignature] | None:
        async with self._committing:
            checkpoint = verified.checkpoint
            # SPEC tlog-mirror: "Check if `upload_end` is still greater than or equal to the
            # mirror checkpoint's tree size."
            if checkpoint.size < self.size:
                return None
            fresh = self._clock() < self._cosigned_at + REFRESH_SECONDS
            if self._head is not None and checkpoint.size == self.size and fresh:
                return self._cosignatures(self._head.note)
            # SPEC tlog-mirror: "the mirror MUST NOT sign or update its mirror checkpoint until
            # all entries are durably committed."
            await self.sync()
            if checkpoint.size > self.next_entry:
                raise Unavailable(f"the disk has failed: go on at entry {self.next_entry}")
            self._check_root(checkpoint)
            return await self._cosign(verified)

    def _check_root(self, checkpoint: Checkpoint) -> None:
        """Is the copy what the log has signed? Each package was; now the disk is asked."""
        try:
            root = RightEdge.load(checkpoint.size, self._store.read_tile).root()
        except (StoreError, MerkleError) as error:
            raise self._fail(error) from None
        if root != checkpoint.root_hash:
            raise self._fail(
                StoreCorrupt(
                    f"at size {checkpoint.size} the copy has root {root.hex()}, but the log has "
                    f"signed {checkpoint.root_hash.hex()}"
                )
            )

    async def _cosign(self, verified: VerifiedCheckpoint) -> list[NoteSignature]:
        checkpoint = verified.checkpoint
        timestamp = max(int(self._clock()), self._cosigned_at, 1)
        cosignatures = await self._blocking(
            lambda: [cosign(checkpoint, signer, timestamp=timestamp) for signer in self._signers]
        )
        # SPEC tlog-mirror: "The mirror MUST retain the log's signature in the pending checkpoint."
        signatures = (*verified_signatures(verified), *cosignatures)
        head = Head(checkpoint, Note(checkpoint.body(), signatures).encode())
        # SPEC tlog-mirror: "The mirror MUST persist the new checkpoint before responding."
        try:
            self._store.put_state({SIGNED: head.note, PUBLISHED: head.note})
            await self._blocking(self._store.sync)
            await self._blocking(partial(self._store.write_marker, head.note))
        except StoreError as error:
            raise self._fail(error) from None
        self._head, self._cosigned_at = head, timestamp
        return cosignatures

    def _cosignatures(self, note: bytes) -> list[NoteSignature]:
        ours = {vkey.label for vkey in self.vkeys}
        return [signature for signature in parse_note(note).signatures if signature.label in ours]

    def _reopen(self) -> Recovered:
        self._store.reopen()
        return _recover(self._store, self.vkeys, self.origin)

    def _check(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure)

    def _fail(self, error: Exception) -> Unavailable:
        """Store nothing until the store was reopened and proven."""
        self._failure = f"the copy of {self.origin} cannot be written: {error}"
        _logger.error("a copy refuses", origin=self.origin, reason=str(error))
        return Unavailable(self._failure)

    async def close(self) -> None:
        """Finish what was begun, and let go of the store."""
        async with self._committing:
            await self._blocking(self._store.close)
            self._failure = self._failure or "the mirror is shutting down"
        self._executor.shutdown()

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def open_store(directory: Path) -> RocksStore:
    """Open the store of a copy, which is made if need be, whole or not at all."""
    if not directory.exists():
        unfinished = directory.with_name(f"{directory.name}.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        RocksStore.create(unfinished).close()
        unfinished.rename(directory)
        sync_directory(directory.parent)
    return RocksStore.open(directory)


def _recover(store: LogStore, vkeys: Sequence[VerifierKey], origin: str) -> Recovered:
    """The proven state of a copy; of one that has no head yet, the edge of its pending entries.

    Those were proven when they came, and the whole of them is again before a head is cosigned.
    """
    if store.get_state(SIGNED) is None and store.read_marker() is None:
        return Recovered(RightEdge.load(store.tree_size(), store.read_tile), None, None)
    return recover(store, vkeys, origin=origin)


def _timestamp(note: bytes, vkeys: Sequence[VerifierKey]) -> int:
    """When the mirror cosigned it; the signatures were verified."""
    label = vkeys[0].label
    signature = next(s for s in parse_note(note).signatures if s.label == label)
    return int.from_bytes(signature.signature[:8], "big")
