"""Records of types that the catalogue does not know any more: an operator is told of them.

Nobody can say when they are past their time, so they never are, and the token keys of their epochs
stay as well. They come to be when a type, or a version of one, is taken out of the tenant's file.
What the vault has in its family `state`, under `STRAYS`:

    {"next": index, "found": {type and version: records that have a sealed part}}

It is counted once, so what is erased later is counted still; and anew when the catalogue changes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from tlog.audit.codec import dump_json, load_json
from tlog.audit.retained import SCAN, STEP, Known, entries, is_sealed, known_of

if TYPE_CHECKING:
    from tlog.audit.records import Records

STRAYS: Final = b"expiry/strays"
MAX_NAMES: Final = 32
"""Types that are told by name; the records of others are counted as `_OTHERS`."""
_OTHERS: Final = "other types"

_log = structlog.get_logger(__name__)


async def tell_of_strays(records: Records, *, pace: float) -> None:
    """Look through what came in since the last time, and say what has no class.

    Args:
        records: the tenant's.
        pace: how long a pause is, in times of the batch before it.

    Raises:
        AuditError, LogError, StoreError: the rest is looked through the next time.
    """
    begun, end = time.monotonic(), records.log.sequencer.edge.size
    while (found := await _batch(records, end)) is None:
        await asyncio.sleep(pace * (time.monotonic() - begun))
        begun = time.monotonic()
    records.counters.strays = found.total()
    if found:
        _log.error(
            "records of types that the catalogue does not know never expire: put the types, and "
            "their versions, back into the tenant's catalogue file",
            tenant=records.tenant,
            records=found.total(),
            types=sorted(found),
        )


async def _batch(records: Records, end: int) -> Counter[str] | None:
    """Look through some entries before `end`; what was found so far, once all were."""
    store = records.vault.store
    row = store.get("state", STRAYS)
    first, found = 0, Counter[str]()
    if row is not None:
        made = load_json(row, field="strays")
        first, found = made["next"], Counter(made["found"])
    if first >= end:
        return found
    until = min(end, first + SCAN)
    for index, entry in entries(records.log, first, until):
        if index % STEP == 0:
            await asyncio.sleep(0)
        known = known_of(records, entry)
        if known is not None and known.retention not in records.catalogue.retention:
            name = _name(known)
            if any(is_sealed(records, part) for part in known.parts):
                found[name if name in found or len(found) < MAX_NAMES else _OTHERS] += 1
    async with records.alone():
        store.write([("state", STRAYS, dump_json({"next": until, "found": found}))])
    return None


def _name(known: Known) -> str:
    """What is not known about a record: its type, or the class that it asks for."""
    name = f"{known.claims['type']} version {known.claims['schema_version']}"
    return f"{name}, class {known.retention}" if known.retention else name
