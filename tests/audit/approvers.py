"""Two approvers, and orders as short as they can be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import ALICE, SHOP, TENANT, signer_of
from tests.audit.tenant import registration, tenant
from tlog.audit.erasing import submit
from tlog.audit.errors import AuditError
from tlog.audit.orders import Document, Kind, new_order
from tlog.audit.producers import Producer, ProducerKey, Registry
from tlog.audit.records import Records
from tlog.notes import Signer

DPO, CISO, COUNSEL = signer_of("dpo", 21), signer_of("ciso", 22), signer_of("counsel", 23)
NEW_CISO = signer_of("ciso", 24)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def order(kind: Kind = Kind.ERASE, *signers: Signer, **changes: Any) -> Document:
    """An order, signed by the two who approve unless others are given: about Alice, or to have
    counsel approve too, or to give one of the two another key.
    """
    now = changes.pop("now", None) or datetime.now(UTC)
    values: dict[str, Any] = {"tenant": TENANT, "reason": "asked", "lifetime": timedelta(days=7)}
    match kind:
        case Kind.ERASE:
            values |= {"subject": ALICE, "request_id": "R-1"}
        case Kind.PLACE:
            values |= {"hold_id": "H-1"} | ({} if "request_id" in changes else {"subject": ALICE})
        case Kind.RELEASE:
            values |= {"hold_id": "H-1"}
        case Kind.REGISTER:
            values |= {"vkey": str(COUNSEL.vkey)}
        case Kind.ROTATE:
            values |= {"vkey": str(NEW_CISO.vkey), "old_vkey": str(CISO.vkey)}
    made = new_order(kind, now=now, **(values | changes))
    for signer in signers or (DPO, CISO):
        made = made.approved(signer)
    return made


def registry(*approvers: Signer) -> Registry:
    """Who approves; the shop only records."""
    people = [(each, "approver") for each in approvers or (DPO, CISO)] + [(SHOP, "recorder")]
    return Registry(
        {each.vkey.name: Producer(frozenset({role})) for each, role in people},
        {each.vkey.label: ProducerKey(each.vkey, LONG_AGO) for each, _ in people},
    )


@contextlib.asynccontextmanager
async def governed(directory: Path, **settings: Any) -> AsyncIterator[Records]:
    """A tenant of whom entries 0 and 1 register the shop and the till, 2 and 3 two approvers."""
    async with tenant(directory, **settings) as records:
        for index, signer in enumerate((DPO, CISO), 2):
            made = await records.record(registration(signer, "approver"))
            assert made.index == index
        yield records


def every_byte(directory: Path) -> bytes:
    """Of all that a tenant has on the disk."""
    found = []
    for file in directory.rglob("*"):
        # A file may be renamed, or go, while others are read.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found.append(file.read_bytes())
    return b"\0".join(found)


async def refused(records: Records, data: bytes) -> AuditError:
    """An order that is refused leaves nothing behind."""
    size, rows = records.log.sequencer.edge.size, dict(records.vault.store.items("keys"))
    with pytest.raises(AuditError) as caught:
        await submit(records, data)
    assert (records.log.sequencer.edge.size, dict(records.vault.store.items("keys"))) == (
        size,
        rows,
    )
    return caught.value
