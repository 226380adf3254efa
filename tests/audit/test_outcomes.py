"""What each system did for a request: in the record of the erasure, and told before it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.audit.approvers import DPO, governed, order
from tests.audit.producer import ALICE, access, received, signed
from tests.audit.tenant import Reading, indices, opened
from tlog.audit import Draft, catalogue, outcomes
from tlog.audit.erasing import Receipt, submit
from tlog.audit.errors import OrderRefused
from tlog.audit.orders import Kind
from tlog.audit.outcomes import Outcomes, _Told, told_of
from tlog.audit.overview import preview
from tlog.audit.personal import find_personal
from tlog.audit.reading import Access, Caller
from tlog.audit.records import Records
from tlog.audit.search import Query, find
from tlog.log import Unavailable

LOOK = Access(Caller("olga", "local_user"), "request R-1", "R-1")
BEGIN = datetime.now(UTC) - timedelta(hours=2)


def said(kind: str, minutes: int = 0, request: str = "R-1", **claims: Any) -> Draft:
    """That something became of a request, so many minutes after BEGIN."""
    at = BEGIN + timedelta(minutes=minutes)
    return Draft(f"delete.{kind}", {"request_id": request, **claims}, {}, occurred_at=at)


async def record(records: Records, *drafts: Draft, start: int = 1) -> list[int]:
    """Have the shop record them, the first one with the number `start`."""
    events = [signed(draft, seq) for seq, draft in enumerate(drafts, start)]
    return indices(await records.accept(events))


async def test_each_system_stands_in_the_record_of_the_erasure(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await record(
            records,
            received(),  # entry 4
            said("system_erased", 1, system="shop db"),
            said("backup_deferred", 2, system="shop db"),
            said("deidentified", 1, system="crm"),
            said("backup_done", 9, system="crm"),  # 8
            said("backup_deferred", 3, system="crm"),  # it waited in a spool
            said("system_erased", 4, system="crm"),
            said("aggregated", 4, system="Statistics"),
            said("suppression_added", 5, system="crm"),  # 12
            said("processor_notified", 5, recipient="Mailer"),
            said("notice_impossible", 6, recipient="ads", reason="gone"),
            said("third_party_notified", 7, recipient="ads"),
            said("notice_impossible", 6, reason="too many"),  # 16
            said("notice_impossible", 7, reason="far too many"),
            said("system_erased", request="R-2", system="other"),
            said("system_erased", request="R-1 ", system="other"),
            said("system_erased", request="r-1", system="other"),  # 20
            Draft("correct.applied", {"request_id": "R-1", "system": "other"}, {}),
            access(ALICE, public={"purpose": "x", "request_id": "R-1"}),
            said("processor_notified", 8, recipient="crm"),  # not the system of this name
        )
        told = [
            "aggregated (entry 11): Statistics",
            "system_erased (entry 10), suppression_added (entry 12), backup_done (entry 8): crm",
            "system_erased (entry 5), backup_deferred (entry 6): shop db",
            "notice_impossible (entry 17)",
            "processor_notified (entry 13): Mailer",
            "third_party_notified (entry 15): ads",
            "processor_notified (entry 23): crm",
        ]
        assert (await preview(records, LOOK, ALICE)).system_results == told
        elsewhere = Access(LOOK.caller, "x", "R-2")
        assert (await preview(records, elsewhere, ALICE)).system_results == [
            "system_erased (entry 18): other"
        ]
        for request_id in ("", "R-3"):
            look = Access(LOOK.caller, "x", request_id)
            assert list((await preview(records, look, ALICE)).system_results) == []
        made = order().encode()
        receipt = await submit(records, made)
        assert receipt.claims["system_results"] == told
        assert records.read(receipt.index or 0).payload["system_results"] == told

        # The record stays as it is; what is said from then on, the next look tells.
        late = await record(records, said("backup_done", 99, system="shop db"), start=30)
        again = await submit(records, made)
        assert (again.repeated, again.claims) == (True, receipt.claims)
        other = await submit(records, order(request_id="R-2").encode())
        assert (other.erased_before, other.claims) == (True, receipt.claims)
        gone = await preview(records, LOOK, ALICE)
        assert gone.key_id == b""
        assert gone.system_results[2] == (
            f"system_erased (entry 5), backup_done (entry {late[0]}): shop db"
        )
    async with opened(tmp_path) as records:
        # So it is when all is read from the log alone.
        records.vault.store.write([("state", b"snapshot", None)])
        records._state = None
        again = await submit(records, made)
        assert (again.repeated, again.claims) == (True, receipt.claims)


async def test_nothing_is_said_of_any_system(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await record(records, received(), said("system_erased", request="R-2", system="crm"))
        assert list((await preview(records, LOOK, ALICE)).system_results) == []
        made = order().encode()
        receipt = await submit(records, made)
        assert receipt.index is not None
        # As in records from before there was such a claim.
        assert "system_results" not in receipt.claims
        await record(records, said("system_erased", system="crm"), start=3)
        assert (await submit(records, made)).claims == receipt.claims


async def test_more_systems_than_a_claim_may_list(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        systems = [said("system_erased", system=f"s{number:03}") for number in range(100)]
        await record(records, received(), *systems[:64])
        assert (await preview(records, LOOK, ALICE)).system_results[63] == (
            "system_erased (entry 68): s063"
        )
        await record(records, *systems[64:], start=66)
        told = (await submit(records, order().encode())).claims["system_results"]
        assert (len(told), told[0]) == (64, "system_erased (entry 5): s000")
        assert told[62:] == [
            "system_erased (entry 67): s062", "and 37 more, in the request's records",
        ]  # fmt: skip


@pytest.mark.parametrize("letter", ['"', "語", "\U0001f5d1"])
async def test_names_as_long_as_may_be_keep_nobody_from_erasure(
    tmp_path: Path, letter: str
) -> None:
    async with governed(tmp_path) as records:
        systems = [
            said("system_erased", system=f"{number:02}{letter * 126}") for number in range(64)
        ]
        recipients = [
            access(
                ALICE, type="access.disclose",
                public={"purpose": "x", "recipient": f"{number:02}{letter * 254}"},
            )
            for number in range(64)
        ]  # fmt: skip
        await record(records, *systems, *recipients)
        receipt = await submit(records, order(reason=letter * 512).encode())
        assert receipt.index is not None
        for claim, where in (("recipients", "subject"), ("system_results", "request")):
            *kept, last = receipt.claims[claim]
            assert 10 < len(kept) < 63
            assert last == f"and {64 - len(kept)} more, in the {where}'s records"
            assert all(letter * 126 in each for each in kept)


async def test_it_needs_no_search_index(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await record(records, received(), said("system_erased", system="crm"))
        records.index = None
        with pytest.raises(Unavailable):
            await find(records, Query(request_id="R-1"), limit=1)
        assert (await preview(records, LOOK, ALICE)).system_results == [
            "system_erased (entry 5): crm"
        ]
        receipt = await submit(records, order().encode())
        assert receipt.claims["system_results"] == ["system_erased (entry 5): crm"]


async def test_all_that_came_before_the_erasure_and_nothing_after(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await record(records, received())
        events = [[signed(said("system_erased", system=f"s{seq:02}"), seq)] for seq in range(2, 42)]
        jobs = [records.accept(each) for each in events[:20]]
        rest = [records.accept(each) for each in events[20:]]
        done: list[Any] = await asyncio.gather(*jobs, submit(records, order().encode()), *rest)
        (receipt,) = [each for each in done if isinstance(each, Receipt)]
        assert receipt.index is not None
        before = {
            f"system_erased (entry {index}): {records.read(index).payload['system']}"
            for index in range(5, receipt.index)
        }
        assert before
        assert set(receipt.claims["system_results"]) == before


async def test_a_request_of_very_many_records(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        drafts = [said("system_erased", number, system=f"s{number % 3}") for number in range(300)]
        at = await record(records, *drafts)
        assert await told_of(records, "R-1") == [
            f"system_erased (entry {at[297 + number]}): s{number}" for number in range(3)
        ]


async def test_others_record_while_very_many_records_of_a_request_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        drafts = [said("system_erased", number, system=f"s{number % 3}") for number in range(1000)]
        await record(records, received(), *drafts)
        reading = Reading(outcomes, monkeypatch)
        receipt = await submit(records, order().encode())
        assert len(receipt.claims["system_results"]) == 3
        assert (reading.total, reading.alone) == (1001, 0)


@pytest.mark.parametrize("meanwhile", [1, 64, 65, 500])
async def test_what_comes_while_it_is_read_is_told_and_little_of_it_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: int
) -> None:
    async with governed(tmp_path) as records:
        first = [said("system_erased", number, system=f"t{number:03}") for number in range(100)]
        await record(records, received(), *first)
        late = [said("system_erased", 101, system=f"s{number:03}") for number in range(meanwhile)]
        catch_up = Outcomes.catch_up

        async def interrupted(self: Outcomes) -> int:
            read = await catch_up(self)
            if late:
                drafts = late[:]
                late.clear()
                await record(records, *drafts, start=102)
            return read

        monkeypatch.setattr(Outcomes, "catch_up", interrupted)
        reading = Reading(outcomes, monkeypatch)
        receipt = await submit(records, order().encode())
        told = receipt.claims["system_results"]
        assert told[0].endswith(": s000")
        assert told[-1] == f"and {101 + meanwhile - 64} more, in the request's records"
        # What came while the first ones were read was read when all could record, too.
        assert (reading.total, reading.alone) == (101 + meanwhile, 0)


async def test_nothing_is_read_for_an_order_that_is_refused_or_was_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        await record(records, received(), said("system_erased", system="crm"))
        reading, made = Reading(outcomes, monkeypatch), order()
        with pytest.raises(OrderRefused, match="signatures"):
            await submit(records, order(Kind.ERASE, DPO).encode())
        assert reading.total == 0
        await submit(records, made.encode())
        assert reading.total == 2
        assert (await submit(records, made.encode())).repeated
        assert reading.total == 2


@given(
    st.text(st.sampled_from("0459afx:.-+@%() _/é語\u0301\uff20\u2013"), min_size=1, max_size=40),
    st.integers(0, 10**12 - 1),  # fewer digits than a card has
)
@example("a:b:c:d:", 4)  # before a colon it would be an address
@example("111 1111 1111", 4111)
@example("@corp", 12)
def test_no_line_seems_to_be_personal(name: str, index: int) -> None:
    line = str(_Told(name, {"data": (BEGIN, index, "system_erased")}))
    assert find_personal(line) is None
    if find_personal(name) is None:
        assert line.partition(": ")[2] == name


async def test_a_name_of_before_it_was_refused_stops_no_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "find_personal", lambda _: None)
            await record(
                records,
                said("system_erased", system="eve@example.com"),
                said("system_erased", system="zoe@example.com"),
                access(
                    ALICE, type="access.disclose",
                    public={"purpose": "x", "recipient": "eve@example.com"},
                ),
            )  # fmt: skip
        receipt = await submit(records, order().encode())
        unnamed = "one whose name seems to be personal"
        assert receipt.claims["recipients"] == [unnamed]
        assert receipt.claims["system_results"] == [
            f"system_erased (entry {index}): {unnamed}" for index in (4, 5)
        ]


async def test_a_name_cannot_pass_for_a_result(tmp_path: Path) -> None:
    async with governed(tmp_path) as records:
        await record(records, received(), said("backup_deferred", system="system_erased: crm"))
        (line,) = (await submit(records, order().encode())).claims["system_results"]
        assert line.split(": ", 1) == ["backup_deferred (entry 5)", "system_erased: crm"]
