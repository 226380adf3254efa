"""What a stranger sends costs as much work as it is long, and not its square.

No time is measured: what these are given would take hours, and the limit of one test ends them.
"""

from __future__ import annotations

import json

import pytest

from tests.audit.producer import ALICE, CATALOGUE, SHOP, TENANT, access, opened, signed
from tlog.audit import EventRefused
from tlog.audit.codec import encode_base64url, load_json
from tlog.audit.event import read_event
from tlog.audit.evidence import EvidenceError
from tlog.audit.evidence_file import MANIFEST, MAX_MANIFEST, read_package
from tlog.audit.jws import MAX_JWS_SIZE, parse_jws, sign_jws
from tlog.audit.personal import find_personal
from tlog.audit.sdjwt import MAX_DISCLOSURE_SIZE, parse_disclosure
from tlog.audit.tokens import MAX_NAME, canonical, forms_of, identifiers_of
from tlog.audit.zipped import write_zip


def object_of(size: int) -> bytes:
    """An object of about so many bytes, whose last name stands in it twice."""
    names = [f'"{number:x}":0' for number in range(size // 10)] + ['"twice":0'] * 2
    return f"{{{','.join(names)}}}".encode()


def test_the_first_name_that_stands_twice_is_found_at_once() -> None:
    for data in (object_of(MAX_MANIFEST), b'{"a":0,"twice":1,"b":0,"twice":2,"b":1}'):
        with pytest.raises(EventRefused, match="the name 'twice' stands twice"):
            load_json(data, field="x")
    assert load_json(b'{"a":{"a":1},"b":{"a":1}}', field="x") == {"a": {"a": 1}, "b": {"a": 1}}


def test_so_in_a_package_an_event_and_a_disclosure() -> None:
    with pytest.raises(EvidenceError, match="'twice' stands twice"):
        read_package(write_zip({MANIFEST: object_of(MAX_MANIFEST - 100)}))
    for _ in range(100):
        jws = parse_jws(sign_jws(SHOP, object_of(MAX_JWS_SIZE * 3 // 4 - 500)))
        with pytest.raises(EventRefused, match="'twice' stands twice"):
            read_event(jws, [], tenant=TENANT, catalogue=CATALOGUE)
        value = object_of(MAX_DISCLOSURE_SIZE * 3 // 4 - 500)
        encoded = encode_base64url(b'["' + b"s" * 22 + b'","details",' + value + b"]")
        with pytest.raises(EventRefused, match="'twice' stands twice"):
            parse_disclosure(encoded, field="x")


@pytest.mark.parametrize("group", ["1 ", "12 ", "0-", "1. ", "1234567 ", "12,", "1234 / ", "%40"])
def test_groups_of_digits_that_are_no_card_are_looked_at_once(group: str) -> None:
    text = group * (20_000 // len(group))
    assert find_personal(text) is None
    assert find_personal(f"{text}_ 4111 1111 1111 1111") == "a card number"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("192.0.2.1 7000 7378 7111 17", "an IP address"),
        ("7 8 9 7 8 9 7 8 9 7 8 9 7 192.0.2.1", "an IP address"),
        ("7 8 9 7 8 9 7 8 9 7 8 9 7 078-05-1120", "a social security number"),
        ("7 8 9 7 8 9 7 8 9 7 8 9 4111,1111,1111,1111", "a card number"),
        ("7 8 9 7 8 9 7 8 9 4111 1111 1111 1111 1 2 3", "a card number"),
    ],
)
def test_no_run_of_digits_hides_what_is_in_it(text: str, kind: str) -> None:
    assert find_personal(text) == kind


def test_marks_that_combine_are_not_put_in_order_beyond_what_can_be_asked_for() -> None:
    marks = "\u0301\u0316" * 9_000
    assert forms_of([marks] * 100 + ["Eve", None, "eve "]) == ["eve"]
    assert identifiers_of([{"id": marks}, marks, f"a{marks[: MAX_NAME - 1]}"]) == [
        canonical(f"a{marks[: MAX_NAME - 1]}")
    ]
    long = {"actor": marks, "resource": [{"id": marks}, "b"]}
    for _ in range(50):
        event = opened(signed(access(ALICE, personal=long)))
        assert (event.actors, event.resources) == ([], [("b", 0)])


def test_what_is_nested_too_deep_is_refused_wherever_it_is_read() -> None:
    """Some of it can be read and, a few calls further down, not be written any more."""
    for depth in range(18, 1000):
        with pytest.raises(EventRefused, match="nested deeper|recursion"):
            load_json(b"[" * depth + b"]" * depth, field="x")
    # A disclosure is a list, and its value may be 16 deep.
    load_json(b"[" * 17 + b"]" * 17, field="x")


def test_numbers_of_any_length_are_refused() -> None:
    for number in ("1" * MAX_MANIFEST, f"1{'0' * MAX_MANIFEST}.0", f"-1e{'9' * MAX_MANIFEST}"):
        with pytest.raises(EventRefused):
            load_json(number.encode(), field="x")
    small = json.dumps(0.5)[:-1] + "4" * MAX_MANIFEST
    assert 0.4 < load_json(small.encode(), field="x") < 0.5
