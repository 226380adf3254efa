"""One round of the write path: events are verified, decided on, and made into leaves and parts.

Nothing here touches the disk but to read: what is to be written is gathered, and written by
`records`. What was decided holds only once it is: the registry here is a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple

import structlog

from tlog.audit import approvers, sdjwt
from tlog.audit.catalogue import Catalogue, TokenClass
from tlog.audit.claims import MAX_INTEGER, event_id_bytes
from tlog.audit.errors import EventRefused
from tlog.audit.event import Draft, Event, new_event_id, read_event, read_payload, sign_event
from tlog.audit.gathered import Gathered
from tlog.audit.jws import Jws, parse_jws, verify_jws
from tlog.audit.leaf import Leaf, encode_leaf
from tlog.audit.obligations import OBLIGING, Obliging
from tlog.audit.producers import Producer
from tlog.audit.rebuild import ROW_SIZE, State, index_row, known_rows
from tlog.audit.survey import erased_at, erased_epochs
from tlog.audit.tokens import Token, canonical, epoch_of, make_token
from tlog.audit.vault import SubjectKey, Vault, joint_secret, part_key
from tlog.audit.verifying import Claim
from tlog.merkle import leaf_hash
from tlog.notes import Signer
from tlog.store.sealed import Put

Incoming = tuple[Jws, Sequence[str]] | Draft
"""An event that was taken apart, or one of the log's own."""
MAX_VERSIONS: Final = 64
"""Contents that one event id may come with before it is refused."""
# What says of which type an event is.
_KIND = frozenset({"type", "schema_version"})
# What a leaf has beside the JWS: its frame, and each token.
_FRAME, _TOKEN = 80, 111

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counters:
    """What came in: events by outcome, findings by kind, what was too much or too old.

    Attributes:
        strays: records of which nothing expires, as the last look for them counted; see `strays`.
        producers: as they are.
    """

    recorded: int = 0
    duplicates: int = 0
    refused: int = 0
    conflicts: int = 0
    erasures_stopped: int = 0
    expired: int = 0
    gap: int = 0
    repeat: int = 0
    clock: int = 0
    enrolled_again: int = 0
    strays: int = 0
    producers: Mapping[str, Producer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an event goes: a place among the leaves of the round, or an index it has already."""

    place: int = -1
    index: int = -1
    duplicate: bool = False
    conflict: bool = False


class Seen(NamedTuple):
    """What is known of an event before it is taken: its right signature, and what it says."""

    claim: Claim
    read: Event | EventRefused


class Round:
    """Takes events one by one. All of them come in at one time, `now`."""

    def __init__(
        self,
        state: State,
        vault: Vault,
        signer: Signer,
        *,
        tenant: str,
        catalogue: Catalogue,
        now: datetime,
        max_leaf: int,
    ) -> None:
        self.state = state
        self.gathered = Gathered(state.registry, vault)
        self.outcomes: list[Placed | EventRefused] = []
        self._vault = vault
        self._signer = signer
        self._tenant = tenant
        self._catalogue = catalogue
        self._now = now
        self._epoch = epoch_of(now)
        self._max_leaf = max_leaf
        self._stored: dict[bytes, bytes] = {}
        self._made: dict[tuple[bytes, str, str], Token] = {}
        self._erased: list[str] | None = None

    def parse(self, event: str | Draft) -> Incoming | EventRefused:
        """Take an event apart; nothing is verified yet."""
        if isinstance(event, Draft):
            return event
        try:
            text, encoded = sdjwt.split(event)
            return parse_jws(text), encoded
        except EventRefused as refusal:
            return refusal

    def claim(self, event: Incoming | EventRefused) -> Claim | None:
        """What is to be verified of an event, if its key is known and valid; else None."""
        if not isinstance(event, tuple):
            return None
        jws, _ = event
        try:
            key = self.gathered.registry.key(jws.kid, now=self._now)
        except EventRefused:
            return None
        return Claim(key.name, key.public_key, jws.signature, jws.signing_input)

    def read(self, jws: Jws, encoded: Sequence[str]) -> Event | EventRefused:
        """What an event says, or why it is none; the same in whatever round."""
        try:
            return read_event(jws, encoded, tenant=self._tenant, catalogue=self._catalogue)
        except EventRefused as refusal:
            return refusal

    def take(self, event: Incoming | EventRefused, seen: Seen | None = None) -> None:
        """Verify an event and decide on it; the outcome is put down, a refusal too.

        Args:
            event: taken apart.
            seen: what is known of it.
        """
        try:
            if isinstance(event, EventRefused):
                raise event
            with self.gathered.whole():
                outcome: Placed | EventRefused = (
                    self._own(event) if isinstance(event, Draft) else self._foreign(*event, seen)
                )
        except EventRefused as refusal:
            outcome = refusal
        self.outcomes.append(outcome)

    def _foreign(self, jws: Jws, encoded: Sequence[str], seen: Seen | None) -> Placed:
        try:
            key = self.gathered.registry.key(jws.kid, now=self._now)
        except EventRefused as refusal:
            # What was recorded while the key was valid is not refused when it comes again.
            if (known := self.gathered.registry.keys.get(jws.kid)) is None:
                raise
            verify_jws(jws, known.vkey)
            if (placed := self._recorded_before(jws)) is None:
                raise refusal from None
            return placed
        claim = Claim(key.name, key.public_key, jws.signature, jws.signing_input)
        if seen is None or seen.claim != claim:
            verify_jws(jws, key)
        read = self.read(jws, encoded) if seen is None else seen.read
        if isinstance(read, EventRefused):
            # Nor is what was recorded while its type was in the catalogue.
            if read.field not in _KIND or (placed := self._recorded_before(jws)) is None:
                raise read
            return placed
        return self._append(read)

    def _recorded_before(self, jws: Jws) -> Placed | None:
        event_id = read_payload(jws).get("event_id")
        self._catalogue.claims["event_id"].check("event_id", event_id)  # type: ignore[misc]
        return self._duplicate(event_id_bytes(str(event_id)), sha256(jws.signing_input).digest())

    def _own(self, draft: Draft) -> Placed:
        """An event of the log itself, with the next number of its sequence."""
        producer = self.gathered.registry.producers[self._signer.vkey.name]
        draft = replace(
            draft,
            occurred_at=draft.occurred_at or self._now,
            event_id=draft.event_id or new_event_id(self._now.timestamp()),
        )
        sd_jwt = sign_event(
            draft,
            self._signer,
            tenant=self._tenant,
            seq=producer.next_seq,
            catalogue=self._catalogue,
        )
        text, encoded = sdjwt.split(sd_jwt)
        jws = parse_jws(text)
        return self._append(
            read_event(jws, encoded, tenant=self._tenant, catalogue=self._catalogue)
        )

    def _duplicate(self, event_id: bytes, content: bytes) -> Placed | None:
        for place, known in self.gathered.fresh.get(event_id, ()):
            if known == content:
                return Placed(place, duplicate=True)
        for index, known in known_rows(self._versions(event_id)):
            if known == content:
                return Placed(index=index, duplicate=True)
        return None

    def _versions(self, event_id: bytes) -> bytes:
        """The rows of an event id, as stored."""
        row = self._stored.get(event_id)
        if row is None:
            row = self._stored[event_id] = self._vault.store.get("events", event_id) or b""
        return row

    def _append(self, event: Event) -> Placed:
        if (found := self._duplicate(event.event_id, event.content)) is not None:
            return found
        if event.seq >= MAX_INTEGER:
            raise EventRefused("below 2^53 - 1: the next one needs a number", field="producer_seq")
        versions = self._versions(event.event_id)
        fresh = self.gathered.fresh.get(event.event_id, ())
        conflict = bool(versions or fresh)
        if len(versions) // ROW_SIZE + len(fresh) >= MAX_VERSIONS:
            raise EventRefused(f"it came with {MAX_VERSIONS} contents already", field="event_id")
        tokens = len(event.subjects) + len(event.actors) + len(event.resources)
        size = len(event.jws.text) + _FRAME + _TOKEN * tokens
        if size > self._max_leaf:
            raise EventRefused(f"its leaf may have {size} bytes, the log takes {self._max_leaf}")
        approvers.check(
            event.claims,
            self.gathered.registry,
            tenant=self._tenant,
            catalogue=self._catalogue,
            now=self._now,
        )
        findings = self.gathered.registry.apply(
            event.claims, occurred_at=event.occurred_at, received_at=self._now
        )
        known = self.gathered.sealing.enrolled
        place = self._place(event)
        for finding in findings:
            self._tell(finding.kind, Draft("log.gap_detected", finding.claims(), {}))
        if conflict:
            rows = known_rows(versions)
            first = rows[0][0] if rows else self.state.size + fresh[0][0]
            about = {
                "about_producer": event.producer,
                "about_event": event.claims["event_id"],
                "about_index": first,
            }
            self._tell("conflicts", Draft("log.conflict", about, {}))
        if enrolled := self.gathered.sealing.enrolled_since(known):
            self._tell_of_returned(event, enrolled)
        return Placed(place, conflict=conflict)

    def _tell(self, kind: str, draft: Draft) -> None:
        self.gathered.findings.append(kind)
        try:
            with self.gathered.whole():
                self._own(draft)
        except EventRefused as refusal:
            raise EventRefused(
                f"its {draft.type} cannot be recorded, without which it is not: {refusal}",
                field="event",
            ) from None

    def _tell_of_returned(self, event: Event, enrolled: Sequence[str]) -> None:
        """Whoever was erased may come back, but not in silence: it may be an event that waited."""
        if self._erased is None:
            self._erased = erased_epochs(self._vault)
        returned = [
            {"id": identifier}
            for identifier in enrolled
            if self._erased and erased_at(self._vault, identifier, self._erased) is not None
        ]
        if returned:
            about = {"about_producer": event.producer, "about_event": event.claims["event_id"]}
            self.gathered.findings.append("enrolled_again")
            # Where leaves may not be longer than that event's, the figure alone says so.
            with contextlib.suppress(EventRefused), self.gathered.whole():
                self._own(Draft("log.enrolled_again", about, {}, returned))

    def _place(self, event: Event) -> int:
        gathered, sealing = self.gathered, self.gathered.sealing
        identifiers = [canonical(identifier) for identifier in event.subject_ids()]
        keys = [sealing.subject(identifier) for identifier in identifiers]
        tokens = self._tokens(event, identifiers, keys)
        leaf = encode_leaf(Leaf(event.jws.text, self._now, tokens))
        hashed = leaf_hash(leaf)
        sealing.seal(event, hashed, keys)
        place = len(gathered.leaves)
        gathered.leaves.append(leaf)
        gathered.marks.append(event.event_id + hashed)
        if event.type.name in OBLIGING:
            part = part_key(event.event_id, hashed, 1) if event.subjects else b""
            gathered.obliging.append((place, Obliging(event.claims, tokens, part, self._now)))
        fresh = gathered.fresh.get(event.event_id, ())
        gathered.fresh[event.event_id] = (*fresh, (place, event.content))
        return place

    def _tokens(
        self, event: Event, identifiers: Sequence[str], keys: Sequence[SubjectKey]
    ) -> list[Token]:
        kind = event.type.tokens
        tenant = self.gathered.sealing.epoch(self._epoch)
        erasable = kind is TokenClass.ERASABLE
        tokens = [
            self._token(key.secret if erasable else tenant, kind, "subject", identifier)
            for identifier, key in zip(identifiers, keys, strict=True)
        ]
        # A resource may name the subject, and an actor be one: such a token dies with them.
        named = [
            ("actor", identifier, keys if identifier in identifiers else ())
            for identifier in event.actors
        ]
        for identifier, part in event.resources:
            named.append(("resource", identifier, keys[part - 1 : part] if part else keys))
        for name, identifier, owners in named:
            if erasable and owners:
                tokens.append(self._token(joint_secret(owners), kind, name, identifier))
                self.gathered.sealing.name(name, identifier, owners)
            else:
                tokens.append(self._token(tenant, TokenClass.EVIDENCE, name, identifier))
        return tokens

    def _token(self, secret: bytes, kind: TokenClass, name: str, identifier: str) -> Token:
        """A token; in one round there are few actors, and they do much."""
        known = (secret, name, identifier)
        token = self._made.get(known)
        if token is None:
            token = self._made[known] = make_token(
                secret, kind, epoch=self._epoch, field=name, identifier=identifier
            )
        return token

    def marks(self) -> Iterator[Put]:
        """What tells, after a kill, which parts have no leaf yet."""
        return (("pending", key, b"") for key in self.gathered.marks)

    def unmarks(self, placed: Sequence[int]) -> Iterator[Put]:
        """The leaves have these indices: the marks go, and the event ids are known."""
        for key in self.gathered.marks:
            yield "pending", key, None
        for event_id, fresh in self.gathered.fresh.items():
            rows = [index_row(placed[place], content) for place, content in fresh]
            yield "events", event_id, self._stored.get(event_id, b"") + b"".join(rows)

    def count(self, counters: Counters) -> None:
        """Add what came of the round to the figures."""
        findings = self.gathered.findings
        counters.producers = self.gathered.registry.producers
        for outcome in self.outcomes:
            if isinstance(outcome, EventRefused):
                counters.refused += 1
            elif outcome.duplicate:
                counters.duplicates += 1
            else:
                counters.recorded += 1
        if "enrolled_again" in findings:
            _log.warning(
                "events about subjects that were erased came in after that: if these are not new, "
                "erase them again. See the records of type log.enrolled_again",
                tenant=self._tenant,
                events=findings.count("enrolled_again"),
            )
        for kind in findings:
            setattr(counters, kind, getattr(counters, kind) + 1)
