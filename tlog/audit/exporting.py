"""Exports: chosen records with chosen disclosures, for other programs; each is recorded first.

An export is made in windows of a few hundred records, so that none is too large. What a window
opens is recorded first, under each subject whose data it gives out, so that whoever got it can be
told of a later erasure; and without a record none of it is given out.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from tlog.audit.event import read_payload
from tlog.audit.export_formats import Exported, Format, Writer
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import parse_leaf
from tlog.audit.reading import Access, check_recipient, note_read, subjects_of
from tlog.audit.records import Records
from tlog.audit.search import Query, asked, find_all
from tlog.audit.stored import StoredRecord
from tlog.merkle import leaf_hash

ABOUT: Final = "subject."
"""Begins the name of a claim about a subject, as the choice of what is disclosed has it."""
WINDOW: Final = 256
"""Records that are opened, recorded and given out at once."""
# Records between two turns of the event loop.
_STEP: Final = 16


@dataclass(frozen=True, slots=True)
class Disclosing:
    """Which personal claims are given out: those of these names, or `everything` that opens."""

    names: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def shows(self, name: str) -> bool:
        """Whether a claim of this name, with `subject.` before it if it is about one, is."""
        return self.everything or name in self.names


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be exported, and for whom.

    Attributes:
        recipient: who gets it; needed if anything personal is given out.

    Raises:
        EventRefused: as `check_recipient`.
    """

    query: Query
    disclosing: Disclosing
    format: Format
    recipient: str = ""

    def __post_init__(self) -> None:
        check_recipient(self.recipient, disclosing=bool(self.disclosing))


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of an export, with how many of how many records are in it by then."""

    data: bytes
    done: int
    total: int


@dataclass(slots=True)
class _Window:
    records: list[Exported] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)


async def export(records: Records, access: Access, order: Order) -> AsyncGenerator[Piece, None]:
    """Give records out, in the order of the log.

    Raises:
        EventRefused, LogError: it could not be recorded: what came so far is all that was given.
        StoreError, VaultDamaged: what is stored cannot be read.
    """
    chosen = await find_all(records, order.query)
    writer = Writer(order.format, log=records.log.origin, tenant=records.tenant)
    seen: set[str] = set()
    recorded, done = -1, 0
    head = writer.head()
    for start in range(0, max(len(chosen), 1), WINDOW):
        # No erasure comes between what is opened and the record of it.
        async with records.alone():
            window = await _open(records, chosen[start : start + WINDOW], order.disclosing)
            fresh = window.subjects - seen
            if recorded < 0:
                recorded = await _note(records, access, order, len(chosen), fresh)
            elif fresh:
                await _note(records, access, order, len(window.records), fresh, continues=recorded)
        seen |= fresh
        done += len(window.records)
        last = done == len(chosen)
        data = b"".join(map(writer.line, window.records))
        yield Piece(head + data + (writer.tail() if last else b""), done, len(chosen))
        head = b""


async def _open(records: Records, chosen: array[int], disclosing: Disclosing) -> _Window:
    """Some records, with what is disclosed of them; nothing of it has been given out."""
    window = _Window()
    for number, index in enumerate(chosen):
        if number % _STEP == _STEP - 1:
            await asyncio.sleep(0)
        if disclosing:
            stored = records.read(index)
            window.subjects.update(subjects_of(stored.parts))
            window.records.append(_disclosed(records, stored, disclosing))
            continue
        entry = records.log.reader.entry(index, records.log.sequencer.edge.size)
        leaf = parse_leaf(entry)
        payload = read_payload(parse_jws(leaf.jws))
        window.records.append(Exported(index, leaf_hash(entry), leaf, payload))
    return window


def _disclosed(records: Records, stored: StoredRecord, disclosing: Disclosing) -> Exported:
    shown: list[dict[str, Any]] = []
    erased = []
    for number, part in enumerate(stored.parts):
        about = ABOUT if number else ""
        shown.append(
            {
                each.name: each.value
                for each in part.disclosures
                if disclosing.shows(about + each.name)
            }
        )
        if part.erasure is not None:
            erased.append((part.erasure.index, part.erasure.request_id))
    entry = records.log.reader.entry(stored.index, records.log.sequencer.edge.size)
    shared, *subjects = shown or [{}]
    return Exported(
        stored.index,
        leaf_hash(entry),
        stored.leaf,
        stored.payload,
        shared,
        tuple(subjects),
        tuple(dict.fromkeys(erased)),
    )


async def _note(
    records: Records,
    access: Access,
    order: Order,
    count: int,
    subjects: Collection[str],
    *,
    continues: int | None = None,
) -> int:
    """Record it, before any of it is given out."""
    disclosing = order.disclosing
    query: dict[str, Any] = {
        "selection": asked(records.vault, order.query),
        "format": order.format.value,
        "disclosed": ["all"] if disclosing.everything else sorted(disclosing.names),
    }
    if continues is not None:
        query["continues"] = continues
    return await note_read(
        records,
        access,
        type="log.exported",
        subjects=sorted(subjects),
        count=count,
        query=query,
        public={"recipient": order.recipient} if order.recipient else None,
    )
