"""A full audit: all entries and tiles of a log against its head, and that against its past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tlog.client.errors import StateError, Unreachable, VerificationError, printable
from tlog.client.opinion import check_consistency
from tlog.client.progress import AuditState, MemoryAudit, Progress
from tlog.client.verification import Head, check_follows, check_past
from tlog.client.verifier import Verifier
from tlog.client.walk import Walk, patiently
from tlog.merkle import RightEdge, SourceDamaged, SourceError, TileSource


@dataclass(frozen=True, slots=True)
class Audit:
    """What held. That it exists means that all of the log up to `head` is whole.

    Attributes:
        head: the head that was audited.
        previous: the last head audited before it; None if there was none.
        first: index of the first entry that was hashed in this audit; earlier ones did before.
        tiles: whether the log's tiles were compared; False where only entries are served.
    """

    head: Head
    previous: Head | None
    first: int
    tiles: bool


class Auditor:
    """Audits one log, and follows it from audit to audit.

    Args:
        source: where the log is read. `tlog.remote.open_source` gives one for a URL.
        verifier: whom to trust for its heads.
        state: remembers how far the last audit got and what the log has shown. By default only
            this object does, for as long as it lives.
    """

    def __init__(
        self, source: TileSource, verifier: Verifier, state: AuditState | None = None
    ) -> None:
        self._source = source
        self._verifier = verifier
        self._state = MemoryAudit() if state is None else state

    async def run(
        self,
        *,
        full: bool = False,
        progress: Callable[[int, int], None] = lambda done, size: None,
    ) -> Audit:
        """Audit the log up to its latest checkpoint.

        It goes on where the last audit ended, whole or interrupted. After kill -9 at most two
        seconds' work are done again.

        Args:
            full: hash all entries again, also those that were found whole before.
            progress: told how many entries have been hashed by now, and how many the log has.

        Raises:
            VerificationError: what is wrong, the first in the log first.
            Unreachable: the log cannot be read. What was done is kept.
            StateError: the state cannot be used.
        """
        with self._state.held():
            before = self._state.load()
            head = await self._checkpoint()
            edge, previous = RightEdge(), None
            if before is not None:
                await self._follow(before.head, head)
                previous = before.audited
                if not full:
                    edge = before.edge
                    await self._resume(before, head)
            # From here on the log has shown this head, whatever the audit finds.
            self._state.save(Progress(head, edge, previous))
            progress(edge.size, head.size)

            def save(reached: RightEdge) -> None:
                self._state.save(Progress(head, reached, previous))

            walk = Walk(self._source, head, edge, save=save)
            reached = await walk.run(lambda done: progress(done, head.size))
            self._state.save(Progress(head, reached, head))
            return Audit(head, previous, edge.size, self._source.serves_tiles)

    async def _checkpoint(self) -> Head:
        try:
            note = await self._source.checkpoint()
        except SourceDamaged as error:
            raise VerificationError("message", printable(str(error))) from None
        except SourceError as error:
            raise Unreachable(f"no checkpoint to be had: {printable(str(error))}") from None
        return self._verifier.checkpoint(note)

    async def _follow(self, old: Head, new: Head) -> None:
        """The new head is of one history with the newest one that the log has shown."""
        evidence = (old.note, new.note)
        if old.origin != new.origin:
            raise StateError(
                f"the audit state is that of the log {old.origin!r}, this is {new.origin!r}: give "
                "each log a state of its own"
            )
        if new.size < old.size:
            raise VerificationError(
                "rollback",
                f"the log has shown a head of size {old.size}, and now shows one of size "
                f"{new.size}. (To audit an old copy, give it a state of its own)",
                evidence=evidence,
            )
        try:
            proof = await self._proof(old.size, new.size)
        except VerificationError as error:
            raise VerificationError(
                "consistency",
                f"the head of size {new.size} is not proven to follow from that of size "
                f"{old.size}: {error}",
                evidence=evidence,
            ) from None
        check_follows(old, new, proof)
        check_consistency(
            old_size=old.size,
            new_size=new.size,
            old_root=old.root_hash,
            new_root=new.root_hash,
            proof=proof,
        )

    async def _resume(self, before: Progress, head: Head) -> None:
        """What an interrupted audit had hashed is the beginning of the tree of `head`."""
        size, root = before.edge.size, before.edge.root()
        if size in {0, before.head.size}:
            return  # that the heads follow each other says it
        proof = await self._proof(size, head.size)
        try:
            check_past(head, size=size, root=root, proof=proof)
        except VerificationError as error:
            raise VerificationError(
                "consistency",
                f"the first {size} entries, as the last audit read them before it was interrupted, "
                "are not in the signed tree: something else was served then. Audit anew, in full",
            ) from error
        check_consistency(
            old_size=size, new_size=head.size, old_root=root, new_root=head.root_hash, proof=proof
        )

    async def _proof(self, old_size: int, new_size: int) -> list[bytes]:
        if old_size in {0, new_size}:
            return []
        return await patiently(
            "consistency", lambda: self._source.consistency_proof(old_size, new_size)
        )
