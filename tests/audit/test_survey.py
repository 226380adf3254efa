"""What goes with a subject's key is told as of when it goes, and read while others record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.audit.approvers import DPO, governed, order
from tests.audit.producer import ALICE, access, merged, received, signed
from tests.audit.tenant import Reading, indices
from tests.audit.test_expiry import Clock, at, passed
from tlog.audit import Draft, erasing, survey
from tlog.audit.erasing import submit
from tlog.audit.errors import Held, OrderRefused
from tlog.audit.orders import Kind

BOB = "bob@example.com"


def disclosed(recipient: str, **public: str) -> Draft:
    told = {"purpose": "x", "recipient": recipient, **public}
    return access(ALICE, type="access.disclose", public=told)


def meanwhile(monkeypatch: pytest.MonkeyPatch, *what: Callable[[], Awaitable[Any]]) -> None:
    """Let something happen after each look through the subject's records."""
    real, left = survey.survey, list(what)

    async def looks(*about: Any) -> survey.Survey:
        seen = await real(*about)
        if left:
            await left.pop(0)()
        return seen

    monkeypatch.setattr(erasing, "survey", looks)


async def test_others_record_while_very_many_records_of_a_subject_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        made = [signed(disclosed(f"r{seq % 7}"), seq) for seq in range(1, 501)]
        assert len(indices(await records.accept(made))) == 500
        reading = Reading(survey, monkeypatch)
        receipt = await submit(records, order().encode())
        assert (reading.total, reading.alone) == (500, 0)
        assert receipt.claims["count"] == 1000
        assert receipt.claims["recipients"] == [f"r{number}" for number in range(7)]


async def test_what_comes_meanwhile_is_counted_and_little_of_it_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(disclosed("first"), 1), signed(access(BOB), 2)])

        async def many() -> None:
            made = [signed(disclosed("many"), seq) for seq in range(3, 203)]
            await records.accept(made)

        async def few() -> None:
            await records.accept([signed(disclosed("few"), 203)])

        meanwhile(monkeypatch, many, few)
        reading = Reading(survey, monkeypatch)
        receipt = await submit(records, order().encode())
        assert (reading.total, reading.alone) == (202, 1)
        assert receipt.claims["count"] == 2 * 202
        assert receipt.claims["recipients"] == ["few", "first", "many"]


async def test_what_goes_meanwhile_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with governed(tmp_path, clock=clock) as records:
        await records.accept([at(clock, disclosed("old"), 1), at(clock, received(), 2)])
        clock.now = datetime(2022, 6, 1, tzinfo=UTC)
        await records.accept([at(clock, disclosed("new"), 3)])

        async def expired() -> None:
            assert await passed(records) == 1

        meanwhile(monkeypatch, expired)
        receipt = await submit(records, order(now=clock.now).encode())
        assert receipt.claims["count"] == 4
        assert receipt.claims["recipients"] == ["new"]


@pytest.mark.parametrize("what", ["of a request", "of somebody"])
async def test_a_hold_that_comes_meanwhile_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(disclosed("x"), 1), signed(access(BOB), 2)])
        await submit(records, order(Kind.PLACE, hold_id="H-1", request_id="R-7").encode())
        await submit(records, order(Kind.PLACE, hold_id="H-2", subject=BOB).encode())

        async def held() -> None:
            made = (
                disclosed("y", request_id="R-7") if what == "of a request" else merged(BOB, ALICE)
            )
            await records.accept([signed(made, 3)])

        meanwhile(monkeypatch, held)
        with pytest.raises(Held, match="by H-1:" if what == "of a request" else "by H-2:"):
            await submit(records, order().encode())


async def test_nothing_is_read_for_an_order_that_is_refused_or_was_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with governed(tmp_path) as records:
        await records.accept([signed(access(ALICE), 1)])
        reading, made = Reading(survey, monkeypatch), order()
        for refused in (order(Kind.ERASE, DPO), order(subject="")):
            with pytest.raises(OrderRefused):
                await submit(records, refused.encode())
        assert reading.total == 0
        await submit(records, made.encode())
        assert (await submit(records, made.encode())).repeated
        assert reading.total == 1
