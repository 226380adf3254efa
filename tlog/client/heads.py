"""Whom a client trusts, and how far it has followed them: the last head, kept in its `State`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tlog.client.errors import Check, Refused, TrustError, VerificationError
from tlog.client.state import Record, State
from tlog.client.verification import Head, check_follows, parse_vkeys
from tlog.client.verifier import Verifier
from tlog.notes import VerifierKey

_REMEMBERED = 64


class Consistency(Protocol):
    """Asks the server for the proof that the tree of one size is a prefix of another's."""

    def __call__(self, old_size: int, new_size: int) -> Awaitable[Sequence[bytes]]:
        """Give its hashes; raises ClientError."""


class Heads:
    """Accepts the heads of one log, each only if it is of one history with all those before it.

    A head that is smaller than the last one seen is an answer like any other if the server proves
    it to be the past of the last one: calls overtake each other. Without that proof it is a
    rollback. So all servers behind one address must know what any of them has shown.

    Args:
        state: what is known already.
        verifier: what a head must meet, None to want the signatures of the keys in the state.
        first_use: asks the server for its keys; None unless it is to be trusted on first use.
        consistency: asks the server for a consistency proof.
    """

    def __init__(
        self,
        state: State,
        *,
        verifier: Verifier | None,
        first_use: Callable[[], Awaitable[Sequence[str]]] | None,
        consistency: Consistency,
    ) -> None:
        self._state = state
        self._verifier = verifier
        self._first_use = first_use
        self._consistency = consistency
        self._trusted: Verifier | None = None
        self._vkeys: tuple[VerifierKey, ...] = ()
        self._record: Record | None = None
        self._last: Head | None = None
        self._accepted: OrderedDict[bytes, Head] = OrderedDict()
        self._lock = asyncio.Lock()

    @property
    def last(self) -> Head | None:
        """The largest head accepted so far, by this client or by those before it.

        None when it would not be accepted again: what others saw may have had no quorum, and what
        was fresh grows old.
        """
        if self._last is not None and self._trusted is not None:
            try:
                self._trusted.check_quorum(self._last)
            except VerificationError:
                return None
        return self._last

    async def trust(self) -> Verifier:
        """What heads are verified with.

        Raises:
            TrustError: there are none, or they are not those that were pinned.
            StateError: the state cannot be used.
        """
        if self._trusted is None:
            async with self._lock:
                if self._trusted is None:
                    self._trusted = await self._establish()
        return self._trusted

    async def accept(
        self, note: bytes, *, after: Head | None = None, proof: Sequence[bytes] = ()
    ) -> Head:
        """Verify a checkpoint, prove it of one history with the last head, and remember it.

        Args:
            note: the signed note.
            after: a head that was accepted, if the server sent a proof that this one follows it.
            proof: that proof.

        Raises:
            VerificationError: it is not to be believed. What is remembered has not changed.
            StateError: it cannot be remembered, and so is not to be relied on.
        """
        verifier = await self.trust()
        if after is not None:
            head = verifier.checkpoint(note)
            check_follows(after, head, proof)
        elif (known := self._accepted.get(note)) is not None:
            verifier.check_quorum(known)
            return known
        else:
            head = verifier.checkpoint(note)
        async with self._lock:
            if self._last is not None and after != self._last:
                await self._prove(self._last, head)
            if self._last is None or head.size > self._last.size:
                await self._remember(head)
            elif head.size == self._last.size:
                self._last = head  # cosigned anew
        self._accepted[note] = head
        if len(self._accepted) > _REMEMBERED:
            self._accepted.popitem(last=False)
        return head

    async def _remember(self, head: Head) -> None:
        """Write down a head that follows from `_last`; another process may have seen more."""
        # By a policy, any one of the log's keys is enough.
        signers = dict(head.signed_by)
        vkeys = tuple(vkey for vkey in self._vkeys if vkey in signers)
        while not self._state.swap(self._record, new := Record(vkeys, head)):
            self._record = self._state.load()
            stored = None if self._record is None else self._record.head
            if stored is not None:
                await self._prove(stored, head)
                if stored.size >= head.size:
                    self._last = stored
                    return
        self._record, self._last = new, head

    async def _prove(self, seen: Head, head: Head) -> None:
        """Make the server prove that two heads, both signed by it, are of one history."""
        old, new = sorted((seen, head), key=lambda one: one.size)
        try:
            # Every tree follows from the empty one, but a server that shows that one again is asked
            # all the same: it refuses if it does not hold the last head seen.
            ask = old.size < new.size and (old.size > 0 or head is old)
            proof = await self._consistency(old.size, new.size) if ask else ()
        except Refused as refusal:
            check: Check = "rollback" if head is old else "consistency"
            raise VerificationError(
                check,
                f"the server shows a head of size {head.size} but does not prove it of one history "
                f"with the last one seen, of size {seen.size}: {refusal}",
                evidence=(seen.note, head.note),
            ) from refusal
        check_follows(old, new, proof)

    async def _establish(self) -> Verifier:
        self._record = pinned = self._state.load()
        if pinned is not None:
            self._last = pinned.head
        if self._verifier is not None:
            trusted = self._verifier.log_keys()
            if pinned is not None and not set(trusted) & set(pinned.vkeys):
                raise TrustError(_changed(pinned.vkeys, trusted, self._state))
        elif self._first_use is not None:
            trusted = parse_vkeys(await self._first_use())
            if pinned is not None:
                if not set(pinned.vkeys) <= set(trusted):
                    raise TrustError(_changed(pinned.vkeys, trusted, self._state))
                trusted = pinned.vkeys
        elif pinned is not None:
            trusted = pinned.vkeys
        else:
            raise TrustError(
                "no key to verify this log with: give its vkeys, which `tlog init` printed, or "
                "trust_on_first_use=True to believe the server this once and pin its keys"
            )
        # With a head on record, its keys are replaced along with it, by a head that these signed.
        if pinned is None or (pinned.head is None and pinned.vkeys != trusted):
            record = Record(trusted)
            if self._state.swap(pinned, record):
                self._record = record
            else:
                return await self._establish()  # another process pinned keys just now
        self._vkeys = trusted
        verifier = self._verifier or Verifier.with_vkeys(trusted)
        if self._last is not None:
            with contextlib.suppress(VerificationError):
                self._last = verifier.checkpoint(self._last.note)
        return verifier


def _changed(pinned: Sequence[VerifierKey], now: Sequence[VerifierKey], state: State) -> str:
    before, after = (", ".join(vkey.label for vkey in vkeys) for vkeys in (pinned, now))
    return (
        f"the log's keys are not those that were pinned: pinned {before}, now {after}. If the log "
        f"was made anew and you know why, remove {state}; if not, this is another log"
    )
