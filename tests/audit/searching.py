"""Who searches, what is found, and a subject that goes."""

from __future__ import annotations

from typing import Any

from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.search import Query, find
from tlog.audit.shredding import Shredding
from tlog.audit.tokens import canonical
from tlog.audit.vault import Erasure

EVE = Access(Caller("eve", "local_user"), "a complaint")


async def found(records: Records, **query: Any) -> list[int]:
    places, _ = await find(records, Query(**query), limit=1000)
    return [index for _, index in places]


async def erase(records: Records, subject: str, erasure: Erasure) -> None:
    async with records.alone():
        shredding = Shredding(records.vault)
        key = records.vault.find_subject(canonical(subject))
        assert key is not None
        shredding.destroy({key.key_id: erasure}, identifier=canonical(subject))
        records.vault.store.begin_shred(shredding.puts, shredding.ranges)
    await records.shred()
