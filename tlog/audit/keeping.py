"""Whom and what the legal holds keep, as the vault can tell.

A hold is on a request, or on a subject: a person, under each identifier that `subject.merged`
records say is theirs as well. Its subject is whoever has the key of its own sealed part.
A copy of the vault from before the hold has no such part. Then the token in the hold's leaf tells:
it is compared with that of the name which the records of a key say. And if the key that made the
token is not in that copy either, nobody can tell whom the hold is on: it keeps everybody, until it
is placed again. A hold is never passed by because the vault is an older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tlog.audit.catalogue import TokenClass
from tlog.audit.errors import EventRefused
from tlog.audit.obligations import Hold
from tlog.audit.retained import Known, is_sealed
from tlog.audit.tokens import Token, canonical, make_token
from tlog.audit.vault import NOBODY, Vault, VaultDamaged
from tlog.log import EntryNotFound

if TYPE_CHECKING:
    from tlog.audit.records import Records

UNTOLD: Final = (
    "of a subject that this copy of the vault does not know: place it anew under another id"
)
_ASKED: Final = 1 << 14
"""Keys of which it is remembered whose they are."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the holds that stand keep, as of when it is made.

    Attributes:
        requests: ids of holds, by the request that they are on.
        keys: ids of holds, by the id of the key of their subject, under whatever identifier.
        tokens: those by ids of which the subject is known by this token alone.
        untold: ids of holds of which nobody can tell whom they are on.
    """

    records: Records
    requests: Mapping[str, frozenset[str]]
    keys: Mapping[bytes, frozenset[str]]
    tokens: Mapping[str, Token]
    untold: frozenset[str]
    _asked: dict[bytes, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Records, holds: Mapping[str, Hold]) -> Keeping:
        """What these holds keep, by their ids."""
        vault = records.vault
        requests: dict[str, frozenset[str]] = {}
        keys: dict[bytes, frozenset[str]] = {}
        tokens: dict[str, Token] = {}
        untold = set()
        for name, hold in holds.items():
            if hold.request_id:
                requests[hold.request_id] = requests.get(hold.request_id, frozenset()) | {name}
            elif owners := vault.owners(hold.part):
                for key_id in {each for owner in owners for each in _alike(vault, owner)}:
                    keys[key_id] = keys.get(key_id, frozenset()) | {name}
            elif hold.token and vault.find_epoch(hold.token.epoch) is not None:
                tokens[name] = hold.token
            else:
                untold.add(name)
        return cls(records, requests, keys, tokens, frozenset(untold))

    def on_key(self, key_id: bytes) -> tuple[frozenset[str], frozenset[str]]:
        """The holds that keep what a key opens, and those that keep it because nobody can tell."""
        vault, held = self.records.vault, self.keys.get(key_id, frozenset())
        if not (self.tokens or self.untold) or vault.live_key(key_id) is None:
            return held, frozenset()
        if (nobody := vault.find_subject(NOBODY)) is not None and nobody.key_id == key_id:
            return held, frozenset()
        unknown = self.untold
        if self.tokens:
            for each in _alike(vault, key_id):
                known, untold = self._by_token(each)
                held, unknown = held | known, unknown | untold
        return held, unknown

    def _by_token(self, key_id: bytes) -> tuple[frozenset[str], frozenset[str]]:
        if (found := self._asked.get(key_id)) is None:
            if (identifier := _name_of(self.records, key_id)) is None:
                found = frozenset(), frozenset(self.tokens)
            else:
                of_it = (
                    name for name, each in self.tokens.items() if self._is_of(each, identifier)
                )
                found = frozenset(of_it), frozenset()
            if len(self._asked) == _ASKED:
                self._asked.clear()
            self._asked[key_id] = found
        return found

    def _is_of(self, token: Token, identifier: str) -> bool:
        secret = self.records.vault.find_epoch(token.epoch)
        return secret is not None and token == make_token(
            secret, TokenClass.EVIDENCE, epoch=token.epoch, field="subject", identifier=identifier
        )

    def keeps(self, known: Known) -> bool:
        """Whether a hold keeps a record, or may."""
        if known.claims.get("request_id") in self.requests:
            return True
        owners = {key_id for part in known.parts for key_id in self.records.vault.owners(part)}
        return any(names for key_id in owners for names in self.on_key(key_id))


def _alike(vault: Vault, key_id: bytes) -> tuple[bytes, ...]:
    """The keys of a person, by one of them."""
    return key_id, *vault.merged_with(key_id)


def index_of(records: Records, leaf_hash: bytes) -> int | None:
    """The entry of a leaf; None if its round has not come to the log, or never will."""
    try:
        return records.log.reader.index_of(leaf_hash, records.log.sequencer.edge.size)
    except EntryNotFound:
        return None


def _name_of(records: Records, key_id: bytes) -> str | None:
    """Whose a key is, in canonical form: as the first of its records says that opens."""
    for key in records.vault.parts_of(key_id):
        # Part 0 is of all subjects together.
        if not key[-1] or not is_sealed(records, key):
            continue
        if (index := index_of(records, key[16:48])) is None:
            continue
        try:
            part = records.read(index).parts[key[-1]]
        except (EventRefused, VaultDamaged):
            continue
        for disclosure in part.disclosures:
            if disclosure.name == "id":
                return canonical(disclosure.value)
    return None
