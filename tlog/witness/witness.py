"""Verify, then record, then cosign: the state machine of tlog-witness, without its transport.

Which state is owned by whom: the latest cosigned head of each log is in the store, read anew for
every request in the log's turn, and changed by compare-and-swap alone. Nothing is remembered
between two requests but rates. A head is durable before its cosignatures leave this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from tlog.notes import (
    Algorithm,
    Note,
    NoteSignature,
    Signer,
    VerifiedCheckpoint,
    VerifierKey,
    cosign,
    cosign_subtree,
)
from tlog.notes.codec import shown
from tlog.store.heads import ORIGIN_HASH_SIZE, HeadStore
from tlog.witness import rules
from tlog.witness.commits import Change, Committer, Cosigned, Heads
from tlog.witness.config import WitnessConfig, load_signers
from tlog.witness.errors import (
    BadRequest,
    Frozen,
    Refusal,
    SizeConflict,
    TooManyRequests,
    Unavailable,
    UnknownOrigin,
    Unprocessable,
)
from tlog.witness.head import CosignedHead, Inconsistency, OnInconsistent, contradicts
from tlog.witness.identity import prove_identity
from tlog.witness.logs import FreezeReason, LogList, TrustedLog
from tlog.witness.rates import Rates
from tlog.witness.requests import check_hashes, check_sizes
from tlog.witness.sightings import Head
from tlog.witness.turns import Turns

_logger = structlog.get_logger(__name__)


def hash_origin(origin: str) -> bytes:
    """How a log is addressed. SPEC tlog-witness: "the SHA-256 hash of the log's origin"."""
    return hashlib.sha256(origin.encode()).digest()


class Witness:
    """A witness that is open. All methods run on one event loop.

    Args:
        config: name and limits.
        signers: its keys, under its name.
        logs: the logs that it trusts.
        heads: what it has cosigned; it owns this store from now on, but for closing it.
        clock: POSIX time in seconds, for the time in cosignatures.
        monotonic: seconds from any beginning, for rates and retries.
        on_inconsistent: who keeps the evidence; without one it is only reported.
        on_cosigned: told of each head that was cosigned, when that is durable;
            it must neither wait nor raise.
    """

    def __init__(
        self,
        config: WitnessConfig,
        signers: Sequence[Signer],
        logs: LogList,
        heads: Heads,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_inconsistent: OnInconsistent | None = None,
        on_cosigned: Callable[[Head], object] | None = None,
    ) -> None:
        self.config = config
        self.vkeys = tuple(signer.vkey for signer in signers)
        self.logs = logs
        self._signers = tuple(signers)
        self._clock = clock
        self._on_inconsistent = on_inconsistent
        self._on_cosigned = on_cosigned
        # Signing lets go of the GIL, and an ML-DSA-44 signature takes as long as a sync. Subtrees
        # have threads of their own, because nothing of them is recorded.
        self._signing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="tlog-sign")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="tlog-heads")
        self._commits = Committer(heads, self._disk, clock=monotonic)
        self._turns = Turns()
        self._head_rates, self._subtree_rates = (
            Rates(rate=config.rate, burst=config.burst, clock=monotonic) for _ in range(2)
        )
        self._running: set[asyncio.Task[list[NoteSignature]]] = set()
        self._closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        directory: Path,
        *,
        passphrase: bytes | None = None,
        clock: Callable[[], float] = time.time,
        logs: LogList | None = None,
        on_inconsistent: OnInconsistent | None = None,
        on_cosigned: Callable[[Head], object] | None = None,
    ) -> AsyncIterator[Witness]:
        """Open the witness of a directory. On leaving: finish what was begun, close the store.

        `logs` is the directory's list, when the caller needs it too.

        Raises:
            WitnessError, NoteError, StoreError: it cannot be opened; the message says why.
        """
        config = WitnessConfig.load(directory)
        signers = load_signers(directory, name=config.name, passphrase=passphrase)
        logs = LogList(directory) if logs is None else logs
        heads = HeadStore.open(directory)
        try:
            witness = cls(
                config,
                signers,
                logs,
                heads,
                clock=clock,
                on_inconsistent=on_inconsistent,
                on_cosigned=on_cosigned,
            )
            try:
                yield witness
            finally:
                await witness.close()
        finally:
            heads.close()

    async def close(self) -> None:
        """Take nothing new, and finish what was begun."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)
        await self._commits.finish()
        self._signing.shutdown()
        self._disk.shutdown()

    @property
    def failure(self) -> str | None:
        """Why the witness cannot record anything now; None when all is well."""
        return self._commits.failure

    async def add_checkpoint(
        self, old_size: int, proof: Sequence[bytes], note: bytes
    ) -> list[NoteSignature]:
        """Record and cosign a checkpoint that follows from the latest one cosigned for its log.

        A call that was begun is finished, also when the caller does not wait for it.

        Args:
            old_size: of the latest checkpoint that this witness cosigned for the log, or 0.
            proof: consistency proof (RFC 6962 section 2.1.2) from there, at most 63 hashes.
            note: the checkpoint, signed by the log.

        Returns:
            The cosignatures, one of each key of the witness.

        Raises:
            Refusal: in the order of SPEC tlog-witness: BadRequest, UnknownOrigin, BadSignature,
                Frozen, BadRequest (old size), SizeConflict, Unprocessable, TooManyRequests; and
                Unavailable.
        """
        self._check_open()
        check_sizes(old_size)
        check_hashes(proof, "consistency proof")
        signed = rules.parse(note)
        log = self._find(signed.checkpoint.origin)
        verified = rules.verify(signed, log.vkeys)
        _refuse_frozen(log)
        rules.check_old_size(old_size, verified.checkpoint)
        deciding = asyncio.create_task(self._decide(log, verified, old_size, tuple(proof)))
        self._running.add(deciding)
        deciding.add_done_callback(self._done)
        # Else a caller who hangs up would end the log's turn in the middle of a commit.
        return await asyncio.shield(deciding)

    def prove_identity(self, vkey: str, challenge: bytes) -> bytes:
        """See `tlog.witness.identity`."""
        return prove_identity(self._signers, vkey, challenge)

    async def sign_subtree(
        self, start: int, end: int, root_hash: bytes, proof: Sequence[bytes], note: bytes
    ) -> list[NoteSignature]:
        """Cosign the leaves [start, end) of a tree that this witness has cosigned.

        Args:
            start: index of the first leaf.
            end: index after the last one.
            root_hash: of the subtree, 32 bytes.
            proof: subtree consistency proof to the checkpoint, at most 63 hashes.
            note: a checkpoint with a cosignature of this witness.

        Returns:
            The cosignature of the ML-DSA-44 key, with timestamp 0.

        Raises:
            Refusal: in the order of SPEC tlog-witness: BadRequest, Unprocessable, UnknownOrigin,
                BadSignature, Frozen, TooManyRequests.
        """
        self._check_open()
        check_sizes(start, end)
        check_hashes((root_hash,), "subtree hash")
        check_hashes(proof, "consistency proof")
        signed = rules.parse(note)
        subtree = rules.parse_subtree(signed.checkpoint.origin, start, end, root_hash)
        rules.check_subtree(signed.checkpoint, subtree, proof)
        # SPEC tlog-witness: "If the checkpoint origin is unknown, the witness MUST respond with a
        # "404 Not Found" HTTP status code. The witness MUST verify that the checkpoint includes a
        # valid cosignature from one of its own keys. If the witness can't verify the checkpoint,
        # it MUST respond with a "403 Forbidden" HTTP status code."
        log = self._find(signed.checkpoint.origin)
        rules.verify(signed, self.vkeys)
        _refuse_frozen(log)
        _charge(self._subtree_rates, log)
        # SPEC tlog-witness: "The cosignature format MUST support subtree cosigning. If the
        # cosignature format supports timestamps, the timestamp MUST be zero."
        signers = [s for s in self._signers if s.vkey.algorithm is Algorithm.MLDSA44]
        return await asyncio.get_running_loop().run_in_executor(
            self._signing, lambda: [cosign_subtree(subtree, s, timestamp=0) for s in signers]
        )

    def checkpoint(self, origin_hash: bytes) -> bytes:
        """The latest checkpoint cosigned for a log: a note.

        It has the log's signatures that were verified, and the cosignatures that were returned.

        Raises:
            BadRequest: not 32 bytes.
            UnknownOrigin: there is none.
            Unavailable: the store cannot be read.
        """
        if len(origin_hash) != ORIGIN_HASH_SIZE:
            raise BadRequest(f"an origin hash has {ORIGIN_HASH_SIZE} bytes, not {len(origin_hash)}")
        # SPEC tlog-witness: "If the witness has never cosigned a checkpoint for that log, it MUST
        # respond with a "404 Not Found" HTTP status code instead."
        if (stored := self._commits.read(origin_hash)) is None:
            raise UnknownOrigin(f"no checkpoint was ever cosigned for {origin_hash.hex()}")
        return CosignedHead.decode(stored).note

    def cosigned_size(self, origin: str) -> int | None:
        """Tree size of the latest checkpoint cosigned for a log; None when there is none.

        Raises:
            Unavailable: the store cannot be read.
        """
        stored = self._commits.read(hash_origin(origin))
        return None if stored is None else CosignedHead.decode(stored).checkpoint.size

    def checkpoints(self) -> Generator[bytes, None, None]:
        """The latest checkpoint of every log that was ever cosigned, as `checkpoint` gives it."""
        for _, stored in self._commits.read_all():
            yield CosignedHead.decode(stored).note

    async def _decide(
        self,
        log: TrustedLog,
        verified: VerifiedCheckpoint,
        old_size: int,
        proof: tuple[bytes, ...],
    ) -> list[NoteSignature]:
        """All that depends on the latest cosigned head, in the log's turn."""
        key = hash_origin(log.origin)
        # SPEC tlog-witness: "checking the old size against the latest checkpoint and persisting
        # the new checkpoint must be performed atomically".
        async with self._turns.of(key):
            # While this waited, a conflict may have been found, or the operator stepped in.
            _refuse_frozen(self._find(log.origin))
            await self._commits.recover()
            expected = self._commits.read(key)
            stored = None if expected is None else CosignedHead.decode(expected)
            try:
                rules.check_follows(
                    None if stored is None else stored.checkpoint,
                    verified.checkpoint,
                    old_size=old_size,
                    proof=proof,
                )
            except (SizeConflict, Unprocessable) as refusal:
                await self._report(stored, verified, refusal)
                raise
            if (cosignatures := self._cosigned_now(stored, verified)) is not None:
                return cosignatures
            if stored is None or stored.checkpoint != verified.checkpoint:
                _charge(self._head_rates, log)
            change = Change(key, expected, self._cosigning(log, stored, verified))
            # SPEC tlog-witness: "The witness MUST persist the new checkpoint before responding."
            if (recorded := await self._commits.commit(change)) is None:
                # Turns exclude this; were they broken, the store would still not go back.
                raise Unavailable("the record changed while the checkpoint was cosigned: try again")
            if self._on_cosigned is not None:
                self._on_cosigned(Head.of(verified))
            return recorded.cosignatures

    def _cosigned_now(
        self, stored: CosignedHead | None, verified: VerifiedCheckpoint
    ) -> list[NoteSignature] | None:
        """The stored cosignatures, if new ones would say the same.

        Anybody can submit again what the log has published. That is worth a signature when it
        brings a newer time, and a timestamp has whole seconds: once in a second.
        """
        if stored is None or stored.checkpoint != verified.checkpoint:
            return None
        if int(self._clock()) > stored.timestamp:
            return None
        signatures = {signature.label: signature for signature in stored.signatures()}
        ours = [vkey.label for vkey in self._vkeys_for(verified)]
        if any(label not in signatures for label in ours):
            return None
        return [signatures[label] for label in ours]

    def _cosigning(
        self, log: TrustedLog, stored: CosignedHead | None, verified: VerifiedCheckpoint
    ) -> Callable[[], Cosigned]:
        """What signs. Nothing of it may leave this module before it is recorded."""
        checkpoint = verified.checkpoint
        signatures = rules.verified_signatures(verified)
        # SPEC tlog-witness: "The cosignature MUST NOT omit the timestamp, i.e. the timestamp MUST
        # NOT be zero."  Nor is a newer statement ever dated before an older one.
        timestamp = max(int(self._clock()), 1)
        if stored is not None:
            timestamp = max(timestamp, stored.timestamp)
            if stored.checkpoint == checkpoint:
                # Whoever submits it again with fewer of the log's signatures takes none away.
                trusted = {vkey.label for vkey in log.vkeys} - {s.label for s in signatures}
                signatures += [s for s in stored.signatures() if s.label in trusted]
        wanted = self._vkeys_for(verified)
        signers = [signer for signer in self._signers if signer.vkey in wanted]

        def cosigned() -> Cosigned:
            cosignatures = [cosign(checkpoint, signer, timestamp=timestamp) for signer in signers]
            both = (*signatures, *cosignatures)
            head = CosignedHead.of(checkpoint, both, timestamp=timestamp)
            return Cosigned(head.encode(), cosignatures)

        return cosigned

    def _vkeys_for(self, verified: VerifiedCheckpoint) -> Sequence[VerifierKey]:
        """The keys that cosign this checkpoint: all that can sign what was verified."""
        # SPEC tlog-cosignature: "checkpoint extension lines are not included in the signed message
        # for ML-DSA-44 cosignatures". Where the log signs with such keys only, anybody can have
        # written the extension lines, and an Ed25519 cosignature would cover them.
        if verified.checkpoint.body() == verified.note.text:
            return self.vkeys
        return [vkey for vkey in self.vkeys if vkey.algorithm is Algorithm.MLDSA44]

    async def _report(
        self, stored: CosignedHead | None, verified: VerifiedCheckpoint, refusal: Refusal
    ) -> None:
        """Hand two heads to whoever keeps the evidence, if they may be evidence."""
        # SPEC tlog-witness: "If the origin is known, and the signature is valid, the witness MAY
        # log the request even if the checkpoint fails one of the consistency checks above (but
        # MUST NOT cosign the checkpoint), as it might be proof of log misbehavior."
        if stored is None:
            return
        checkpoint = verified.checkpoint
        contradiction = contradicts(stored.checkpoint, checkpoint)
        unproven = (
            isinstance(refusal, Unprocessable) and 0 < stored.checkpoint.size < checkpoint.size
        )
        if not contradiction and not unproven:
            return
        submitted = Note(checkpoint.body(), tuple(rules.verified_signatures(verified))).encode()
        found = Inconsistency(checkpoint.origin, stored.note, submitted, contradiction)
        if self._on_inconsistent is None:
            _logger.warning("heads not consistent", origin=shown(found.origin), reason=str(refusal))
            return
        try:
            await self._on_inconsistent(found)
        except Exception:
            _logger.exception("evidence not kept", origin=shown(found.origin))

    def _find(self, origin: str) -> TrustedLog:
        # SPEC tlog-witness: "If the checkpoint origin is unknown, the witness MUST respond with a
        # "404 Not Found" HTTP status code."
        if (log := self.logs.find(origin)) is None:
            raise UnknownOrigin(f"this witness does not know the log {shown(origin)}")
        return log

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the witness is shutting down")

    def _done(self, deciding: asyncio.Task[list[NoteSignature]]) -> None:
        self._running.discard(deciding)
        if not deciding.cancelled():
            deciding.exception()  # is the caller's, who may be gone


def _refuse_frozen(log: TrustedLog) -> None:
    if log.frozen is FreezeReason.CONFLICT:
        raise Frozen(
            f"{shown(log.origin)} is frozen: it signed heads that contradict each other, and the "
            "operator of this witness has not cleared that"
        )
    if log.frozen is not None:
        raise Frozen(f"{shown(log.origin)} is frozen by the operator of this witness")


def _charge(rates: Rates, log: TrustedLog) -> None:
    if wait := rates.take(log.origin):
        raise TooManyRequests(
            f"more than this witness signs for one log: come back in {wait:.1f} s",
            retry_after=wait,
        )
