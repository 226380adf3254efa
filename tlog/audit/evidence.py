"""Evidence packages: chosen records in one file, for somebody who trusts nobody. Pure.

    manifest.json                   what is in it, each member with its SHA-256; canonical JSON
    checkpoint                      the cosigned head that all proofs lead to
    policy                          the log's trust policy, to be compared with one's own
    records/000007/leaf.json        the entry of the log, byte for byte
                   proof.tlog-proof its inclusion (c2sp.org/tlog-proof)
                   disclosures.txt  SD-JWT (RFC 9901) with the chosen disclosures, and no others
    keys/000000/…                   records that register, rotate or revoke the producers' keys
    timestamps/NAME/000009.note     a checkpoint that an authority has stamped
                           .tsr     its stamp (RFC 3161)
                           .path    consistency proof from there to `checkpoint`, a hash a line
                    certificates.pem
    report.html, VERIFY.txt         for people; made from the rest, and of one spelling too

A record that is here to prove that others are erased has no disclosures. Here are the values, and
how a record is taken apart; `evidence_file` writes and reads the file, `evidence_page` makes what
people read, and `evidence_check` says what is proven (of what is gone `evidence_gone`). Until then
all is only well-formed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tlog.audit import sdjwt
from tlog.audit.errors import AuditError
from tlog.audit.event import match_disclosures, read_payload
from tlog.audit.jws import Jws, parse_jws
from tlog.audit.leaf import Leaf, parse_leaf
from tlog.audit.sdjwt import Disclosure
from tlog.notes import NoteError, TlogProof, VerifierKey, parse_proof

KEY_EVENTS: Final = "producer."
ERASED: Final = "subject.key_destroyed"
EXPIRED: Final = "retention.expired"


class EvidenceError(AuditError):
    """Bytes that are no evidence package, or prove less than they say."""


class Why(StrEnum):
    """Why a record is in a package."""

    CHOSEN = "chosen"
    GONE = "gone"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Gone:
    """Where the log says why a part cannot be opened any more.

    Attributes:
        index: of the entry that says so.
        request_id: under which it was erased; empty when it has expired.
    """

    index: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Item:
    """A record to be put into a package.

    Attributes:
        leaf: the entry.
        proof: its `.tlog-proof`, leading to the checkpoint of the package.
        disclosed: of a chosen record, the encoded disclosures that are shown.
        gone: of a chosen record, what took each part: that of all subjects, then of each.
    """

    index: int
    why: Why
    leaf: bytes
    proof: bytes
    disclosed: Sequence[str] = ()
    gone: Sequence[Gone | None] = ()


@dataclass(frozen=True, slots=True)
class StampItem:
    """A stamped checkpoint.

    Attributes:
        note: the checkpoint.
        answer: of the authority (DER).
        path: the consistency proof from it to the checkpoint of the package.
    """

    authority: str
    size: int
    note: bytes
    answer: bytes
    path: Sequence[bytes]


PAGES: Final = 3
"""In which words `report.html` and `VERIFY.txt` are: one more whenever one of them changes. Those
of before are kept (`evidence_page`), so that every page is made again, and held against it."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a package.

    Attributes:
        service: the first key of the log's own records, which all other keys lead back to.
        request_id: all records of this request were chosen; empty if they were by other means.
        items: each index once, in any order.
        stamps: each once, in any order.
        certificates: PEM, for each authority.
        pages: in which words the pages are for people.
    """

    origin: str
    tenant: str
    tree_size: int
    service: VerifierKey
    request_id: str
    checkpoint: bytes
    policy: bytes
    items: Sequence[Item]
    stamps: Sequence[StampItem]
    certificates: Mapping[str, bytes]
    pages: int = PAGES


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a record, as the package shows it.

    Attributes:
        shown: what is disclosed, by name.
        hidden: how many digests are not disclosed; a decoy is one that has nothing behind it.
        gone: what took it, as the package says.
    """

    shown: Sequence[Disclosure]
    hidden: int
    gone: Gone | None


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a package taken apart; no signature and no proof is verified."""

    item: Item
    leaf: Leaf
    jws: Jws
    proof: TlogProof
    payload: Mapping[str, Any]
    parts: Sequence[Part]

    @property
    def index(self) -> int:
        """Of its entry."""
        return self.item.index

    @property
    def type(self) -> str:
        """Its type."""
        return str(self.payload["type"])


def directory_of(item: Item) -> str:
    """Where a record lies in the package."""
    return f"{'keys' if item.why is Why.KEY else 'records'}/{item.index:06}"


def open_item(item: Item) -> Record:
    """Take a record apart, and match its disclosures with the digests that were signed.

    Raises:
        EvidenceError: it is none, or a disclosure is not of it.
    """
    where = directory_of(item)
    try:
        leaf = parse_leaf(item.leaf)
        jws = parse_jws(leaf.jws)
        payload = read_payload(jws)
        matched = match_disclosures(payload, item.disclosed)
        proof = parse_proof(item.proof)
    except (AuditError, NoteError) as error:
        raise EvidenceError(f"{where}: {error}") from None
    for name in ("type", "tenant", "producer_id", "event_id", "occurred_at"):
        if type(payload.get(name)) is not str:
            raise EvidenceError(f"{where}: {name} is not there")
    if proof.index != item.index:
        raise EvidenceError(f"{where}: the proof is of entry {proof.index}")
    if item.why is not Why.CHOSEN:
        return Record(item, leaf, jws, proof, payload, ())
    if len(item.gone) != len(matched):
        raise EvidenceError(f"{where}: it has {len(matched)} parts, not {len(item.gone)}")
    objects = [payload, *payload.get("subjects", ())]
    parts = []
    for each, shown, gone in zip(objects, matched, item.gone, strict=True):
        if shown and gone is not None:
            raise EvidenceError(f"{where}: a part is said to be gone, and shown all the same")
        parts.append(
            Part(
                sorted(shown, key=lambda disclosure: disclosure.name),
                len(each.get("_sd", ())) - len(shown),
                gone,
            )
        )
    return Record(item, leaf, jws, proof, payload, parts)


def sd_jwt_of(record: Record) -> str:
    """The SD-JWT of a chosen record with what is disclosed of it."""
    return sdjwt.join(record.jws.text, [d.encoded for part in record.parts for d in part.shown])
