"""Events: made and signed by a producer, verified by whoever gets them.

The payload of the JWS, with what only some events have left out:

    {"_sd_alg": "sha-256", "event_id": …, "type": …, "schema_version": 1, "tenant": …,
     "producer_id": …, "producer_seq": 7, "occurred_at": …, <public claims of the type>,
     "_sd": [digests of what is said of all], "subjects": [{"_sd": [digests of one subject]}, …]}

Each subject has a claim `id`, the identifier that its token is made of. What was touched is the
`resource`, or a list of them: of all subjects together, or of each its own. Who did it is the
`actor`, in the same places.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from tlog.audit import sdjwt
from tlog.audit.catalogue import Catalogue, EventType, Subjects, TokenClass
from tlog.audit.claims import check_identifier, event_id_bytes
from tlog.audit.codec import dump_json, load_json
from tlog.audit.documents import marked
from tlog.audit.errors import EventRefused
from tlog.audit.jws import Jws, parse_jws, sign_jws, verify_jws
from tlog.audit.sdjwt import Disclosure
from tlog.audit.times import format_time, parse_time
from tlog.audit.tokens import canonical, forms_of, identifier_of, identifiers_of
from tlog.notes import Signer, VerifierKey

MAX_SUBJECTS = 64
MAX_RESOURCES = 64
"""That one event names, in all its parts."""
MAX_ACTORS = 16
"""That one event names, in all its parts."""
MAX_JOINT = 256
"""Times that one event has a resource named by what several subjects have together: each time the
vault keeps who they all are."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What an application says of something that happened, before it is signed.

    Attributes:
        type: name of its type.
        public: claims in the clear, beside those of the envelope.
        personal: claims about all subjects, or none: actor, resource, details. Bytes in them, or
            in those of a subject, are kept verbatim; see `documents`.
        subjects: for each subject its claims; `id` is the identifier.
        occurred_at: when it happened, with a time zone; now, if not given.
        event_id: a UUID of version 7; a new one, if not given.
        schema_version: of its type; the newest, if not given.
        decoys: the digests of each part come in multiples of this; 0 for no decoys.
    """

    type: str
    public: Mapping[str, Any]
    personal: Mapping[str, Any]
    subjects: Sequence[Mapping[str, Any]] = ()
    occurred_at: datetime | None = None
    event_id: str = ""
    schema_version: int | None = None
    decoys: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was verified.

    Attributes:
        jws: as signed.
        event_id: its 16 bytes; they sort by the time of making.
        content: SHA-256 of what is signed: two events are the same if this is.
        claims: the public claims.
        type: its type.
        occurred_at: in UTC.
        shared: what was disclosed of all subjects together.
        subjects: what was disclosed of each subject.
        actors: who did it, in canonical form, each once: first who is named of all together.
        resources: what it names, in canonical form, and in which part: 0 is of all together.
    """

    jws: Jws
    event_id: bytes
    content: bytes
    claims: Mapping[str, Any]
    type: EventType
    occurred_at: datetime
    shared: Sequence[Disclosure]
    subjects: Sequence[Sequence[Disclosure]]
    actors: Sequence[str]
    resources: Sequence[tuple[str, int]]

    @property
    def producer(self) -> str:
        """The producer's id."""
        return str(self.claims["producer_id"])

    @property
    def seq(self) -> int:
        """Its place in the producer's sequence."""
        return int(self.claims["producer_seq"])

    def subject_ids(self) -> list[str]:
        """The identifier of each subject."""
        return [next(d.value for d in part if d.name == "id") for part in self.subjects]


def new_event_id(now: float | None = None) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): milliseconds, then 74 random bits."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=value))


def sign_event(draft: Draft, signer: Signer, *, tenant: str, seq: int, catalogue: Catalogue) -> str:
    """Sign an event as the producer that the key is named after.

    Returns:
        The SD-JWT with all disclosures. It verifies: whatever `open_event` would refuse is
        refused here.

    Raises:
        EventRefused: the field that is wrong.
    """
    sdjwt.check_decoys(draft.decoys)
    version = draft.schema_version
    if version is None:
        version = catalogue.newest_of(draft.type).version
    payload: dict[str, Any] = {
        **draft.public,
        "_sd_alg": sdjwt.SD_ALG,
        "event_id": draft.event_id or new_event_id(),
        "type": draft.type,
        "schema_version": version,
        "tenant": tenant,
        "producer_id": signer.vkey.name,
        "producer_seq": seq,
        "occurred_at": _written(draft.occurred_at or datetime.now().astimezone()),
    }
    try:
        shared = _disclosed(draft.personal, "")
        parts = [_disclosed(part, f"subjects[{i}].") for i, part in enumerate(draft.subjects)]
        if shared or draft.decoys:
            payload["_sd"] = sdjwt.digests(shared, decoys=draft.decoys)
        if parts:
            payload["subjects"] = [{"_sd": sdjwt.digests(p, decoys=draft.decoys)} for p in parts]
        jws = sign_jws(signer, dump_json(payload))
    except EventRefused:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise EventRefused(f"it cannot be written as JSON: {error}") from None
    encoded = [disclosure.encoded for part in (shared, *parts) for disclosure in part]
    read_event(parse_jws(jws), encoded, tenant=tenant, catalogue=catalogue)
    return sdjwt.join(jws, encoded)


def _disclosed(claims: Mapping[str, Any], where: str) -> list[Disclosure]:
    return [
        sdjwt.disclose(name, marked(value, field=f"{where}{name}"))
        for name, value in claims.items()
    ]


def _written(occurred_at: datetime) -> str:
    # A time zone may have no offset to give; then, too, it would be taken as that of this machine.
    if not isinstance(occurred_at, datetime) or occurred_at.utcoffset() is None:
        raise EventRefused(
            "a datetime with a time zone, like datetime.now(timezone.utc)", field="occurred_at"
        )
    try:
        return format_time(occurred_at)
    except OverflowError as error:
        raise EventRefused(f"no such time in UTC: {error}", field="occurred_at") from None


def open_event(sd_jwt: str, key: VerifierKey, *, tenant: str, catalogue: Catalogue) -> Event:
    """Verify an event as its producer sent it.

    Raises:
        EventRefused: the field that is wrong.
    """
    jws, encoded = sdjwt.split(sd_jwt)
    parsed = parse_jws(jws)
    verify_jws(parsed, key)
    return read_event(parsed, encoded, tenant=tenant, catalogue=catalogue)


def read_event(jws: Jws, encoded: Sequence[str], *, tenant: str, catalogue: Catalogue) -> Event:
    """Check the payload of a JWS whose signature was verified, and its disclosures.

    Raises:
        EventRefused: the field that is wrong.
    """
    payload = read_payload(jws)
    kind = catalogue.type_of(payload)
    catalogue.check_public(kind, payload)
    if payload["tenant"] != tenant:
        raise EventRefused(f"this is the log of {tenant}", field="tenant")
    if payload["producer_id"] != jws.kid.partition("+")[0]:
        raise EventRefused(f"signed by a key of {jws.kid}", field="producer_id")
    shared, *subjects = match_disclosures(payload, encoded)
    _check_subjects(kind, subjects, catalogue)
    for disclosure in shared:
        catalogue.check_personal(disclosure.name, disclosure.value, field=disclosure.name)
    if missing := kind.disclosed.difference(disclosure.name for disclosure in shared):
        raise EventRefused(f"{kind.name} requires it, disclosed", field=min(missing))
    return Event(
        jws,
        event_id_bytes(payload["event_id"]),
        sha256(jws.signing_input).digest(),
        payload,
        kind,
        parse_time(payload["occurred_at"], field="occurred_at"),
        shared,
        subjects,
        *_named(kind, shared, subjects),
    )


def read_payload(jws: Jws) -> dict[str, Any]:
    """The payload of a JWS, as an object; nothing in it is checked."""
    payload = load_json(jws.payload(), field="payload")
    if type(payload) is not dict:
        raise EventRefused("an object", field="payload")
    return payload


def match_disclosures(payload: Mapping[str, Any], encoded: Sequence[str]) -> list[list[Disclosure]]:
    """Check disclosures against the digests of an event; some, or all, may be left out.

    Returns:
        What was disclosed of all together, then of each subject.

    Raises:
        EventRefused: one was added, or changed, or the digests are malformed.
    """
    if payload.get("_sd_alg") != sdjwt.SD_ALG:
        raise EventRefused(f"only {sdjwt.SD_ALG}", field="_sd_alg")
    subjects = payload.get("subjects", [])
    if type(subjects) is not list or len(subjects) > MAX_SUBJECTS:
        raise EventRefused(f"a list of at most {MAX_SUBJECTS} subjects", field="subjects")
    objects = [(payload, sdjwt.check_digests(payload.get("_sd", []), field="_sd"))]
    for i, subject in enumerate(subjects):
        if type(subject) is not dict or subject.keys() != {"_sd"}:
            raise EventRefused("holds `_sd` and nothing else", field=f"subjects[{i}]")
        listed = sdjwt.check_digests(subject["_sd"], field=f"subjects[{i}]._sd")
        objects.append(({}, listed))
    return sdjwt.match(encoded, objects)


def _named(
    kind: EventType, shared: Sequence[Disclosure], subjects: Sequence[Sequence[Disclosure]]
) -> tuple[list[str], list[tuple[str, int]]]:
    """Who did it, and what is named in each part, and which part that is."""
    actors: list[str | None] = []
    resources: list[tuple[str, int]] = []
    for number, part in enumerate((shared, *subjects)):
        for said in part:
            if said.name == "actor":
                actors.append(identifier_of(said.value))
            elif said.name == "resource":
                resources += [(each, number) for each in identifiers_of(said.value)]
    found = forms_of(actors)
    if len(found) > MAX_ACTORS:
        raise EventRefused(
            f"it names {len(found)}: at most {MAX_ACTORS} in one event", field="actor"
        )
    if len(resources) > MAX_RESOURCES:
        raise EventRefused(
            f"it names {len(resources)}: at most {MAX_RESOURCES} in one event", field="resource"
        )
    joint = len(subjects) * sum(number == 0 for _, number in resources)
    if joint > MAX_JOINT and kind.tokens is TokenClass.ERASABLE:
        raise EventRefused(
            f"so many things of so many people together ({joint}, at most {MAX_JOINT}): name each "
            "with the subject that it is of, or make several events",
            field="resource",
        )
    return found, resources


def _check_subjects(
    kind: EventType, subjects: Sequence[Sequence[Disclosure]], catalogue: Catalogue
) -> None:
    if subjects and kind.subjects is Subjects.NONE:
        raise EventRefused(f"{kind.name} is about nobody", field="subjects")
    if not subjects and kind.subjects is Subjects.REQUIRED:
        raise EventRefused(f"{kind.name} is about somebody", field="subjects")
    for i, part in enumerate(subjects):
        field = f"subjects[{i}]"
        identified = False
        for disclosure in part:
            if disclosure.name == "id":
                identified = True
                check_identifier(f"{field}.id", disclosure.value)
                # Reads of it are records about the canonical form.
                if (form := canonical(disclosure.value)) != disclosure.value:
                    check_identifier(f"{field}.id", form)
            else:
                name = disclosure.name
                catalogue.check_personal(name, disclosure.value, field=f"{field}.{name}")
        if not identified:
            raise EventRefused("needs the identifier, disclosed", field=f"{field}.id")
