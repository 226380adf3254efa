"""Collecting cosignatures: every witness in parallel, each at its own pace.

One task for each witness submits the newest signed head, remembers what the witness has seen, and
backs off when it does not answer. The publisher asks for a quorum; whatever comes later is added
to the published checkpoint as long as it is the current one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from tlog.log.errors import NoQuorum
from tlog.log.head import Head
from tlog.log.reader import Reader
from tlog.notes import (
    NoteError,
    NoteSignature,
    Policy,
    PolicyWitness,
    VerifierKey,
    known_signatures,
    parse_note,
    parse_signatures,
)
from tlog.notes import verify_cosignature as verify
from tlog.store import StoreError

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
# After this many failures in a row a witness counts as away; one attempt brings it back.
FAILURES_UNTIL_AWAY = 3

_log = structlog.get_logger(__name__)


class CosignerError(Exception):
    """A witness did not cosign. The message says why, in one line."""


class CosignerConflict(CosignerError):
    """The witness has cosigned a head of another size: prove consistency with that one.

    Attributes:
        size: tree size of the latest head that it cosigned.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"the witness has cosigned size {size}")
        self.size = size


class Cosigner(Protocol):
    """A witness to submit heads to (c2sp.org/tlog-witness); implemented in `tlog.remote`."""

    async def add_checkpoint(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        """Submit a checkpoint; gives the signature lines of the answer, unverified.

        Raises:
            CosignerConflict: the old size is not the one the witness has.
            CosignerError: anything else; trying again later may help.
        """


@dataclass(frozen=True, slots=True)
class CosignerStatus:
    """How the witness at one URL does, for metrics and `tlog log status`.

    Attributes:
        names: what the policy calls it, once for each of its keys.
        url: where it is asked.
        cosigned_size: tree size of the last head that it cosigned since the log was opened.
        failures: attempts that failed since then.
        away: the last few failed, and it is asked less often.
        last_error: why the last attempt failed; empty when it did not.
        last_seconds: how long the last cosignature took; 0 before the first one.
    """

    names: tuple[str, ...]
    url: str
    cosigned_size: int
    failures: int
    away: bool
    last_error: str
    last_seconds: float


class Cosigners:
    """The witnesses of one log's policy.

    Args:
        policy: whose quorum decides.
        cosigners: how to reach the witnesses, by the URL in the policy.
        reader: gives the consistency proofs.
        published: the head that is shown by now; its cosignatures are kept until newer ones come.
        timeout: seconds a witness may take to answer, and all of them to make a quorum.
        fail_open: publish without a quorum rather than not at all. Off, unless an operator insists.
        late: called with the head and all its cosignatures when one came after the quorum.
    """

    def __init__(
        self,
        policy: Policy,
        cosigners: Mapping[str, Cosigner],
        reader: Reader,
        *,
        published: Head | None,
        timeout: float,
        fail_open: bool,
        late: Callable[[Head], None],
    ) -> None:
        self.policy = policy
        self._timeout = timeout
        self.fail_open = fail_open
        self._late = late
        self._names = {witness.vkey: witness.name for witness in policy.witnesses}
        self._head = published
        # What was collected for the head, and for the same tree before it was submitted again.
        self._signatures: dict[VerifierKey, NoteSignature] = {}
        self._earlier = {} if published is None else _cosignatures(published, list(self._names))
        self._closing = False
        # The quorum is there, or nothing is to be waited for.
        self._settled = asyncio.Event()
        self._feeders = [
            _Feeder(
                url,
                cosigner,
                [witness for witness in policy.witnesses if witness.url == url],
                reader,
                timeout=timeout,
                cosigned=self._cosigned,
                failed=self._settle,
            )
            for url, cosigner in cosigners.items()
        ]

    def status(self) -> list[CosignerStatus]:
        """How each witness does."""
        return [feeder.status() for feeder in self._feeders]

    async def run(self) -> None:
        """Feed the witnesses until cancelled."""
        async with asyncio.TaskGroup() as group:
            for feeder in self._feeders:
                group.create_task(feeder.run())

    async def cosign(self, head: Head) -> Head:
        """Submit a head to all witnesses and wait for the quorum.

        Asked again for the same head, it goes on where it was. A head that only equals it is
        cosigned anew, and new cosignatures make the quorum.

        Returns:
            The head, its note with the cosignatures that there are when the quorum is met.

        Raises:
            NoQuorum: it was not met in time.
        """
        if head is not self._head:
            again = self._head is not None and self._head.checkpoint == head.checkpoint
            self._earlier = {**self._earlier, **self._signatures} if again else {}
            self._head, self._signatures = head, {}
            self._settled.clear()
            for feeder in self._feeders:
                feeder.submit(head)
        self._settle()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), self._timeout)
        if not self._satisfied():
            self._without_quorum(head)
        return self.so_far(head)

    def close(self) -> None:
        """Wait for a quorum no longer than witnesses that answer could still make one."""
        self._closing = True
        self._settle()

    def _settle(self) -> None:
        if self._satisfied() or (self._closing and not self._within_reach()):
            self._settled.set()

    def _within_reach(self) -> bool:
        answering = {
            name for feeder in self._feeders if not feeder.failed_in_a_row for name in feeder.names
        }
        return self.policy.satisfied_by(self._cosigned_by() | answering)

    def _without_quorum(self, head: Head) -> None:
        have = ", ".join(sorted(repr(name) for name in self._cosigned_by())) or "nobody"
        reason = f"no quorum for the head of size {head.size}: cosigned by {have}"
        if not self.fail_open:
            raise NoQuorum(reason)
        _log.warning("published without a quorum: fail_open is on", reason=reason)

    def _cosigned(self, head: Head, signatures: Mapping[VerifierKey, NoteSignature]) -> None:
        if head is not self._head:
            return  # of a head that was given up; the witness is being asked for the next
        self._signatures.update(signatures)
        self._settle()
        if self._satisfied():
            # Of use when the head is published already; the publisher knows.
            self._late(self.so_far(head))

    def _cosigned_by(self) -> set[str]:
        return {self._names[vkey] for vkey in self._signatures}

    def _satisfied(self) -> bool:
        return self.policy.satisfied_by(self._cosigned_by())

    def so_far(self, head: Head) -> Head:
        """The head last given to `cosign`, its note with the cosignatures there are by now."""
        newest = {**self._earlier, **self._signatures}
        lines = [newest[vkey].encode() for vkey in self._names if vkey in newest]
        return Head(head.checkpoint, head.note + b"".join(lines))


class _Feeder:
    """Submits heads to one witness: always the newest, one at a time."""

    def __init__(
        self,
        url: str,
        cosigner: Cosigner,
        witnesses: Sequence[PolicyWitness],
        reader: Reader,
        *,
        timeout: float,
        cosigned: Callable[[Head, Mapping[VerifierKey, NoteSignature]], None],
        failed: Callable[[], None],
    ) -> None:
        self._url = url
        self._cosigner = cosigner
        self.names = tuple(witness.name for witness in witnesses)
        self._vkeys = tuple(witness.vkey for witness in witnesses)
        self._reader = reader
        self._timeout = timeout
        self._report = cosigned
        self._report_failure = failed
        self._wanted: Head | None = None
        self._wake = asyncio.Event()
        # What the witness is known to have; wrong guesses are healed by its 409.
        self._known_size = 0
        self._cosigned_size = 0
        self._failures = 0
        self.failed_in_a_row = 0
        self._last_error = ""
        self._last_seconds = 0.0

    def status(self) -> CosignerStatus:
        return CosignerStatus(
            names=self.names,
            url=self._url,
            cosigned_size=self._cosigned_size,
            failures=self._failures,
            away=self.failed_in_a_row >= FAILURES_UNTIL_AWAY,
            last_error=self._last_error,
            last_seconds=self._last_seconds,
        )

    def submit(self, head: Head) -> None:
        self._wanted = head
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            head = self._wanted
            if head is None:
                continue
            started = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    signatures = await self._submit(head)
            except (CosignerError, NoteError, StoreError, TimeoutError) as error:
                self._failures += 1
                self.failed_in_a_row += 1
                self._last_error = str(error) or f"no answer in {self._timeout:g} s"
                if self.failed_in_a_row == FAILURES_UNTIL_AWAY:
                    _log.warning("witness is away", url=self._url, reason=self._last_error)
                self._report_failure()
                self._wake.set()
                await asyncio.sleep(self._pause())
                continue
            if self.failed_in_a_row >= FAILURES_UNTIL_AWAY:
                _log.info("witness is back", url=self._url)
            self.failed_in_a_row = 0
            self._last_error = ""
            self._cosigned_size = head.size
            self._last_seconds = time.monotonic() - started
            self._report(head, signatures)

    async def _submit(self, head: Head) -> Mapping[VerifierKey, NoteSignature]:
        for _ in range(3):
            old_size = self._known_size
            proof = self._reader.consistency_proof(old_size, head.size)
            try:
                answer = await self._ask(old_size, proof, head.note)
            except CosignerConflict as conflict:
                if conflict.size > head.size:
                    raise CosignerError(
                        f"the witness has cosigned size {conflict.size}, this log has signed "
                        f"{head.size}: was an old copy of the log put back?"
                    ) from None
                self._known_size = conflict.size
                continue
            self._known_size = head.size
            return self._verified(head, answer)
        raise CosignerError("the witness keeps changing its mind about the size it has")

    async def _ask(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
        try:
            return await self._cosigner.add_checkpoint(old_size, proof, note)
        except (CosignerError, TimeoutError):
            raise
        except Exception as error:
            # A stranger's answer must not end the log, whatever it does to the code that reads it.
            _log.exception("internal error", url=self._url)
            raise CosignerError(f"internal error: {type(error).__name__}") from error

    def _verified(self, head: Head, answer: bytes) -> Mapping[VerifierKey, NoteSignature]:
        # SPEC tlog-witness: "The client MUST ignore any cosignatures from unknown keys."
        known: dict[VerifierKey, NoteSignature] = {}
        for signature in parse_signatures(answer):
            for vkey in self._vkeys:
                if (signature.name, signature.key_id) == (vkey.name, vkey.key_id):
                    # SPEC tlog-witness: "the timestamp MUST NOT be zero."
                    if not verify(head.checkpoint, vkey, signature):
                        raise CosignerError(f"{vkey.label} does not say when it cosigned")
                    known[vkey] = signature
        if not known:
            raise CosignerError("the answer has no cosignature of the keys in the policy")
        return known

    def _pause(self) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(self.failed_in_a_row, 16)))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter, not a secret


def _cosignatures(head: Head, vkeys: Sequence[VerifierKey]) -> dict[VerifierKey, NoteSignature]:
    """The cosignatures by these keys that a stored head came with."""
    try:
        known = dict(known_signatures(parse_note(head.note), vkeys))
        for vkey, signature in known.items():
            verify(head.checkpoint, vkey, signature)
    except NoteError as error:
        _log.warning("the stored cosignatures are not used", reason=str(error))
        return {}
    return known
