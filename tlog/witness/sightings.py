"""What a witness has seen of a log's heads, from anybody: bounded, and pure.

For each log: the *latest* head, the *settled* ones that are proven consistent with it, and the
*claims*, heads that the log signed and that nobody has yet proven either way. A head that
contradicts any of them is found by its size alone.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tlog.merkle import EMPTY_ROOT
from tlog.notes import Checkpoint, Note, VerifiedCheckpoint
from tlog.witness import rules

MAX_SETTLED: Final = 16
"""Settled heads kept of one log; those used last."""
MAX_CLAIMS: Final = 8
"""Claims kept of one log. A further one replaces one at random, or is dropped: no order in which
somebody replays what the log has signed can keep a head out for good."""


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint with the log's signatures, verified, and nothing else.

    Attributes:
        checkpoint: what it says.
        note: the signed note.
    """

    checkpoint: Checkpoint
    note: bytes

    @classmethod
    def of(cls, verified: VerifiedCheckpoint) -> "Head":
        """The head as it is kept: with one verified signature of each key, encoded anew."""
        signatures = tuple(rules.verified_signatures(verified))
        checkpoint = verified.checkpoint
        return cls(checkpoint, Note(checkpoint.body(), signatures).encode())


@dataclass(slots=True)
class Claim:
    """A head that is not settled.

    Attributes:
        head: the head.
        since: when it was first seen, on the clock of the gossip.
        attempts: proofs that were asked for and did not settle it. Above 0 it is *unproven*.
        due: when to ask again.
        reason: why the last attempt settled nothing.
        busy: an attempt is under way.
    """

    head: Head
    since: float
    attempts: int = 0
    due: float = 0.0
    reason: str = ""
    busy: bool = False


@dataclass(slots=True)
class Sightings:
    """The heads of one log."""

    latest: Head
    settled: OrderedDict[int, Head] = field(default_factory=OrderedDict)
    claims: dict[int, Claim] = field(default_factory=dict)

    def find(self, size: int) -> Head | None:
        """The head of this size that was seen, if it is remembered."""
        if self.latest.checkpoint.size == size:
            return self.latest
        if (head := self.settled.get(size)) is not None:
            self.settled.move_to_end(size)
            return head
        claim = self.claims.get(size)
        return None if claim is None else claim.head

    def known(self, size: int, root_hash: bytes) -> bool:
        """Whether this head was seen, and is remembered."""
        head = self.find(size)
        return head is not None and head.checkpoint.root_hash == root_hash

    def contradiction(self, head: Head) -> Head | None:
        """A head seen that contradicts this one whatever a proof says: maybe this one itself."""
        checkpoint = head.checkpoint
        if checkpoint.size == 0:
            return None if checkpoint.root_hash == EMPTY_ROOT else head
        found = self.find(checkpoint.size)
        if found is None or found.checkpoint.root_hash == checkpoint.root_hash:
            return None
        return found

    def claim(self, head: Head, now: float, rng: random.Random) -> None:
        """Remember a head that is to be proven."""
        if len(self.claims) == MAX_CLAIMS:
            idle = [size for size, claim in self.claims.items() if not claim.busy]
            victim = rng.choice([*idle, head.checkpoint.size])
            if victim == head.checkpoint.size:
                return
            del self.claims[victim]
        self.claims[head.checkpoint.size] = Claim(head, since=now, due=now)

    def settle(self, head: Head) -> None:
        """A head is proven consistent with the latest, and becomes that if it is newer."""
        self.claims.pop(head.checkpoint.size, None)
        if head.checkpoint.size > self.latest.checkpoint.size:
            head, self.latest = self.latest, head
        if head.checkpoint.size != self.latest.checkpoint.size:
            self.settled[head.checkpoint.size] = head
            self.settled.move_to_end(head.checkpoint.size)
            if len(self.settled) > MAX_SETTLED:
                self.settled.popitem(last=False)

    def told(self) -> Iterator[Head]:
        """What peers are told: the latest head, and those that nobody could prove."""
        yield self.latest
        for claim in self.claims.values():
            if claim.attempts:
                yield claim.head


class Verdict(StrEnum):
    """What became of a head."""

    KNOWN = "known"
    NEW = "new"
    """The first of its log, or proven by the witness itself."""
    CLAIMED = "claimed"
    """The log is asked for a proof."""
    CONFLICT = "conflict"
    """The log is in conflict, with this head or since before."""


@dataclass(frozen=True, slots=True)
class Unproven:
    """A head that the log could not be brought to prove consistent with the latest one.

    `since` is on the clock of the gossip; `reason` is that of the last attempt.
    """

    origin: str
    size: int
    latest_size: int
    since: float
    attempts: int
    reason: str
