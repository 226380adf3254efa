"""One mirror: it keeps copies of logs, and cosigns a head when all below it is on its disk.

The pending checkpoints are kept by a `Witness` without keys: it verifies and records what follows,
by compare-and-swap, and cosigns nothing. Entries are authenticated against a checkpoint that was
pending, package by package, by the `Copy` of their log; the last one makes the head the mirror's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tlog.log import StateRefused
from tlog.merkle import TILE_WIDTH
from tlog.mirror.config import COPIES, MirrorConfig, copy_directory
from tlog.mirror.copy import Copy, open_store
from tlog.mirror.errors import MirrorError, UploadConflict
from tlog.mirror.tickets import Tickets
from tlog.mirror.uploads import MirrorInfo, Upload, UploadParser, canonical_sequence
from tlog.notes import NoteSignature, Signer, VerifiedCheckpoint
from tlog.notes.codec import shown
from tlog.store.heads import HeadStore
from tlog.witness import (
    BadRequest,
    Frozen,
    LogList,
    Refusal,
    TooManyRequests,
    TrustedLog,
    UnknownOrigin,
    Unprocessable,
    Witness,
    hash_origin,
    rules,
)
from tlog.witness.config import load_signers

MAX_EXCESS = 32 * TILE_WIDTH
"""Entries sent again that are there already; a request of the recommended length has as many."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The upload is complete: the mirror's cosignatures on the checkpoint at `upload_end`."""

    cosignatures: list[NoteSignature]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A part of the upload was saved: where to go on."""

    info: MirrorInfo


class Mirror:
    """A mirror that is open. Make one with `Mirror.opened`; all methods run on one event loop.

    Attributes:
        config: name and limits.
        vkeys: its verifier keys, Ed25519 first.
        logs: the logs that it mirrors.
        pending: keeps their pending checkpoints.
    """

    def __init__(
        self,
        directory: Path,
        config: MirrorConfig,
        signers: tuple[Signer, ...],
        logs: LogList,
        pending: Witness,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.directory = directory
        self.config = config
        self.vkeys = tuple(signer.vkey for signer in signers)
        self.logs = logs
        self.pending = pending
        self._signers = signers
        self._clock = clock
        self._tickets = Tickets.of(signers, clock=clock)
        self._copies: dict[bytes, Copy] = {}
        self._opening = asyncio.Lock()
        self._uploads = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        directory: Path,
        *,
        passphrase: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Mirror]:
        """Open the mirror of a directory, and prove its copies.

        On leaving: finish what was begun, close the stores.

        Raises:
            WitnessError, NoteError, LogError, StoreError: it cannot be opened; the message says
                why.
        """
        config = MirrorConfig.load(directory)
        signers = load_signers(directory, name=config.name, passphrase=passphrase)
        logs = LogList(directory)
        heads = HeadStore.open(directory)
        # Without keys: SPEC tlog-mirror: "The mirror cosigner MUST NOT sign the checkpoint in
        # this process."
        pending = Witness(config.pending, (), logs, heads, clock=clock)
        mirror = cls(directory, config, signers, logs, pending, clock=clock)
        try:
            for log in logs:
                if copy_directory(directory, log.origin).exists():
                    await mirror._open(log.origin)
            yield mirror
        finally:
            await pending.close()
            for copy in mirror.copies():
                await copy.close()
            heads.close()

    @property
    def failure(self) -> str | None:
        """Why the mirror cannot do all of its work; None when all is well."""
        failures = (self.pending.failure, *(copy.failure for copy in self.copies()))
        return next((failure for failure in failures if failure is not None), None)

    def copies(self) -> Iterator[Copy]:
        """The copies that there are."""
        return iter(list(self._copies.values()))

    def copy(self, origin_hash: bytes) -> Copy:
        """The copy of a log.

        Raises:
            UnknownOrigin: there is none.
        """
        if (copy := self._copies.get(origin_hash)) is None:
            raise UnknownOrigin(f"nothing is mirrored under {origin_hash.hex()}")
        return copy

    async def copy_of(self, origin: str) -> Copy:
        """The copy of a log that is known, which is made if need be."""
        async with self._opening:
            return self._copies.get(hash_origin(origin)) or await self._open(origin)

    async def add_checkpoint(self, old_size: int, proof: tuple[bytes, ...], note: bytes) -> None:
        """Take a checkpoint for the pending one of its log. Nothing is cosigned.

        Raises:
            Refusal: as `Witness.add_checkpoint`.
        """
        # SPEC tlog-mirror: "The request is handled identically to that of a witness, updating the
        # pending checkpoint (but not the mirror checkpoint)".
        await self.pending.add_checkpoint(old_size, proof, note)

    def pending_checkpoint(self, log: TrustedLog) -> VerifiedCheckpoint:
        """The pending checkpoint of a log.

        Raises:
            Unprocessable: there never was one.
            BadSignature: no key that is trusted now has signed it.
        """
        try:
            note = self.pending.checkpoint(hash_origin(log.origin))
        except UnknownOrigin:
            # SPEC tlog-mirror: "If the mirror has never received a pending checkpoint signed by
            # the log, the mirror MUST respond with a "422 Unprocessable Entity"".
            raise Unprocessable(
                f"there is no pending checkpoint of {shown(log.origin)}: add one first"
            ) from None
        return rules.verify(rules.parse(note), log.vkeys)

    async def add_entries(self, pieces: AsyncIterator[bytes]) -> Mirrored | Accepted:
        """Take an upload, as its body arrives.

        Args:
            pieces: the body, decoded. It may end early, also with a Refusal: what is whole by
                then counts.

        Raises:
            Refusal: in the order of SPEC tlog-mirror: BadRequest, UnknownOrigin, Frozen,
                Unprocessable, UploadConflict; for a package Unprocessable, and BadRequest when
                there was none, or how the body ended; TooManyRequests; Unavailable.
        """
        if self._uploads >= self.config.max_uploads:
            raise TooManyRequests(f"{self._uploads} uploads are under way", retry_after=1)
        self._uploads += 1
        try:
            return await _Upload(self, pieces).run()
        finally:
            self._uploads -= 1

    def find(self, origin: bytes) -> TrustedLog:
        """The log that an upload is for.

        Raises:
            UnknownOrigin, Frozen: the mirror does not take it.
        """
        # SPEC tlog-mirror: "If `log_origin` is not a known log, the mirror MUST respond with a
        # "404 Not Found" HTTP status code."
        try:
            log = self.logs.find(origin.decode())
        except UnicodeDecodeError:
            log = None
        if log is None:
            raise UnknownOrigin(f"this mirror does not know the log {shown(origin)}")
        if log.frozen is not None:
            raise Frozen(f"{shown(log.origin)} is frozen by the operator of this mirror")
        return log

    def known(
        self, log: TrustedLog, copy: Copy, size: int, ticket: bytes
    ) -> VerifiedCheckpoint | None:
        """The checkpoint of this size, if it is or was a pending one as far as can be told."""
        pending = self.pending_checkpoint(log)
        if size == pending.checkpoint.size:
            return pending
        notes = (None if copy.head is None else copy.head.note, self._tickets.read(ticket))
        for note in notes:
            # A ticket for another log, or for one ahead of what is pending, is none.
            if note is None or size > pending.checkpoint.size:
                continue
            signed = rules.parse(note)
            if (signed.checkpoint.origin, signed.checkpoint.size) == (log.origin, size):
                with contextlib.suppress(Refusal):  # by keys that are not trusted any more
                    return rules.verify(signed, log.vkeys)
        return None

    def info(self, copy: Copy, verified: VerifiedCheckpoint) -> MirrorInfo:
        """Where an upload to this checkpoint goes on."""
        ticket = self._tickets.issue(verified.note.encode())
        return MirrorInfo(verified.checkpoint.size, copy.next_entry, ticket)

    async def _open(self, origin: str) -> Copy:
        directory = copy_directory(self.directory, origin)
        (self.directory / COPIES).mkdir(exist_ok=True)
        store = await asyncio.to_thread(open_store, directory)
        try:
            copy = Copy(origin, store, self._signers, clock=self._clock)
        except StateRefused as error:
            store.close()
            raise StateRefused(
                f"{directory}, the copy of {origin}: {error}. Without that directory the mirror "
                "starts, and makes the copy again"
            ) from None
        except BaseException:
            store.close()
            raise
        if copy.size > (self.pending.cosigned_size(origin) or 0):
            await copy.close()
            raise MirrorError(
                f"rollback: {self.directory / 'db'} knows no head of {origin} as new as the copy's "
                f"({copy.size} entries): an old copy of it was put back. Restore the newest"
            )
        self._copies[copy.origin_hash] = copy
        return copy


class _Upload:
    """One add-entries request."""

    def __init__(self, mirror: Mirror, pieces: AsyncIterator[bytes]) -> None:
        self._mirror = mirror
        self._pieces = pieces
        self._parser = UploadParser()
        self._ended: Refusal | None = None

    async def run(self) -> Mirrored | Accepted:
        while (upload := self._parser.head()) is None:
            if not await self._more():
                raise self._ended or BadRequest("the body ends before its packages begin")
        log = self._mirror.find(upload.log_origin)
        pending = self._mirror.pending_checkpoint(log)
        copy = await self._mirror.copy_of(log.origin)
        await copy.recover()
        tree = self._mirror.known(log, copy, upload.end, upload.ticket)
        if tree is None:
            # SPEC tlog-mirror: "If `upload_end` is neither a known pending checkpoint value nor
            # the mirror checkpoint's tree size, the mirror MUST respond with a "409 Conflict"".
            raise UploadConflict(
                f"no checkpoint of size {upload.end} is known to have been pending",
                info=self._mirror.info(copy, pending),
            )
        self._check_range(upload, copy, tree, pending)
        if not await self._packages(upload, copy, tree):
            await copy.sync()
            return Accepted(self._mirror.info(copy, tree))
        if (cosignatures := await copy.commit(tree)) is None:
            raise self._behind(upload, copy, self._mirror.pending_checkpoint(log))
        return Mirrored(cosignatures)

    def _check_range(
        self,
        upload: Upload,
        copy: Copy,
        tree: VerifiedCheckpoint,
        pending: VerifiedCheckpoint,
    ) -> None:
        # SPEC tlog-mirror: "If `upload_end` is less than the mirror checkpoint's tree size, the
        # mirror MUST respond with a "409 Conflict" HTTP status code."
        if upload.end < copy.size:
            raise self._behind(upload, copy, pending)
        # SPEC tlog-mirror: "If `upload_start` is greater than the mirror's next entry, the mirror
        # MUST respond with a "409 Conflict" HTTP status code."
        if upload.start > copy.next_entry:
            raise UploadConflict(
                f"the upload starts at {upload.start}, but entry {copy.next_entry} is missing",
                info=self._mirror.info(copy, tree),
            )
        # SPEC tlog-mirror: "Let `excess_entries = min(upload_end, next_entry) - upload_start`
        # [...]. If `excess_entries` is too large, the mirror MUST respond with a "409 Conflict"".
        excess = min(upload.end, copy.next_entry) - upload.start
        if excess > MAX_EXCESS:
            raise UploadConflict(
                f"{excess} of the entries are here already: at most {MAX_EXCESS} are read again",
                info=self._mirror.info(copy, tree),
            )

    def _behind(self, upload: Upload, copy: Copy, pending: VerifiedCheckpoint) -> UploadConflict:
        return UploadConflict(
            f"the upload ends at {upload.end}, but {copy.size} entries are mirrored already",
            info=self._mirror.info(copy, pending),
        )

    async def _packages(self, upload: Upload, copy: Copy, tree: VerifiedCheckpoint) -> bool:
        """Save one package after the other; whether all came."""
        saved = False
        for where in canonical_sequence(upload.start, upload.end):
            while (package := self._parser.package(where.end - where.start)) is None:
                if await self._more():
                    continue
                # SPEC tlog-mirror: "The mirror discards any partial bytes after the last
                # successfully authenticated entry package." And "400 Bad Request" where "no entry
                # package was authenticated and saved before the body ended".
                if not saved:
                    raise self._ended or BadRequest("the body ends before its first package does")
                return False
            copy.add(where, package, tree.checkpoint)
            saved = True
            await asyncio.sleep(0)  # others get their turn, also where a whole body is here
        return True

    async def _more(self) -> bool:
        """Wait for more of the body; False when there is no more."""
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            return False
        except Refusal as error:
            self._ended = error
            return False
        self._parser.feed(piece)
        return True
