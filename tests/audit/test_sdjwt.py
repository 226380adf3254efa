"""SD-JWT: other people's verifier accepts ours; whatever is changed is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from sd_jwt.verifier import SDJWTVerifier

from tests.audit.producer import (
    ALICE,
    EVENT_ID,
    PAYLOAD,
    SHOP,
    access,
    forged,
    opened,
    received,
    signed,
    signer_of,
)
from tlog.audit import EventRefused, match_disclosures
from tlog.audit.codec import decode_base64url, dump_json, encode_base64url
from tlog.audit.event import new_event_id, read_payload
from tlog.audit.jws import TYPE, parse_jws, sign_jws
from tlog.audit.sdjwt import Disclosure, digests, disclose, join, split
from tlog.notes import Algorithm, Signer

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.from_regex(r"\Ax_[a-z]{1,6}\Z")
claims = st.dictionaries(names, json_values, max_size=4)


def reference(sd_jwt: str) -> dict[str, Any]:
    """What the reference implementation makes of it."""
    key = JWK.from_pyca(SHOP._key.public_key())
    verified: dict[str, Any] = SDJWTVerifier(sd_jwt, lambda _, __: key).get_verified_payload()
    return verified


@settings(max_examples=40, deadline=None)
@given(
    personal=claims,
    subjects=st.lists(claims, max_size=3),
    decoys=st.integers(0, 3),
    chance=st.randoms(use_true_random=False),
)
def test_the_reference_implementation_agrees(
    personal: dict[str, Any], subjects: list[dict[str, Any]], decoys: int, chance: random.Random
) -> None:
    parts = [{"id": f"{i}@example.com"} | part for i, part in enumerate(subjects)]
    draft = access(personal=personal, subjects=parts, decoys=decoys, event_id=EVENT_ID)
    sd_jwt = signed(draft)
    jws, encoded = split(sd_jwt)
    event = opened(sd_jwt)
    theirs = reference(sd_jwt)
    assert [{d.name: d.value for d in part} for part in event.subjects] == parts
    assert theirs.get("subjects", []) == parts
    assert {d.name: d.value for d in event.shared} == personal
    assert {name: theirs[name] for name in personal} == personal
    # Any of them may be left out, in any order, when somebody shows the event later.
    chosen = chance.sample(encoded, chance.randrange(len(encoded) + 1))
    shared, *shown = match_disclosures(read_payload(parse_jws(jws)), chosen)
    theirs = reference(join(jws, chosen))
    assert theirs.get("subjects", []) == [{d.name: d.value for d in part} for part in shown]
    assert theirs.keys() - event.claims.keys() == {d.name for d in shared}


def test_a_salt_has_128_bits_and_digests_are_sorted() -> None:
    made = [disclose("a", 1) for _ in range(100)]
    salts = {decode_base64url(opened_salt(each), field="") for each in made}
    assert len(salts) == 100
    assert {len(salt) for salt in salts} == {16}
    listed = digests(made, decoys=32)
    assert listed == sorted(listed)
    assert len(set(listed)) == 128


def test_decoys_hide_how_many_claims_there_are() -> None:
    def counted(claims: int, decoys: int) -> list[int]:
        personal = {f"x_{i}": i for i in range(claims)}
        draft = access(ALICE, personal=personal, decoys=decoys)
        payload = read_payload(parse_jws(split(signed(draft))[0]))
        parts = (payload, *payload["subjects"])
        return [len(set(part.get("_sd", []))) for part in parts]

    assert [counted(claims, 0) for claims in (0, 1, 4)] == [[0, 1], [1, 1], [4, 1]]
    assert [counted(claims, 4) for claims in (0, 1, 4, 5)] == [[4, 4], [4, 4], [4, 4], [8, 4]]
    assert counted(3, 1) == counted(3, 0)
    for decoys in (-1, 33, True, 1.0):
        with pytest.raises(EventRefused) as caught:
            counted(1, decoys)  # type: ignore[arg-type]
        assert caught.value.field == "decoys"


def opened_salt(disclosure: Disclosure) -> str:
    salt, *_ = decode_base64url(disclosure.encoded, field="").decode().split('"')[1:]
    return salt


def raw(value: Any) -> str:
    return encode_base64url(value if isinstance(value, bytes) else dump_json(value))


def test_disclosures_that_do_not_belong_are_refused() -> None:
    jws, encoded = split(signed(received()))
    other = disclose("details", "something else").encoded
    for changed in ([*encoded, other], [other, *encoded[1:]], [*encoded, encoded[0]]):
        with pytest.raises(EventRefused, match="matches no digest|comes twice"):
            opened(join(jws, changed))
    for i in range(len(encoded)):
        for at in range(len(encoded[i])):
            letter = "A" if encoded[i][at] != "A" else "B"
            damaged = encoded[i][:at] + letter + encoded[i][at + 1 :]
            with pytest.raises(EventRefused):
                opened(join(jws, [*encoded[:i], damaged, *encoded[i + 1 :]]))


SALT = "A" * 22


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([SALT, "details"], "needs a salt, a name and a value"),
        ([SALT, "details", 1, 2], "needs a salt"),
        ({"a": 1}, "needs a salt"),
        ([SALT, "", 1], "are strings"),
        ([7, "details", 1], "are strings"),
        ([SALT, 7, 1], "are strings"),
        (["A" * 20, "details", 1], "16 to 64 bytes"),
        (["A" * 100, "details", 1], "16 to 64 bytes"),
        (["!" * 22, "details", 1], "16 to 64"),
        ([SALT, "_sd", []], "SD-JWT's own"),
        ([SALT, "...", "x"], "SD-JWT's own"),
        ([SALT, "details", {"_sd": ["x"]}], "events are flat"),
        ([SALT, "details", [{"...": "x"}]], "events are flat"),
        ([SALT, "request_id", "R-2"], "there already"),
        ([SALT, "event_id", "x"], "there already"),
        (b'["' + SALT.encode() + b'","details",NaN]', "NaN"),
        (b'["' + SALT.encode() + b'","details",{"a":1,"a":2}]', "stands twice"),
        (b'["' + SALT.encode() + b'","details",' + b"[" * 40 + b"]" * 40 + b"]", "nested deeper"),
        (b'["' + SALT.encode() + b'","details",' + b"[" * 9000, "JSON"),
        (b"\xff", "JSON"),
    ],
)
def test_malformed_disclosures_are_refused(value: Any, said: str) -> None:
    disclosure = Disclosure("", None, raw(value))
    with pytest.raises(EventRefused, match=said):
        opened(forged([[disclose("id", ALICE)]], [disclosure]))


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ([], "subjects[0].id"),
        ([disclose("id", "")], "subjects[0].id"),
        ([disclose("id", 7)], "subjects[0].id"),
        ([disclose("id", "x" * 513)], "subjects[0].id"),
        ([disclose("id", "a\nb")], "subjects[0].id"),
        ([disclose("id", ALICE), disclose("purposes", 7)], "subjects[0].purposes"),
        ([disclose("id", ALICE), disclose("event_id", EVENT_ID)], "subjects[0].event_id"),
    ],
)
def test_a_subject_needs_an_identifier_and_sound_claims(part: list[Disclosure], field: str) -> None:
    with pytest.raises(EventRefused) as caught:
        opened(forged([part]))
    assert caught.value.field == field


def test_a_lone_surrogate_is_no_identifier() -> None:
    encoded = raw(b'["' + SALT.encode() + b'","id","\\ud800"]')
    with pytest.raises(EventRefused, match="half of one"):
        opened(forged([[Disclosure("", None, encoded)]]))
    with pytest.raises(EventRefused, match="cannot be written"):
        signed(received(personal={"details": "\ud800"}))


def test_a_digest_stands_once() -> None:
    one = disclose("id", ALICE)
    with pytest.raises(EventRefused, match="stands twice"):
        opened(forged([[one], [one]]))


def test_a_subject_for_a_type_that_is_about_nobody_is_refused() -> None:
    draft = access(ALICE, type="log.heartbeat", public={}, personal={})
    with pytest.raises(EventRefused, match="about nobody"):
        signed(draft)


def test_every_changed_character_of_the_jws_is_refused() -> None:
    jws, encoded = split(signed(access(ALICE)))
    for at in range(len(jws)):
        letter = "A" if jws[at] != "A" else "B"
        with pytest.raises(EventRefused):
            opened(join(jws[:at] + letter + jws[at + 1 :], encoded))


def test_the_signature_must_be_that_of_the_key() -> None:
    with pytest.raises(EventRefused, match=r"not that of shop\+") as caught:
        opened(signed(access(ALICE)), signer_of(seed=2))
    assert caught.value.field == "jws.signature"
    with pytest.raises(ValueError, match="no Ed25519 key"):
        sign_jws(Signer.generate("shop", Algorithm.MLDSA44), b"{}")


def jws_of(header: Any) -> str:
    signing_input = f"{raw(header)}.{raw(PAYLOAD)}"
    return f"{signing_input}.{encode_base64url(SHOP.sign(signing_input.encode()))}"


HEADER = {"alg": "EdDSA", "kid": SHOP.vkey.label, "typ": TYPE}


@pytest.mark.parametrize(
    "header",
    [
        HEADER | {"alg": "none"},
        HEADER | {"alg": "HS256"},
        HEADER | {"typ": "JWT"},
        HEADER | {"crit": ["exp"]},
        HEADER | {"kid": 7},
        {"alg": "EdDSA", "typ": TYPE},
        [],
        b"{",
    ],
)
def test_another_header_is_refused(header: Any) -> None:
    with pytest.raises(EventRefused) as caught:  # beside it, the same with our own header
        opened(join(jws_of(HEADER), []))
    assert caught.value.field == "subjects"
    with pytest.raises(EventRefused) as caught:
        opened(join(jws_of(header), []))
    assert caught.value.field == "jws.header"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends with"),
        ("a.b.c", "ends with"),
        ("a.b.c~x", "no key binding"),
        ("a.b~", "compact JWS"),
        ("a.b.c.d~", "compact JWS"),
        ("é.b.c~", "ASCII"),
        ("x" * 600_000, "characters"),
        ("x" * 57_001 + "~", "the limit is 57000"),
        ("a.b.c~" + "x~" * 300, "more than 256"),
        ("x" * 1025 + ".b.c~", "header is too long"),
    ],
)
def test_what_is_no_sd_jwt_is_refused(text: str, said: str) -> None:
    with pytest.raises(EventRefused, match=said):
        opened(text)


@given(data=st.binary(max_size=40))
def test_base64url_has_one_spelling(data: bytes) -> None:
    text = encode_base64url(data)
    assert decode_base64url(text, field="x") == data
    for other in (text + "=", text + "\n", text.replace("-", "+"), text + "+"):
        if other != text:
            with pytest.raises(EventRefused):
                decode_base64url(other, field="x")


def test_event_ids_sort_by_time() -> None:
    made = [new_event_id(now) for now in (0.001, 1.0, 1.5, 1e9)]
    assert made == sorted(made)
    assert [made[1][14], made[1][19] in "89ab"] == ["7", True]
    assert len({new_event_id(1.0) for _ in range(100)}) == 100
