"""What the log's own records oblige the vault to: what is held, what is to be destroyed.

Derived from the log, as `producers` is: `Obligations.apply` is called for each such record when it
is appended, and again when the state is rebuilt. No subject is in it but as its token and by where
its hold stands in the log, so that nothing here outlives an erasure that should not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

from tlog.audit.catalogue import TokenClass
from tlog.audit.codec import decode_base64url
from tlog.audit.times import format_time, parse_time
from tlog.audit.tokens import Token
from tlog.audit.vault import Erasure
from tlog.store.sealed import Put

DESTROYED: Final = "subject.key_destroyed"
PLACED: Final = "retention.hold_placed"
RELEASED: Final = "retention.hold_released"
EXPIRED: Final = "retention.expired"
BACKUP_EXPIRED: Final = "subject.key_backup_expired"
OBLIGING: Final = frozenset({DESTROYED, PLACED, RELEASED, EXPIRED, BACKUP_EXPIRED})
REWIND: Final = b"expiry/rewind"
"""In the vault's state: a hold was released, so that what it kept may be past its time."""
RECENT: Final = timedelta(hours=1)
_ERASED: Final = b"erased/"


@dataclass(frozen=True, slots=True)
class Obliging:
    """A record of the log's own that obliges to something.

    Attributes:
        claims: its public claims.
        tokens: of its leaf, as far as the vault has the keys that made them.
        part: the key of its part about its subject, in the vault; empty if it has none.
    """

    claims: Mapping[str, Any]
    tokens: Sequence[Token]
    part: bytes
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that stands: on a request, or on the subject of a part. See `keeping`.

    Attributes:
        index: of the entry that placed it.
        token: of its subject; None if it has none, or the vault has not got the key that made it.
    """

    index: int
    request_id: str
    part: bytes
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """Records of a class whose parts go, or an epoch whose token key does.

    Attributes:
        index: of the entry that says so.
        retention: the class; empty if it is an epoch.
        first: the entries from this one, to `until`, which is not among them.
        cutoff: those that were received before this time.
    """

    index: int
    retention: str = ""
    first: int = 0
    until: int = 0
    cutoff: str = ""
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Backups:
    """Copies of the vault that may hold a key which is destroyed.

    Attributes:
        since: when the record of the destruction was received.
        key_id: in hex.
    """

    since: datetime
    key_id: str
    request_id: str


@dataclass(slots=True)
class Obligations:
    """All that stands.

    Attributes:
        holds: by their ids.
        keys: that a record says are destroyed, by key id; they may be there yet.
        expiries: that a record says were; what they are of may be there yet.
        erasures: when the last ones were recorded.
        awaiting: copies whose time is not recorded as over, by the entry of the destruction.
    """

    holds: dict[str, Hold] = field(default_factory=dict)
    keys: dict[bytes, Erasure] = field(default_factory=dict)
    expiries: list[Expiry] = field(default_factory=list)
    erasures: list[datetime] = field(default_factory=list)
    awaiting: dict[int, Backups] = field(default_factory=dict)

    def apply(self, record: Obliging, index: int) -> list[Put]:
        """Take in a record that was appended.

        Returns:
            What is to be put into the vault for it.
        """
        claims = record.claims
        match claims["type"]:
            case "subject.key_destroyed":
                key_id, request_id = claims["key_id"], claims["request_id"]
                self.keys[bytes.fromhex(key_id)] = Erasure(index, request_id)
                self.awaiting[index] = Backups(record.received_at, key_id, request_id)
                self.erasures = [*self.recent(record.received_at), record.received_at]
                return list(_erased_rows(record.tokens, index))
            case "subject.key_backup_expired":
                self.awaiting.pop(claims["about_index"], None)
            case "retention.hold_placed":
                request_id = "" if record.part else claims["request_id"]
                token = next((each for each in record.tokens if each.field == "subject"), None)
                self.holds[claims["hold_id"]] = Hold(index, request_id, record.part, token)
            case "retention.hold_released":
                self.holds.pop(claims["hold_id"], None)
                return [("state", REWIND, b"")]
            case "retention.expired":
                self.expiries.append(_expiry(claims, index))
        return []

    def recent(self, now: datetime) -> list[datetime]:
        """The erasures of the hour before."""
        return [time for time in self.erasures if now - time < RECENT]

    def made(self) -> dict[str, Any]:
        """As plain values, for a snapshot."""
        return {
            "holds": {
                name: [hold.index, hold.request_id, hold.part.hex(), _made_token(hold.token)]
                for name, hold in self.holds.items()
            },
            "keys": {
                key_id.hex(): [erasure.index, erasure.request_id]
                for key_id, erasure in self.keys.items()
            },
            "expiries": [
                [each.index, each.retention, each.first, each.until, each.cutoff, each.epoch]
                for each in self.expiries
            ],
            "erasures": [format_time(time) for time in self.erasures],
            "awaiting": [
                [index, format_time(each.since), each.key_id, each.request_id]
                for index, each in self.awaiting.items()
            ],
        }

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> Self:
        """Inverse of `made`; snapshots of earlier versions have less.

        They do not say what is awaited, nor the token of a hold's subject, who is known by the
        hold's part then: the vault that has the snapshot has that as well.
        """
        return cls(
            {
                name: Hold(index, request_id, bytes.fromhex(part), _read_token(*token))
                for name, (index, request_id, part, *token) in made["holds"].items()
            },
            {bytes.fromhex(key_id): Erasure(*row) for key_id, row in made["keys"].items()},
            [Expiry(*row) for row in made["expiries"]],
            [parse_time(time, field="erasures") for time in made["erasures"]],
            {
                index: Backups(parse_time(since, field="awaiting"), key_id, request_id)
                for index, since, key_id, request_id in made.get("awaiting", ())
            },
        )


def _made_token(token: Token | None) -> list[str] | None:
    return None if token is None else [token.epoch, token.value]


def _read_token(made: Sequence[str] | None = None) -> Token | None:
    return None if made is None else Token(TokenClass.EVIDENCE, made[0], "subject", made[1])


def _expiry(claims: Mapping[str, Any], index: int) -> Expiry:
    if "expired_epoch" in claims:
        return Expiry(index, epoch=claims["expired_epoch"])
    first, until = claims["first_index"], claims["until_index"]
    return Expiry(index, claims["expired_class"], first, until, claims["cutoff"])


def _erased_rows(tokens: Sequence[Token], index: int) -> Iterator[Put]:
    """How somebody who was erased is known again: by a token, as in the leaf."""
    for token in tokens:
        if token.field == "subject":
            yield "state", erased_key(token), index.to_bytes(8, "big")


def erased_key(token: Token) -> bytes:
    """Under what the vault keeps the entry that says that the subject of a token is erased."""
    value = decode_base64url(token.value, field="token")
    return erased_in(token.epoch) + value


def erased_in(epoch: str) -> bytes:
    """What all such rows of an epoch begin with."""
    return _ERASED + epoch.encode() + b"/"
