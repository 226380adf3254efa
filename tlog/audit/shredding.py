"""What goes from the vault for good: keys that are destroyed, parts that are past their time.

Gathered here, then written together and forced off the disk (`SealedStore.shred`). Why it goes is
in the log before: these are the deeds to its words, and doing them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tlog.audit.obligations import erased_in
from tlog.audit.vault import (
    KEY_ID_SIZE,
    LOOKUP_SIZE,
    RECORD_SIZE,
    Erasure,
    Vault,
    gone_key,
    join_part,
    merged_row,
    split_ids,
    split_part,
)
from tlog.store.sealed import Put

_LAST = b"\xff" * 32


@dataclass(slots=True)
class Shredding:
    """Puts, and the ranges of keys whose older values must be in no file."""

    vault: Vault
    puts: list[Put] = field(default_factory=list)
    ranges: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    _parted: set[bytes] = field(default_factory=set)

    def _put(self, family: str, key: bytes, value: bytes | None) -> None:
        self.puts.append((family, key, value))
        first, last = self.ranges.get(family, (key, key))
        self.ranges[family] = min(first, key), max(last, key)

    def destroy(self, erasures: Mapping[bytes, Erasure], *, identifier: str | None = None) -> None:
        """Destroy keys that are there, and all that they open, alone or together with others.

        Args:
            erasures: where the log says so, by key id.
            identifier: whose key it is, in canonical form, if that is known: else all are searched.
        """
        live = [key_id for key_id in erasures if self.vault.live_key(key_id) is not None]
        for key_id in live:
            self._put("keys", key_id, gone_key(erasures[key_id]))
            for key in self.vault.parts_of(key_id):
                self._put("by_subject", key_id + key, None)
                if owners := self.vault.owners(key):
                    self._put("parts", key, join_part(owners, b""))
            for row in self.vault.merged_rows(key_id):
                self._put("state", row, None)
        self._forget(live, identifier)

    def expire(self, key: bytes, index: int) -> None:
        """A part is past its time, as the entry says. What was erased before stays erased."""
        owners, sealed = split_part(self.vault.store.get("parts", key) or b"\0")
        if owners and sealed:
            self._put("parts", key, join_part([], index.to_bytes(8, "big")))
        for owner in owners:
            row = owner + key
            if self.vault.store.get("by_subject", row) is not None:
                self._put("by_subject", row, None)
                self._parted.add(row)
            merged = merged_row(owner, key[:RECORD_SIZE])
            if self.vault.store.get("state", merged) is not None:
                self._put("state", merged, None)

    def discard(self, record: bytes) -> None:
        """A record, by its event id and leaf hash, never came into the log; nor did who is in it.

        Its parts need not be shredded: keys that are new with them are, and nobody erased others.
        """
        for part, row in self.vault.store.items("parts", record):
            self.puts.append(("parts", part, None))
            for owner in split_part(row)[0]:
                self.puts.append(("by_subject", owner + part, None))
                self.puts.append(("state", merged_row(owner, record), None))
                self._parted.add(owner + part)

    def drop_unneeded(self) -> None:
        """Destroy the keys that open nothing any more, now that parts have gone."""
        keys = {row[:KEY_ID_SIZE] for row in self._parted}
        unneeded = [
            key_id
            for key_id in keys
            if self.vault.live_key(key_id) is not None
            and all(key_id + key in self._parted for key in self.vault.parts_of(key_id))
        ]
        for key_id in unneeded:
            self._put("keys", key_id, None)
        self._forget(unneeded)

    def drop_epoch(self, epoch: str) -> None:
        """Destroy the tenant's token key of an epoch, and whatever is known by its tokens."""
        if self.vault.store.get("epochs", epoch.encode()) is not None:
            self._put("epochs", epoch.encode(), None)
            self.vault.forget_epoch(epoch)
        for key, _ in self.vault.store.items("state", erased_in(epoch)):
            self._put("state", key, None)

    def _forget(self, key_ids: Collection[bytes], identifier: str | None = None) -> None:
        """Nobody finds these keys by an identifier any more."""
        if not key_ids:
            return
        self.vault.forget(key_ids)
        lookups = (
            [self.vault.lookup(identifier)] if identifier is not None else self._lookups(key_ids)
        )
        for lookup in lookups:
            self._remove("subjects", lookup)
        for key_id in key_ids:
            for row in self.vault.names_of(key_id):
                self._remove("named", row)
                for each in split_ids(row[LOOKUP_SIZE:]):
                    self._remove("names_of", each + row)

    def _remove(self, family: str, key: bytes) -> None:
        """Delete a key that tells of a name to whoever guesses it and has the directory's key."""
        self.puts.append((family, key, None))
        # What is to be compacted stands in the store until it is: it must not tell of whom.
        first, last = self.ranges.get(family, (key[:1], key[:1] + _LAST))
        self.ranges[family] = min(first, key[:1]), max(last, key[:1] + _LAST)

    def _lookups(self, key_ids: Collection[bytes]) -> Iterator[bytes]:
        wanted = set(key_ids)
        return (row for row, key_id in self.vault.store.items("subjects") if key_id in wanted)
