"""Searching: which records there are about somebody, by somebody, of a request.

A name becomes the tokens that it has in each epoch, and those, with what is public, are looked up
in the index. Every search has a purpose and is recorded, under each subject of whom it opened
something, before anything is shown. The record of it names nobody: what was asked for stands in it
as tokens, so that a search for somebody who was erased does not bring back the name.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from tlog.audit.catalogue import TokenClass
from tlog.audit.codec import decode_base64url, encode_base64url
from tlog.audit.errors import AuditError, EventRefused
from tlog.audit.index import SUBJECT, Place, Wanted, microseconds
from tlog.audit.reading import Access, note_read, subjects_of
from tlog.audit.records import Records
from tlog.audit.stored import StoredRecord
from tlog.audit.times import format_time
from tlog.audit.tokens import MAX_NAME, canonical, make_token
from tlog.audit.vault import SubjectKey, Vault
from tlog.log import InvalidRequest, Unavailable

DEFAULT_PAGE: Final = 25
MAX_PAGE: Final = 100
MAX_PEOPLE: Final = 32
MAX_PARTS: Final = 200
"""Of how many people a page is, and of how many parts; one record may be of more."""
MAX_PAGE_BYTES: Final = 16 << 20
"""Of leaves and disclosures: a page ends before the record that would go beyond."""
MAX_TEXT: Final = MAX_NAME
"""Characters of a name, or of a public claim, that is asked for."""
MAX_TYPES: Final = 64
MAX_NAMINGS: Final = 128
"""Of how many subjects, or groups of them, an actor or a resource is searched for."""
PATIENCE: Final = 10.0
"""Seconds for the index to have what the log had when the search came in."""
_ALL: Final = 4096
_CURSOR: Final = struct.Struct(">?qQQ")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Query:
    """Which records; what is empty leaves none out.

    Attributes:
        subject: about whom; after an erasure, those are found whose tokens outlive it.
        actor: by whom.
        resource: on what.
        resource_type: on what kind of thing.
        types: one of these types.
        request_id: of which request.
        outcome: with which outcome.
        producer: by which producer.
        since: not before, as the producers say.
        until: before.
        newest_first: in this order, or in that of time.

    Raises:
        InvalidRequest: a value that cannot be asked for.
    """

    subject: str = ""
    actor: str = ""
    resource: str = ""
    resource_type: str = ""
    types: tuple[str, ...] = ()
    request_id: str = ""
    outcome: str = ""
    producer: str = ""
    since: datetime | None = None
    until: datetime | None = None
    newest_first: bool = False

    def __post_init__(self) -> None:
        for name in (SUBJECT, "actor", "resource", *_COLUMNS):
            _check(name, getattr(self, name))
        if len(self.types) > MAX_TYPES:
            raise InvalidRequest(f"{len(self.types)} types: at most {MAX_TYPES}", field="types")
        for each in self.types:
            _check("types", each)
        for name in (SUBJECT, "actor", "resource"):
            if (value := getattr(self, name)) and not canonical(value):
                raise InvalidRequest("it names nobody", field=name)
        for name in ("since", "until"):
            if (moment := getattr(self, name)) is not None and moment.tzinfo is None:
                raise InvalidRequest("a time without a time zone", field=name)


@dataclass(frozen=True, slots=True)
class Page:
    """What was found.

    Attributes:
        records: in the order that was asked for.
        cursor: of the next page; empty at the end.
        complete_to: entries of the log that were searched: on each page as many as on the first.
            What is recorded later, each reading of a page too, is in none of them.
    """

    records: Sequence[StoredRecord]
    cursor: str
    complete_to: int


# Of a query, as it is, and as it is in the index.
_COLUMNS: Final = ("resource_type", "request_id", "outcome", "producer")


async def search(
    records: Records,
    access: Access,
    query: Query,
    *,
    limit: int = DEFAULT_PAGE,
    cursor: str = "",
    patience: float = PATIENCE,
) -> Page:
    """The records that a query finds, with all of them that can be opened; recorded first.

    Args:
        records: the tenant's.
        access: who asks, and what for.
        query: which records.
        limit: of records on the page, 1 to `MAX_PAGE`. It ends before it is too large, about
            too many people, or of too many parts.
        cursor: of the page before; empty for the first.
        patience: seconds to wait for the index.

    Raises:
        InvalidRequest: the limit, a cursor that is none of this query's order, or a resource of
            too many people.
        Unavailable: there is no index, or it is being made anew, or asked too much of.
        EventRefused, LogError: the reading cannot be recorded.
        VaultDamaged, StoreError: what is stored cannot be read.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"{limit} records on a page: 1 to {MAX_PAGE}", field="limit")
    after, size = _position(cursor, query) if cursor else (None, None)
    places, complete_to = await find(
        records, query, limit=limit + 1, after=after, size=size, patience=patience
    )
    found = [index for _, index in places[:limit]]
    shown = await _noted(records, access, found, lambda: asked(records.vault, query))
    following = ""
    if len(shown) < len(places):
        place = places[len(shown) - 1]
        following = encode_base64url(_CURSOR.pack(query.newest_first, *place, complete_to))
    return Page(shown, following, complete_to)


async def show(records: Records, access: Access, index: int) -> StoredRecord:
    """One record, with all of it that can be opened; recorded first.

    Raises:
        OutOfRange, InvalidRequest: there is no such record.
        As `search`.
    """
    (shown,) = await _noted(records, access, [index], lambda: {"index": index})
    return shown


async def find(
    records: Records,
    query: Query,
    *,
    limit: int,
    after: Place | None = None,
    size: int | None = None,
    patience: float = PATIENCE,
) -> tuple[list[Place], int]:
    """Where the records are that a query finds: their public claims alone, and recorded nowhere.

    Args:
        records: the tenant's.
        query: which records.
        limit: of places.
        after: the last place that was found before.
        size: entries of the log that were searched then; all, if this is the first look.
        patience: seconds to wait for the index.

    Returns:
        Their places, and the entries of the log that were searched.

    Raises:
        InvalidRequest: a resource of too many people.
        Unavailable: as `search`.
    """
    if (index := records.index) is None:
        raise Unavailable("this log has no search index: serve it, or make it with tlog reindex")
    edge = records.log.sequencer.edge.size
    size = edge if size is None else min(size, edge)
    complete_to = min(await index.caught_up(size, patience=patience), size)
    try:
        places = await index.find(
            Wanted(
                limit=limit,
                values=_values(records.vault, query),
                since=None if query.since is None else microseconds(query.since),
                until=None if query.until is None else microseconds(query.until),
                after=after,
                size=complete_to,
                newest_first=query.newest_first,
            )
        )
    except AuditError as error:
        raise Unavailable(f"not searched: {error}") from None
    return places, complete_to


async def find_all(records: Records, query: Query, *, patience: float = PATIENCE) -> array[int]:
    """All records that a query finds, by index; recorded nowhere, as `find`.

    Raises:
        Unavailable: as `search`; or the index does not have all that the log has.
    """
    found = array("Q")
    after: Place | None = None
    size = records.log.sequencer.edge.size
    while True:
        places, known = await find(
            records, query, limit=_ALL, after=after, size=size, patience=patience
        )
        if known < size:
            # Whoever gets an export, or evidence, takes it for whole.
            raise Unavailable(
                f"the search index has {known} of {size} entries: it is being made anew, or is "
                "behind. Ask again later"
            )
        found.extend([index for _, index in places])
        if len(places) < _ALL:
            return array("Q", sorted(found))
        after = places[-1]


async def _noted(
    records: Records, access: Access, found: Sequence[int], said: Callable[[], dict[str, Any]]
) -> list[StoredRecord]:
    """Open records, once it is recorded that they are: no erasure comes in between."""
    async with records.alone():
        shown, opened = _fitting(records, found)
        await note_read(records, access, subjects=sorted(opened), count=len(shown), query=said())
        return shown


def _fitting(records: Records, found: Sequence[int]) -> tuple[list[StoredRecord], set[str]]:
    """The first of some records, opened, as many as fit into a page; and whom they are about."""
    shown: list[StoredRecord] = []
    opened: set[str] = set()
    size = parts = 0
    for index in found:
        record = _read(records, index)
        size += 2 * len(record.leaf.jws)
        size += sum(len(each.encoded) for part in record.parts for each in part.disclosures)
        about = opened.union(subjects_of(record.parts))
        parts += len(record.parts)
        if shown and (size > MAX_PAGE_BYTES or len(about) > MAX_PEOPLE or parts > MAX_PARTS):
            break
        shown.append(record)
        opened = about
    return shown, opened


def _read(records: Records, index: int) -> StoredRecord:
    try:
        return records.read(index)
    except EventRefused as error:
        raise InvalidRequest(f"entry {index} is no record: {error}", field="index") from None


def _values(vault: Vault, query: Query) -> dict[str, Sequence[str]]:
    """What the index is asked for, by column."""
    values: dict[str, Sequence[str]] = {
        name: [value] for name in _COLUMNS if (value := getattr(query, name))
    }
    if query.types:
        values["type"] = sorted(set(query.types))
    subject = None
    if query.subject:
        name = canonical(query.subject)
        subject = vault.find_subject(name)
        values[SUBJECT] = _tokens(vault, SUBJECT, name, [] if subject is None else [subject.secret])
    for field in ("actor", "resource"):
        if value := getattr(query, field):
            name, secrets = canonical(value), []
            if subject is not None or not query.subject:
                secrets = _namings(vault, field, name, subject)
            values[field] = _tokens(vault, field, name, secrets)
    return values


def _namings(vault: Vault, field: str, name: str, subject: SubjectKey | None) -> list[bytes]:
    """What makes the erasable tokens of an actor or a resource."""
    found = list(islice(vault.namings(field, name, subject), MAX_NAMINGS + 1))
    if len(found) > MAX_NAMINGS:
        raise InvalidRequest(
            f"it is named in what was done to over {MAX_NAMINGS} people: give the subject too",
            field=field,
        )
    return found


def _tokens(vault: Vault, field: str, identifier: str, erasable: Sequence[bytes]) -> list[str]:
    """The tokens of an identifier, of both classes, in each epoch that has a key."""
    found = []
    for epoch in vault.epochs():
        secrets = [(TokenClass.ERASABLE, secret) for secret in erasable]
        if (tenant := vault.find_epoch(epoch)) is not None:
            secrets.append((TokenClass.EVIDENCE, tenant))
        for kind, secret in secrets:
            token = make_token(secret, kind, epoch=epoch, field=field, identifier=identifier)
            found.append(token.value)
    return found


def asked(vault: Vault, query: Query) -> dict[str, Any]:
    """A query as its record has it: names as the tokens of the newest epoch."""
    said: dict[str, Any] = {name: getattr(query, name) for name in _COLUMNS}
    said["types"] = list(query.types)
    for name in ("since", "until"):
        if (moment := getattr(query, name)) is not None:
            said[name] = format_time(moment)
    epoch = max(vault.epochs(), default="")
    key = vault.find_epoch(epoch) if epoch else None
    for name in (SUBJECT, "actor", "resource"):
        if (value := getattr(query, name)) and key is not None:
            kind = TokenClass.EVIDENCE
            token = make_token(key, kind, epoch=epoch, field=name, identifier=canonical(value))
            said[f"{name}_token"] = token.value
            said["epoch"] = epoch
    return {name: value for name, value in said.items() if value}


def _check(field: str, value: str) -> None:
    if len(value) > MAX_TEXT:
        raise InvalidRequest(f"{len(value)} characters: at most {MAX_TEXT}", field=field)
    if _CONTROL.search(value):
        raise InvalidRequest("it has control characters", field=field)


def _position(cursor: str, query: Query) -> tuple[Place, int]:
    """Where the page before ended, and how many entries were searched for it."""
    try:
        newest_first, at, index, size = _CURSOR.unpack(decode_base64url(cursor, field="cursor"))
    except (EventRefused, struct.error):
        raise InvalidRequest("not what a page before this one gave", field="cursor") from None
    if newest_first != query.newest_first or index >= 1 << 63:
        raise InvalidRequest("it goes with another order: ask in that one", field="cursor")
    return (at, index), size
