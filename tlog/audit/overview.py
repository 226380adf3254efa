"""What is told before an order is made: what an erasure would do, and which holds stand.

Both are reads of the records, with a purpose, and recorded before anything is told. A subject finds
the look at them among their records. Whoever is not known, or was erased, gets no key for it: the
record has their token alone, as that of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tlog.audit.claims import check_identifier
from tlog.audit.outcomes import told_of
from tlog.audit.reading import Access, note_read
from tlog.audit.records import Records
from tlog.audit.search import Query, asked
from tlog.audit.survey import Survey, claims_at, erased_at, holds_on, survey
from tlog.audit.tokens import canonical
from tlog.log import Unavailable


@dataclass(frozen=True, slots=True)
class Preview:
    """What an erasure would do, without doing it.

    Attributes:
        key_id: whose key would be destroyed; empty if there is none.
        erased_at: index of the entry that says that the subject was erased before; None if never.
        holds: why it would be refused.
        system_results: what each system has said of the request so far; see `told_of`.
    """

    key_id: bytes
    survey: Survey
    erased_at: int | None
    holds: Sequence[str]
    system_results: Sequence[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A hold that stands, for people.

    Attributes:
        index: of the entry that placed it.
        request_id: what it holds; empty if it holds a subject.
    """

    hold_id: str
    index: int
    request_id: str
    reason: str
    approvers: Sequence[str]
    placed_at: datetime


async def preview(records: Records, access: Access, subject: str) -> Preview:
    """What an erasure would do. Opens nothing, changes nothing; recorded first.

    Args:
        records: the tenant's.
        access: who asks, what for, and for which request the erasure would be.
        subject: whose data.

    Raises:
        EventRefused: it is no identifier.
        LogError, StoreError: it cannot be told now, or not be recorded.
    """
    check_identifier("subject", subject)
    name = canonical(subject)
    async with records.alone():
        pass  # what is under way is done
    key = records.vault.find_subject(name)
    seen = Survey() if key is None else await survey(records, key.key_id)
    results = await told_of(records, access.request_id) if access.request_id else ()
    async with records.alone() as state:
        if records.vault.find_subject(name) != key:
            raise Unavailable("the subject was erased, or enrolled, meanwhile: ask again")
        holds = holds_on(records, state, key.key_id, seen, access.request_id) if key else ()
        told = Preview(
            key.key_id if key else b"", seen, erased_at(records.vault, subject), holds, results
        )
        await note_read(
            records,
            access,
            subjects=[name] if key else (),
            count=seen.types.total(),
            query={"erasure_of": asked(records.vault, Query(subject=subject))},
        )
    return told


async def standing(records: Records, access: Access) -> list[Standing]:
    """All holds that stand; recorded first.

    Raises:
        EventRefused, LogError, StoreError: it cannot be told now, or not be recorded.
    """
    async with records.alone() as state:
        found = []
        for hold_id, hold in sorted(state.obligations.holds.items()):
            leaf, claims = claims_at(records, hold.index)
            found.append(
                Standing(
                    hold_id,
                    hold.index,
                    hold.request_id,
                    claims.get("reason", ""),
                    claims.get("approvers", ()),
                    leaf.received_at,
                )
            )
        await note_read(records, access, count=len(found), query={"holds": "all that stand"})
    return found
