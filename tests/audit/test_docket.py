"""The docket against its oracle: all cases, read from the whole log at once."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.producer import PAYLOAD, SHOP, access, received, signed
from tests.audit.tenant import create, opened, registration, tenant
from tlog.audit import Draft
from tlog.audit.cases import CaseEvent, Outcome, read_cases
from tlog.audit.deadlines import Terms, find_deadlines
from tlog.audit.docket import Docket, is_open, read_case_event
from tlog.audit.jws import sign_jws
from tlog.audit.leaf import Leaf, encode_leaf
from tlog.audit.records import Records
from tlog.log import Log
from tlog.merkle import split_bundle

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def draft(kind: str, request: str, day: int = 0, **public: Any) -> Draft:
    """An event of a request, so many days before NOW."""
    claims = {"request_id": request, **public}
    subjects = [{"id": "a@example.com"}] if kind in ("request.received", "optout.applied") else []
    return Draft(kind, claims, {}, subjects, occurred_at=NOW - timedelta(days=day))


def receipt(request: str, day: int, kind: str = "delete", **public: Any) -> Draft:
    return draft("request.received", request, day, request_type=kind, channel="webform", **public)


async def record(records: Records, *drafts: Draft) -> None:
    for each in drafts:
        await records.record(each)


def whole(log: Log) -> list[CaseEvent]:
    """What the log says of requests, read at once."""
    size = log.sequencer.edge.size
    entries: list[bytes] = []
    while len(entries) < size:
        width = min(256, size - len(entries))
        entries += split_bundle(log.reader.encoded_bundle(len(entries) // 256, width))
    events = [read_case_event(entry, index) for index, entry in enumerate(entries)]
    return [event for event in events if event is not None]


def expected(log: Log, terms: Terms) -> dict[str, list[Any]]:
    return {
        case.request_id: [d for d in find_deadlines(case, terms, now=NOW) if is_open(d)]
        for case in read_cases(whole(log))
        if case.outcome is Outcome.UNANSWERED
        and any(event.type.startswith("request.") for event in case.events)
    }


async def test_what_is_most_urgent_comes_first(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await record(
            records,
            receipt("R-soon", 41, jurisdiction="US-CA"),
            receipt("R-late", 60),
            receipt("R-done", 60),
            draft("request.fulfilled", "R-done", 50),
            receipt("R-new", 1, "opt_out_sale_share"),
            receipt("R-in", 90, "opt_in"),
            draft("request.acknowledged", "R-soon", 40),
            draft("request.acknowledged", "R-lost", 1),
        )
        await records.accept([signed(access("a@example.com"))])
        found = await records.docket.standings(NOW)
        names = [each.case.request_id for each in found]
        assert names == ["R-late", "R-soon", "R-new", "R-in", "R-lost"]
        late, soon, new, opt_in, lost = found
        assert [(d.rule.duty, d.status, d.days_left) for d in late.deadlines] == [
            ("confirm receipt", "late", late.deadlines[0].days_left),
            ("answer", "late", -15),
        ]
        assert late.deadlines[0].days_left == late.urgency[0] < -15
        assert [(d.status, d.days_left) for d in soon.deadlines] == [("at risk", 4)]
        assert (soon.case.jurisdiction, soon.received) == (
            "US-CA",
            (NOW - timedelta(days=41)).date(),
        )
        assert [d.status for d in new.deadlines] == ["due"]
        assert opt_in.deadlines == lost.deadlines == ()
        assert lost.received is None
        assert "its receipt is not in the log" in lost.case.findings[0]
        done = await records.docket.standing("R-done", NOW)
        assert done is not None
        assert [(d.rule.duty, d.status) for d in done.deadlines] == [
            ("confirm receipt", "not applicable"),
            ("answer", "met"),
        ]
        assert await records.docket.standing("R-none", NOW) is None


async def test_other_events_that_name_a_request_make_none(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.record(access(public={"purpose": "support", "request_id": "T-1"}))
        assert await records.docket.standings(NOW) == []


async def test_it_reads_on_from_where_it_was(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        docket = records.docket
        for round_ in range(3):
            batch = [
                signed(receipt(f"R-{round_}-{number}", 1), 1 + round_ * 200 + number)
                for number in range(200)
            ]
            await records.accept(batch)
            first, again = await asyncio.gather(docket.standings(NOW), docket.standings(NOW))
            assert first == again
            assert len(first) == 200 * (round_ + 1)
            assert docket.size == records.log.sequencer.edge.size
        events, size = await docket.events()
        assert (events, size) == (whole(records.log), docket.size)


async def test_an_answer_that_does_not_count_leaves_it_open(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        # A delete request is not answered by an opt-out, nor an opt-out by one of its systems.
        await record(
            records,
            *(draft("optout.applied", "R-1", 1) for _ in range(5)),
            receipt("R-1", 9),
            receipt("R-2", 9, "opt_out_sale_share"),
            *(draft("optout.applied", "R-2", 1, system="crm") for _ in range(3)),
        )
        found = await records.docket.standings(NOW)
        assert sorted(each.case.request_id for each in found) == ["R-1", "R-2"]
        await record(
            records,
            draft("optout.applied", "R-2", 1),
            draft("request.denied", "R-1", 1, denial_basis="other"),
        )
        assert await records.docket.standings(NOW) == []


KINDS = (
    "request.received",
    "request.acknowledged",
    "request.extended",
    "request.fulfilled",
    "request.denied",
    "request.withdrawn",
    "optout.applied",
    "access.read",
)
EVENTS = st.tuples(
    st.sampled_from(["R-1", "R-2", "R-3"]),
    st.sampled_from(KINDS),
    st.integers(0, 100),
    st.sampled_from(["delete", "opt_out_sale_share", "opt_in"]),
)


def made(request: str, kind: str, day: int, asked: str) -> Draft:
    match kind:
        case "request.received":
            return receipt(request, day, asked)
        case "request.extended":
            until = (NOW + timedelta(days=40)).isoformat()
            return draft(kind, request, day, reason="much", extended_until=until)
        case "request.denied":
            return draft(kind, request, day, denial_basis="other")
        case "access.read":
            return draft(kind, request, day, purpose="support")
    return draft(kind, request, day)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.booleans()), max_size=14))
def test_whatever_is_recorded_in_whatever_order(
    events: list[tuple[tuple[str, str, int, str], bool]],
) -> None:
    async def run(directory: Path) -> None:
        create(directory)
        async with opened(directory) as records:
            await records.record(registration(SHOP))
            for event, look in events:
                await records.record(made(*event))
                if look:
                    await check(records, records.docket)
            await check(records, records.docket)
            await check(records, Docket(records.log, records.docket.terms))

    async def check(records: Records, docket: Docket) -> None:
        found = await docket.standings(NOW)
        assert {each.case.request_id: list(each.deadlines) for each in found} == {
            name: sorted(each, key=lambda d: d.days_left or 0)
            for name, each in expected(records.log, docket.terms).items()
        }
        assert found == sorted(found, key=lambda each: each.urgency)
        for case in read_cases(whole(records.log)):
            standing = await docket.standing(case.request_id, NOW)
            assert standing is not None
            assert standing.case == case

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"jws":1}'])
def test_entries_that_are_no_records_are_passed_over(damage: bytes) -> None:
    assert read_case_event(damage, 0) is None


def test_a_name_that_is_spelt_otherwise_is_the_same() -> None:
    payload = json.dumps(PAYLOAD).replace("request_id", "request_\\u0069d").encode()
    leaf = Leaf(sign_jws(SHOP, payload), NOW, ())
    event = read_case_event(encode_leaf(leaf), 7)
    assert event is not None
    assert (event.request_id, event.index, event.received_at) == ("R-1", 7, NOW)


async def test_nothing_personal_is_in_it(tmp_path: Path) -> None:
    async with tenant(tmp_path) as records:
        await records.accept([signed(received())])
        (standing,) = await records.docket.standings(datetime.now(UTC))
        assert "alice" not in repr(standing)
        assert "192.0.2.1" not in repr(standing)
