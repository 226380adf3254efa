"""Leaves: canonical JSON by another implementation's word, and one spelling only."""

from __future__ import annotations

import json
import sys
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.producer import access, received, signed
from tlog.audit import EventRefused, TokenClass
from tlog.audit.leaf import MAX_TOKENS, Leaf, encode_leaf, parse_leaf
from tlog.audit.sdjwt import split
from tlog.audit.tokens import FIELDS, Token, canonical, epoch_of, identifier_of, make_token

NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
JWS, _ = split(signed(received()))
TOKEN = make_token(
    b"k" * 32, TokenClass.ERASABLE, epoch="2026Q1", field="subject", identifier="alice"
)
LEAF = Leaf(JWS, NOW, (TOKEN,))

tokens = st.builds(
    make_token,
    st.binary(min_size=32, max_size=32),
    st.sampled_from(TokenClass),
    epoch=st.sampled_from(["2026Q1", "1999Q4"]),
    field=st.sampled_from(FIELDS),
    identifier=st.text(),
)


@given(
    when=st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()),
    listed=st.lists(tokens, max_size=4),
)
def test_a_leaf_is_canonical_and_comes_back(when: datetime, listed: list[Token]) -> None:
    leaf = Leaf(JWS, when.astimezone(UTC), tuple(listed))
    encoded = encode_leaf(leaf)
    assert rfc8785.dumps(json.loads(encoded)) == encoded
    assert parse_leaf(encoded) == leaf


def test_the_longest_leaf_fits_an_entry() -> None:
    longest = Leaf("a." + "b" * 49_000 + ".c", NOW, (TOKEN,) * MAX_TOKENS)
    assert parse_leaf(encode_leaf(longest)) == longest
    with pytest.raises(EventRefused, match="over 65535"):
        encode_leaf(Leaf("a." + "b" * 66_000 + ".c", NOW, ()))
    with pytest.raises(EventRefused, match="over 65535"):
        parse_leaf(b" " * 65_536)


def test_every_other_spelling_is_refused() -> None:
    encoded = encode_leaf(LEAF)
    made = json.loads(encoded)
    others = [
        encoded + b"\n",
        b" " + encoded,
        json.dumps(made).encode(),
        encoded.replace(b'"v":1', b'"v":1.0'),
        encoded.replace(b'"v":1', b'"v":true'),
        encoded.replace(b'"v":1', b'"v":2'),
        encoded.replace(b'"v":1', b'"v":1,"v":1'),
        encoded.replace(b'"v":1', b'"v":1,"w":1'),
        encoded.replace(b"000000Z", b"000000+00:00"),
        encoded.replace(b".000000Z", b"Z"),
        encoded.replace(b'"tokens":[', b'"tokens":{}, "x":['),
        encoded[:-1],
        b"[]",
        b"",
        b"\xff",
    ]
    for other in others:
        assert other != encoded
        with pytest.raises(EventRefused):
            parse_leaf(other)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["jws"], "a.b"),
        (["jws"], 'a.b.c","x":"'),
        (["jws"], 7),
        (["received_at"], 7),
        (["received_at"], "2026-01-31T17:30:00"),
        (["tokens"], None),
        (["tokens"], [0]),
        (["tokens", 0], {"class": "erasable"}),
        (["tokens", 0, "class"], "other"),
        (["tokens", 0, "field"], "request"),
        (["tokens", 0, "epoch"], "2026Q5"),
        (["tokens", 0, "value"], "short"),
        (["tokens", 0, "value"], 7),
    ],
)
def test_a_wrong_value_is_refused(path: list[Any], value: Any) -> None:
    made = json.loads(encode_leaf(LEAF))
    at = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(EventRefused, match=r"leaf"):
        parse_leaf(rfc8785.dumps(made))
    many = (TOKEN,) * (MAX_TOKENS + 1)
    with pytest.raises(EventRefused, match="at most"):
        parse_leaf(encode_leaf(Leaf("a.b.c", NOW, many)))


def test_tokens_are_told_apart_by_all_that_goes_into_them() -> None:
    base = {"epoch": "2026Q1", "field": "subject", "identifier": "alice"}
    values = {
        make_token(key, TokenClass.EVIDENCE, **(base | change)).value
        for key in (b"k" * 32, b"l" * 32)
        for change in ({}, {"epoch": "2026Q2"}, {"field": "actor"}, {"identifier": "bob"})
    }
    assert len(values) == 8


def test_what_a_token_is_made_of() -> None:
    assert canonical(" Alice@Example.COM ") == canonical("alice\uff20example.com")
    assert canonical("Stra\u00dfe") == canonical("STRASSE")
    assert [identifier_of(v) for v in ("a", {"id": "b"}, {"id": 7}, {}, "", 7, None)] == [
        "a", "b", None, None, None, None, None,
    ]  # fmt: skip
    quarters = [epoch_of(datetime(2026, month, 1, tzinfo=UTC)) for month in (1, 3, 4, 6, 7, 10, 12)]
    assert quarters == [f"2026Q{n}" for n in (1, 1, 2, 2, 3, 4, 4)]


def once(identifier: str) -> str:
    """The form of most identifiers, in one step: their tokens stay what they were."""
    return unicodedata.normalize("NFKC", identifier.strip().casefold())


def test_the_canonical_form_of_every_character_is_its_own() -> None:
    odd = 0
    for character in map(chr, range(sys.maxunicode + 1)):
        if once(character) == character:
            assert canonical(character) == character
            continue
        for text in (character, f"a{character}B", f"{character} "):
            form = canonical(text)
            assert canonical(form) == form, ascii(text)
            assert once(form) == form, ascii(text)
            if once(once(text)) == once(text):
                assert form == once(text), ascii(text)
            else:
                odd += text == character
    assert 0 < odd < 1000
    assert canonical("\u21165") == canonical("no5") == "no5"
    assert canonical("\u2122") == canonical("TM") == "tm"
    # What is left out of it in one step, space, may come back in the next.
    assert canonical("\u00a8") == canonical("\u0308")


# Characters that change, that combine, or are space, beside any other.
_CHANGING = [
    c for c in map(chr, range(sys.maxunicode + 1))
    if once(c) != c or unicodedata.combining(c)
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from(_CHANGING) | st.characters(), max_size=8))
def test_the_canonical_form_of_any_text_is_its_own(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form
    assert form == form.strip()


def test_nothing_personal_is_in_a_leaf() -> None:
    jws, _ = split(signed(access("alice@example.com", personal={"resource": "customers/17"})))
    when = NOW.astimezone(timezone(timedelta(hours=-8)))
    leaf = parse_leaf(encode_leaf(Leaf(jws, when, (TOKEN,))))
    from tlog.audit.event import read_payload
    from tlog.audit.jws import parse_jws

    text = json.dumps(read_payload(parse_jws(leaf.jws)))
    assert "alice" not in text
    assert "customers/17" not in text
    assert leaf.received_at == NOW
