"""Gossip: witnesses tell each other the heads they have seen, so that a log cannot show two pasts.

In a round a witness exchanges heads and conflicts with a few random peers, both ways. A head
counts for the log's signature on it, never for who brought it. Of one size with another root: a
conflict at once. Of another size: the log is asked for a consistency proof; until it gives one
the head is *unproven*, which is reported, told to peers, tried again ever more slowly, and not
called a conflict. A conflict is written down, stops the log from being cosigned here, is pushed
to every peer by whoever found it, and passed on in rounds by the others, who verify it first.

What strangers can cost: a message is bounded before it is looked at, and given up after
`MAX_REFUSED` bad items; per log, a few heads (`sightings`), one proof request at a time, and a
rate; in all, another rate. What is known already costs a look-up, without any cryptography.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from tlog.notes.codec import shown
from tlog.witness import rules
from tlog.witness.conflict import Conflict, parse_conflict, verify_conflict
from tlog.witness.errors import TooManyRequests, UnknownOrigin, WitnessError
from tlog.witness.evidence import EvidenceStore
from tlog.witness.exchange import (
    MAX_CONFLICTS,
    Peer,
    check_message,
    pack,
)
from tlog.witness.head import Inconsistency
from tlog.witness.limits import EVENTS, MAX_RECEIVING, MAX_REFUSED, GossipLimits
from tlog.witness.logs import Logs, TrustedLog
from tlog.witness.proving import LogSource, prove
from tlog.witness.rates import Rates
from tlog.witness.sightings import Claim, Head, Sightings, Unproven, Verdict

_BREATH: Final = 64  # items between two chances for others on the event loop
_MAX_REASON: Final = 200

_logger = structlog.get_logger(__name__)


class Gossip:
    """The gossip of one witness. Everything but `run` returns when its work is done.

    Attributes:
        stats: how often what has happened.
        silent: the peers whose last exchange failed, and why.

    Args:
        logs: the trusted logs.
        evidence: where conflicts are kept.
        peers: by name.
        source: the logs, to ask for proofs.
        freeze: stops the witness from cosigning a log, for a conflict.
        limits: how often, how long.
        clock: seconds, from any beginning.
        rng: chooses peers, and what is left out.
    """

    def __init__(
        self,
        logs: Logs,
        evidence: EvidenceStore,
        peers: Mapping[str, Peer],
        source: LogSource,
        *,
        freeze: Callable[[str], None],
        limits: GossipLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.stats = Counter(dict.fromkeys(EVENTS, 0))
        self.silent: dict[str, str] = {}
        self._logs = logs
        self._evidence = evidence
        self._peers = peers
        self._source = source
        self._freeze = freeze
        self._limits = limits = limits or GossipLimits()
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._seen: dict[str, Sightings] = {}
        self._own: dict[str, Head] = {}
        self._claimed: set[str] = set()
        self._checking: set[str] = set()
        self._receiving = 0
        self._to_spread: list[bytes] = []
        self._proof_rates = Rates(rate=limits.proof_rate, burst=limits.proof_burst, clock=clock)
        self._all_rates = Rates(
            rate=limits.all_proofs_rate, burst=limits.all_proofs_burst, clock=clock
        )
        self._parallel = asyncio.Semaphore(limits.parallel_proofs)
        self._wake = asyncio.Event()

    @property
    def peers(self) -> Sequence[str]:
        """The names of the peers, sorted."""
        return sorted(self._peers)

    async def run(self, cosigned: Iterable[bytes] = ()) -> None:
        """Gossip until cancelled.

        Args:
            cosigned: the heads that this witness had cosigned before. Those whose log, or whose
                key, is not trusted any more are nothing to gossip about.
        """
        try:
            for number, note in enumerate(cosigned, 1):
                with contextlib.suppress(WitnessError):
                    head = self._open(note)[1]
                    if head.checkpoint.origin not in self._own:  # no newer one has come meanwhile
                        self.cosigned(head)
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
        except WitnessError as error:
            _logger.error("not all heads cosigned before are compared", problem=str(error))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_rounds(), name="gossip-rounds")
            group.create_task(self._run_work(), name="gossip-work")

    def cosigned(self, head: Head) -> Verdict:
        """Take note of a head that this witness has just cosigned.

        It is proven consistent with the one cosigned before, so the log is not asked again.
        """
        origin = head.checkpoint.origin
        self._look_again(origin)
        before = self._own.get(origin)
        seen = self._seen.get(origin)
        if (
            before is not None
            and seen is not None
            and seen.latest.checkpoint == before.checkpoint
            and seen.latest.checkpoint.size < head.checkpoint.size
            and seen.contradiction(head) is None
        ):
            seen.settle(head)
            verdict = Verdict.NEW
        else:
            verdict = self._judge(head)
        if verdict is not Verdict.CONFLICT:
            self._own[origin] = head
        return verdict

    def submit(self, note: bytes) -> Verdict:
        """Judge a head that somebody was shown: a client, an auditor, a peer.

        Raises:
            Refusal: BadRequest, UnknownOrigin, BadSignature: it says nothing about a log.
        """
        if (verdict := self._known(note)) is not None:
            return verdict
        return self._judge(self._open(note)[1])

    async def on_inconsistent(self, inconsistency: Inconsistency) -> None:
        """`OnInconsistent` of the witness: asks nobody before it returns.

        Raises:
            Refusal: a head is not signed by a key that is trusted now.
        """
        stored, submitted = (
            self._open(note)[1] for note in (inconsistency.stored, inconsistency.submitted)
        )
        if inconsistency.contradiction:
            self._found(Conflict.between(stored.note, submitted.note))
        else:
            self._judge(stored)
            self._judge(submitted)

    async def receive(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The other side of `Peer.exchange`.

        Raises:
            BadRequest: more than one message may hold.
            TooManyRequests: others are being listened to.
        """
        check_message(heads, conflicts)
        if self._receiving == MAX_RECEIVING:
            raise TooManyRequests("too many gossip at once: come back in 1 s", retry_after=1)
        self._receiving += 1
        try:
            await self._take(heads, conflicts)
        finally:
            self._receiving -= 1
        return self._message(told={*heads, *conflicts})

    def stop_conflicting(self) -> None:
        """See to it that no log in conflict is cosigned.

        A crash may have come between the evidence and that; a list of logs may have been mended.

        Raises:
            WitnessError: the evidence cannot be read.
        """
        self._evidence.refresh()
        for origin in self._evidence.origins():
            if (log := self._logs.find(origin)) is not None and log.frozen is None:
                self._stop(origin)

    async def round(self) -> None:
        """Exchange heads and conflicts with a few peers, chosen at random."""
        self.stop_conflicting()
        self.stats["rounds"] += 1
        names = self._rng.sample(sorted(self._peers), min(self._limits.fanout, len(self._peers)))
        heads, conflicts = self._message(told=())
        await asyncio.gather(*(self._exchange(name, heads, conflicts) for name in names))

    async def work(self) -> None:
        """Push what was found to all peers, and ask the logs for the proofs that are due."""
        spread, self._to_spread = self._to_spread, []
        now = self._clock()
        origins = [
            origin
            for origin in self._claimed - self._checking
            if any(claim.due <= now for claim in self._seen[origin].claims.values())
        ]
        await asyncio.gather(
            *(self._exchange(name, (), spread) for name in self._peers if spread),
            *(self._check_log(origin) for origin in sorted(origins)),
        )

    def unproven(self) -> list[Unproven]:
        """The heads that are unproven now."""
        return [
            Unproven(
                origin,
                claim.head.checkpoint.size,
                self._seen[origin].latest.checkpoint.size,
                claim.since,
                claim.attempts,
                claim.reason,
            )
            for origin in sorted(self._claimed)
            for claim in self._seen[origin].claims.values()
            if claim.attempts
        ]

    def latest(self, origin: str) -> bytes | None:
        """The latest head seen of a log that is not in conflict."""
        seen = self._seen.get(origin)
        return None if seen is None else seen.latest.note

    async def _run_rounds(self) -> None:
        while True:
            # Not in step with the peers, who may all have started together.
            await asyncio.sleep(self._limits.interval * self._rng.uniform(0.5, 1.5))
            try:
                await self.round()
            except WitnessError as error:
                _logger.error("no round of gossip", problem=str(error))

    async def _run_work(self) -> None:
        while True:
            self._wake.clear()
            await self.work()
            due = [c.due for o in self._claimed for c in self._seen[o].claims.values()]
            wait = max(min(due, default=float("inf")) - self._clock(), 0.1)
            pause = min(wait, self._limits.interval)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _exchange(
        self, name: str, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> None:
        try:
            async with asyncio.timeout(self._limits.peer_timeout):
                answer = await self._peers[name].exchange(heads, conflicts)
            check_message(*answer)
        except Exception as error:  # noqa: BLE001 -- no peer may stop the gossip with others
            self.stats["peer_failures"] += 1
            reason = _reason(error)
            if name not in self.silent:
                _logger.warning("a peer does not answer", peer=name, reason=reason)
            self.silent[name] = reason
            return
        if self.silent.pop(name, None) is not None:
            _logger.info("a peer answers again", peer=name)
        await self._take(*answer)

    async def _take(self, heads: Sequence[bytes], conflicts: Sequence[bytes]) -> None:
        """Judge what a peer says; conflicts first, which spare the judging of heads."""
        refused = 0
        items: list[tuple[Callable[[bytes], object], bytes]] = []
        items += ((self._believe, data) for data in conflicts)
        items += ((self.submit, data) for data in heads)
        for number, (judge, data) in enumerate(items, 1):
            try:
                judge(data)
            except UnknownOrigin:
                self.stats["unknown_origins"] += 1
            except WitnessError as error:
                self.stats["refused"] += 1
                refused += 1
                if refused == MAX_REFUSED:
                    _logger.info("a peer's message is given up", reason=_reason(error))
                    return
            if number % _BREATH == 0:
                await asyncio.sleep(0)

    def _believe(self, data: bytes) -> None:
        """A conflict from a peer: verified before anything is done about it."""
        conflict = parse_conflict(data)
        if self._evidence.knows(conflict.digest) or not self._evidence.has_room(conflict.origin):
            return
        if (log := self._logs.find(conflict.origin)) is None:
            raise UnknownOrigin(f"no log {shown(conflict.origin)} is known here")
        verified = verify_conflict(data, log.vkeys, origin=log.origin)
        self._keep(verified, "conflicts_received")

    def _known(self, note: bytes) -> Verdict | None:
        """The verdict on a head that changes nothing, whoever signed it."""
        origin = note[: note.find(b"\n")].decode(errors="replace")
        if origin in self._evidence:
            return Verdict.CONFLICT
        if (seen := self._seen.get(origin)) is None:
            return None
        if seen.latest.note == note:
            return Verdict.KNOWN
        checkpoint = rules.parse(note).checkpoint
        if checkpoint.origin == origin and seen.known(checkpoint.size, checkpoint.root_hash):
            return Verdict.KNOWN
        return None

    def _open(self, note: bytes) -> tuple[TrustedLog, Head]:
        signed = rules.parse(note)
        # Before the signatures: most floods end here.
        if (log := self._logs.find(signed.checkpoint.origin)) is None:
            raise UnknownOrigin(f"no log {shown(signed.checkpoint.origin)} is known here")
        return log, Head.of(rules.verify(signed, log.vkeys))

    def _judge(self, head: Head) -> Verdict:
        checkpoint = head.checkpoint
        origin = checkpoint.origin
        if origin in self._evidence:
            return Verdict.CONFLICT
        seen = self._seen.get(origin)
        if seen is None:
            first = Sightings(head)
            if (other := first.contradiction(head)) is None:
                self._seen[origin] = first
                return Verdict.NEW
        elif (other := seen.contradiction(head)) is None:
            if seen.known(checkpoint.size, checkpoint.root_hash):
                return Verdict.KNOWN
            seen.claim(head, self._clock(), self._rng)
            self._claimed.add(origin)
            self._wake.set()
            self.stats["claims"] += 1
            return Verdict.CLAIMED
        self._found(Conflict.between(other.note, head.note))
        return Verdict.CONFLICT

    def _found(self, conflict: Conflict) -> None:
        """A conflict that this witness can prove itself."""
        if self._keep(conflict, "conflicts_found"):
            self._to_spread.append(conflict.encode())
            del self._to_spread[MAX_CONFLICTS:]  # rounds bring the others
            self._wake.set()

    def _keep(self, conflict: Conflict, counter: str) -> bool:
        """Write it down and stop cosigning the log; whether this is its first conflict."""
        origin = conflict.origin
        self._look_again(origin)
        if self._evidence.knows(conflict.digest) and origin not in self._evidence:
            return False  # the operator has cleared this very one
        first = origin not in self._evidence
        try:
            if not self._evidence.keep(conflict):
                return False
        except WitnessError as error:
            # Not forgotten: the next head that contradicts is another chance to write it down.
            _logger.error("a conflict is not kept", problem=str(error))
            self._stop(origin)
            return False
        self.stats[counter] += 1
        _logger.error("conflict", summary=conflict.summary, digest=conflict.digest)
        if first:
            for remembered in (self._seen, self._own):
                remembered.pop(origin, None)
            self._claimed.discard(origin)
            self._stop(origin)
        return first

    def _look_again(self, origin: str) -> None:
        """A log in conflict may have been cleared since."""
        if origin in self._evidence:
            with contextlib.suppress(WitnessError):
                self._evidence.refresh()

    def _stop(self, origin: str) -> None:
        try:
            self._freeze(origin)
        except WitnessError as error:
            _logger.error("a log in conflict is not frozen", origin=origin, problem=str(error))

    def _message(self, told: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """What to tell a peer, without what it `told` us: a random part, if it is too much."""
        skip = set(told)
        kept = (self._evidence.files(origin)[0] for origin in self._evidence.origins())
        heads = (head.note for seen in self._seen.values() for head in seen.told())
        return pack(
            [note for note in heads if note not in skip],
            [data for data in kept if data not in skip],
            self._rng,
        )

    async def _check_log(self, origin: str) -> None:
        """Ask a log for what is due, one proof at a time: each may move the latest head."""
        if origin in self._checking:
            return
        self._checking.add(origin)
        try:
            while (seen := self._seen.get(origin)) is not None:
                now = self._clock()
                due = [claim for claim in seen.claims.values() if claim.due <= now]
                if not due:
                    break
                claim = min(due, key=lambda claim: (claim.due, claim.since))
                claim.busy = True
                try:
                    async with self._parallel:
                        await self._check(seen, claim)
                finally:
                    claim.busy = False
        finally:
            self._checking.discard(origin)
            if (seen := self._seen.get(origin)) is None or not seen.claims:
                self._claimed.discard(origin)

    async def _check(self, seen: Sightings, claim: Claim) -> None:
        head, latest = claim.head, seen.latest
        older, newer = sorted((head, latest), key=lambda h: h.checkpoint.size)
        origin = head.checkpoint.origin
        # From the empty tree there is nothing to ask.
        asks = older.checkpoint.size > 0
        if asks and (wait := self._proof_rates.take(origin) or self._all_rates.take("")):
            claim.due = self._clock() + wait
            return
        self.stats["proof_requests"] += asks
        conflict = None
        reason = ""
        try:
            async with asyncio.timeout(self._limits.proof_timeout):
                conflict = await prove(self._source, older, newer)
        except Exception as error:  # noqa: BLE001 -- whatever the log does, it is not a proof
            reason = _reason(error)
        if self._seen.get(origin) is not seen or seen.claims.get(head.checkpoint.size) is not claim:
            return  # settled otherwise, or in conflict by now
        if conflict is not None:
            self._found(conflict)
        elif reason:
            self._put_off(claim, reason)
        elif head is newer and seen.latest is not latest:
            pass  # both follow from the same head: nothing is known of one and the other
        else:
            seen.settle(head)
            self.stats["proven"] += 1
            return
        if conflict is not None and origin not in self._evidence:
            # Cleared by the operator, or the disk is full.
            self._put_off(claim, "in conflict, of which the evidence is not kept, or was cleared")

    def _put_off(self, claim: Claim, reason: str) -> None:
        claim.attempts += 1
        claim.reason = reason
        limits = self._limits
        # Bounded before the power is taken.
        pause = min(limits.first_retry * 2 ** min(claim.attempts - 1, 30), limits.last_retry)
        claim.due = self._clock() + pause * self._rng.uniform(0.75, 1.25)
        if claim.attempts == 1:
            self.stats["unproven"] += 1
            checkpoint = claim.head.checkpoint
            _logger.warning(
                "head unproven",
                origin=shown(checkpoint.origin),
                size=checkpoint.size,
                reason=reason,
            )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = f"{type(error).__name__}: {error}"[:_MAX_REASON]
    return text if text.isprintable() else shown(text)
