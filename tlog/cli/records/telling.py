"""Records as they are shown: to a person a timeline for each request, to a program objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tlog.cli.errors import printable
from tlog.cli.output import Output

if TYPE_CHECKING:
    from tlog.client.reading import FoundPart, FoundRecord

# Said in the line of a record already, or of use to programs only.
_HEAD: Final = frozenset({"type", "occurred_at", "outcome", "request_id", "producer_id"})
_TECHNICAL: Final = frozenset({"event_id", "producer_seq", "schema_version", "tenant"})
_LONGEST: Final = 400
"""Characters of one value that a person is shown; a program gets all."""


def tell(records: Sequence[FoundRecord], out: Output, *, whole: bool = False) -> None:
    """Show records: to a person by request, in the order in which each is first met.

    With `whole`, the claims that programs need, too, and to a program the leaf.
    """
    if out.as_json:
        for record in records:
            leaf = {"leaf": record.entry.decode("ascii")} if whole else {}
            out.result("", **_fields(record), **leaf)
        return
    cases: dict[str, list[FoundRecord]] = {}
    for record in records:
        cases.setdefault(str(record.payload.get("request_id", "")), []).append(record)
    for name, of_case in cases.items():
        lines = [printable(f"request {name}" if name else "of no request")]
        for record in of_case:
            lines += _lines(record, _HEAD if whole else _HEAD | _TECHNICAL)
        out.result("\n".join(lines))


def _lines(record: FoundRecord, left_out: frozenset[str]) -> Iterator[str]:
    claims = record.claims()
    head = [
        f"{record.occurred_at:%Y-%m-%d %H:%M:%S}Z",
        claims.get("type", ""),
        claims.get("outcome", ""),
        f"by {claims.get('producer_id', '')}",
        f"entry {record.index}",
    ]
    yield "  " + printable("  ".join(str(each) for each in head if each))
    rows = [(name, _text(value)) for name, value in claims.items() if name not in left_out]
    rows += _rows(record.shared, "")
    for number, part in enumerate(record.subjects, 1):
        rows += _rows(part, "subject" if len(record.subjects) == 1 else f"subject {number}")
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        yield "      " + printable(f"{name:{width}}  {text}" if name else text)


def _rows(part: FoundPart, about: str) -> Iterator[tuple[str, str]]:
    for name, value in part.claims.items():
        yield f"{about} {name}".strip(), _text(value)
    if part.erased is not None:
        under = f" under request {part.erased.request_id}" if part.erased.request_id else ""
        yield about, f"erased at entry {part.erased.entry}{under}"
    if part.expired is not None:
        yield about, f"expired at entry {part.expired}"
    if part.missing:
        yield about, "MISSING from the vault, and nothing in the log says why"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (--json has all of it)"


def _fields(record: FoundRecord) -> dict[str, Any]:
    from tlog.audit.times import format_time

    return {
        "index": record.index,
        "received_at": format_time(record.leaf.received_at),
        "claims": record.claims(),
        "shared": asdict(record.shared),
        "subjects": [asdict(each) for each in record.subjects],
    }
