"""Searches: whom and what they find, what they record, and that they end."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import ALICE, access, received, signed
from tests.audit.searching import EVE, erase, found
from tests.audit.tenant import indices, tenant
from tlog.audit import EventRefused
from tlog.audit import index as index_module
from tlog.audit import search as search_module
from tlog.audit.index import Index
from tlog.audit.indexer import Indexer
from tlog.audit.reading import Access, Caller
from tlog.audit.search import MAX_PAGE, MAX_TEXT, Query, find, find_all, search, show
from tlog.audit.vault import Erasure
from tlog.log import InvalidRequest, OutOfRange, Unavailable


async def test_pages_are_recorded_under_whom_they_open(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        drafts = [received(subjects=[{"id": each}]) for each in (ALICE, "bob@example.com") * 3]
        sent = [signed(draft, seq) for seq, draft in enumerate(drafts, 1)]
        about_alice = indices(await records.accept(sent))[::2]
        page = await search(records, EVE, Query(subject=ALICE), limit=2)
        assert [each.index for each in page.records] == about_alice[:2]
        last = await search(records, EVE, Query(subject=ALICE), limit=2, cursor=page.cursor)
        assert [each.index for each in last.records] == about_alice[2:]
        assert not last.cursor
        # The reading of each page was about her, too: the next search finds it.
        again = await search(records, EVE, Query(subject=ALICE, types=("log.read",)))
        assert [each.payload["count"] for each in again.records] == [2, 1]
        read = records.read(again.records[0].index)
        said = {d.name: d.value for part in read.parts for d in part.disclosures}
        assert said["actor"] == {"id": "eve", "kind": "local_user"}
        assert said["id"] == ALICE
        assert read.payload["purpose"] == "a complaint"
        assert read.payload["count"] == 2


async def test_who_read_of_several_stays_with_each_of_them(tmp_path: Path) -> None:
    bob = "bob@example.com"
    async with tenant(tmp_path) as records:
        sent = [
            signed(received(subjects=[{"id": each}]), n) for n, each in enumerate((ALICE, bob), 1)
        ]
        await records.accept(sent)
        await search(records, EVE, Query(request_id="R-1"))
        noted = records.log.sequencer.edge.size - 1
        await erase(records, ALICE, Erasure(0, "R-1"))
        said = [{d.name: d.value for d in part.disclosures} for part in records.read(noted).parts]
        assert said == [{}, {}, {"id": bob, "actor": {"id": "eve", "kind": "local_user"}}]


async def test_reads_are_found_by_who_read_whomever_they_were_of(tmp_path: Path) -> None:
    bob = "bob@example.com"
    olga = Access(Caller("Olga", "local_user"), "a complaint")
    async with tenant(tmp_path) as records:
        drafts = [received(subjects=[{"id": each}]) for each in (ALICE, bob)]
        sent = [signed(draft, seq) for seq, draft in enumerate(drafts, 1)]
        hers, his = indices(await records.accept(sent))
        noted = []
        for query in (Query(subject="nobody"), Query(subject=ALICE), Query(request_id="R-1")):
            page = await search(records, olga, query)
            noted.append(records.log.sequencer.edge.size - 1)
        assert {hers, his} <= {each.index for each in page.records}
        assert [len(records.read(index).parts) for index in noted] == [1, 2, 3]
        assert await found(records, actor="olga") == noted
        assert await found(records, actor="olga", subject=ALICE) == noted[1:]
        await erase(records, ALICE, Erasure(0, "R-1"))
        assert await found(records, actor="olga") == noted


async def test_who_acted_upon_one_of_several_is_found(tmp_path: Path) -> None:
    bob = "bob@example.com"
    async with tenant(tmp_path) as records:
        drafts = [
            access(personal={}, subjects=[{"id": ALICE}, {"id": bob, "actor": "eve"}]),
            access(personal={"actor": "Mallory"}, subjects=[{"id": ALICE, "actor": {"id": "eve"}}]),
            access(personal={}, subjects=[{"id": ALICE, "actor": bob}, {"id": bob, "actor": bob}]),
            received(
                personal={}, subjects=[{"id": ALICE, "actor": "oscar"}, {"id": bob, "actor": "eve"}]
            ),
        ]
        sent = [signed(draft, seq) for seq, draft in enumerate(drafts, 1)]
        one, two, three, four = indices(await records.accept(sent))
        assert await found(records, actor="eve") == [one, two, four]
        assert await found(records, actor="eve", subject=bob) == [one, four]
        assert await found(records, actor="mallory") == [two]
        assert await found(records, actor="oscar", request_id="R-1") == [four]
        assert await found(records, actor="oscar", outcome="denied") == []
        assert await found(records, actor=bob) == [three]
        places, _ = await find(records, Query(actor="eve", newest_first=True), limit=2)
        assert [index for _, index in places] == [four, two]
        await erase(records, bob, Erasure(0, "R-1"))
        # Eve is none of those whose data it was: that she did it stays.
        assert await found(records, actor="eve") == [one, two, four]
        assert await found(records, actor=bob) == []
        with pytest.raises(EventRefused, match="at most 16") as refused:
            people = [{"id": f"user{n}", "actor": f"clerk{n}"} for n in range(17)]
            signed(access(personal={}, subjects=people), 9)
        assert refused.value.field == "actor"


async def test_a_search_for_somebody_unknown_brings_no_name_back(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        sent = [signed(received(), 1), signed(access(ALICE), 2)]
        asks, reads = indices(await records.accept(sent))
        erasure = Erasure(0, "R-1")
        await erase(records, ALICE, erasure)
        page = await search(records, EVE, Query(subject=ALICE))
        # Of class evidence alone; what was said in it is gone.
        assert [each.index for each in page.records] == [asks]
        assert {part.erasure for part in page.records[0].parts} == {erasure}
        noted = records.read(records.log.sequencer.edge.size - 1)
        assert noted.payload["type"] == "log.read"
        assert ALICE not in repr(noted)
        assert records.vault.find_subject(ALICE) is None
        details = {d.name: d.value for part in noted.parts for d in part.disclosures}["details"]
        assert details.keys() == {"subject_token", "epoch"}
        assert reads not in [each.index for each in page.records]


async def test_a_resource_is_found_alone_until_those_are_erased_whose_it_was(
    tmp_path: Path,
) -> None:
    bob, about = "bob@example.com", {"resource": {"id": "Invoices/7"}, "actor": ALICE}
    async with tenant(tmp_path) as records:
        groups = [(ALICE,), (bob,), (ALICE, bob)]
        sent = [signed(access(*who, personal=about), n) for n, who in enumerate(groups, 1)]
        hers, his, of_both = indices(await records.accept(sent))
        assert await found(records, resource="invoices/7") == [hers, his, of_both]
        assert await found(records, resource="invoices/7", subject=bob) == [his, of_both]
        assert await found(records, actor=ALICE) == [hers, his, of_both]
        await erase(records, ALICE, Erasure(0, "R-1"))
        # The token that the leaf still has is nobody's: nothing in the vault leads to it.
        assert await found(records, resource="invoices/7") == [his]
        store = records.vault.store
        (row,) = [row for row, _ in store.items("named")]
        assert row.startswith(records.vault.lookup("invoices/7", "resource"))
        assert len(list(store.items("names_of"))) == 1


async def test_a_resource_of_one_of_several_dies_with_that_one(tmp_path: Path) -> None:
    bob, carol = "bob@example.com", "carol@example.com"
    parts = [{"id": ALICE, "resource": ["a/1", "list"]}, {"id": bob, "resource": [{"id": "list"}]}]
    async with tenant(tmp_path) as records:
        drafts = [
            access(subjects=parts, personal={"resource": ["shop", 7, {}, " SHOP ", "till"]}),
            access(carol, personal={"resource": "list"}),
        ]
        sent = [signed(draft, seq) for seq, draft in enumerate(drafts, 1)]
        both, hers = indices(await records.accept(sent))
        for one in ("shop", "till", "a/1"):
            assert await found(records, resource=one) == [both]
        assert await found(records, resource="list") == [both, hers]
        assert await found(records, resource="list", subject=ALICE) == [both]
        places, _ = await find(records, Query(resource="list", newest_first=True), limit=2)
        assert [index for _, index in places] == [hers, both]
        await erase(records, ALICE, Erasure(0, "R-1"))
        for gone in ("shop", "till", "a/1"):
            assert await found(records, resource=gone) == []
        assert await found(records, resource="list") == [both, hers]
        await erase(records, bob, Erasure(0, "R-2"))
        assert await found(records, resource="list") == [hers]
        assert len(list(records.vault.store.items("named"))) == 1


async def test_too_many_resources_are_refused(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        people = [{"id": f"user{number}"} for number in range(64)]
        things = [f"things/{number}" for number in range(64)]
        each_its_own = [
            {**who, "resource": thing} for who, thing in zip(people, things, strict=True)
        ]
        most = [
            access(personal={"resource": things * 2}, subjects=people[:4]),
            access(personal={"resource": things[:4]}, subjects=people),
            access(personal={}, subjects=each_its_own),
            received(personal={"resource": things}, subjects=people),
        ]
        sent = [signed(draft, seq) for seq, draft in enumerate(most, 1)]
        recorded = indices(await records.accept(sent))
        assert await found(records, resource="things/3") == recorded
        assert await found(records, resource="things/63", subject="user63") == recorded[2:]
        for draft in (
            access(personal={"resource": [*things, "one more"]}),
            access(personal={"resource": "one more"}, subjects=each_its_own),
            access(personal={"resource": things}, subjects=people[:5]),
        ):
            with pytest.raises(EventRefused) as refused:
                signed(draft, 9)
            assert refused.value.field == "resource"


async def test_a_resource_of_very_many_is_found_with_the_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "MAX_NAMINGS", 4)
    async with tenant(tmp_path) as records:
        people = [f"user{number}@example.com" for number in range(5)]
        sent = [
            signed(access(who, personal={"actor": "eve", "resource": "list"}), seq)
            for seq, who in enumerate(people, 1)
        ]
        recorded = indices(await records.accept(sent))
        with pytest.raises(InvalidRequest, match="give the subject") as refused:
            await search(records, EVE, Query(resource="list"))
        assert refused.value.field == "resource"
        assert await found(records, resource="list", subject=people[3]) == [recorded[3]]


async def test_a_page_opens_no_more_than_one_record_of_it_names(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        groups = [[f"user{number}-{n}@example.com" for n in range(30)] for number in range(5)]
        sent = [signed(access(*group), seq) for seq, group in enumerate(groups, 1)]
        recorded = indices(await records.accept(sent))
        seen, cursor, pages = [], "", 0
        while True:
            query = Query(types=("access.read",))
            page = await search(records, EVE, query, cursor=cursor)
            seen += [each.index for each in page.records]
            pages += 1
            if not (cursor := page.cursor):
                break
        assert (seen, pages) == (recorded, 5)
        assert len(await found(records, types=("log.read",))) == pages


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_search_ends_however_much_is_recorded_meanwhile(
    tmp_path: Path, newest_first: bool, limit: int
) -> None:
    """A page is itself recorded under all whom it names; others record on, and date it back."""
    crowd = [f"user{number}@example.com" for number in range(64)]
    async with tenant(tmp_path) as records:
        now = records.clock()
        times = [now - timedelta(hours=hours) for hours in (5, 1, 3)]
        sent = [
            signed(access(*crowd, occurred_at=at, personal={}), seq)
            for seq, at in enumerate(times, 1)
        ]
        recorded = indices(await records.accept(sent))
        expected = sorted(recorded, key=lambda index: times[index - recorded[0]])
        query = Query(subject=crowd[7], newest_first=newest_first)
        size, seen, cursor, seq = records.log.sequencer.edge.size, [], "", 3
        for _ in recorded:
            page = await search(records, EVE, query, limit=limit, cursor=cursor)
            assert page.complete_to == size
            seen += [each.index for each in page.records]
            for hours in (6, 2, -1):
                seq += 1
                at = now - timedelta(hours=hours)
                await records.accept([signed(access(*crowd, occurred_at=at, personal={}), seq)])
            if not (cursor := page.cursor):
                break
        assert not cursor
        assert seen == expected[:: -1 if newest_first else 1]
        # All of it is found by the next search: three for each page, and the page's own.
        assert len(await find_all(records, query)) == 3 + 4 * 3


async def test_an_export_ends_however_much_is_recorded_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(tmp_path) as records:
        sent = [signed(access(ALICE), seq) for seq in range(1, 6)]
        recorded = indices(await records.accept(sent))
        assert records.index is not None
        real, seq = records.index.find, 5

        async def found(wanted: index_module.Wanted) -> list[index_module.Place]:
            nonlocal seq
            if seq < 50:
                seq += 2
                more = [signed(access(ALICE), seq - 1), signed(access(ALICE), seq)]
                await records.accept(more)
            return await real(wanted)

        monkeypatch.setattr(search_module, "_ALL", 2)
        monkeypatch.setattr(records.index, "find", found)
        assert list(await find_all(records, Query(subject=ALICE))) == recorded


async def test_all_records_are_found_or_it_is_said_that_they_are_not(tmp_path: Path) -> None:
    """What is found goes into an export, or a package of evidence: nobody would miss the rest."""
    async with tenant(tmp_path) as records:
        recorded = indices(
            await records.accept([signed(access(ALICE), seq) for seq in range(1, 6)])
        )
        assert list(await find_all(records, Query(subject=ALICE))) == recorded
        assert records.index is not None
        records.index.size = 4
        with pytest.raises(Unavailable, match="has 4 of 7 entries"):
            await find_all(records, Query(subject=ALICE), patience=0)


async def test_pages_of_an_index_that_is_made_anew_say_how_far_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Indexer) -> None:
        await asyncio.Event().wait()

    async with tenant(tmp_path) as records:
        await records.accept([signed(access(ALICE), seq) for seq in range(1, 6)])
        query = Query(subject=ALICE)
        first = await search(records, EVE, query, limit=1)
        assert records.index is not None
        await records.index.caught_up(records.log.sequencer.edge.size, patience=60)
        monkeypatch.setattr(Indexer, "_take_in", never)
        records.index.size = 3  # as it would be then
        page = await search(records, EVE, query, limit=1, cursor=first.cursor, patience=0)
        assert page.complete_to == 3
        assert (page.records, page.cursor) == ([], "")


async def test_one_record(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        (index,) = indices(await records.accept([signed(received())]))
        shown = await show(records, EVE, index)
        assert {d.name for part in shown.parts for d in part.disclosures} >= {"id", "details"}
        assert records.read(index + 1).payload["type"] == "log.read"
        with pytest.raises(OutOfRange):
            await show(records, EVE, 1 << 40)
        with pytest.raises(OutOfRange):
            records.read(index + 2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"subject": "x" * (MAX_TEXT + 1)}, "subject"),
        ({"subject": " "}, "subject"),
        ({"actor": "a\x00b"}, "actor"),
        ({"producer": "a\nb"}, "producer"),
        ({"types": ("a",) * 65}, "types"),
        ({"types": ("\x7f",)}, "types"),
        ({"since": datetime(2026, 1, 1)}, "since"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Query(**changes)
    assert refused.value.field == field


async def test_cursors_and_limits(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        page = await search(records, EVE, Query(), limit=1)
        before = records.log.sequencer.edge.size
        for cursor in ("x", "!", page.cursor[:-2], page.cursor + "AAAA", "_" * 23, "A" * 10_000):
            with pytest.raises(InvalidRequest):
                await search(records, EVE, Query(), cursor=cursor)
        with pytest.raises(InvalidRequest, match="order"):
            await search(records, EVE, Query(newest_first=True), cursor=page.cursor)
        for limit in (0, -1, MAX_PAGE + 1):
            with pytest.raises(InvalidRequest):
                await search(records, EVE, Query(), limit=limit)
        with pytest.raises(EventRefused):
            Access(EVE.caller, " ")
        assert records.log.sequencer.edge.size == before


async def test_a_query_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(tmp_path) as records:
        sent = [signed(access(ALICE), seq) for seq in range(1, 200)]
        await records.accept(sent)
        assert (await find(records, Query(producer="shop"), limit=1))[0]
        monkeypatch.setattr(index_module, "SECONDS", -1.0)
        monkeypatch.setattr(index_module, "QUICK", -1.0)
        monkeypatch.setattr(index_module, "_STEPS", 1)
        with pytest.raises(Unavailable, match="ask for less"):
            await find(records, Query(producer="shop"), limit=1)
        monkeypatch.undo()
        assert (await find(records, Query(producer="shop"), limit=1))[0]


async def test_slow_queries_hold_up_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = Index.find

    def slow(index: Index, wanted: index_module.Wanted, *, quick: bool = False) -> Any:
        if wanted.limit == 7:
            if quick:
                raise index_module.TooSlow("later")
            begun.set()
            assert go_on.wait(20)
        return real(index, wanted, quick=quick)

    monkeypatch.setattr(Index, "find", slow)
    async with tenant(tmp_path) as records:
        sent = indices(await records.accept([signed(access(ALICE), 1)]))
        indexer = records.index
        assert indexer is not None
        slows = [
            asyncio.create_task(find(records, Query(subject=ALICE), limit=7)) for _ in range(3)
        ]
        assert await asyncio.to_thread(begun.wait, 20)
        assert await found(records, subject=ALICE) == sent
        # It is not taken away under the slow one.
        indexer._damage = "as a test has it"
        records.grew.set()
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in slows)
        go_on.set()
        for each in slows:
            places, _ = await each
            assert {index for _, index in places} <= set(sent)
        await records.accept([signed(access(ALICE), 2)])
        assert (await found(records, subject=ALICE))[0] == sent[0]


async def test_a_query_is_quick_or_has_the_time_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tenant(tmp_path) as records:
        sent = indices(await records.accept([signed(access(ALICE), seq) for seq in range(1, 200)]))
        monkeypatch.setattr(index_module, "QUICK", -1.0)
        monkeypatch.setattr(index_module, "_STEPS", 1)
        assert await found(records, producer="shop") == sent
        index = Index(tmp_path / "log")
        wanted = index_module.Wanted(limit=1, values={"producer": ["shop"]}, size=len(sent))
        with pytest.raises(index_module.TooSlow):
            index.find(wanted, quick=True)
        index.close()
