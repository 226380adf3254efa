"""Cases: which receipt, which answers, and what is odd."""

from __future__ import annotations

import pytest

from tests.audit.casework import happened
from tlog.audit.cases import Case, CaseEvent, Outcome, read_cases

DELETE = {"request_type": "delete", "channel": "webform"}
START = happened(0, "request.received", "2026-03-02T10:00:00-08:00", DELETE)


def only(*events: CaseEvent) -> Case:
    (case,) = read_cases(events)
    return case


def later(index: int, kind: str, **claims: str) -> CaseEvent:
    return happened(index, kind, f"2026-04-{index:02}T10:00:00-07:00", claims)


def test_what_belongs_to_no_request_is_left_out() -> None:
    stray = happened(1, "access.read", "2026-03-02T10:00:00-08:00", request="")
    assert [case.request_id for case in read_cases([stray, START])] == ["R-1"]


def test_cases_stand_in_the_order_of_the_log() -> None:
    events = [
        happened(i, "request.received", "2026-03-02T10:00:00-08:00", DELETE, request=name)
        for i, name in enumerate(["R-9", "R-1", "R-5"])
    ]
    assert [case.request_id for case in read_cases(reversed(events))] == ["R-9", "R-1", "R-5"]


@pytest.mark.parametrize(
    ("kinds", "outcome", "decision"),
    [
        ([], Outcome.UNANSWERED, None),
        (["request.expired"], Outcome.UNANSWERED, None),
        (["request.verified", "delete.system_erased"], Outcome.UNANSWERED, None),
        (["request.fulfilled"], Outcome.FULFILLED, 1),
        (["request.denied"], Outcome.DENIED, 1),
        (["request.partially_denied"], Outcome.PARTIAL, 1),
        (["request.partially_denied", "request.fulfilled"], Outcome.PARTIAL, 1),
        (
            ["request.partially_denied", "request.fulfilled", "request.fulfilled"],
            Outcome.PARTIAL,
            1,
        ),
        (["request.partially_denied", "request.denied"], Outcome.DENIED, 2),
        (["request.partially_denied", "request.denied", "request.fulfilled"], Outcome.FULFILLED, 3),
        (["request.denied", "request.appealed", "request.fulfilled"], Outcome.FULFILLED, 3),
        (["request.denied", "request.partially_denied"], Outcome.PARTIAL, 2),
        (["request.fulfilled", "request.denied"], Outcome.DENIED, 2),
        (["request.withdrawn"], Outcome.WITHDRAWN, None),
        (["request.withdrawn", "request.fulfilled"], Outcome.FULFILLED, 2),
        (["request.denied", "request.withdrawn"], Outcome.DENIED, 1),
        (["optout.applied"], Outcome.UNANSWERED, None),
    ],
)
def test_outcomes(kinds: list[str], outcome: Outcome, decision: int | None) -> None:
    case = only(START, *(later(i, kind) for i, kind in enumerate(kinds, 1)))
    assert case.outcome == outcome
    assert (case.decision.index if case.decision else None) == decision


@pytest.mark.parametrize("kind", ["opt_out_sale_share", "limit_spi", "opt_out_admt"])
def test_an_opt_out_is_carried_out_by_its_application(kind: str) -> None:
    start = happened(0, "request.received", "2026-03-02T10:00:00-08:00", {"request_type": kind})
    step, whole = later(1, "optout.applied", system="ads"), later(2, "optout.applied")
    assert only(start, step).outcome == Outcome.UNANSWERED
    assert only(start, step, whole).answers == (whole,)
    denied = later(1, "request.partially_denied")
    assert only(start, denied, whole).outcome == Outcome.PARTIAL


def test_the_earliest_receipt_counts_whenever_it_was_recorded() -> None:
    earlier = happened(5, "request.received", "2026-03-01T10:00:00-08:00", DELETE)
    case = only(START, earlier)
    assert case.receipt == earlier
    assert case.findings == ("entry 0 receives it again",)


def test_without_a_receipt() -> None:
    case = only(later(1, "request.fulfilled"))
    assert (case.receipt, case.answers, case.request_type) == (None, (), "")
    assert case.findings == (
        "its receipt is not in the log: it has no deadlines, and is in no report",
    )


def test_what_is_dated_before_the_receipt_is_told() -> None:
    early = happened(1, "request.fulfilled", "2026-02-02T10:00:00-08:00")
    case = only(START, early)
    assert case.findings == ("entry 1, request.fulfilled, is dated before the receipt",)


@pytest.mark.parametrize("year", [1, 2017, 2098, 9999])
@pytest.mark.parametrize("which", ["occurred", "recorded"])
def test_a_clock_that_is_centuries_off_stops_nothing(year: int, which: str) -> None:
    odd = f"{year:04}-12-31T23:59:59+00:00"
    good = "2026-03-02T10:00:00-08:00"
    at, recorded = (odd, good) if which == "occurred" else (good, odd)
    case = only(START, happened(1, "request.fulfilled", at, recorded=recorded))
    assert case.outcome == Outcome.UNANSWERED
    assert len(case.findings) == 1
    years = (year, 2026) if which == "occurred" else (2026, year)
    assert f"entry 1 is of {years[0]}, recorded in {years[1]}, and is set" in case.findings[0]
