"""A producer, and events as short as they can be."""

from __future__ import annotations

from typing import Any

from tlog.audit import Catalogue, Draft, Event, default_catalogue, open_event, sign_event
from tlog.audit.codec import dump_json
from tlog.audit.jws import sign_jws
from tlog.audit.sdjwt import Disclosure, digests, join
from tlog.notes import Algorithm, Signer

CATALOGUE = default_catalogue()
TENANT = "acme"
EVENT_ID = "019aa000-0000-7000-8000-000000000001"
ALICE = "alice@example.com"


def signer_of(name: str = "shop", seed: int = 1) -> Signer:
    return Signer.from_seed(name, Algorithm.ED25519, bytes([seed]) * 32)


SHOP = signer_of()


def received(**changes: Any) -> Draft:
    public = {"request_id": "R-1", "request_type": "delete", "channel": "webform"}
    values: dict[str, Any] = {
        "type": "request.received",
        "public": public,
        "personal": {"actor": {"id": "eve", "ip": "192.0.2.1"}, "details": {"note": "by post"}},
        "subjects": [{"id": ALICE, "name": "Alice"}],
    }
    return Draft(**(values | changes))


def access(*subjects: str, **changes: Any) -> Draft:
    values: dict[str, Any] = {
        "type": "access.read",
        "public": {"purpose": "support", "resource_type": "customers"},
        "personal": {"actor": "eve", "resource": "customers/17"},
        "subjects": [{"id": subject} for subject in subjects],
    }
    return Draft(**(values | changes))


def merged(*subjects: str) -> Draft:
    """Of the same person, and no claim that is shared."""
    return Draft("subject.merged", {}, {}, [{"id": subject} for subject in subjects])


def signed(
    draft: Draft, seq: int = 1, signer: Signer = SHOP, catalogue: Catalogue = CATALOGUE
) -> str:
    return sign_event(draft, signer, tenant=TENANT, seq=seq, catalogue=catalogue)


def opened(sd_jwt: str, signer: Signer = SHOP, catalogue: Catalogue = CATALOGUE) -> Event:
    return open_event(sd_jwt, signer.vkey, tenant=TENANT, catalogue=catalogue)


PAYLOAD: dict[str, Any] = {
    "_sd_alg": "sha-256",
    "event_id": EVENT_ID,
    "type": "request.received",
    "schema_version": 1,
    "tenant": TENANT,
    "producer_id": "shop",
    "producer_seq": 1,
    "occurred_at": "2026-01-31T09:30:00-08:00",
    "request_id": "R-1",
    "request_type": "delete",
    "channel": "webform",
}


def forged(
    subjects: list[list[Disclosure]],
    shared: list[Disclosure] | None = None,
    payload: dict[str, Any] | None = None,
) -> str:
    """Signed as it is, however wrong: a value of None takes a claim away."""
    made = PAYLOAD | {"subjects": [{"_sd": digests(part)} for part in subjects]}
    if shared:
        made["_sd"] = digests(shared)
    made = {name: value for name, value in (made | (payload or {})).items() if value is not None}
    encoded = [each.encoded for part in [shared or [], *subjects] for each in part]
    return join(sign_jws(SHOP, dump_json(made)), encoded)
