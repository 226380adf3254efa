"""Retention: what is past its time goes by itself, but for what a hold keeps.

A record is kept for the months of its class, from its receipt. Then its sealed parts are deleted
and shredded; the leaf stays. A subject's key goes with the last part that it opens, and the
tenant's token key of an epoch once no record of that epoch needs its tokens. Each batch is a record
of its own (`retention.expired`), which comes first and obliges to the deed: see `obligations`.

When the `backup_days` after an erasure are over, that is a record too, one for each key
(`subject.key_backup_expired`). It says that the time has come by which no copy of the vault with
that key is to be left. It proves nothing of the copies: nobody looked at them. The days are those
of the settings as they are at the look, as in a receipt; what is recorded is not recorded again.

How far each class was looked through stands in the vault, as a hint: what it forgets is looked
through again. In the vault's family `state`:

    "expiry/class/", class      {"next": index, "kept": first index that a hold kept, or null,
                                "ahead": [first index that is not past its time, the earliest time
                                from which that of these counts], or null}
    "expiry/epoch/", epoch      its key is needed for ever, or as long as a hold stands; or a time:
                                until that is past every class
    "expiry/rewind"             a hold was released: what it kept is looked through again
    "expiry/looked"             see `looks`
    "expiry/catalogue"          the types' classes, and their months, that all this holds for
    "expiry/strays"             see `strays`

Whoever changes a class, or moves a type to another one, has all of it looked through anew.

Records stand in the order of receipt, so a look ends where one is not past its time yet. But what a
server received while its clock was ahead stands before what is past its time sooner: it is passed
over, and looked at again when its time has come. So is what came in while its clock was behind, and
is past its time by that clock alone: see `looks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from calendar import monthrange
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from tlog.audit.catalogue import TokenClass, floor_of
from tlog.audit.codec import dump_json, load_json
from tlog.audit.errors import AuditError
from tlog.audit.event import Draft
from tlog.audit.keeping import UNTOLD, Keeping
from tlog.audit.leaf import parse_leaf
from tlog.audit.looks import LEAP, look, looks_of
from tlog.audit.obligations import BACKUP_EXPIRED, EXPIRED, REWIND, Expiry, Hold
from tlog.audit.retained import (
    RULES,
    SCAN,
    STEP,
    Known,
    entries,
    fingerprint,
    is_sealed,
    known_of,
    leaf_of,
)
from tlog.audit.shredding import Shredding
from tlog.audit.strays import STRAYS, tell_of_strays
from tlog.audit.times import format_time, parse_time
from tlog.log import Log, LogError
from tlog.store import StoreError
from tlog.store.sealed import Put

if TYPE_CHECKING:
    from tlog.audit.records import Records

PACE: Final = 4.0
"""How long a pause is, in times of the batch before it: recording comes first."""
_CLASS: Final = b"expiry/class/"
_EPOCH: Final = b"expiry/epoch/"
_NEEDED: Final = b"needed"

_log = structlog.get_logger(__name__)


def months_before(now: datetime, months: int) -> datetime:
    """The time so many months ago; the last day of a month that is shorter."""
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    if year < 1:
        return datetime.min.replace(tzinfo=UTC)
    return now.replace(year=year, month=month + 1, day=min(now.day, monthrange(year, month + 1)[1]))


def epoch_end(epoch: str) -> datetime:
    """When an epoch is over."""
    year, quarter = int(epoch[:4]), int(epoch[5])
    return datetime(year + quarter // 4, quarter % 4 * 3 + 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Hint:
    """How far a class was looked through; the fields are those of its row."""

    next: int = 0
    kept: int | None = None
    ahead: tuple[int, datetime] | None = None


@contextlib.asynccontextmanager
async def expiring(
    records: Records, *, interval: float, leap: timedelta = LEAP
) -> AsyncIterator[None]:
    """Let expire what is past its time, now and every so many seconds, while inside."""
    task = asyncio.create_task(_run(records, interval, leap), name=f"{records.tenant}-expiry")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _run(records: Records, interval: float, leap: timedelta) -> None:
    while True:
        try:
            await expire(records, now=await look(records, leap=leap))
        except (AuditError, LogError, StoreError) as error:
            _log.error("what is past its time stays", tenant=records.tenant, problem=str(error))
        except Exception as error:  # noqa: BLE001 -- it goes on, whatever it was
            _log.critical("expiry failed", tenant=records.tenant, exc_info=error)
        await asyncio.sleep(interval)


async def expire(records: Records, *, now: datetime, pace: float = PACE) -> int:
    """Let go of all that is past its time.

    Returns:
        How many records lost their parts.

    Raises:
        AuditError, LogError, StoreError: the rest stays, and goes the next time.
    """
    await _rewind(records)
    await _tell_of_untold(records)
    total = 0
    for name, months in records.catalogue.retention.items():
        if months is None:
            continue
        cutoff, begun = months_before(now, months), time.monotonic()
        await _go_back(records, name, cutoff)
        while (count := await _batch(records, name, cutoff)) is not None:
            total += count
            await asyncio.sleep(pace * (time.monotonic() - begun))
            begun = time.monotonic()
    await _expire_epochs(records, now)
    await _expire_backups(records, now)
    await records.deeds.do(records.shred())
    await tell_of_strays(records, pace=pace)
    return total


async def _rewind(records: Records) -> None:
    """Look through anew what may be past its time now, and was not when it was looked at."""
    store, rules = records.vault.store, fingerprint(records.catalogue)
    async with records.alone():
        changed = store.get("state", RULES) != rules
        if not changed and store.get("state", REWIND) is None:
            return
        puts: list[Put] = [("state", key, None) for key, _ in store.items("state", _EPOCH)]
        for key, _ in store.items("state", _CLASS):
            hint = _hint(records, key)
            if changed:
                puts.append(("state", key, None))
            elif hint.kept is not None:
                back = replace(hint, next=min(hint.next, hint.kept), kept=None)
                puts.append(("state", key, _hint_row(back)))
        if changed:
            puts += [("state", STRAYS, None), ("state", RULES, rules)]
        store.write([*puts, ("state", REWIND, None)])


async def _tell_of_untold(records: Records) -> None:
    async with records.alone() as state:
        holds = state.obligations.holds
        for name in sorted(Keeping.of(records, holds).untold):
            _log.critical(
                f"what is about anybody stays, and nobody is erased: a hold is {UNTOLD}",
                tenant=records.tenant,
                hold=name,
                index=holds[name].index,
            )


async def _go_back(records: Records, name: str, cutoff: datetime) -> None:
    """Look again at what was passed over, if its time has come."""
    key = _CLASS + name.encode()
    async with records.alone():
        hint = _hint(records, key)
        if hint.ahead is None or hint.ahead[1] >= cutoff:
            return
        back = replace(hint, next=min(hint.next, hint.ahead[0]), ahead=None)
        records.vault.store.write([("state", key, _hint_row(back))])


def _hint(records: Records, key: bytes) -> _Hint:
    row = records.vault.store.get("state", key)
    made = {} if row is None else load_json(row, field="expiry")
    if "ahead" not in made:  # written before there was such a field
        return _Hint()
    ahead = made["ahead"] and (made["ahead"][0], parse_time(made["ahead"][1], field="ahead"))
    return _Hint(made["next"], made["kept"], ahead)


def _hint_row(hint: _Hint) -> bytes:
    ahead = hint.ahead and [hint.ahead[0], format_time(hint.ahead[1])]
    return dump_json({"next": hint.next, "kept": hint.kept, "ahead": ahead})


async def _batch(records: Records, name: str, cutoff: datetime) -> int | None:
    """Look through some entries for a class; None when all before the cutoff were."""
    first, size = _hint(records, _CLASS + name.encode()).next, records.log.sequencer.edge.size
    until = past = first
    for index, entry in entries(records.log, first, size):
        if index - first == SCAN:
            break
        leaf = leaf_of(entry)
        if leaf is not None and leaf.received_at >= cutoff and index >= past:
            past = _past_behind(records.log, index, size, cutoff)
            if past == index:
                break
        until = index + 1
        if until % STEP == 0:
            await asyncio.sleep(0)
    if until == first:
        return None
    return await records.deeds.do(_expire_range(records, name, cutoff, first, until))


async def _expire_range(
    records: Records, name: str, cutoff: datetime, first: int, until: int
) -> int:
    async with records.alone() as state:
        keeping = Keeping.of(records, state.obligations.holds)
        key = _CLASS + name.encode()
        hint, count, looks = _hint(records, key), 0, looks_of(records)
        kept, ahead = hint.kept, hint.ahead
        async for index, known in _of_class(records, name, first, until):
            since = looks.since(index, known.leaf.received_at)
            if since >= cutoff:
                where, earliest = ahead or (index, since)
                ahead = min(where, index), min(earliest, since)
            elif keeping.keeps(known):
                kept = index if kept is None else min(kept, index)
            elif any(is_sealed(records, part) for part in known.parts):
                count += 1
        if count:
            claims = {
                "expired_class": name,
                "cutoff": format_time(cutoff),
                "first_index": first,
                "until_index": until,
                "count": count,
            }
            await records.record_alone(Draft(EXPIRED, claims, {}))
            records.counters.expired += count
        records.vault.store.write([("state", key, _hint_row(_Hint(until, kept, ahead)))])
    return count


def _past_behind(log: Log, index: int, size: int, cutoff: datetime) -> int:
    """An entry behind one that is not past its time, and which is; the one itself if none is found.

    It looks further and further away: behind what came in while a clock was ahead, something is
    found at the latest when as much of it is past its time.
    """
    step = 1
    while index + step < size:
        leaf = leaf_of(log.reader.entry(index + step, size))
        if leaf is not None and leaf.received_at < cutoff:
            return index + step
        step *= 2
    return index


async def _of_class(
    records: Records, name: str, first: int, until: int
) -> AsyncIterator[tuple[int, Known]]:
    for index, entry in entries(records.log, first, until):
        if index % STEP == 0:
            await asyncio.sleep(0)
        known = known_of(records, entry)
        if known is not None and known.retention == name:
            yield index, known


async def carry_out(
    records: Records, due: Collection[Expiry], holds: Mapping[str, Hold], shredding: Shredding
) -> None:
    """What records say has expired goes; but nothing that a hold keeps by now."""
    keeping, looks = Keeping.of(records, holds), looks_of(records)
    for each in due:
        if each.epoch:
            shredding.drop_epoch(each.epoch)
            continue
        cutoff = parse_time(each.cutoff, field="cutoff")
        said = parse_leaf(records.log.reader.entry(each.index, each.index + 1))
        said_at = looks.since(each.index, said.received_at)
        async for index, known in _of_class(records, each.retention, each.first, each.until):
            # In a copy that was put back this is done again, and by the classes of today.
            floor = months_before(said_at, floor_of(known.claims["type"]))
            past = looks.since(index, known.leaf.received_at) < min(cutoff, floor)
            if past and not keeping.keeps(known):
                for part in known.parts:
                    shredding.expire(part, each.index)
    shredding.drop_unneeded()


async def _expire_epochs(records: Records, now: datetime) -> None:
    """Destroy the token keys of the epochs of which no record needs one any more."""
    store, retention = records.vault.store, records.catalogue.retention
    longest = max((months for months in retention.values() if months is not None), default=0)
    cutoff = months_before(now, longest)
    for name in [name for name, _ in store.items("epochs")]:
        row = store.get("state", _EPOCH + name)
        if epoch_end(name.decode()) > cutoff or _stays(row, cutoff):
            continue
        async with records.alone() as state:
            holds = dict(state.obligations.holds)
        keeping = Keeping.of(records, holds)
        # A copy of the vault knows by the token alone whom a hold is on, if it is an older one.
        epochs = {hold.token.epoch for hold in holds.values() if hold.token is not None}
        needed = _NEEDED
        if name.decode() not in epochs:
            needed = await _needed(records, name.decode(), cutoff, keeping)
        await records.deeds.do(_expire_epoch(records, name.decode(), cutoff, holds, needed))


async def _expire_epoch(
    records: Records, epoch: str, cutoff: datetime, holds: Mapping[str, Hold], needed: bytes
) -> None:
    async with records.alone() as state:
        if state.obligations.holds != holds:
            return  # the next time
        if needed:
            records.vault.store.write([("state", _EPOCH + epoch.encode(), needed)])
            return
        claims = {"expired_epoch": epoch, "cutoff": format_time(cutoff)}
        await records.record_alone(Draft(EXPIRED, claims, {}))


async def _expire_backups(records: Records, now: datetime) -> None:
    """Record which destroyed keys no copy of the vault is to hold any more."""
    until = now - timedelta(days=records.limits.backup_days)
    async with records.alone() as state:
        awaiting, looks = state.obligations.awaiting, looks_of(records)
        due = [index for index, each in awaiting.items() if looks.since(index, each.since) <= until]
    for index in due:
        await records.deeds.do(_expire_backup(records, index))


async def _expire_backup(records: Records, index: int) -> None:
    async with records.alone() as state:
        if (each := state.obligations.awaiting.get(index)) is None:
            return
        claims = {"key_id": each.key_id, "request_id": each.request_id, "about_index": index}
        await records.record_alone(Draft(BACKUP_EXPIRED, claims, {}))


def _stays(row: bytes | None, cutoff: datetime) -> bool:
    """Whether a look of before found that the key of an epoch is needed, and it is still."""
    if row is None or row == _NEEDED:
        return row is not None
    return parse_time(row.decode(), field="epoch") >= cutoff


async def _needed(records: Records, epoch: str, cutoff: datetime, keeping: Keeping) -> bytes:
    """For how long records need the token key of an epoch, as its row says; empty if none does."""
    # In whatever order clocks had them come in: a key that is destroyed does not come back. What
    # has no such token, nearly all, is not parsed.
    named, looks, latest = f'"epoch":"{epoch}"'.encode("ascii"), looks_of(records), b""
    for index, entry in entries(records.log, 0, records.log.sequencer.edge.size):
        if index % STEP == 0:
            await asyncio.sleep(0)
        if named not in entry or (known := known_of(records, entry)) is None:
            continue
        if not any(
            token.epoch == epoch and token.token_class is TokenClass.EVIDENCE
            for token in known.leaf.tokens
        ):
            continue
        if records.catalogue.retention.get(known.retention) is None or keeping.keeps(known):
            return _NEEDED
        # An epoch by the clock of then, which was behind.
        since = looks.since(index, known.leaf.received_at)
        if since >= cutoff:
            latest = max(latest, format_time(since).encode())
    return latest
