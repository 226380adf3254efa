"""Records from the server of their log, opened as far as they still can be.

What is told of a record is held against its leaf: whatever is disclosed matches a digest that its
producer signed. Neither that signature is verified here, nor that the leaf is in the log: an
evidence package brings what proves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tlog.audit import EventRefused, match_disclosures
from tlog.audit.event import read_payload
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.sdjwt import MAX_DISCLOSURES
from tlog.audit.times import parse_time
from tlog.client.errors import VerificationError, printable
from tlog.client.service import RecordsService
from tlog.v1 import audit_pb2 as pb

DEFAULT_PAGE: Final = 25
MAX_PAGE: Final = 100
"""Records of one page."""

_DIGESTS: Final = frozenset({"_sd", "_sd_alg", "subjects"})


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: see `SearchRequest` in audit.proto. What is empty leaves none out."""

    subject: str = ""
    actor: str = ""
    resource: str = ""
    resource_type: str = ""
    types: Sequence[str] = ()
    of_request: str = ""
    outcome: str = ""
    producer: str = ""
    since: str = ""
    until: str = ""
    newest_first: bool = False

    def has(self, record: FoundRecord) -> bool:
        """Whether a record is one of those, as far as its public claims say."""
        wanted = (
            ("resource_type", self.resource_type),
            ("request_id", self.of_request),
            ("outcome", self.outcome),
            ("producer_id", self.producer),
        )
        return all(not value or record.payload.get(name) == value for name, value in wanted) and (
            not self.types or record.payload.get("type") in self.types
        )


@dataclass(frozen=True, slots=True)
class Erased:
    """By which entry, and under which request."""

    entry: int
    request_id: str


@dataclass(frozen=True, slots=True)
class FoundPart:
    """What is left of one part of a record.

    Attributes:
        claims: what can be opened.
        erased: why it cannot, by the server's word.
        expired: index of the entry that says so, by the server's word.
        missing: it is not there, and the server cannot say why.
    """

    claims: Mapping[str, Any]
    erased: Erased | None
    expired: int | None
    missing: bool


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record as it can still be read.

    Attributes:
        index: of its entry.
        entry: the leaf, as it is in the log.
        leaf: the same, read.
        payload: the public claims, and the digests.
        occurred_at: when it happened, as its producer says.
        shared: what is said of all subjects together.
        subjects: what is said of each.
    """

    index: int
    entry: bytes
    leaf: Leaf
    payload: Mapping[str, Any]
    occurred_at: datetime
    shared: FoundPart
    subjects: Sequence[FoundPart]

    def claims(self) -> dict[str, Any]:
        """The public claims, without what only digests need."""
        return {name: value for name, value in self.payload.items() if name not in _DIGESTS}


@dataclass(frozen=True, slots=True)
class FoundPage:
    """What was found: see `SearchResponse` in audit.proto."""

    records: Sequence[FoundRecord]
    cursor: str
    complete_to: int


class RecordReader(RecordsService):
    """Finds the records of one log, and reads them."""

    SERVICE = pb.DESCRIPTOR.services_by_name["AuditService"].full_name

    async def search(
        self,
        what: Search,
        *,
        purpose: str,
        request_id: str = "",
        limit: int = DEFAULT_PAGE,
        cursor: str = "",
    ) -> FoundPage:
        """One page of what is found.

        Args:
            what: is looked for.
            purpose: what for; it is recorded, with who asked.
            request_id: the request it is for, if it is for one.
            limit: of records, 1 to `MAX_PAGE`.
            cursor: of the page before; empty for the first.
        """
        request = pb.SearchRequest(
            log=self._log,
            purpose=purpose,
            request_id=request_id,
            subject=what.subject,
            actor=what.actor,
            resource=what.resource,
            resource_type=what.resource_type,
            types=what.types,
            of_request=what.of_request,
            outcome=what.outcome,
            producer=what.producer,
            since=what.since,
            until=what.until,
            newest_first=what.newest_first,
            limit=limit,
            cursor=cursor,
        )
        answer = await self._transport.read("Search", request, pb.SearchResponse)
        if len(answer.records) > limit or (answer.cursor and answer.cursor == cursor):
            raise VerificationError("message", "the page is not the next one, or too long")
        found = tuple(map(_record, answer.records))
        for record in found:
            if not what.has(record):
                raise VerificationError("echo", f"entry {record.index} is not what is looked for")
        return FoundPage(found, printable(answer.cursor), answer.complete_to)

    async def read(self, index: int, *, purpose: str, request_id: str = "") -> FoundRecord:
        """The record at an index; with a purpose, as `search`."""
        request = pb.ReadRequest(log=self._log, purpose=purpose, request_id=request_id, index=index)
        answer = await self._transport.read("Read", request, pb.ReadResponse)
        if answer.record.index != index:
            raise VerificationError("echo", f"entry {answer.record.index} came, not {index}")
        return _record(answer.record)


def _record(told: pb.FoundRecord) -> FoundRecord:
    """What is told of a record, held against its leaf.

    Raises:
        VerificationError: it is not what the leaf says, or that is none.
    """
    try:
        leaf = parse_leaf(told.leaf)
        payload = read_payload(parse_jws(leaf.jws))
        encoded = [each for part in told.parts for each in part.disclosures]
        if len(encoded) > MAX_DISCLOSURES:
            raise EventRefused(f"more than {MAX_DISCLOSURES}", field="disclosures")
        matched = match_disclosures(payload, encoded)
        occurred_at = parse_time(str(payload.get("occurred_at")), field="occurred_at")
    except EventRefused as error:
        raise VerificationError("disclosure", printable(f"entry {told.index}: {error}")) from None
    sent = [sorted(part.disclosures) for part in told.parts]
    if sent != [sorted(each.encoded for each in part) for part in matched]:
        raise VerificationError("disclosure", f"entry {told.index}: of another part of it")
    shared, *subjects = (
        _part(part, {each.name: each.value for each in opened})
        for part, opened in zip(told.parts, matched, strict=True)
    )
    return FoundRecord(told.index, told.leaf, leaf, payload, occurred_at, shared, subjects)


def _part(told: pb.FoundPart, claims: dict[str, Any]) -> FoundPart:
    gone = told.WhichOneof("gone")
    if gone and claims:
        raise VerificationError("disclosure", f"what is said to be gone ({gone}) is disclosed")
    erased = Erased(told.erased.entry, printable(told.erased.request_id))
    return FoundPart(
        claims,
        erased if gone == "erased" else None,
        told.expired if gone == "expired" else None,
        gone == "missing",
    )
