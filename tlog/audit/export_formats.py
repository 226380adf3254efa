"""Records as CSV, JSON Lines, OCSF and CloudEvents. Pure.

    CSV          RFC 4180, a header, one row for each record
    JSON Lines   one object for each record, with its JWS, so that it can be verified again
    OCSF         JSON Lines of events of OCSF 1.3.0; see `ocsf`
    CloudEvents  one batch of CloudEvents 1.0 in JSON, each event on a line of its own

What is personal is there only as far as it is disclosed; and in no attribute of a CloudEvent ever,
since those who pass events on may read and keep their attributes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tlog.audit.leaf import Leaf
from tlog.audit.ocsf import to_ocsf
from tlog.audit.report_formats import safe_cell
from tlog.audit.times import format_time, parse_time


class Format(StrEnum):
    """How an export is written."""

    CSV = "csv"
    JSONL = "jsonl"
    OCSF = "ocsf"
    CLOUDEVENTS = "cloudevents"


@dataclass(frozen=True, slots=True)
class Exported:
    """A record as it is given out.

    Attributes:
        index: of its entry.
        leaf_hash: of its entry.
        leaf: as in the log.
        payload: of its JWS.
        shared: what is disclosed of all subjects together.
        subjects: what is disclosed of each.
        erased: which erasures took of it, by entry and request.
    """

    index: int
    leaf_hash: bytes
    leaf: Leaf
    payload: Mapping[str, Any]
    shared: Mapping[str, Any] = field(default_factory=dict)
    subjects: Sequence[Mapping[str, Any]] = ()
    erased: Sequence[tuple[int, str]] = ()

    def claims(self) -> dict[str, Any]:
        """The public claims, without what only digests need."""
        return {name: value for name, value in self.payload.items() if name not in _DIGESTS}

    def disclosed(self) -> dict[str, Any]:
        """What is personal, and why some of it is not there; without what is empty."""
        said = {
            "disclosed": dict(self.shared),
            "subjects": [dict(each) for each in self.subjects],
            "erased": [{"entry": entry, "request_id": name} for entry, name in self.erased],
        }
        return {name: value for name, value in said.items() if value and any(value)}


_DIGESTS: Final = frozenset({"_sd", "_sd_alg", "subjects"})
_COLUMNS: Final = (
    "event_id",
    "type",
    "occurred_at",
    "producer_id",
    "producer_seq",
    "request_id",
    "action",
    "outcome",
    "purpose",
    "legal_basis",
    "jurisdiction",
    "resource_type",
)
_ATTRIBUTES: Final = {
    "requestid": "request_id",
    "purpose": "purpose",
    "legalbasis": "legal_basis",
    "producerseq": "producer_seq",
}
"""Extensions of CloudEvents, whose names are of a-z and 0-9, at most 20, and the claims in them."""


class Writer:
    """Writes one export: a head, lines, a tail.

    Args:
        format: how.
        log: the origin of the log.
        tenant: whose records they are.
    """

    def __init__(self, format: Format, *, log: str, tenant: str) -> None:  # noqa: A002
        self._log = log
        self._tenant = tenant
        self._format = format
        self._lines = 0

    def head(self) -> bytes:
        """What stands before the first record."""
        match self._format:
            case Format.CSV:
                return _row(["index", "received_at", *_COLUMNS, *_CELLS])
            case Format.CLOUDEVENTS:
                return b"["
        return b""

    def line(self, record: Exported) -> bytes:
        """One record."""
        self._lines += 1
        match self._format:
            case Format.CSV:
                return _csv(record)
            case Format.JSONL:
                return _json(_plain(record)) + b"\n"
            case Format.OCSF:
                return _json(self._ocsf(record)) + b"\n"
            case Format.CLOUDEVENTS:
                return (b"\n" if self._lines == 1 else b",\n") + _json(self._event(record))

    def tail(self) -> bytes:
        """What stands behind the last record."""
        return b"\n]\n" if self._format is Format.CLOUDEVENTS else b""

    def _ocsf(self, record: Exported) -> dict[str, Any]:
        claims = record.claims()
        return to_ocsf(
            claims,
            record.shared,
            occurred_at=parse_time(claims["occurred_at"], field="occurred_at"),
            received_at=record.leaf.received_at,
            log=self._log,
            more={"entry": record.index, **record.disclosed()},
        )

    def _event(self, record: Exported) -> dict[str, Any]:
        claims = record.claims()
        attributes = {
            name: str(claims[claim]) for name, claim in _ATTRIBUTES.items() if claim in claims
        }
        return {
            "specversion": "1.0",
            "id": claims["event_id"],
            "source": f"urn:tlog:{self._tenant}:{claims['producer_id']}",
            "type": f"tlog.{claims['type']}",
            "time": claims["occurred_at"],
            "subject": f"{self._log}/{record.index}",
            "datacontenttype": "application/json",
            **attributes,
            "data": _plain(record),
        }


_CELLS: Final = ("claims", "disclosed", "subjects", "erased", "leaf_hash")


def _plain(record: Exported) -> dict[str, Any]:
    return {
        "index": record.index,
        "leaf_hash": record.leaf_hash.hex(),
        "received_at": format_time(record.leaf.received_at),
        "claims": record.claims(),
        **record.disclosed(),
        "jws": record.leaf.jws,
    }


def _csv(record: Exported) -> bytes:
    claims, personal = record.claims(), record.disclosed()
    cells = [str(record.index), format_time(record.leaf.received_at)]
    cells += [str(claims.pop(name, "")) for name in _COLUMNS]
    said = {"claims": claims, **personal}
    cells += [_json(said[name]).decode() if said.get(name) else "" for name in _CELLS[:-1]]
    return _row([*cells, record.leaf_hash.hex()])


def _row(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([safe_cell(cell) for cell in cells])
    return out.getvalue().encode("utf-8", "backslashreplace")


def _json(value: Any) -> bytes:
    # Escaped: JSON can spell out what UTF-8 cannot.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
