"""The search index that is the log's, whatever became of its file; and what is not in it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.audit.producer import ALICE, SHOP, access, received, signed
from tests.audit.searching import EVE, found
from tests.audit.tenant import create, indices, opened, registration, tenant
from tlog.audit.index import DIRECTORY, Index
from tlog.audit.indexer import reindex
from tlog.audit.search import Query, find, show
from tlog.log import InvalidRequest, Log, Unavailable

DATABASE = Path("log", DIRECTORY, "records.db")


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        first = indices(await records.accept([signed(received(), 1)]))
        assert await found(records, subject=ALICE) == first
    # Recorded while nothing was indexed.
    index = Index(tmp_path / "log")
    assert index.size == first[0] + 1
    index.close()
    async with opened(tmp_path) as records:
        more = indices(await records.accept([signed(received(), 2)]))
        assert await found(records, subject=ALICE) == first + more


@pytest.mark.parametrize(
    "harm",
    [
        "ahead",
        "other root",
        "other log",
        "other version",
        "half made",
        "garbage",
        "other format",
        "a name that is none",
        "no rows",
        "a table less",
        "a record less",
        "tokens less",
        "a kind less",
        "a pair less",
        "removed",
    ],
)
async def test_an_index_that_is_not_the_logs_is_made_anew(tmp_path: Path, harm: str) -> None:
    async with tenant(tmp_path) as records:
        read = access(ALICE, public={"purpose": "support", "resource_type": "customers"})
        first = indices(await records.accept([signed(received(), 1), signed(read, 2)]))
        assert await found(records, subject=ALICE) == first
    path = tmp_path / DATABASE
    if harm == "garbage":
        for each in path.parent.iterdir():
            each.write_bytes(b"garbage" * 1000)
    elif harm == "other format":
        data = path.read_bytes()
        path.write_bytes(data[:47] + b"\x80" + data[48:])
    elif harm == "a name that is none":
        path.write_bytes(path.read_bytes().replace(b"by_time", b"b\xf9_time", 1))
    elif harm == "removed":
        Index.remove(tmp_path / "log")
    else:
        statement = {
            "ahead": "UPDATE covers SET size = 100",
            "other root": "UPDATE covers SET root = zeroblob(32)",
            "other log": "UPDATE covers SET origin = 'example.com/other'",
            "other version": "PRAGMA user_version = 9",
            "half made": "PRAGMA user_version = 0",
            "no rows": "DELETE FROM covers",
            "a table less": "DROP TABLE covers",
            "a record less": "DELETE FROM records WHERE request_id = 'R-1'",
            "tokens less": "DELETE FROM tokens",
            "a kind less": "DELETE FROM kinds WHERE type = 'request.received'",
            "a pair less": "DELETE FROM pairs",
        }[harm]
        with sqlite3.connect(path) as database:
            if not harm.endswith("less"):
                database.execute("DELETE FROM tokens")
            database.execute(statement)
        database.close()
    async with opened(tmp_path) as records:
        assert await found(records, subject=ALICE) == first
        reads = await found(records, types=("access.read",), resource_type="customers")
        assert reads == first[1:]


async def test_damage_is_mended_while_it_serves(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        sent = [signed(access(f"user{seq}@example.com"), seq) for seq in range(1, 400)]
        await records.accept(sent)
        assert len(await found(records, producer="shop")) == 399
        index = records.index
        assert index is not None
        # The cache of the connection would hide what is on the disk.
        await asyncio.to_thread(index._index._reader.execute, "PRAGMA cache_size = 0")
        await asyncio.to_thread(index._index._reader.execute, "PRAGMA wal_checkpoint(TRUNCATE)")
        data = bytearray((tmp_path / DATABASE).read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        (tmp_path / DATABASE).write_bytes(data)
        with pytest.raises(Unavailable):
            await found(records, producer="shop")
        async with asyncio.timeout(20):
            while True:
                try:
                    if len(await found(records, producer="shop")) == 399:
                        break
                except Unavailable:
                    await asyncio.sleep(0.01)


async def test_reindexing(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        sent = [signed(received(), seq) for seq in range(1, 700)]
        first = indices(await records.accept(sent))
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("DELETE FROM tokens")
    database.close()
    told: list[tuple[int, int]] = []
    async with Log.opened(tmp_path / "log") as log:
        size = log.sequencer.edge.size
        assert (
            await reindex(tmp_path / "log", log, progress=lambda *each: told.append(each)) == size
        )
    assert told[-1] == (size, size)
    async with opened(tmp_path) as records:
        assert await found(records, subject=ALICE) == first


async def test_entries_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    create(tmp_path)
    async with Log.opened(tmp_path / "log") as log:
        await log.submit([b"an entry of before", b"{}"])
    async with opened(tmp_path) as records:
        await records.record(registration(SHOP))
        assert await found(records) == [2]
        with pytest.raises(InvalidRequest, match="no record"):
            await show(records, EVE, 0)


async def test_nothing_personal_is_in_it(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        draft = replace(received(), personal={"actor": "mallory", "resource": "s3://secret"})
        await records.accept([signed(draft)])
        assert len(await found(records, subject=ALICE)) == 1
        assert len(await found(records, actor="mallory")) == 1
        for file in (tmp_path / "log" / DIRECTORY).iterdir():
            data = file.read_bytes().lower()
            assert not any(word in data for word in (b"alice", b"mallory", b"secret")), file
    for file in (tmp_path / "log" / DIRECTORY).iterdir():
        data = file.read_bytes().lower()
        assert b"request.received" in data
        assert not any(word in data for word in (b"alice", b"mallory", b"secret")), file


async def test_without_an_index_it_says_so(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        records.index, kept = None, records.index
        with pytest.raises(Unavailable, match="tlog reindex"):
            await find(records, Query(), limit=1)
        records.index = kept


async def test_it_ends_whenever_it_is_ended(tmp_path: Path) -> None:
    create(tmp_path)
    for turns in range(6):
        async with asyncio.timeout(10):
            async with opened(tmp_path) as records:
                assert records.index is not None
                await asyncio.sleep(0.001)
                # Somebody hurried it before there was more.
                records.index._hurry.set()
                records.grew.set()
                for _ in range(turns):
                    await asyncio.sleep(0)
