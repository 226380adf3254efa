"""Documents: each byte comes back, whoever opens them, and what is none is not taken for one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.drp import drp_request, verify_drp
from tests.audit.producer import ALICE, access, opened, received, signed
from tests.audit.test_sdjwt import reference
from tlog.audit import EventRefused, bytes_of
from tlog.audit.documents import MAX_DOCUMENT


def said(sd_jwt: str, name: str) -> Any:
    (value,) = [each.value for each in opened(sd_jwt).shared if each.name == name]
    assert reference(sd_jwt)[name] == value
    return value


@settings(max_examples=25, deadline=None)
@given(document=st.binary(max_size=300), mutable=st.booleans())
def test_every_byte_comes_back(document: bytes, mutable: bool) -> None:
    given_as = bytearray(document) if mutable else document
    personal = {"native_document": given_as, "details": {"pages": [given_as, ("x", given_as)]}}
    subjects = [{"id": ALICE, "photo": given_as}]
    event = opened(signed(access(personal=personal, subjects=subjects)))
    values = {each.name: each.value for part in (event.shared, *event.subjects) for each in part}
    one, (other, third) = values["details"]["pages"]
    for value in (values["native_document"], one, third, values["photo"]):
        assert bytes_of(value) == document
        assert base64.b64decode(value["base64"], validate=True) == document
    assert other == "x"


def test_the_signature_of_an_agent_still_counts() -> None:
    document = drp_request()
    value = said(signed(received(personal={"native_document": document})), "native_document")
    assert verify_drp(bytes_of(value)) == "Alice \u00c9mile"
    for at in (0, 40, 70, len(document) - 8):
        damaged = document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]
        with pytest.raises((InvalidSignature, ValueError)):
            verify_drp(damaged)


def test_a_document_is_bounded() -> None:
    largest = bytes(range(256)) * (MAX_DOCUMENT // 256)
    assert bytes_of(said(signed(access(personal={"details": largest})), "details")) == largest
    for changes, field in (
        ({"personal": {"details": largest + b"x"}}, "details"),
        ({"personal": {"details": {"a": [largest + b"x"]}}}, "details"),
        ({"subjects": [{"id": ALICE, "photo": largest + b"x"}]}, "subjects[0].photo"),
    ):
        with pytest.raises(EventRefused, match="the limit is 32768: keep it elsewhere") as caught:
            signed(access(**changes))
        assert caught.value.field == field
    around: list[Any] = []
    around.append(around)
    with pytest.raises(EventRefused, match="cannot be written"):
        signed(access(personal={"details": around}))


def test_nothing_of_bytes_is_public() -> None:
    with pytest.raises(EventRefused):
        signed(access(public={"purpose": b"support"}))
    with pytest.raises(EventRefused) as caught:
        signed(received(personal={"agent_id": b"helper"}))
    assert caught.value.field == "agent_id"


@pytest.mark.parametrize(
    "value",
    [
        "JVBERg==",
        b"JVBERg==",
        None,
        ["JVBERg=="],
        {},
        {"base64": 7},
        {"base64": "JVBERg==", "more": 1},
        {"base64": "JVBERg"},
        {"base64": "JVBERg==\n"},
        {"base64": "JVB ERg=="},
        {"base64": "JV_-Rg=="},
        {"base64": "\u00e9"},
    ],
)
def test_what_is_no_document_is_not_taken_for_one(value: Any) -> None:
    with pytest.raises(EventRefused, match="base64"):
        bytes_of(value)
