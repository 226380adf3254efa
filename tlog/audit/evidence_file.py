"""The file of an evidence package, written and read. There is one spelling of each package.

The manifest says of each record why it is there, and of each part of it which claims are shown and
what took the rest; `members` has the SHA-256 of all other members. It says nothing that the members
do not bear out: what is left out, added or exchanged does not fit it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from tlog.audit import sdjwt
from tlog.audit.codec import dump_json, load_json
from tlog.audit.errors import EventRefused
from tlog.audit.evidence import (
    KEY_EVENTS,
    PAGES,
    Contents,
    EvidenceError,
    Gone,
    Item,
    Part,
    Record,
    StampItem,
    Why,
    directory_of,
    open_item,
    sd_jwt_of,
)
from tlog.audit.evidence_page import guide, report
from tlog.audit.zipped import read_zip, write_zip
from tlog.notes import NoteError, VerifierKey
from tlog.notes.codec import decode_hash, encode_base64

FORMAT: Final = "tlog-evidence"
VERSION: Final = 1
MAX_RECORDS: Final = 4096
MAX_STAMPS: Final = 1024
MAX_MANIFEST: Final = 4 << 20
MAX_INDEX: Final = (1 << 53) - 1
MAX_PATH: Final = 128 * 45

MANIFEST: Final = "manifest.json"
CHECKPOINT: Final = "checkpoint"
POLICY: Final = "policy"
REPORT: Final = "report.html"
GUIDE: Final = "VERIFY.txt"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def encode_package(contents: Contents) -> bytes:
    """The file. Nothing is verified.

    Raises:
        EvidenceError, ZipError: it would not be read again; the message says why.
    """
    if len(contents.items) > MAX_RECORDS:
        raise EvidenceError(
            f"{len(contents.items)} records, with those of keys and erasures; the limit is "
            f"{MAX_RECORDS}: choose fewer"
        )
    records = [open_item(item) for item in sorted(contents.items, key=lambda item: item.index)]
    stamps = sorted(contents.stamps, key=lambda stamp: (stamp.authority, stamp.size))
    contents = replace(contents, items=[record.item for record in records], stamps=stamps)
    members = _members(contents, records) | _pages(contents, records)
    manifest = dump_json(_manifest(contents, records, members))
    if len(manifest) > MAX_MANIFEST:
        raise EvidenceError(f"a manifest of over {MAX_MANIFEST} bytes: choose fewer records")
    return write_zip({**members, MANIFEST: manifest})


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read: well-formed, and nothing of it is verified."""

    contents: Contents
    records: Sequence[Record]
    members: Mapping[str, bytes]

    def check_pages(self) -> None:
        """What people read says what the rest does, or they could be told anything.

        Raises:
            EvidenceError: it does not.
        """
        for name, expected in _pages(self.contents, self.records).items():
            if self.members[name] != expected:
                raise EvidenceError(f"{name} does not say what the rest of the package says")


def read_package(data: bytes) -> Package:
    """Inverse of `encode_package`, of bytes that a stranger gave; the pages are not checked yet.

    Raises:
        EvidenceError, ZipError: they are no package, or a member is not what it must be.
    """
    members = read_zip(data)
    if (manifest := members.pop(MANIFEST, None)) is None:
        raise EvidenceError(f"no evidence package: {MANIFEST} is missing")
    reader = _Reader(members, _load(manifest))
    reader.check_members()
    contents, records = reader.contents()
    right = _members(contents, records)
    for name, expected in right.items():
        if members[name] != expected:
            raise EvidenceError(f"{name} is not written as it is always written")
    if more := members.keys() - right.keys() - {REPORT, GUIDE}:
        raise EvidenceError(f"{min(more)} belongs to nothing in the package")
    for name in (REPORT, GUIDE):
        if name not in members:
            raise EvidenceError(f"{name} is missing")
    if dump_json(_manifest(contents, records, members)) != manifest:
        raise EvidenceError(f"{MANIFEST} is not in canonical form, or says more than it should")
    return Package(contents, records, members)


def _pages(contents: Contents, records: Sequence[Record]) -> dict[str, bytes]:
    return {REPORT: report(contents, records), GUIDE: guide(contents, records)}


def _members(contents: Contents, records: Sequence[Record]) -> dict[str, bytes]:
    """All members but the manifest and the pages."""
    members = {CHECKPOINT: contents.checkpoint, POLICY: contents.policy}
    for record in records:
        directory = directory_of(record.item)
        members[f"{directory}/leaf.json"] = record.item.leaf
        members[f"{directory}/proof.tlog-proof"] = record.item.proof
        if record.item.why is Why.CHOSEN:
            members[f"{directory}/disclosures.txt"] = sd_jwt_of(record).encode("ascii")
    for stamp in contents.stamps:
        base = f"timestamps/{stamp.authority}/{stamp.size:06}"
        members[f"{base}.note"], members[f"{base}.tsr"] = stamp.note, stamp.answer
        path = "".join(f"{encode_base64(element)}\n" for element in stamp.path)
        members[f"{base}.path"] = path.encode("ascii")
    for name, pem in contents.certificates.items():
        members[f"timestamps/{name}/certificates.pem"] = pem
    return members


def _manifest(
    contents: Contents, records: Sequence[Record], members: Mapping[str, bytes]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "pages": contents.pages,
        "origin": contents.origin,
        "tenant": contents.tenant,
        "tree_size": contents.tree_size,
        "service": str(contents.service),
        "request_id": contents.request_id,
        "records": [
            {"index": record.index, "why": record.item.why, "parts": list(map(_part, record.parts))}
            for record in records
        ],
        "stamps": [{"authority": each.authority, "size": each.size} for each in contents.stamps],
        "members": {name: sha256(data).hexdigest() for name, data in members.items()},
    }


def _part(part: Part) -> dict[str, Any]:
    gone = part.gone
    return {
        "disclosed": [disclosure.name for disclosure in part.shown],
        "gone": gone and {"index": gone.index, "request_id": gone.request_id},
    }


def _load(manifest: bytes) -> dict[str, Any]:
    if len(manifest) > MAX_MANIFEST:
        raise EvidenceError(f"{MANIFEST} has over {MAX_MANIFEST} bytes")
    try:
        made = load_json(manifest, field=MANIFEST)
    except EventRefused as error:
        raise EvidenceError(str(error)) from None
    if type(made) is not dict or made.get("format") != FORMAT:
        raise EvidenceError(f"{MANIFEST} is not one of a {FORMAT}")
    if type(made.get("version")) is not int or made["version"] != VERSION:
        raise EvidenceError(
            f"{MANIFEST} is of version {made.get('version')!r:.20}, this reads {VERSION}: use a "
            "newer tlog"
        )
    if not 1 <= (pages := _number(made, "pages", "")) <= PAGES:
        raise EvidenceError(
            f"its pages are in words {pages}, this release knows 1 to {PAGES}: verify with the "
            "release of tlog that made it, or a later one"
        )
    return made


@dataclass(slots=True)
class _Reader:
    """Reads a manifest, and what it says is there."""

    members: dict[str, bytes]
    made: dict[str, Any]

    def check_members(self) -> None:
        """Each member is listed with its hash, and nothing else is there."""
        listed = _typed(self.made, "members", dict, "")
        for name, data in self.members.items():
            if name not in listed:
                raise EvidenceError(f"{name} is in the package, but not in its {MANIFEST}")
            if sha256(data).hexdigest() != listed[name]:
                raise EvidenceError(f"{name} is not what {MANIFEST} lists: it was changed")
        if missing := listed.keys() - self.members.keys():
            raise EvidenceError(f"{min(missing)!r:.160} is missing: {MANIFEST} lists it")

    def contents(self) -> tuple[Contents, list[Record]]:
        made = self.made
        entries = _typed(made, "records", list, "")
        stamps = _typed(made, "stamps", list, "")
        if len(entries) > MAX_RECORDS or len(stamps) > MAX_STAMPS:
            raise EvidenceError(f"over {MAX_RECORDS} records, or {MAX_STAMPS} stamps")
        try:
            service = VerifierKey.parse(_typed(made, "service", str, ""))
        except NoteError as error:
            raise EvidenceError(f"{MANIFEST}: service: {error}") from None
        records = [self._record(each, f"records[{i}]") for i, each in enumerate(entries)]
        indices = [record.index for record in records]
        if indices != sorted(set(indices)):
            raise EvidenceError(f"{MANIFEST}: records are not in the order of their indices")
        made_stamps = [self._stamp(each, f"stamps[{i}]") for i, each in enumerate(stamps)]
        places = [(stamp.authority, stamp.size) for stamp in made_stamps]
        if places != sorted(set(places)):
            raise EvidenceError(f"{MANIFEST}: stamps are not in order")
        contents = Contents(
            origin=_typed(made, "origin", str, ""),
            tenant=_typed(made, "tenant", str, ""),
            tree_size=_number(made, "tree_size", ""),
            service=service,
            request_id=_typed(made, "request_id", str, ""),
            checkpoint=self._get(CHECKPOINT),
            policy=self._get(POLICY),
            items=[record.item for record in records],
            stamps=made_stamps,
            certificates={
                name: self._get(f"timestamps/{name}/certificates.pem") for name, _ in places
            },
            pages=made["pages"],
        )
        _check(contents, records)
        return contents, records

    def _record(self, made: Any, where: str) -> Record:
        index, why = _number(made, "index", where), _typed(made, "why", str, where)
        if why not in set(Why):
            raise EvidenceError(f"{MANIFEST}: {where}: why is {why!r:.40}")
        listed = _typed(made, "parts", list, where)
        item = Item(index, Why(why), b"", b"")
        directory = directory_of(item)
        leaf = self._get(f"{directory}/leaf.json")
        proof = self._get(f"{directory}/proof.tlog-proof")
        disclosed: Sequence[str] = ()
        jws = ""
        if item.why is Why.CHOSEN:
            try:
                # No more of it than shows that it is too long.
                data = self._get(f"{directory}/disclosures.txt")[: sdjwt.MAX_SD_JWT_SIZE + 1]
                jws, disclosed = sdjwt.split(data.decode("ascii", "replace"))
            except EventRefused as error:
                raise EvidenceError(f"{directory}/disclosures.txt: {error}") from None
        gone = [_gone(part, f"{where}.parts[{i}]") for i, part in enumerate(listed)]
        record = open_item(Item(index, Why(why), leaf, proof, disclosed, gone))
        if item.why is Why.CHOSEN and jws != record.jws.text:
            raise EvidenceError(f"{directory}/disclosures.txt is not of the event in leaf.json")
        for i, (part, shown) in enumerate(zip(listed, record.parts, strict=False)):
            names, found = part.get("disclosed"), [each.name for each in shown.shown]
            if names != found:
                raise EvidenceError(
                    f"{directory}/disclosures.txt discloses {found!r:.200} of part {i}, and "
                    f"{MANIFEST} says {names!r:.200}"
                )
        return record

    def _stamp(self, made: Any, where: str) -> StampItem:
        name, size = _typed(made, "authority", str, where), _number(made, "size", where)
        if not _NAME.fullmatch(name) or not size:
            raise EvidenceError(f"{MANIFEST}: {where}: no authority, or no size")
        base = f"timestamps/{name}/{size:06}"
        data = self._get(f"{base}.path")
        if len(data) > MAX_PATH:
            raise EvidenceError(f"{base}.path has over {MAX_PATH} bytes")
        text = data.decode("ascii", "replace")
        lines = text.removesuffix("\n").split("\n") if text else []
        try:
            path = tuple(map(decode_hash, lines))
        except NoteError as error:
            raise EvidenceError(f"{base}.path: {error}") from None
        return StampItem(name, size, self._get(f"{base}.note"), self._get(f"{base}.tsr"), path)

    def _get(self, name: str) -> bytes:
        if name not in self.members:
            raise EvidenceError(f"{name} is missing")
        return self.members[name]


def _check(contents: Contents, records: Sequence[Record]) -> None:
    """What the records say of themselves fits what the manifest says of them."""
    if not any(record.item.why is Why.CHOSEN for record in records):
        raise EvidenceError(f"{MANIFEST}: no record is chosen: it proves nothing")
    for record in records:
        where = directory_of(record.item)
        if record.payload["tenant"] != contents.tenant:
            raise EvidenceError(f"{where} is of another tenant than {contents.tenant!r:.80}")
        if record.item.why is Why.KEY and not record.type.startswith(KEY_EVENTS):
            raise EvidenceError(f"{where} says nothing of keys: it is {record.type!r:.80}")
        asked = contents.request_id
        if asked and record.item.why is Why.CHOSEN and record.payload.get("request_id") != asked:
            raise EvidenceError(f"{where} is not of request {asked!r:.80}")
        if record.proof.checkpoint != contents.checkpoint:
            raise EvidenceError(f"{where}: the proof leads to another checkpoint than `checkpoint`")


def _gone(made: Any, where: str) -> Gone | None:
    if type(made) is not dict:
        raise EvidenceError(f"{MANIFEST}: {where} is no object")
    if (gone := made.get("gone")) is None:
        return None
    return Gone(
        _number(gone, "index", f"{where}.gone"),
        _typed(gone, "request_id", str, f"{where}.gone"),
    )


def _typed(made: Any, name: str, kind: type, where: str) -> Any:
    value = made.get(name) if type(made) is dict else None
    if type(value) is not kind:
        raise EvidenceError(f"{MANIFEST}: {f'{where}.' if where else ''}{name} is malformed")
    return value


def _number(made: Any, name: str, where: str) -> int:
    value: int = _typed(made, name, int, where)
    if not 0 <= value <= MAX_INDEX:
        raise EvidenceError(f"{MANIFEST}: {f'{where}.' if where else ''}{name} is out of bounds")
    return value
