"""Collects what goes into an evidence package, from the records of a log that runs.

Whoever calls has asked for the purpose, and records the export before anything of it is given out,
once it is sure that nothing of it was erased meanwhile.
What was collected is verified, as whoever gets it will, before it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from tlog.audit.deeds import in_thread
from tlog.audit.errors import EventRefused
from tlog.audit.evidence import Contents, EvidenceError, Gone, Item, StampItem, Why
from tlog.audit.evidence_check import OpenedHead, check_package
from tlog.audit.evidence_file import MAX_RECORDS, MAX_STAMPS, encode_package
from tlog.audit.key_history import KeyHistory
from tlog.audit.reading import subjects_of
from tlog.audit.records import Records
from tlog.audit.stamper import Stamper
from tlog.audit.stored import StoredRecord
from tlog.audit.vault import Part
from tlog.log import Head, InvalidRequest, Log, Unavailable
from tlog.notes import TlogProof, VerifierKey, open_checkpoint

PATIENCE: Final = 20.0
"""Seconds that a collection waits for a published checkpoint that has all its records."""
SUBJECT: Final = "subject."
"""Before the name of a claim about a subject, in what is to be disclosed."""
_STEP: Final = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What of the records is disclosed.

    Attributes:
        names: of claims; of those about a subject with `subject.` before it.
        everything: all that can be opened.
        subject: whom it is about: nothing is then disclosed of other subjects. Empty for all.
    """

    names: Collection[str] = ()
    everything: bool = False
    subject: str = ""

    def of(self, parts: Sequence[Part]) -> list[str]:
        """The encoded disclosures that are shown of a record."""
        shown = []
        for number, part in enumerate(parts):
            if number and self.subject and self.subject not in subjects_of([part]):
                continue
            prefix = SUBJECT if number else ""
            for disclosure in part.disclosures:
                if self.everything or prefix + disclosure.name in self.names:
                    shown.append(disclosure.encoded)
        return shown


@dataclass(frozen=True, slots=True)
class Collected:
    """A package, and whose data was opened for it, by identifier.

    Attributes:
        gone: of each record that was chosen what was not there any more.
    """

    package: bytes
    subjects: Sequence[str]
    gone: Mapping[int, Sequence[Gone | None]]

    def check(self, records: Records) -> None:
        """What an erasure took while this was collected is not given out after it.

        Raises:
            Unavailable: something is not as it was.
        """
        if any(_gone(_read(records, index)) != gone for index, gone in self.gone.items()):
            raise Unavailable(
                "something was erased, or expired, meanwhile: collect the evidence again"
            )


async def collect(
    records: Records,
    indices: Sequence[int],
    choice: Choice,
    *,
    history: KeyHistory,
    request_id: str = "",
    stamper: Stamper | None = None,
    patience: float = PATIENCE,
) -> Collected:
    """Collect the evidence for these records.

    Args:
        records: the tenant's.
        indices: of the records, without repetition.
        choice: what is disclosed of them.
        history: of the keys, of this log.
        request_id: when these are all records of a request.
        stamper: has the log's time-stamps, if it has some.
        patience: seconds to wait for a checkpoint.

    Raises:
        InvalidRequest, OutOfRange: there is no such record, or there are too many.
        Unavailable: no published checkpoint has them all yet.
        StampError, VaultDamaged, StoreError: what is stored cannot be read.
        EvidenceError, ZipError: too much for one package.
    """
    if not 1 <= len(indices) <= MAX_RECORDS:
        raise InvalidRequest(f"{len(indices)} records: choose 1 to {MAX_RECORDS}", field="indices")
    chosen = []
    for number, index in enumerate(sorted(indices)):
        chosen.append(_read(records, index))
        if number % _STEP == _STEP - 1:
            await asyncio.sleep(0)
    log = records.log
    whys = {each.index: Why.CHOSEN for each in chosen}
    for index in sorted({gone.index for each in chosen for gone in _gone(each) if gone}):
        whys.setdefault(index, Why.GONE)
    stamps = [] if stamper is None else await stamper.around(sorted(whys))
    for index in await history.of(whys):
        whys.setdefault(index, Why.KEY)
    head = await _head(log, max(whys) + 1, patience)
    items = []
    known = {each.index: each for each in chosen}
    for number, (index, why) in enumerate(whys.items()):
        item = _item(log, head, index, why)
        if (record := known.get(index)) is not None:
            item = replace(item, disclosed=choice.of(record.parts), gone=_gone(record))
        items.append(item)
        if number % _STEP == _STEP - 1:
            await asyncio.sleep(0)
    contents = Contents(
        origin=log.origin,
        tenant=records.tenant,
        tree_size=head.size,
        service=records.root,
        request_id=request_id,
        checkpoint=head.note,
        policy=log.policy,
        items=items,
        stamps=[
            StampItem(
                each.authority,
                each.size,
                each.note,
                each.answer,
                tuple(log.reader.consistency_proof(each.size, head.size)),
            )
            for each in stamps
        ],
        certificates=_certificates(stamper, {each.authority for each in stamps}),
    )
    if len(contents.stamps) > MAX_STAMPS:
        raise EvidenceError(f"{len(contents.stamps)} time-stamps: choose fewer records")
    package = await in_thread(partial(_packed, contents, _OwnKeys(log.vkeys)))
    opened = sorted({name for each in chosen for name in subjects_of(each.parts)})
    return Collected(package, opened, {each.index: _gone(each) for each in chosen})


@dataclass(frozen=True, slots=True)
class _OwnKeys:
    """Believes the log itself."""

    vkeys: Sequence[VerifierKey]

    def checkpoint(self, note: bytes) -> OpenedHead:
        return open_checkpoint(note, self.vkeys, origin=self.vkeys[0].name)

    def weigh(self, note: bytes) -> tuple[OpenedHead, None]:
        return self.checkpoint(note), None


def _packed(contents: Contents, trust: _OwnKeys) -> bytes:
    package = encode_package(contents)
    check_package(package, trust, service=contents.service)
    return package


def _read(records: Records, index: int) -> StoredRecord:
    try:
        return records.read(index)
    except EventRefused as error:
        raise InvalidRequest(f"entry {index} is no record: {error}", field="indices") from None


def _gone(record: StoredRecord) -> list[Gone | None]:
    gone: list[Gone | None] = []
    for part in record.parts:
        if part.erasure is not None:
            gone.append(Gone(part.erasure.index, part.erasure.request_id))
        else:
            gone.append(None if part.expiry is None else Gone(part.expiry, ""))
    return gone


def _item(log: Log, head: Head, index: int, why: Why) -> Item:
    hashes = tuple(log.reader.inclusion_proof(index, head.size))
    proof = TlogProof(index=index, hashes=hashes, checkpoint=head.note).encode()
    return Item(index, why, log.reader.entry(index, head.size), proof)


async def _head(log: Log, size: int, patience: float) -> Head:
    """The latest published head, once it has so many entries."""
    try:
        async with asyncio.timeout(patience):
            return await log.publisher.wait_for(size)
    except TimeoutError:
        reason = log.publisher.refusal or "it is not published yet"
        raise Unavailable(
            f"no published checkpoint has entry {size - 1} yet: {reason}. The records are durable; "
            "collect the evidence once a checkpoint has them"
        ) from None


def _certificates(stamper: Stamper | None, names: Collection[str]) -> dict[str, bytes]:
    if stamper is None:
        return {}
    return {
        authority.name: b"".join(
            each.public_bytes(Encoding.PEM) for each in (*authority.signers, *authority.issuers)
        )
        for authority in stamper.authorities
        if authority.name in names
    }
