"""Producers: who may record what, with which keys, and whether their sequences are whole.

A pure state machine over the events of the log, in their order: `Registry.apply` is called for each
appended event, as it is accepted and again when the state is rebuilt from the log. A key's validity
is judged at the time of receipt, and only when an event comes in; so nothing that happens to a key
later changes what it signed before. A producer's own clock never decides: a stolen key could lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from tlog.audit.errors import EventRefused
from tlog.audit.times import format_time, parse_time
from tlog.notes import Algorithm, VerifierKey

RECORDER: Final = "recorder"
REGISTRAR: Final = "registrar"
SERVICE: Final = "service"
APPROVER: Final = "approver"
"""Roles: records events; registers producers; is the log itself; signs orders (no events)."""
GRANTED: Final = frozenset({RECORDER, REGISTRAR, APPROVER})

MAX_AHEAD: Final = timedelta(minutes=5)
MAX_BEHIND: Final = timedelta(days=7)
"""How far a producer's clock may be off: ahead of the receipt, or behind it (spools drain late)."""
MAX_HOLES: Final = 1024

REGISTERS: Final = "producer."
"""What the types of events about producers begin with."""
_OWN: Final = ("log.", "subject.key_", "retention.")
# A sign of life, and the word of whoever verified the log, are theirs to give.
_OTHERS: Final = frozenset({"log.heartbeat", "log.verified"})


@dataclass(frozen=True, slots=True)
class ProducerKey:
    """A key of a producer, valid in [valid_from, valid_until) unless revoked."""

    vkey: VerifierKey
    valid_from: datetime
    valid_until: datetime | None = None
    revoked: bool = False

    def check(self, now: datetime) -> None:
        """Refuse an event that this key signed and that comes in now."""
        label = self.vkey.label
        if self.revoked:
            raise EventRefused(
                f"the key {label} is revoked: rotate it, and give its producer the new one",
                field="jws.header.kid",
            )
        if now < self.valid_from:
            raise EventRefused(
                f"the key {label} is valid from {format_time(self.valid_from)} on",
                field="jws.header.kid",
            )
        if self.valid_until is not None and now >= self.valid_until:
            raise EventRefused(
                f"the key {label} was valid until {format_time(self.valid_until)}: rotate it",
                field="jws.header.kid",
            )


@dataclass(frozen=True, slots=True)
class Producer:
    """A producer, and how far its sequence has come.

    Attributes:
        next_seq: the number that its next event should have.
        holes: ranges [first, last] of numbers below that which never came.
        clock_off: whether its last event was too far off, which is told once.
        heard_at: when its last event came in, or it was registered; in Unix seconds.
    """

    roles: frozenset[str]
    next_seq: int = 1
    holes: tuple[tuple[int, int], ...] = ()
    clock_off: bool = False
    heard_at: int = 0

    def check(self, type_name: str) -> None:
        """Refuse an event that is not this producer's to record."""
        allowed = SERVICE in self.roles or (
            REGISTRAR in self.roles
            if type_name.startswith(REGISTERS)
            else RECORDER in self.roles and (type_name in _OTHERS or not type_name.startswith(_OWN))
        )
        if not allowed:
            raise EventRefused(
                f"a producer that is {' and '.join(sorted(self.roles))} may not record {type_name}",
                field="type",
            )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about an event, which becomes a `log.gap_detected` of its own.

    Attributes:
        kind: `gap` (numbers are missing), `repeat` (a number came again), `clock` (far off).
    """

    kind: str
    producer: str
    event_id: str
    expected_seq: int = 0
    found_seq: int = 0
    skew_seconds: int = 0

    def claims(self) -> dict[str, Any]:
        """The public claims of its record."""
        claims: dict[str, Any] = {
            "gap_kind": self.kind,
            "about_producer": self.producer,
            "about_event": self.event_id,
        }
        if self.kind == "clock":
            return claims | {"skew_seconds": self.skew_seconds}
        return claims | {"expected_seq": self.expected_seq, "found_seq": self.found_seq}


@dataclass(slots=True)
class Registry:
    """All producers and their keys. Values in it are never changed, only replaced."""

    producers: dict[str, Producer] = field(default_factory=dict)
    keys: dict[str, ProducerKey] = field(default_factory=dict)

    @classmethod
    def of_service(cls, vkey: VerifierKey, *, since: datetime) -> Self:
        """The state before the first event: only the service is known, by its configuration."""
        return cls(
            {vkey.name: Producer(frozenset({SERVICE}))}, {vkey.label: ProducerKey(vkey, since)}
        )

    def key(self, kid: str, *, now: datetime) -> VerifierKey:
        """The key with which an event that comes in now is to be verified.

        Raises:
            EventRefused: unknown, revoked, or not valid now.
        """
        found = self.keys.get(kid)
        if found is None:
            raise EventRefused(
                f"no producer has the key {kid!r:.80}: register it first", field="jws.header.kid"
            )
        found.check(now)
        return found.vkey

    def apply(
        self, claims: Mapping[str, Any], *, occurred_at: datetime, received_at: datetime
    ) -> list[Finding]:
        """Take in an event that is being appended, or was.

        Raises:
            EventRefused: not the producer's to record, or it says of producers what cannot be;
                nothing has changed.
        """
        name, type_name = claims["producer_id"], claims["type"]
        self.producers[name].check(type_name)
        if type_name.startswith(REGISTERS):
            self._register(type_name, claims, received_at)
        return self._observe(name, claims, occurred_at=occurred_at, received_at=received_at)

    def _observe(
        self, name: str, claims: Mapping[str, Any], *, occurred_at: datetime, received_at: datetime
    ) -> list[Finding]:
        producer, seq, event_id = self.producers[name], claims["producer_seq"], claims["event_id"]
        findings = []
        expected, holes = producer.next_seq, producer.holes
        if seq > expected:
            findings.append(Finding("gap", name, event_id, expected, seq))
            holes = (*holes, (expected, seq - 1))[-MAX_HOLES:]
        elif seq < expected:
            holes = _filled(holes, seq)
            if holes == producer.holes:
                findings.append(Finding("repeat", name, event_id, expected, seq))
        skew = received_at - occurred_at
        clock_off = not -MAX_AHEAD <= skew <= MAX_BEHIND
        if clock_off and not producer.clock_off:
            seconds = int(skew.total_seconds())
            findings.append(Finding("clock", name, event_id, skew_seconds=seconds))
        self.producers[name] = Producer(
            producer.roles,
            max(expected, seq + 1),
            holes,
            clock_off=clock_off,
            heard_at=int(received_at.timestamp()),
        )
        return findings

    def _register(self, type_name: str, claims: Mapping[str, Any], now: datetime) -> None:
        name = claims["about_producer"]
        if type_name == "producer.registered":
            roles = frozenset(claims["roles"])
            if name in self.producers:
                raise EventRefused(f"{name} is registered: rotate its key", field="about_producer")
            if not roles <= GRANTED:
                raise EventRefused(f"of {', '.join(sorted(GRANTED))}", field="roles")
            key = self._new_key(name, claims, _time(claims, "valid_from") or now)
            self.producers[name] = Producer(roles, heard_at=int(now.timestamp()))
            self.keys[key.vkey.label] = key
            return
        old = self.keys.get(VerifierKey.parse(claims["old_vkey"]).label)
        if old is None or str(old.vkey) != claims["old_vkey"] or old.vkey.name != name:
            raise EventRefused(f"no key of {name}", field="old_vkey")
        if type_name == "producer.key_revoked":
            self.keys[old.vkey.label] = replace(old, revoked=True)
            return
        key = self._new_key(name, claims, now)
        until = _time(claims, "old_valid_until")
        if old.valid_until is not None and until is not None:
            until = min(until, old.valid_until)
        self.keys[old.vkey.label] = replace(old, valid_until=until)
        self.keys[key.vkey.label] = key

    def _new_key(self, name: str, claims: Mapping[str, Any], since: datetime) -> ProducerKey:
        vkey = VerifierKey.parse(claims["vkey"])
        if vkey.name != name or vkey.algorithm is not Algorithm.ED25519:
            raise EventRefused(f"an Ed25519 key with the name {name}", field="vkey")
        if vkey.label in self.keys:
            raise EventRefused(f"a key {vkey.label} is there already", field="vkey")
        return ProducerKey(vkey, since, _time(claims, "valid_until"))

    def made(self) -> dict[str, Any]:
        """As plain values, for a snapshot."""
        return {
            "producers": {
                name: [
                    sorted(each.roles),
                    each.next_seq,
                    each.holes,
                    each.clock_off,
                    each.heard_at,
                ]
                for name, each in self.producers.items()
            },
            "keys": [
                [
                    str(key.vkey),
                    format_time(key.valid_from),
                    None if key.valid_until is None else format_time(key.valid_until),
                    key.revoked,
                ]
                for key in self.keys.values()
            ],
        }

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> Self:
        """Inverse of `made`."""
        producers = {
            # Older snapshots do not say when each was heard of: that is 0, as if it never was.
            name: Producer(frozenset(roles), seq, tuple((a, b) for a, b in holes), off, *heard_at)
            for name, (roles, seq, holes, off, *heard_at) in made["producers"].items()
        }
        keys = [
            ProducerKey(
                VerifierKey.parse(vkey),
                parse_time(since, field="valid_from"),
                None if until is None else parse_time(until, field="valid_until"),
                revoked,
            )
            for vkey, since, until, revoked in made["keys"]
        ]
        return cls(producers, {key.vkey.label: key for key in keys})


def _time(claims: Mapping[str, Any], name: str) -> datetime | None:
    text = claims.get(name)
    return None if text is None else parse_time(text, field=name)


def _filled(holes: tuple[tuple[int, int], ...], seq: int) -> tuple[tuple[int, int], ...]:
    """The holes without one number; the same if it is in none."""
    for i, (first, last) in enumerate(holes):
        if first <= seq <= last:
            rest = [(a, b) for a, b in ((first, seq - 1), (seq + 1, last)) if a <= b]
            return (*holes[:i], *rest, *holes[i + 1 :])
    return holes
