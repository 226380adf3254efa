"""The metrics of a year: a golden one, and any year, counted again from the entries it names."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.casework import happened
from tests.audit.producer import CATALOGUE
from tlog.audit import EventRefused, report_formats
from tlog.audit.calendar import CalendarError
from tlog.audit.cases import CaseEvent
from tlog.audit.report import (
    DROP,
    GROUNDS,
    KINDS,
    CountedBy,
    Figure,
    Ground,
    Population,
    Report,
    make_report,
)
from tlog.audit.report_formats import (
    NOTICE,
    check_size,
    most_bytes,
    ranges,
    to_csv,
    to_html,
    to_json,
)
from tlog.log import InvalidRequest

GOLDEN = tomllib.loads(Path(__file__).with_name("golden_year.toml").read_text("utf-8"))
LOS_ANGELES = ZoneInfo("America/Los_Angeles")


def golden_events() -> list[CaseEvent]:
    events = []
    for index, (kind, request, day, *claims) in enumerate(GOLDEN["events"]):
        at = day if "T" in day else f"{day}T12:00:00-08:00"
        events.append(happened(index, kind, at, claims[0] if claims else {}, request=request))
    return events


def golden(**changes: Any) -> Report:
    asked: dict[str, Any] = {"size": GOLDEN["size"], "zone": LOS_ANGELES}
    return make_report(golden_events(), GOLDEN["year"], **(asked | changes))


@pytest.mark.parametrize("counted_by", CountedBy)
@pytest.mark.parametrize("kind", [*KINDS, DROP])
@pytest.mark.parametrize("population", Population)
def test_the_golden_year(counted_by: CountedBy, kind: str, population: Population) -> None:
    figures = golden(counted_by=counted_by).figures[population][kind]
    # What does not differ by the date that counts is written down once.
    named = GOLDEN[counted_by].get(population, {}).get(kind)
    expected = named or GOLDEN["received"][population][kind]
    assert expected.keys() <= figures.keys()
    for name, figure in figures.items():
        zero: list[Any] = [None if name.startswith("days_") else 0, []]
        assert [figure.value, list(figure.entries)] == expected.get(name, zero), name


def test_the_rest_of_the_golden_year() -> None:
    report = golden()
    found = {kind: [each.value, list(each.entries)] for kind, each in report.left_out.items()}
    assert found == GOLDEN["left_out"]
    assert [report.nowhere.value, list(report.nowhere.entries)] == GOLDEN["nowhere"]
    assert list(report.findings) == GOLDEN["findings"]
    # Not listed is the exemption of a type that is not asked for, or of another year.
    for kinds in report.figures.values():
        for figures in kinds.values():
            assert [name for name in figures if name.startswith("exemption.")] == [
                "exemption.1798.145(a)",
                "exemption.1798.146(a)(1)",
            ]


def test_the_golden_year_has_every_denial_basis() -> None:
    values = [
        GOLDEN[by].get("all individuals", {}).get(kind, {}).get(f"basis.{basis}", [0])[0]
        for basis in GROUNDS
        for by in CountedBy
        for kind in KINDS
    ]
    each = [sum(values[i : i + 10]) for i in range(0, len(values), 10)]
    assert all(each), dict(zip(GROUNDS, each, strict=True))


def test_every_basis_of_the_catalogue_has_a_ground_and_every_type_is_asked_for_or_known() -> None:
    basis, kind = CATALOGUE.claims["denial_basis"].check, CATALOGUE.claims["request_type"].check
    assert basis is not None
    assert kind is not None
    with pytest.raises(EventRefused) as refusal:
        basis("denial_basis", "")
    assert str(refusal.value) == f"denial_basis: one of {', '.join(sorted(GROUNDS))}"
    for types in KINDS.values():
        for each in types:
            kind("request_type", each)


def test_a_tenant_reads_the_bases_and_the_places_otherwise() -> None:
    report = golden(grounds={**GROUNDS, "exempt": Ground.OTHER}, californian={"us-co"})
    delete = report.figures[Population.ALL]["delete"]
    assert delete["denied_as.exempt_information"] == Figure(0, ())
    assert delete["denied_as.other_grounds"] == Figure(2, (6, 7, 8, 52, 54))
    assert delete["exemption_not_named"] == Figure(0, ())
    assert report.figures[Population.CALIFORNIA]["delete"]["received"] == Figure(1, (4,))


@pytest.mark.parametrize("year", [2017, 2098, -1])
def test_years_that_nobody_can_mean(year: int) -> None:
    with pytest.raises(CalendarError, match="year: 2018 to 2097"):
        make_report([], year, size=0, zone=LOS_ANGELES)


TYPES = ["delete", "correct", "know_specific", "know_categories", "opt_out_sale_share", "limit_spi"]
PLACES = ["US-CA", "us-ca", "US-NV", "", None]
KIND = st.sampled_from(
    [
        "request.received",
        "request.received",
        "request.received",
        "request.fulfilled",
        "request.denied",
        "request.partially_denied",
        "request.withdrawn",
        "request.verified",
        "optout.applied",
    ]
)
CLAIMS = st.fixed_dictionaries(
    {
        "request_type": st.sampled_from([*TYPES, "portability"]),
        "denial_basis": st.sampled_from([*GROUNDS, "whim"]),
        "jurisdiction": st.sampled_from(PLACES),
        "channel": st.sampled_from(["webform", "drop"]),
        "exemption": st.sampled_from(["", "1798.145(a)", "1798.146"]),
    }
)
AT = st.datetimes(datetime(2025, 10, 1), datetime(2027, 3, 31), timezones=st.just(LOS_ANGELES))
EVENT = st.tuples(KIND, st.integers(1, 6), AT, CLAIMS)
BY = st.sampled_from(CountedBy)


def events_of(rows: Sequence[tuple[str, int, datetime, dict[str, Any]]]) -> list[CaseEvent]:
    return [
        happened(i * 3, kind, at, claims, request=f"R-{request}")
        for i, (kind, request, at, claims) in enumerate(rows)
    ]


def of_2026(events: Sequence[CaseEvent], by: CountedBy) -> Report:
    return make_report(events, 2026, size=1000, zone=LOS_ANGELES, counted_by=by)


def day_number(event: CaseEvent) -> int:
    return event.occurred_at.astimezone(LOS_ANGELES).date().toordinal()


def counted_by_hand(name: str, entries: Sequence[CaseEvent]) -> float | None:
    """A figure from its entries, as somebody does who reads them: requests, or their days."""
    requests = {event.request_id for event in entries}
    if not name.startswith("days_"):
        return len(requests)
    days = []
    for request in requests:
        mine = sorted((e for e in entries if e.request_id == request), key=lambda e: e.occurred_at)
        first = next(event for event in mine if event.type == "request.received")
        answers = ["request.fulfilled", "request.denied", "request.partially_denied"]
        if first.claims["request_type"] in ("opt_out_sale_share", "limit_spi"):
            answers.append("optout.applied")
        days.append(day_number(next(e for e in mine if e.type in answers)) - day_number(first))
    if not days:
        return None
    return median(days) if name == "days_median" else round(fmean(days), 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, max_size=24), BY)
def test_each_figure_is_made_again_from_its_entries(
    rows: list[tuple[str, int, datetime, dict[str, Any]]], by: CountedBy
) -> None:
    events = events_of(rows)
    for population, kinds in of_2026(events, by).figures.items():
        for kind, figures in kinds.items():
            for name, figure in figures.items():
                behind = [event for event in events if event.index in figure.entries]
                assert len(behind) == len(figure.entries)
                assert counted_by_hand(name, behind) == figure.value, name
                if behind:
                    again = of_2026(behind, by).figures[population][kind][name]
                    assert again == figure, name


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, max_size=24), BY, st.randoms())
def test_what_adds_up(
    rows: list[tuple[str, int, datetime, dict[str, Any]]], by: CountedBy, random: Any
) -> None:
    events = events_of(rows)
    report = of_2026(events, by)
    random.shuffle(events)
    assert of_2026(events, by) == report
    for kinds in report.figures.values():
        for figures in kinds.values():
            value = {name: figure.value or 0 for name, figure in figures.items()}
            parts = ("complied", "denied", "withdrawn", "unanswered")
            if by is CountedBy.RECEIVED:
                assert value["received"] == sum(value[part] for part in parts)
            refused = value["denied"] + value["complied_in_part"]
            assert sum(value[f"denied_as.{ground}"] for ground in Ground) == refused
            unnamed = refused - sum(value[f"basis.{basis}"] for basis in GROUNDS)
            assert 0 <= unnamed <= value["denied_as.other_grounds"]
            under = sum(value[name] for name in figures if name.startswith("exemption"))
            assert value["denied_as.exempt_information"] <= under <= refused
    everyone, home = report.figures[Population.ALL], report.figures[Population.CALIFORNIA]
    for kind in KINDS:
        for name, figure in home[kind].items():
            assert set(figure.entries) <= set(everyone[kind][name].entries), name
    for name in everyone[DROP]:
        # No exemption is listed that no denial of these types names.
        assert not name.startswith("exemption.") or any(
            everyone[kind][name].value for kind in KINDS
        )
    for kinds in report.figures.values():
        for name, figure in kinds[DROP].items():
            assert set(figure.entries) <= {i for kind in KINDS for i in kinds[kind][name].entries}


def test_json_gives_every_figure_back() -> None:
    report = golden()
    read = json.loads(to_json(report))
    assert (read["year"], read["publish_by"], read["notice"]) == (2026, "2027-07-01", NOTICE)
    assert (read["tree_size"], read["time_zone"]) == (61, "America/Los_Angeles")
    assert read["counted_by"] == "received"
    for population, kinds in report.figures.items():
        for kind, figures in kinds.items():
            assert read["figures"][population][kind] == {
                name: {"value": figure.value, "entries": list(figure.entries)}
                for name, figure in figures.items()
            }
    assert read["left_out"]["portability"] == {"value": 2, "entries": [41, 57]}
    assert read["no_jurisdiction"] == {"value": 3, "entries": [11, 37, 43]}
    assert read["findings"] == GOLDEN["findings"]
    assert read["grounds"] == dict(GROUNDS)
    assert read["california"] == ["US-CA"]


def test_csv_gives_every_figure_back() -> None:
    report = golden()
    header, *rows = csv.reader(io.StringIO(to_csv(report), newline=""))
    assert ",".join(header) == "year,tree_size,only,population,requests,figure,value,entries"
    read = {tuple(row[3:6]): tuple(row[6:]) for row in rows}
    assert len(read) == len(rows)
    for population, kinds in report.figures.items():
        for kind, figures in kinds.items():
            for name, figure in figures.items():
                value = "" if figure.value is None else str(figure.value)
                assert read[population, kind, name] == (value, ranges(figure.entries))
    assert read["left out", "access_admt", "received"] == ("1", "43")
    assert read["no jurisdiction", "", "received"] == ("3", "11 37 43")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 60)))
def test_ranges_are_the_same_entries(entries: set[int]) -> None:
    text = ranges(sorted(entries))
    read: list[int] = []
    for run in text.split():
        first, _, last = run.partition("-")
        read += range(int(first), int(last or first) + 1)
    assert read == sorted(entries)
    assert len(text.split()) == len([i for i in entries if i - 1 not in entries])


class Page(HTMLParser):
    """The tags of a page, its attributes, and what is to be read on it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script src=//evil.example/x>alert(1)</script><img src=x onerror='a'>\"&amp;"


NOON = "2026-03-02T12:00:00-08:00"


def hostile() -> Report:
    claims = {"request_type": "=1+1", "jurisdiction": EVIL}
    denied = {"denial_basis": EVIL, "exemption": EVIL}
    return make_report(
        [
            happened(0, "request.received", NOON, claims, request=EVIL),
            happened(1, "request.received", NOON, {"request_type": EVIL}, request="R-2"),
            happened(2, "request.received", NOON, {"request_type": "delete"}, request=EVIL + "3"),
            happened(3, "request.denied", NOON, denied, request=EVIL + "3"),
            happened(4, "request.fulfilled", NOON, request=EVIL + "4"),
        ],
        2026,
        size=5,
        zone=LOS_ANGELES,
    )


@pytest.mark.parametrize("make", [golden, hostile])
def test_the_page_stands_alone(make: Any) -> None:
    page = Page(to_html(make()))
    assert page.open == []
    allowed = "html head meta style title body h1 h2 p table tr th td ul li details summary"
    assert set(page.tags) <= set(allowed.split())
    assert page.attributes == {"lang", "charset", "http-equiv", "content", "scope"}
    assert NOTICE in page.text
    assert "default-src 'none'" in to_html(make())
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_page_says_what_the_report_says() -> None:
    page = Page(to_html(golden()))
    for said in (
        "Consumer requests of 2026 (11 CCR 7102)",
        "Each request is counted in the year in which it was received.",
        "Days are dates in America/Los_Angeles.",
        "Read from the first 61 entries of the log. To be published by July 1, 2027.",
        "Requests to opt-out of sale/sharing",
        "Requests through DROP and denials by exemption: for data brokers (Civ. Code 1798.99.85).",
        "insuf_verification: not_verifiable",
        "Requests without a jurisdiction; California is US-CA",
        "portability: 2",
        *GOLDEN["findings"],
    ):
        assert said in page.text
    assert "all individuals, Requests to delete, Denied: 31 3-5 52 54" in page.text
    assert (
        "California, Requests through DROP, Denied in whole or in part, under the exemption "
        "1798.145(a): 152 54"
    ) in page.text
    assert "in the year of the answer" in Page(to_html(golden(counted_by=CountedBy.ANSWERED))).text


TEXTS = st.text(st.sampled_from("a\"'&<,\n\x00=ßé\U0001f600"), min_size=1, max_size=300)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=20), st.lists(TEXTS, max_size=30))
def test_no_format_is_longer_than_was_reckoned(
    claims: list[tuple[str, str, str]], only: list[str]
) -> None:
    events = []
    for i, (place, exemption, kind) in enumerate(claims):
        asked = {"request_type": "delete" if i % 2 else kind, "jurisdiction": place}
        denied = {"denial_basis": exemption, "exemption": exemption}
        received, answer = ("request.received", asked), ("request.denied", denied)
        for j, (event, said) in enumerate((received, answer)):
            events.append(happened(2 * i + j, event, NOON, said, request=f"R-{i}{kind}"))
    places = [*only, *(place for place, _, _ in claims[::2])] if only else []
    report = make_report(events, 2026, size=1000, zone=LOS_ANGELES, jurisdictions=places)
    for write in (to_json, to_csv, to_html):
        assert len(write(report).encode()) <= most_bytes(report)


def test_entries_are_reckoned_in_full() -> None:
    figures = {"delete": {"received": Figure(10**5, tuple(range(10**6, 10**6 + 2 * 10**5, 2)))}}
    report = replace(golden(), size=10**7, figures={Population.ALL: figures})
    for write in (to_json, to_csv, to_html):
        assert len(write(report).encode()) <= most_bytes(report) < 2 * 10**6


def test_what_would_be_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    report = golden(jurisdictions=["US-CA", "US-CO"])
    monkeypatch.setattr(report_formats, "MAX_REPORT", most_bytes(report))
    check_size(report)
    monkeypatch.setattr(report_formats, "MAX_REPORT", most_bytes(report) - 1)
    with pytest.raises(InvalidRequest, match="fewer jurisdictions at once") as refused:
        check_size(report)
    assert refused.value.field == "jurisdictions"


def test_hostile_claims_are_text_on_the_page_and_no_formula_in_a_cell() -> None:
    report = hostile()
    assert f"under the exemption {EVIL}" in Page(to_html(report)).text
    cells = [cell for row in csv.reader(io.StringIO(to_csv(report), newline="")) for cell in row]
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert json.loads(to_json(report))["left_out"]["=1+1"] == {"value": 1, "entries": [0]}
