"""One log, watched: is its head still one that follows from the last, and what do its entries say?

Two things go on side by side. `check` looks at the head, and raises and clears alarms; `read` goes
through the entries up to the last verified head, a few bundles at a time, each time proven to be
the beginning of the tree that was signed. Both write down what they did before they go on.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from tlog.client.errors import Check, Unreachable, VerificationError, printable
from tlog.client.rules import Found, Rule, found
from tlog.client.verification import Head, check_follows, check_past
from tlog.client.verifier import Verifier
from tlog.client.walk import patiently
from tlog.client.watchfile import Event, Watched, WatchFile
from tlog.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    MerkleError,
    RightEdge,
    SourceDamaged,
    SourceError,
    TileSource,
    entries_path,
    leaf_hash,
    leaf_hashes,
    split_bundle,
)

Kind = Literal["signature", "quorum", "rollback", "fork", "unproven", "stale", "entry"]
"""What an alarm is about. signature: what the log shows is not a head signed by its keys. quorum:
too few witnesses cosigned it. rollback: it is from before the last one. fork: the two contradict
each other. unproven: what would prove that it follows is not served. stale: nothing newer than the
last one within the limit. entry: entries are missing, or are not those of the signed tree."""

BUNDLES = 16
"""Read at once: at most 16 MiB each, 64 KiB with entries of 256 bytes."""
# While nobody can be told, an alarm that comes and goes must not fill the disk.
MAX_UNTOLD = 24
# How long a log whose heads may be as old as they like may keep its entries to itself.
UNREAD_SECONDS = 3600.0

_KINDS: dict[Check, Kind] = {
    "message": "signature",
    "signature": "signature",
    "rollback": "rollback",
    "fork": "fork",
}

_log = logging.getLogger(__name__)

Deliver = Callable[[Rule, Event], Awaitable[None]]


class Watch:
    """One log under watch, on one event loop.

    Args:
        name: how the log is spoken of.
        source: where it is read.
        verifier: whom to trust for its heads.
        file: where what is known of it is kept; the caller holds it.
        rules: what to look for in its entries.
        stale_after: seconds after which a head must have been followed, or cosigned again; None
            for a log that may be silent.
        clock: seconds since the Epoch.

    Attributes:
        watched: what is known, as it is on the disk.
        untold: set while there is something in `watched.untold`.
        reached: whether the log could be read when it was last tried; None before that.
        checked: when it was last checked.
        found: how often each rule found something, since this process began.
    """

    def __init__(
        self,
        name: str,
        source: TileSource,
        verifier: Verifier,
        file: WatchFile,
        *,
        rules: Sequence[Rule] = (),
        stale_after: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.reached: bool | None = None
        self.checked = 0.0
        self.found: Counter[str] = Counter()
        self._source = source
        self._verifier = verifier
        self._file = file
        self._rules = rules
        self._stale_after = stale_after
        self._clock = clock
        self._unread_since: float | None = None
        self.watched = file.load() or Watched(since=clock(), fresh=clock())
        self.untold = asyncio.Event()
        if self.watched.untold:
            self.untold.set()

    # ---- the head ----

    async def check(self, *, patience: float) -> None:
        """Look at the log's head once; what is wrong with it becomes an alarm.

        Args:
            patience: seconds after which the log counts as one that cannot be reached.

        Raises:
            StateError: what was found cannot be written down.
        """
        try:
            async with asyncio.timeout(patience):
                await self._look()
        except VerificationError as error:
            self._reached(None)
            self._raise(_kind(error), str(error), error.evidence)
        except (Unreachable, SourceError) as error:
            self._reached(printable(str(error)))
        except TimeoutError:
            self._reached(f"no answer within {patience:g} s")
        else:
            self._reached(None)
        self.checked = self._clock()
        self._check_age()

    async def _look(self) -> None:
        try:
            note = await self._source.checkpoint()
        except SourceDamaged as error:
            raise VerificationError("message", printable(str(error))) from None
        head, missing = self._verifier.weigh(note)
        self._clear("signature")
        if missing is None:
            self._clear("quorum")
        else:
            self._raise("quorum", f"the head of size {head.size}: {missing}", (head.note,))
        # Of one history with the last it must be, cosigned or not: the log has signed it.
        await self._follow(head)
        for kind in ("rollback", "fork", "unproven"):
            self._clear(kind)
        if missing is None:
            self._adopt(head)

    async def _follow(self, head: Head) -> None:
        last = self.watched.head
        if last is None:
            return
        if head.size < last.size:
            raise VerificationError(
                "rollback",
                f"the log has shown a head of size {last.size}, and now shows one of size "
                f"{head.size}",
                evidence=(last.note, head.note),
            )
        proof: list[bytes] = []
        if 0 < last.size < head.size:
            proof = await self._proof(last.size, head.size)
        check_follows(last, head, proof)

    async def _proof(self, old_size: int, new_size: int) -> list[bytes]:
        return await patiently(
            "consistency", lambda: self._source.consistency_proof(old_size, new_size)
        )

    def _adopt(self, head: Head) -> None:
        """Remember a head that is larger than the last, or newer."""
        last, now = self.watched.head, self._clock()
        if last == head and _signed_at(head) <= _signed_at(last):
            return
        # Nobody's word makes a head newer than the moment at which it was first seen.
        fresh = min(_signed_at(head), now) or now
        self._save(head=head, fresh=fresh)

    def _check_age(self) -> None:
        age = self._clock() - self.watched.fresh
        if self._stale_after is None or age <= self._stale_after:
            self._clear("stale")
            return
        head = self.watched.head
        what = "no head" if head is None else f"nothing newer than the head of size {head.size}"
        self._raise("stale", f"{what} since {_date(self.watched.fresh)}, {age:.0f} s ago")

    def _reached(self, problem: str | None) -> None:
        if self.reached is not False and problem is not None:
            _log.warning("log %s is not reached: %s", self.name, problem)
        self.reached = problem is None

    # ---- entries ----

    async def read(self, deliver: Deliver) -> None:
        """Read the entries up to the last verified head; returns when there are no more.

        What a rule finds is delivered before it counts as read: after kill -9 it is found again.

        Raises:
            StateError: what was done cannot be written down.
        """
        while (head := self.watched.head) is not None and self.watched.edge.size < head.size:
            try:
                await self._read_on(head, deliver)
            except VerificationError as error:
                self._raise("entry", str(error), (head.note,))
                return
            except (Unreachable, SourceError) as error:
                self._unread(printable(str(error)))
                return
            self._unread_since = None
            self._clear("entry")

    def _unread(self, problem: str) -> None:
        """Entries cannot be read. A log that shows heads for long and no entries hides them."""
        self._reached(problem)
        now = self._clock()
        if self._unread_since is None:
            self._unread_since = now
        unread = now - self._unread_since
        if unread > (self._stale_after or UNREAD_SECONDS):
            begin = self.watched.edge.size
            self._raise(
                "entry", f"no entry from {begin} on was served for {unread:.0f} s: {problem}"
            )

    async def _read_on(self, head: Head, deliver: Deliver) -> None:
        begin = self.watched.edge.size
        first = begin // TILE_WIDTH
        last = min(first + BUNDLES, -(-head.size // TILE_WIDTH))
        bundles = await asyncio.gather(
            *(self._bundle(index, head) for index in range(first, last)), return_exceptions=True
        )
        edge = self.watched.edge
        fresh: list[tuple[RightEdge, list[bytes]]] = []
        for index, bundle in enumerate(bundles, first):
            if isinstance(bundle, BaseException):
                raise bundle
            known = begin % TILE_WIDTH if index == first else 0
            hashes = leaf_hashes(bundle)
            if known and not hashes.startswith(edge.partials[0]):
                raise VerificationError(
                    "bundle", f"{entries_path(index)} does not begin as it did when it was shorter"
                )
            edge, _ = edge.extend(hashes[known * HASH_SIZE :])
            fresh.append((edge, bundle[known:]))
        await self._prove(edge, head)
        for reached, entries in fresh:
            if await self._search(entries, reached.size - len(entries), head, deliver):
                self._save(edge=reached)  # what was delivered is not to be delivered again
            await asyncio.sleep(0)
        if self.watched.edge is not edge:
            self._save(edge=edge)

    async def _search(
        self, entries: Sequence[bytes], begin: int, head: Head, deliver: Deliver
    ) -> int:
        """Deliver what the rules find in entries from index `begin` on; gives how much that is."""
        matches = found(self._rules, entries)
        for match in matches:
            await deliver(match.rule, self._event(match, begin, entries[match.offset], head))
            self.found[match.rule.name] += 1
        return len(matches)

    async def _bundle(self, index: int, head: Head) -> list[bytes]:
        width = min(TILE_WIDTH, head.size - index * TILE_WIDTH)
        bundle = await patiently("bundle", lambda: self._source.bundle(index, width))
        path = entries_path(index, width)
        try:
            entries = split_bundle(bundle)
        except MerkleError as error:
            raise VerificationError("bundle", f"{path}: {error}") from None
        if len(entries) != width:
            raise VerificationError(
                "bundle", f"{path} has {len(entries)} entries, but must have {width}"
            )
        return entries

    async def _prove(self, edge: RightEdge, head: Head) -> None:
        """The entries read so far are the beginning of the tree of `head`."""
        root = edge.root()
        if edge.size < head.size:
            proof = await self._proof(edge.size, head.size)
            check_past(head, size=edge.size, root=root, proof=proof)
        elif root != head.root_hash:
            raise VerificationError(
                "root",
                f"the {head.size} entries have the root hash {root.hex()}, but the log signed "
                f"{head.root_hash.hex()}",
            )

    def _event(self, match: Found, begin: int, entry: bytes, head: Head) -> Event:
        try:
            shown = {"entry": entry.decode()}
        except UnicodeDecodeError:
            shown = {"entry_base64": base64.b64encode(entry).decode()}
        index = begin + match.offset
        return {
            "event": "match",
            "id": f"{head.origin}/{index}/{match.rule.name}",
            "log": self.name,
            "origin": head.origin,
            "rule": match.rule.name,
            "certain": match.certain,
            "index": index,
            "leaf_hash": leaf_hash(entry).hex(),
            "tree_size": head.size,
            **shown,
        }

    # ---- alarms ----

    def told(self) -> None:
        """The first of `watched.untold` was delivered."""
        self._save(untold=self.watched.untold[1:])
        if not self.watched.untold:
            self.untold.clear()

    def _raise(self, kind: Kind, message: str, evidence: Sequence[bytes] = ()) -> None:
        if kind in self.watched.alarms or len(self.watched.untold) >= MAX_UNTOLD:
            return  # it stands already; or it is raised at the next look, if it still holds
        now = self._clock()
        event = self._alarm("alarm", kind, now) | {
            "message": message,
            "evidence": [note.decode() for note in evidence],
        }
        self._save(alarms={**self.watched.alarms, kind: now}, untold=(*self.watched.untold, event))
        self.untold.set()

    def _clear(self, kind: Kind) -> None:
        alarms = dict(self.watched.alarms)
        if (since := alarms.pop(kind, None)) is None or len(self.watched.untold) >= MAX_UNTOLD:
            return
        event = self._alarm("cleared", kind, since)
        self._save(alarms=alarms, untold=(*self.watched.untold, event))
        self.untold.set()

    def _alarm(self, event: str, kind: Kind, since: float) -> dict[str, object]:
        return {
            "event": event,
            "id": f"{self.name}/{kind}/{since:.3f}/{event}",
            "log": self.name,
            "kind": kind,
            "since": _date(since),
        }

    def _save(self, **changes: object) -> None:
        changed = dataclasses.replace(self.watched, **changes)  # type: ignore[arg-type]
        self._file.save(changed)
        self.watched = changed


def _kind(error: VerificationError) -> Kind:
    """What it says of a head. Two signed heads and a proof that fails contradict each other."""
    if error.check == "consistency" and error.evidence:
        return "fork"
    return _KINDS.get(error.check, "unproven")


def _signed_at(head: Head) -> float:
    """The time of the newest cosignature, else of the log's own signature; 0 if none has one."""
    times = [(vkey.name == head.origin, when) for vkey, when in head.signed_by if when]
    witnessed = [when for own, when in times if not own]
    return float(max(witnessed or [when for _, when in times], default=0))


def _date(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
