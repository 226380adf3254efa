"""Orders: what two approvers signed, whole and in time; anything else is refused by name."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS, InvalidJWSSignature
from sd_jwt.verifier import SDJWTVerifier

from tests.audit.approvers import CISO, COUNSEL, DPO, LONG_AGO, NEW_CISO, order, registry
from tests.audit.producer import ALICE, CATALOGUE, SHOP, TENANT, signer_of
from tests.audit.tenant import NOW
from tlog.audit import sdjwt
from tlog.audit.codec import dump_json, encode_base64url
from tlog.audit.errors import AuditError, OrderRefused
from tlog.audit.jws import sign_jws
from tlog.audit.orders import (
    MAX_DOCUMENT_SIZE,
    TYPE,
    Document,
    Kind,
    Order,
    check_order,
    kept_payload,
    parse_document,
    read_order,
)
from tlog.audit.producers import ProducerKey, Registry
from tlog.notes import Algorithm, Signer


def checked(
    data: bytes, approvers: Registry | None = None, *, tenant: str = TENANT, now: datetime = NOW
) -> tuple[Order, list[str]]:
    document = parse_document(data)
    read = read_order(document, CATALOGUE)
    return read, check_order(document, read, approvers or registry(), tenant=tenant, now=now)


def refused(data: bytes, **more: Any) -> AuditError:
    with pytest.raises(AuditError) as caught:
        checked(data, **more)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Kind.ERASE, {}, {"subject": ALICE, "request_id": "R-1"}),
        (Kind.PLACE, {}, {"subject": ALICE, "hold_id": "H-1"}),
        (Kind.PLACE, {"request_id": "R-7"}, {"request_id": "R-7", "hold_id": "H-1"}),
        (Kind.RELEASE, {}, {"hold_id": "H-1"}),
        (Kind.REGISTER, {}, {"vkey": str(COUNSEL.vkey)}),
        (Kind.ROTATE, {}, {"vkey": str(NEW_CISO.vkey), "old_vkey": str(CISO.vkey)}),
    ],
)
def test_what_two_approvers_signed_is_carried(
    kind: Kind, changes: dict[str, Any], says: dict[str, str]
) -> None:
    made = order(kind, now=NOW, **changes)
    read, approvers = checked(made.encode())
    assert approvers == ["ciso", "dpo"]
    names = ("subject", "request_id", "hold_id", "vkey", "old_vkey")
    expected = dict.fromkeys(names, "") | says
    assert {name: getattr(read, name) for name in expected} == expected
    assert (read.kind, read.tenant, read.reason) == (kind, TENANT, "asked")
    assert (read.made_at, read.expires_at) == (NOW, NOW + timedelta(days=7))
    assert parse_document(made.encode()) == made


def test_what_is_kept_names_nobody_and_verifies_all_the_same() -> None:
    made = order(now=NOW)
    kept = made.kept()
    (salt, _, _) = json.loads(urlsafe_b64decode(made.disclosure + "=="))
    whole = kept + made.payload.decode() + str(json.loads(made.payload))
    for word in (ALICE, "alice", salt, made.disclosure, encode_base64url(ALICE.encode())):
        assert word not in whole
        assert (word in made.encode().decode()) is (word == made.disclosure)
    read, approvers = checked(kept.encode())
    assert (read.subject, approvers) == ("", ["ciso", "dpo"])
    assert kept_payload(kept) == made.payload
    # Two orders about one subject have nothing in common that tells it.
    assert json.loads(order(now=NOW).payload)["_sd"] != json.loads(made.payload)["_sd"]


def test_every_altered_byte_is_refused_with_its_field() -> None:
    data = order(now=NOW).encode().rstrip()
    for at in range(len(data)):
        for flip in (1, 32):
            assert refused(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]).field
    for cut in range(len(data)):
        refused(data[:cut])


def test_who_may_sign() -> None:
    stranger = signer_of("dpo", 99)
    twin = Signer.from_seed("counsel", Algorithm.ED25519, DPO.seed)

    def said(*signers: Signer, known: Registry | None = None, field: str = "signatures[1]") -> str:
        document = order(Kind.ERASE, signers[0], now=NOW)
        for signer in signers[1:]:
            signed = sign_jws(signer, document.payload, typ=TYPE)
            document = replace(document, signatures=(*document.signatures, signed))
        error = refused(document.encode(), approvers=known)
        assert error.field == field
        return str(error)

    assert "2 approvers sign an order, this has one" in said(DPO, field="signatures")
    assert "a list of 1 or 2" in said(DPO, CISO, COUNSEL, field="signatures")
    assert "the same approver signed twice" in said(DPO, DPO)
    # Another name, or another key, does not make one person two.
    assert "the same approver" in said(DPO, twin, known=registry(DPO, twin))
    both = registry(DPO, CISO)
    other = signer_of("dpo", 50)
    both.keys[other.vkey.label] = ProducerKey(other.vkey, LONG_AGO)
    assert "the same approver" in said(DPO, other, known=both)
    assert "shop is no approver" in said(DPO, SHOP)
    assert "no producer has the key" in said(DPO, stranger)
    assert "no producer has the key" in said(COUNSEL, CISO, field="signatures[0]")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"revoked": True}, "is revoked"),
        ({"valid_until": NOW}, "was valid until"),
        ({"valid_from": NOW + timedelta(seconds=1)}, "is valid from"),
    ]
    for change, says in changes:
        known = registry()
        known.keys[CISO.vkey.label] = replace(known.keys[CISO.vkey.label], **change)
        assert says in said(DPO, CISO, known=known)


def test_a_signature_over_something_else_is_none() -> None:
    made = order(now=NOW)
    other = order(now=NOW)
    mixed = replace(made, signatures=(made.signatures[0], other.signatures[1]))
    signature = other.signatures[1].rpartition(".")[2]
    head = made.signatures[1].rpartition(".")[0]
    mixed = replace(made, signatures=(made.signatures[0], f"{head}.{signature}"))
    assert refused(mixed.encode()).field == "signatures[1]"
    # An event's signature over the same payload is not an order's.
    event = replace(made, signatures=(made.signatures[0], sign_jws(CISO, made.payload)))
    assert refused(event.encode()).field == "jws.header"


@pytest.mark.parametrize(
    ("now", "tenant", "field", "says"),
    [
        (NOW - timedelta(minutes=6), TENANT, "made_at", "it is 2026-01-31"),
        (NOW + timedelta(days=7), TENANT, "expires_at", "has expired"),
        (NOW, "other", "tenant", "this is the log of other"),
    ],
)
def test_when_and_where(now: datetime, tenant: str, field: str, says: str) -> None:
    error = refused(order(now=NOW).encode(), now=now, tenant=tenant)
    assert error.field == field
    assert says in str(error)


def test_the_last_moment_and_a_clock_that_is_a_little_off() -> None:
    made = order(now=NOW).encode()
    checked(made, now=NOW + timedelta(days=7) - timedelta(microseconds=1))
    checked(made, now=NOW - timedelta(minutes=5))


Change = Callable[[dict[str, Any]], object]


def resigned(change: Change, kind: Kind = Kind.ERASE, **more: Any) -> bytes:
    """Signed by both as it is, however wrong."""
    made = order(kind, now=NOW, **more)
    payload = json.loads(made.payload)
    change(payload)
    document = Document(dump_json(payload), made.disclosure)
    return document.approved(DPO).approved(CISO).encode()


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (Kind.ERASE, lambda p: p.pop("request_id"), "request_id"),
        (Kind.ERASE, lambda p: p.pop("reason"), "reason"),
        (Kind.ERASE, lambda p: p.pop("expires_at"), "expires_at"),
        (Kind.ERASE, lambda p: p.pop("_sd"), "_sd_alg"),
        (Kind.ERASE, lambda p: (p.pop("_sd"), p.pop("_sd_alg")), "subject"),
        (Kind.ERASE, lambda p: p.update(hold_id="H-1"), "hold_id"),
        (Kind.ERASE, lambda p: p.update(subject=ALICE), "subject"),
        (Kind.ERASE, lambda p: p.update(kind="erase.all"), "kind"),
        (Kind.ERASE, lambda p: p.update(kind=["erase"]), "kind"),
        (Kind.ERASE, lambda p: p.update(order_id="7"), "order_id"),
        (Kind.ERASE, lambda p: p.update(tenant=7), "tenant"),
        (Kind.ERASE, lambda p: p.update(reason=""), "reason"),
        (Kind.ERASE, lambda p: p.update(reason="x" * 513), "reason"),
        (Kind.ERASE, lambda p: p.update(reason=f"asked by {ALICE}"), "reason"),
        (Kind.ERASE, lambda p: p.update(request_id="078-05-1120"), "request_id"),
        (Kind.ERASE, lambda p: p.update(made_at="2026-01-31T17:30:00"), "made_at"),
        (Kind.ERASE, lambda p: p.update(made_at=7), "made_at"),
        (Kind.ERASE, lambda p: p.update(expires_at=p["made_at"]), "expires_at"),
        (Kind.ERASE, lambda p: p.update(expires_at="2026-03-04T00:00:00Z"), "expires_at"),
        (Kind.ERASE, lambda p: p.update(_sd_alg="sha-512"), "_sd_alg"),
        (Kind.ERASE, lambda p: p.update(_sd=[]), "_sd"),
        (Kind.ERASE, lambda p: p.update(_sd=p["_sd"] * 2), "_sd"),
        (Kind.ERASE, lambda p: p.update(_sd="x"), "_sd"),
        (Kind.ERASE, lambda p: p.update(_sd=["A" * 43]), "subject"),
        (Kind.PLACE, lambda p: p.update(request_id="R-1"), "subject"),
        (Kind.PLACE, lambda p: (p.pop("_sd"), p.pop("_sd_alg")), "subject"),
        (Kind.PLACE, lambda p: p.pop("hold_id"), "hold_id"),
        (Kind.RELEASE, lambda p: p.update(request_id="R-1"), "request_id"),
        (Kind.RELEASE, lambda p: p.update(_sd=["A" * 43], _sd_alg="sha-256"), "subject"),
        (Kind.RELEASE, lambda p: p.update(more=1), "more"),
        (Kind.REGISTER, lambda p: p.pop("vkey"), "vkey"),
        (Kind.REGISTER, lambda p: p.update(vkey="counsel"), "vkey"),
        (Kind.REGISTER, lambda p: p.update(old_vkey=p["vkey"]), "old_vkey"),
        (Kind.REGISTER, lambda p: p.update(roles=["registrar"]), "roles"),
        (Kind.REGISTER, lambda p: p.update(_sd=["A" * 43], _sd_alg="sha-256"), "subject"),
        (Kind.ROTATE, lambda p: p.pop("old_vkey"), "old_vkey"),
        (Kind.ROTATE, lambda p: p.update(old_vkey=7), "old_vkey"),
        (Kind.ROTATE, lambda p: p.update(hold_id="H-1"), "hold_id"),
    ],
)
def test_what_no_two_may_order(kind: Kind, change: Change, field: str) -> None:
    assert refused(resigned(change, kind)).field == field


def test_one_spelling_and_bounds() -> None:
    made = order(now=NOW)
    spaced = Document(made.payload.replace(b":", b": ", 1), made.disclosure)
    assert refused(spaced.approved(DPO).approved(CISO).encode()).field == "payload"
    twice = Document(b'{"kind":"erase",' + made.payload[1:], made.disclosure)
    assert "stands twice" in str(refused(twice.approved(DPO).approved(CISO).encode()))
    assert refused(b" " * (MAX_DOCUMENT_SIZE + 1)).field == "order"
    half = Document(b'{"kind":"\\ud800"}', "").approved(DPO).approved(CISO)
    assert refused(half.encode()).field == "payload"
    for text in (b"", b"[]", b"{}", b'{"payload":"","signatures":[]}', b"[" * 5000):
        assert refused(text).field in {"order", "payload"}


def test_the_disclosure_is_that_of_the_subject() -> None:
    made = order(now=NOW)
    for name, value in (("subject", "bob@example.com"), ("subject", ALICE), ("id", ALICE)):
        swapped = replace(made, disclosure=sdjwt.disclose(name, value).encoded)
        assert refused(swapped.encode()).field == "subject"
    assert refused(replace(made, disclosure="\u00e9").encode()).field == "subject"
    for disclosed in (sdjwt.disclose("id", ALICE), sdjwt.disclose("subject", 7)):

        def put(payload: dict[str, Any], digest: str = disclosed.digest) -> None:
            payload["_sd"] = [digest]

        document = parse_document(resigned(put))
        assert refused(replace(document, disclosure=disclosed.encoded).encode()).field == "subject"
    parsed = json.loads(made.encode())
    parsed["signatures"][1]["header"] = parsed["signatures"][0].pop("header")
    assert refused(json.dumps(parsed).encode()).field == "signatures[1].header"
    headers: list[Any] = [
        {},
        {"disclosures": []},
        {"disclosures": [7]},
        [],
        {"disclosures": "x"},
    ]
    for header in headers:
        parsed = json.loads(made.encode())
        parsed["signatures"][0]["header"] = header
        assert refused(json.dumps(parsed).encode()).field == "signatures[0].header"


def test_nobody_signs_twice_by_mistake() -> None:
    one = order(Kind.ERASE, DPO, now=NOW)
    with pytest.raises(OrderRefused, match="dpo has signed it"):
        one.approved(DPO)
    with pytest.raises(OrderRefused, match="is signed by dpo and ciso: submit it"):
        one.approved(CISO).approved(COUNSEL)


def test_any_library_of_jose_verifies_an_order_and_what_its_record_keeps() -> None:
    made = order(now=NOW)
    for data in (made.encode().decode(), made.kept()):
        for signer in (DPO, CISO):
            public = encode_base64url(signer.vkey.public_key)
            token = JWS()
            token.deserialize(data)
            token.verify(JWK(kty="OKP", crv="Ed25519", x=public))
            assert token.payload == made.payload
        stranger = encode_base64url(COUNSEL.vkey.public_key)
        with pytest.raises(InvalidJWSSignature):
            JWS.from_jose_token(data).verify(JWK(kty="OKP", crv="Ed25519", x=stranger))


def test_the_reference_implementation_of_sd_jwt_reads_whom_an_order_is_about() -> None:
    made = order(now=NOW)
    for text, signer in zip(made.signatures, (DPO, CISO), strict=True):
        key = JWK(kty="OKP", crv="Ed25519", x=encode_base64url(signer.vkey.public_key))
        compact = sdjwt.join(text, [made.disclosure])
        verified = SDJWTVerifier(compact, lambda *_, key=key: key).get_verified_payload()
        assert (verified["subject"], verified["request_id"]) == (ALICE, "R-1")
