"""The vault: the keys, and what they seal. All that is personal is here, and nowhere else.

In a store of its own (`store.sealed`), in these families:

    state       "directory"                         the directory's key, wrapped
                "snapshot"                          see `rebuild`
                "erased/", epoch, token             index u64: see `obligations`
                "expiry/", …                        see `expiry`
                "merged/", key id, event id, leaf hash
                                                    empty: that record says that the key's subject
                                                    is somebody under another identifier, too
                "merged"                            empty: all such rows are there
    subjects    HMAC(directory key, identifier)     key id
    keys        key id (16)                         0x01, subject key, wrapped | 0x00, erasure
    epochs      epoch                               the tenant's token key, wrapped
    parts       event id, leaf hash, part u8        key ids, nonce, sealed disclosures | key ids
                                                    | no key ids, index u64: expired
    by_subject  key id, key of a part               empty
    named       HMAC(directory key, field, name),   empty: an actor or a resource of that name has
                    key ids                         tokens that these keys make together
    names_of    key id, HMAC, key ids               empty: the same, by each of the keys
    pending     event id, leaf hash                 empty: its parts have no leaf yet, maybe
    events      event id                            for each content: index u64, SHA-256

Part 0 is what an event says of all its subjects, part i+1 what it says of subject i. A part is
AES-256-GCM under HKDF-Expand(keys of all its subjects, event id, leaf hash, part). AES-GCM commits
to no key; the digests in the leaf do, and they are checked on every open.

`records.Records` runs one call at a time; nothing here is safe for two threads at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tlog.audit import sdjwt
from tlog.audit.codec import dump_json, load_json
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.event import Event
from tlog.audit.mac import hmac_sha256
from tlog.audit.sdjwt import Disclosure
from tlog.audit.undo import Journal, Undoable
from tlog.store.sealed import Put, SealedStore

FAMILIES: Final = (
    "subjects",
    "keys",
    "epochs",
    "parts",
    "by_subject",
    "named",
    "names_of",
    "events",
    "pending",
)
KEY_SIZE: Final = 32
KEY_ID_SIZE: Final = 16
LOOKUP_SIZE: Final = 32
RECORD_SIZE: Final = 48
"""Of the event id and the leaf hash, with which the keys of a record's parts begin."""
_NONCE: Final = 12
_DRAWN: Final = 64
MERGED: Final = "subject.merged"
MERGED_KNOWN: Final = b"merged"
"""In `state`; not in a vault of before there was a row for each that is merged: see `rebuild`."""
_DIRECTORY: Final = b"directory"
_LIVE, _GONE = b"\x01", b"\x00"
# What an event about nobody says is sealed under a key of the tenant itself; no identifier that
# passed its check is empty.
NOBODY: Final = ""
_CACHED: Final = 1 << 16


class VaultDamaged(AuditError):
    """What the vault holds does not open, or is not what was signed."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The key of a subject: its id, which is no secret, and the key, which is."""

    key_id: bytes
    secret: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What its destruction is recorded with; it tells nothing of 32 random bytes."""
        return sha256(self.secret).digest()


@dataclass(frozen=True, slots=True)
class Erasure:
    """Where the log says why a key is gone."""

    index: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Part:
    """What is still known of one part of an event.

    Attributes:
        disclosures: what it says; empty when erased, or when nothing was sealed.
        erasure: the erasure that took it; None when none did.
        expiry: index of the entry that says it expired; None when it has not.
        missing: it was sealed, and is not in the vault any more; nobody's order took it.
    """

    disclosures: Sequence[Disclosure] = ()
    erasure: Erasure | None = None
    expiry: int | None = None
    missing: bool = False


class Vault:
    """An open vault. Make one with `create` or `open`."""

    def __init__(self, store: SealedStore, tenant_key: bytes) -> None:
        self.store = store
        self._wrapping = AESGCM(tenant_key)
        # By identifier, id and key in one: a collector of garbage has no need to look at them.
        self._subjects: dict[str, bytes] = {}
        self._epochs: dict[str, bytes] = {}
        wrapped = store.get("state", _DIRECTORY)
        if wrapped is None:
            self._directory = secrets.token_bytes(KEY_SIZE)
            directory = self.wrap(self._directory, _DIRECTORY)
            store.write([("state", _DIRECTORY, directory), ("state", MERGED_KNOWN, b"")])
            store.sync()
        else:
            self._directory = self.unwrap(wrapped, _DIRECTORY)

    @classmethod
    def create(cls, path: Path, tenant_key: bytes) -> Vault:
        """Make an empty vault in a directory, and open it.

        Raises:
            StoreError: there is one already.
        """
        return cls(SealedStore.create(path, FAMILIES), tenant_key)

    @classmethod
    def open(cls, path: Path, tenant_key: bytes) -> Vault:
        """Open the vault in a directory.

        Raises:
            StoreError: see `SealedStore.open`.
            VaultDamaged: it is not this tenant key's.
        """
        store = SealedStore.open(path, FAMILIES)
        try:
            return cls(store, tenant_key)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def recover(self) -> None:
        """Reopen the store, if it refuses writes since one failed.

        Raises:
            StoreError: it still fails.
        """
        if not self.store.writable:
            self.store.reopen()
            # What was found while it was under way may be on no disk: nothing is sealed with that.
            self._subjects.clear()
            self._epochs.clear()

    def wrap(self, key: bytes, name: bytes) -> bytes:
        """Seal a key under the tenant key."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._wrapping.encrypt(nonce, key, name)

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        """Inverse of `wrap`.

        Raises:
            VaultDamaged: another tenant key, or damage.
        """
        try:
            return self._wrapping.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], name)
        except (InvalidTag, ValueError):
            raise VaultDamaged(
                f"{self.store.path}: a key does not unwrap: the tenant key is another one, or the "
                "vault is damaged"
            ) from None

    def find_subject(self, identifier: str) -> SubjectKey | None:
        """The key of a subject (canonical identifier); None if it has none, or no more."""
        if (cached := self._subjects.get(identifier)) is not None:
            return SubjectKey(cached[:KEY_ID_SIZE], cached[KEY_ID_SIZE:])
        key_id = self.store.get("subjects", self.lookup(identifier))
        row = None if key_id is None else self.store.get("keys", key_id)
        if key_id is None or row is None or not row.startswith(_LIVE):
            return None
        found = SubjectKey(key_id, self.unwrap(row[1:], key_id))
        self._keep({identifier: found})
        return found

    def epochs(self) -> list[str]:
        """The epochs that have a token key, by time."""
        return sorted(name.decode() for name, _ in self.store.items("epochs"))

    def find_epoch(self, epoch: str) -> bytes | None:
        """The tenant's token key of an epoch; None if it has none, or no more."""
        if (cached := self._epochs.get(epoch)) is not None:
            return cached
        wrapped = self.store.get("epochs", epoch.encode())
        if wrapped is None:
            return None
        self._epochs[epoch] = self.unwrap(wrapped, epoch.encode())
        return self._epochs[epoch]

    def lookup(self, identifier: str, field: str = "") -> bytes:
        """Under what the directory has a subject, or the name in another field."""
        what = f"tlog/directory/v1\0{field and field + chr(0)}{identifier}"
        return hmac_sha256(self._directory, what.encode("utf-8", "surrogatepass"))

    def namings(
        self, field: str, identifier: str, subject: SubjectKey | None = None
    ) -> Iterator[bytes]:
        """Joint secrets that make the erasable tokens of an actor or a resource.

        Args:
            field: which of the two.
            identifier: its name, in canonical form.
            subject: only where this key has a part in it.
        """
        family, prefix = "named", self.lookup(identifier, field)
        if subject is not None:
            family, prefix = "names_of", subject.key_id + prefix
        for row, _ in self.store.items(family, prefix):
            keys = [self.live_key(key_id) for key_id in split_ids(row[len(prefix) :])]
            if None not in keys:
                yield b"".join(key for key in keys if key is not None)

    def names_of(self, key_id: bytes) -> Iterator[bytes]:
        """The rows of `named` in which a key has a part."""
        return (row[KEY_ID_SIZE:] for row, _ in self.store.items("names_of", key_id))

    def _keep(self, subjects: Mapping[str, SubjectKey]) -> None:
        if len(self._subjects) + len(subjects) > _CACHED:
            self._subjects.clear()
        self._subjects.update({i: key.key_id + key.secret for i, key in subjects.items()})

    def open_parts(
        self, payload: Mapping[str, Any], event_id: bytes, leaf_hash: bytes
    ) -> list[Part]:
        """What an event says: of all its subjects together, then of each.

        Args:
            payload: the payload of its JWS, from the log.
            event_id: its 16 bytes.
            leaf_hash: of its leaf.

        Raises:
            VaultDamaged: a part does not open, or is not what was signed.
        """
        objects = [payload, *payload.get("subjects", ())]
        return [
            self._open(part_key(event_id, leaf_hash, number), each)
            for number, each in enumerate(objects)
        ]

    def _open(self, key: bytes, claims: Mapping[str, Any]) -> Part:
        row = self.store.get("parts", key)
        if row is None:
            return Part(missing=bool(claims.get("_sd")))
        key_ids, sealed = split_part(row)
        if not key_ids:
            return Part(expiry=int.from_bytes(sealed, "big"))
        held = [self.store.get("keys", key_id) or b"" for key_id in key_ids]
        for each in held:
            if each.startswith(_GONE):
                made = load_json(each[1:], field="erasure")
                return Part(erasure=Erasure(made["index"], made["request_id"]))
        secret = b"".join(
            self.unwrap(each[1:], key_id) for each, key_id in zip(held, key_ids, strict=True)
        )
        try:
            text = AESGCM(_part_secret(secret, key)).decrypt(sealed[:_NONCE], sealed[_NONCE:], key)
            encoded = text.decode("ascii").split("~") if text else []  # all of them decoys
            (found,) = sdjwt.match(encoded, [({}, claims["_sd"])])
        except (InvalidTag, EventRefused, ValueError, KeyError):
            raise VaultDamaged(
                f"{self.store.path}: part {key[-1]} of event {key[:16].hex()} is not what was "
                "signed: restore the newest copy of the vault"
            ) from None
        return Part(found)

    def live_key(self, key_id: bytes) -> bytes | None:
        """A key by its id; None if it is gone."""
        row = self.store.get("keys", key_id) or b""
        return self.unwrap(row[1:], key_id) if row.startswith(_LIVE) else None

    def parts_of(self, key_id: bytes) -> Iterator[bytes]:
        """The keys of the parts that a subject's key opens, by the time of the event."""
        return (row[KEY_ID_SIZE:] for row, _ in self.store.items("by_subject", key_id))

    def owners(self, key: bytes) -> list[bytes]:
        """The ids of the keys that open a part together; none if it is not there, or expired."""
        row = self.store.get("parts", key)
        return [] if row is None else split_part(row)[0]

    def merged_with(self, key_id: bytes) -> dict[bytes, bytes]:
        """The keys of the same person under other identifiers, be it by way of a third one.

        That is by whose keys the records are that say so, not as their producers think.

        Returns:
            For each key that is there yet, the event id and leaf hash of the last such record.
        """
        found: dict[bytes, bytes] = {}
        todo = [key_id]
        while todo:
            further: dict[bytes, bytes] = {}
            for row in self.merged_rows(todo.pop()):
                record = row[-RECORD_SIZE:]
                for _, part in self.store.items("parts", record):
                    further |= dict.fromkeys(split_part(part)[0], record)
            for each in further.keys() - found.keys() - {key_id}:
                if self.live_key(each) is not None:
                    found[each] = further[each]
                    todo.append(each)
        return found

    def merged_rows(self, key_id: bytes) -> Iterator[bytes]:
        """The rows that say in which records the subject of a key is merged with others."""
        return (row for row, _ in self.store.items("state", merged_row(key_id)))

    def forget_epoch(self, epoch: str) -> None:
        """The token key of this epoch is gone, or about to be."""
        self._epochs.pop(epoch, None)

    def forget(self, key_ids: Collection[bytes]) -> None:
        """These keys are gone, or about to be: nothing is sealed under them from now on."""
        kept = {i: key for i, key in self._subjects.items() if key[:KEY_ID_SIZE] not in key_ids}
        self._subjects = kept


class Sealing:
    """New keys and sealed parts, gathered to be written together.

    Keys made here are not used by anybody else before `done`: until then they are on no disk.
    """

    def __init__(self, vault: Vault, journal: Journal) -> None:
        self.vault = vault
        self.puts: list[Put] = []
        self._subjects: Undoable[str, SubjectKey] = Undoable(journal)
        self._epochs: Undoable[str, bytes] = Undoable(journal)
        self._nonces: list[bytes] = []

    def subject(self, identifier: str) -> SubjectKey:
        """The key of a subject, made if it has none."""
        found = self._subjects.get(identifier) or self.vault.find_subject(identifier)
        if found is None:
            found = SubjectKey(secrets.token_bytes(KEY_ID_SIZE), secrets.token_bytes(KEY_SIZE))
            wrapped = self.vault.wrap(found.secret, found.key_id)
            self.puts.append(("keys", found.key_id, _LIVE + wrapped))
            self.puts.append(("subjects", self.vault.lookup(identifier), found.key_id))
            self._subjects[identifier] = found
        return found

    @property
    def enrolled(self) -> int:
        """How many keys of subjects were made here."""
        return len(self._subjects)

    def enrolled_since(self, before: int) -> list[str]:
        """Whose keys were made here since `enrolled` was so."""
        return list(islice(reversed(self._subjects), len(self._subjects) - before))

    def epoch(self, epoch: str) -> bytes:
        """The tenant's token key of an epoch, made if there is none."""
        found = self._epochs.get(epoch) or self.vault.find_epoch(epoch)
        if found is None:
            found = self._epochs[epoch] = secrets.token_bytes(KEY_SIZE)
            name = epoch.encode()
            self.puts.append(("epochs", name, self.vault.wrap(found, name)))
        return found

    def name(self, field: str, identifier: str, keys: Sequence[SubjectKey]) -> None:
        """Put down that an actor or a resource has tokens that these keys make together."""
        ids = [key.key_id for key in _together(keys)]
        row = self.vault.lookup(identifier, field) + b"".join(ids)
        self.puts.append(("named", row, b""))
        self.puts.extend([("names_of", key_id + row, b"") for key_id in ids])

    def seal(self, event: Event, leaf_hash: bytes, keys: Sequence[SubjectKey]) -> None:
        """Seal the disclosures of an event, given the key of each subject, in order."""
        everybody = _together(keys) or [self.subject(NOBODY)]
        if "_sd" in event.claims:
            self._seal(part_key(event.event_id, leaf_hash, 0), everybody, event.shared)
        for i, part in enumerate(event.subjects):
            self._seal(part_key(event.event_id, leaf_hash, i + 1), [keys[i]], part)
        if event.type.name == MERGED:
            record = event.event_id + leaf_hash
            self.puts.extend([("state", merged_row(o.key_id, record), b"") for o in everybody])

    def _seal(
        self, key: bytes, owners: Sequence[SubjectKey], disclosures: Sequence[Disclosure]
    ) -> None:
        text = "~".join([disclosure.encoded for disclosure in disclosures]).encode("ascii")
        secret = _part_secret(b"".join([owner.secret for owner in owners]), key)
        nonce = self._nonce()
        sealed = nonce + AESGCM(secret).encrypt(nonce, text, key)
        self.puts.append(("parts", key, join_part([o.key_id for o in owners], sealed)))
        self.puts.extend([("by_subject", owner.key_id + key, b"") for owner in owners])

    def _nonce(self) -> bytes:
        """Random bytes, drawn for many at once: each time this thread lets go of the GIL."""
        if not self._nonces:
            drawn = secrets.token_bytes(_NONCE * _DRAWN)
            self._nonces = [drawn[at : at + _NONCE] for at in range(0, len(drawn), _NONCE)]
        return self._nonces.pop()

    def done(self) -> None:
        """The puts are written and durable: their keys may be used."""
        self.vault._keep(self._subjects)
        self.vault._epochs.update(self._epochs)


def part_key(event_id: bytes, leaf_hash: bytes, number: int) -> bytes:
    """The key of a part: they sort by the time of the event."""
    return event_id + leaf_hash + bytes([number])


def merged_row(key_id: bytes, record: bytes = b"") -> bytes:
    """The key of the row that says that a record merges the subject of a key with others.

    Args:
        key_id: of the key.
        record: its event id and leaf hash; without it, what all rows of the key begin with.
    """
    return b"merged/" + key_id + record


def gone_key(erasure: Erasure) -> bytes:
    """What stands in the place of a key that is destroyed."""
    return _GONE + dump_json({"index": erasure.index, "request_id": erasure.request_id})


def join_part(key_ids: Sequence[bytes], sealed: bytes) -> bytes:
    """Inverse of `split_part`."""
    return bytes([len(key_ids)]) + b"".join(key_ids) + sealed


def split_part(row: bytes) -> tuple[list[bytes], bytes]:
    """The key ids of a stored part, and what is sealed: nothing, once erased."""
    end = 1 + row[0] * KEY_ID_SIZE
    return split_ids(row[1:end]), row[end:]


def split_ids(ids: bytes) -> list[bytes]:
    """Key ids that stand one after the other."""
    return [ids[at : at + KEY_ID_SIZE] for at in range(0, len(ids), KEY_ID_SIZE)]


def joint_secret(keys: Sequence[SubjectKey]) -> bytes:
    """The secret of several subjects together: gone with the first of them."""
    return b"".join([key.secret for key in _together(keys)])


def _together(keys: Sequence[SubjectKey]) -> Sequence[SubjectKey]:
    """Each of them once, in the order of their ids."""
    return keys if len(keys) < 2 else sorted(set(keys), key=lambda key: key.key_id)


def _part_secret(secret: bytes, key: bytes) -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3) of one block: the keys are uniform already."""
    return hmac_sha256(secret, b"tlog/part/v1\0" + key + b"\x01")
