"""A report as JSON, CSV and HTML. What is claimed in it is data from outside, and is escaped.

The HTML stands alone: no script, nothing fetched, no link but within the page.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Final
from unicodedata import normalize

from tlog.audit.report import DROP, CountedBy, Figure, Report
from tlog.log import InvalidRequest

NOTICE: Final = (
    "Computed from the records in the log. Not legal advice, and no proof of compliance."
)
MAX_REPORT: Final = 256 << 20
"""Bytes of a report in any format."""
_RULE: Final = "11 CCR 7102"
_BROKERS: Final = "Civ. Code 1798.99.85"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_BASIS: Final = {
    CountedBy.RECEIVED: "Each request is counted in the year in which it was received.",
    CountedBy.ANSWERED: "Requests are counted as received in the year of their receipt, and as "
    "complied with or denied in the year of the answer.",
}
_KINDS: Final = {
    "delete": "Requests to delete",
    "correct": "Requests to correct",
    "know": "Requests to know",
    "opt_out": "Requests to opt-out of sale/sharing",
    "limit": "Requests to limit",
    DROP: "Requests through DROP",
}
_NAMES: Final = {
    "received": "Received",
    "complied": "Complied with, in whole or in part",
    "complied_in_part": "of these, in part",
    "denied": "Denied",
    "withdrawn": "Withdrawn",
    "unanswered": "Not answered",
    "days_median": "Median days to substantive response",
    "days_mean": "Mean days to substantive response",
    "denied_as.not_verifiable": "Denied in whole or in part: not verifiable",
    "denied_as.not_made_by_a_consumer": "Denied in whole or in part: not made by a consumer",
    "denied_as.exempt_information": "Denied in whole or in part: exempt information",
    "denied_as.other_grounds": "Denied in whole or in part: other grounds",
    "exemption_not_named": "Denied in whole or in part: exempt information, no exemption named",
}
_CLAIMED: Final = {"basis": "on the basis", "exemption": "under the exemption"}

# The policy makes browsers hold the page to what is said above.
_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 1rem/1.4 sans-serif; margin: 2rem; max-width: 75rem }
table { border-collapse: collapse }
th, td { border: 1px solid #999; padding: .2rem .5rem }
th { text-align: left; font-weight: normal }
td { text-align: right }
</style>
"""

# Bytes of what stands in every report, in every row of it, and about every finding.
_FRAME: Final = 1 << 14
_ROW: Final = 1 << 9
# `"` in HTML has the most: `&quot;`.
_ESCAPED: Final = 6


def check_size(report: Report) -> None:
    """Refuse a report that would be too long, before it is written.

    Raises:
        InvalidRequest: it may have over `MAX_REPORT` bytes in some format.
    """
    if (most := most_bytes(report)) > MAX_REPORT:
        raise InvalidRequest(
            f"a report of up to {most} bytes, the limit is {MAX_REPORT}: count the requests of "
            "fewer jurisdictions at once",
            field="jurisdictions",
        )


def most_bytes(report: Report) -> int:
    """How many bytes the report has at most, in whatever format."""
    only = _most(*report.jurisdictions)
    per_entry = len(str(report.size)) + len(", ")
    settings = [*report.jurisdictions, *report.californian, report.zone]
    grounds = [each for pair in report.grounds.items() for each in pair]
    return (
        _FRAME
        + _most(*settings, *grounds)
        + sum(_ROW + _most(finding) for finding in report.findings)
        + sum(
            # A name stands in the table, and with the entries.
            _ROW + only + 2 * _most(kind, name) + per_entry * len(figure.entries)
            for _, kind, name, figure in _rows(report)
        )
    )


def to_json(report: Report) -> str:
    """The report as JSON: each figure `{"value": …, "entries": [leaf indices]}`."""
    return json.dumps(
        {
            "version": 1,
            "rule": _RULE,
            "data_broker_rule": _BROKERS,
            "notice": NOTICE,
            "year": report.year,
            "publish_by": f"{report.year + 1}-07-01",
            "time_zone": report.zone,
            "tree_size": report.size,
            "counted_by": report.counted_by,
            "grounds": dict(report.grounds),
            "california": list(report.californian),
            "jurisdictions": list(report.jurisdictions),
            "figures": {
                population: {
                    kind: {name: _figure(figure) for name, figure in figures.items()}
                    for kind, figures in kinds.items()
                }
                for population, kinds in report.figures.items()
            },
            "left_out": {kind: _figure(figure) for kind, figure in report.left_out.items()},
            "no_jurisdiction": _figure(report.nowhere),
            "findings": list(report.findings),
        },
        ensure_ascii=False,
    )


def to_csv(report: Report) -> str:
    """The figures as CSV (RFC 4180), the entries as ranges: `3-5 9`.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    only = " ".join(report.jurisdictions)
    writer.writerow(
        ["year", "tree_size", "only", "population", "requests", "figure", "value", "entries"]
    )
    for population, kind, name, figure in _rows(report):
        row = [population, kind, name, "" if figure.value is None else str(figure.value)]
        cells = [str(report.year), str(report.size), only, *row, ranges(figure.entries)]
        writer.writerow([safe_cell(cell) for cell in cells])
    return out.getvalue()


def to_html(report: Report) -> str:
    """The report as one page."""
    title = f"Consumer requests of {report.year} ({_RULE})"
    said = [
        f"{_BASIS[report.counted_by]} Days are dates in {report.zone}.",
        f"Read from the first {report.size} entries of the log. To be published by July 1, "
        f"{report.year + 1}.",
        f"Requests through DROP and denials by exemption: for data brokers ({_BROKERS}). The first "
        "are counted by their types, too; the second are in the words of the records.",
        NOTICE,
    ]
    if report.jurisdictions:
        said.insert(1, f"Requests of these jurisdictions alone: {', '.join(report.jurisdictions)}.")
    grounds = [f"{basis}: {ground}" for basis, ground in report.grounds.items()]
    others = [f"{kind}: {figure.value}" for kind, figure in report.left_out.items()]
    return "".join(
        [
            _HEAD,
            f"<title>{escape(title)}</title></head>\n<body>\n<h1>{escape(title)}</h1>\n",
            *(f"<p>{escape(each)}</p>\n" for each in said),
            *(_table(population, kinds) for population, kinds in report.figures.items()),
            _list("Grounds, as this business reads the bases for denial", grounds),
            _list("Requests of other types received, which are not counted above", others),
            _list(
                f"Requests without a jurisdiction; California is {', '.join(report.californian)}",
                [str(report.nowhere.value)],
            ),
            _list("Findings", report.findings),
            "<h2>Entries behind each figure</h2>\n",
            *(_entries(*row) for row in _rows(report)),
            "</body></html>\n",
        ]
    )


def safe_cell(cell: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: an apostrophe stands before one."""
    # A wide `=` begins one, too, where people write so.
    first = normalize("NFKC", cell.lstrip(" \n")[:1])
    return f"'{cell}" if first.startswith(_FORMULA) else cell


def ranges(entries: Sequence[int]) -> str:
    """Indices in order, runs of them as `first-last`."""
    if not entries:
        return ""
    breaks = [i for i, (one, other) in enumerate(pairwise(entries), 1) if other != one + 1]
    runs = [entries[i:j] for i, j in pairwise([0, *breaks, len(entries)])]
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _most(*texts: str) -> int:
    return sum(_ESCAPED * len(text.encode()) + len(", ") for text in texts)


def _figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "entries": list(figure.entries)}


def _rows(report: Report) -> Iterator[tuple[str, str, str, Figure]]:
    for population, kinds in report.figures.items():
        for kind, figures in kinds.items():
            for name, figure in figures.items():
                yield population, kind, name, figure
    for kind, figure in report.left_out.items():
        yield "left out", kind, "received", figure
    yield "no jurisdiction", "", "received", report.nowhere


def _table(population: str, kinds: Mapping[str, Mapping[str, Figure]]) -> str:
    head = "".join(f'<th scope="col">{escape(_KINDS[kind])}</th>' for kind in kinds)
    body = "".join(
        f'<tr><th scope="row">{escape(_name(name))}</th>'
        + "".join(f"<td>{_value(figures[name])}</td>" for figures in kinds.values())
        + "</tr>\n"
        for name in next(iter(kinds.values()))
    )
    title = escape(population[0].upper() + population[1:])
    return f"<h2>{title}</h2>\n<table>\n<tr><td></td>{head}</tr>\n{body}</table>\n"


def _name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    about, _, claimed = name.partition(".")
    return f"Denied in whole or in part, {_CLAIMED[about]} {claimed}"


def _value(figure: Figure) -> str:
    return "-" if figure.value is None else str(figure.value)


def _list(title: str, items: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(item)}</li>\n" for item in items or ["none"])
    return f"<h2>{escape(title)}</h2>\n<ul>\n{lines}</ul>\n"


def _entries(population: str, kind: str, name: str, figure: Figure) -> str:
    if not figure.entries:
        return ""
    title = ", ".join(filter(None, (population, _KINDS.get(kind, kind), _name(name))))
    return (
        f"<details><summary>{escape(title)}: {_value(figure)}</summary>"
        f"<p>{ranges(figure.entries)}</p></details>\n"
    )
