"""The search index against a plain model of what was recorded, and what it says of itself."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import ALICE, SHOP, access, received, signed
from tests.audit.tenant import TILL, create, indices, opened, registration, tenant
from tlog.audit import Draft, EventRefused
from tlog.audit import index as index_module
from tlog.audit import search as search_module
from tlog.audit.index import DIRECTORY, Index
from tlog.audit.indexer import reindex
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.search import MAX_PAGE, MAX_TEXT, Query, find, find_all, search, show
from tlog.audit.tokens import canonical, identifier_of
from tlog.audit.vault import Erasure
from tlog.log import InvalidRequest, Log, OutOfRange, Unavailable

EVE = Access(Caller("eve", "local_user"), "a complaint")
PEOPLE = [ALICE, "bob@example.com", "Carol@Example.com", "dave"]
BEGIN = datetime(2026, 2, 1, tzinfo=UTC)
DATABASE = Path("log", DIRECTORY, "records.db")


class Clock:
    """The time of receipt, which is set by hand."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


def drafted(dice: random.Random, now: datetime) -> Draft:
    """An event, as chance has it."""
    about = dice.sample(PEOPLE, dice.choice([1, 1, 1, 2]))
    public: dict[str, Any] = {"outcome": dice.choice(["success", "denied"])}
    if dice.random() < 0.5:
        public |= {"request_id": f"R-{dice.randrange(3)}"}
    when = now - timedelta(seconds=dice.randrange(1000))
    actor = dice.choice([*PEOPLE, "eve"])
    if dice.random() < 0.4:
        public |= {"request_id": "R-9", "request_type": "delete", "channel": "webform"}
        personal: dict[str, Any] = {"actor": {"id": actor}}
        return Draft(
            "request.received", public, personal, [{"id": a} for a in about], occurred_at=when
        )
    kind = dice.choice(["customers", "orders"])
    named: list[Any] = [f"{kind}/{number}" for number in dice.sample(range(3), 2)]
    shared: Any = dice.choice([named[0], [named[0]], [named[0], {"id": named[1]}], None])
    subjects: list[dict[str, Any]] = [{"id": each} for each in about]
    if shared is None or dice.random() < 0.2:
        for each in subjects:  # the same of two, too
            each["resource"] = dice.choice([named[0], named])
    personal = dice.choice([{"actor": actor}, {"actor": actor}, {"details": "by night"}])
    if "actor" not in personal or dice.random() < 0.2:
        for each in subjects:
            each["actor"] = dice.choice([{"id": dice.choice(PEOPLE)}, "Eve", {"ip": "192.0.2.1"}])
    return access(
        public={"purpose": "support", "resource_type": kind} | public,
        personal=personal | ({} if shared is None else {"resource": shared}),
        subjects=subjects,
        occurred_at=when,
    )


def known(draft: Draft, producer: str) -> dict[str, Any]:
    """What the model knows of an event."""
    personal, public = draft.personal, draft.public
    actors = [part.get("actor") for part in (personal, *draft.subjects)]
    said = [part.get("resource", ()) for part in (personal, *draft.subjects)]
    named = [each for one in said for each in ([one] if isinstance(one, str) else one)]
    return {
        "subjects": {canonical(each["id"]) for each in draft.subjects},
        "actors": {canonical(name) for each in actors if (name := identifier_of(each))},
        "resources": {each if isinstance(each, str) else each["id"] for each in named},
        "type": draft.type,
        "producer": producer,
        "at": draft.occurred_at,
        **{name: public.get(name, "") for name in ("request_id", "outcome", "resource_type")},
    }


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[tuple[Records, dict[int, dict[str, Any]]]]:
    """Events of three quarters, and what a plain model knows of them."""
    dice, clock = random.Random(20261125), Clock()
    model: dict[int, dict[str, Any]] = {}
    async with tenant(tmp_path, clock=clock) as records:
        seqs = {SHOP.vkey.name: 0, TILL.vkey.name: 0}
        for _ in range(3):
            for signer in (SHOP, TILL):
                drafts = [drafted(dice, clock.now) for _ in range(25)]
                name, sent = signer.vkey.name, []
                for draft in drafts:
                    seqs[name] += 1
                    sent.append(signed(draft, seqs[name], signer))
                for index, draft in zip(indices(await records.accept(sent)), drafts, strict=True):
                    model[index] = known(draft, name)
            clock.now += timedelta(days=80)
        yield records, model


def matches(one: dict[str, Any], query: Query) -> bool:
    """Whether a query finds it, by the rules that its help tells."""
    plain = ("request_id", "outcome", "producer", "resource_type")
    if any((value := getattr(query, name)) and one[name] != value for name in plain):
        return False
    subject = canonical(query.subject)
    if subject and subject not in one["subjects"]:
        return False
    if query.actor and canonical(query.actor) not in one["actors"]:
        return False
    if query.resource and query.resource not in one["resources"]:
        return False
    return (
        (not query.types or one["type"] in query.types)
        and (query.since is None or query.since <= one["at"])
        and (query.until is None or one["at"] < query.until)
    )


def asked(dice: random.Random) -> Query:
    """A query, as chance has it: mostly of one or two conditions."""
    whole: dict[str, Any] = {
        "subject": dice.choice([*PEOPLE, "nobody", " ALICE@example.COM "]),
        "actor": dice.choice([*PEOPLE, "eve", "nobody"]),
        "resource": f"customers/{dice.randrange(3)}",
        "resource_type": dice.choice(["customers", "orders", "none"]),
        "types": tuple(dice.sample(["request.received", "access.read", "x"], dice.choice([1, 2]))),
        "request_id": f"R-{dice.choice([0, 1, 9, 77])}",
        "outcome": dice.choice(["success", "denied", "partial"]),
        "producer": dice.choice(["shop", "till", "none"]),
        "since": BEGIN + timedelta(days=dice.randrange(170)),
        "until": BEGIN + timedelta(days=dice.randrange(170)),
    }
    names = dice.sample(sorted(whole), dice.choice([1, 1, 2, 2, 3]))
    return Query(newest_first=dice.random() < 0.5, **{name: whole[name] for name in names})


async def test_queries_find_what_a_model_finds(
    recorded: tuple[Records, dict[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, model = recorded
    dice, hits = random.Random(7), 0
    for _ in range(400):
        query = asked(dice)
        # Few are put in order, many are merged.
        monkeypatch.setattr(index_module, "_FEW", dice.choice([0, 1000]))
        expected = sorted(
            ((one["at"], index) for index, one in model.items() if matches(one, query)),
            reverse=query.newest_first,
        )
        hits += bool(expected)
        limit, after, found = dice.randrange(1, 12), None, []
        while True:
            places, complete_to = await find(records, query, limit=limit, after=after)
            assert complete_to == records.log.sequencer.edge.size
            # What the log itself recorded of them, a clock or a gap, is not the model's.
            found += [index for _, index in places if index in model]
            if len(places) < limit:
                break
            after = places[-1]
        assert found == [index for _, index in expected], query
    assert hits > 150


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
        await _erase(records, ALICE, Erasure(0, "R-1"))
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
        await _erase(records, ALICE, Erasure(0, "R-1"))
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
        await _erase(records, bob, Erasure(0, "R-1"))
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
        await _erase(records, ALICE, erasure)
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
        await _erase(records, ALICE, Erasure(0, "R-1"))
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
        await _erase(records, ALICE, Erasure(0, "R-1"))
        for gone in ("shop", "till", "a/1"):
            assert await found(records, resource=gone) == []
        assert await found(records, resource="list") == [both, hers]
        await _erase(records, bob, Erasure(0, "R-2"))
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


async def _erase(records: Records, subject: str, erasure: Erasure) -> None:
    from tlog.audit.shredding import Shredding

    async with records.alone():
        shredding = Shredding(records.vault)
        key = records.vault.find_subject(canonical(subject))
        assert key is not None
        shredding.destroy({key.key_id: erasure}, identifier=canonical(subject))
        records.vault.store.begin_shred(shredding.puts, shredding.ranges)
    await records.shred()


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


async def test_pages_of_an_index_that_is_made_anew_say_how_far_they_go(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.accept([signed(access(ALICE), seq) for seq in range(1, 6)])
        query = Query(subject=ALICE)
        first = await search(records, EVE, query, limit=1)
        assert records.index is not None
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


async def found(records: Records, **query: Any) -> list[int]:
    places, _ = await find(records, Query(**query), limit=1000)
    return [index for _, index in places]


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
        "garbage",
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
    elif harm == "removed":
        Index.remove(tmp_path / "log")
    else:
        statement = {
            "ahead": "UPDATE covers SET size = 100",
            "other root": "UPDATE covers SET root = zeroblob(32)",
            "other log": "UPDATE covers SET origin = 'example.com/other'",
            "other version": "PRAGMA user_version = 9",
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
