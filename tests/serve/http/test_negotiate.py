"""Accept-Encoding and If-None-Match, as RFC 9110 has them and as strangers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.serve.http_negotiate import content_coding, is_known


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("deflate, br", "identity"),
        ("*", "gzip"),
        ("gzip;q=1.000", "gzip"),
        ("gzip;q=0.001", "gzip"),
        ("gzip ; q=0.5", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000", "identity"),
        ("gzip;q=0, *", "identity"),
        ("*;q=0.5, gzip;q=0", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0", "gzip"),
        ("identity;q=0, br", "gzip"),
        ("*;q=0, gzip", "gzip"),
        ("*;q=0, identity", "identity"),
        ("*;q=0", None),
        ("gzip;q=0, identity;q=0", None),
        ("gzip;q=0, *;q=0", None),
        # What does not parse asks for nothing.
        ("gzip;q=foo", "identity"),
        ("gzip;q=-1", "identity"),
        ("gzip;q=2", "identity"),
        ("gzip;q=1e3", "identity"),
        ("gzip;q=0.0001", "identity"),
        ("gzip;q=", "identity"),
        ("gzip q=0", "identity"),
        ("gzipx", "identity"),
        (", ,gzip,,", "gzip"),
        ("gzip;level=9", "identity"),
    ],
)
def test_coding(header: str | None, coding: str | None) -> None:
    assert content_coding(header) == coding


@given(st.text(max_size=60))
def test_any_text_has_an_answer(header: str) -> None:
    assert content_coding(header) in {"gzip", "identity", None}
    is_known('"a"', header)


@given(st.text("gzipdenty*;=q01., \t", max_size=40))
def test_text_of_the_grammar_has_an_answer(header: str) -> None:
    assert content_coding(header) in {"gzip", "identity", None}


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ("", False),
        ("*", True),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ('"b","c"', False),
        ('"b, "a"', True),  # not the grammar, but it can only save bytes
        ("a", False),
        ('"A"', False),
        ('"a', False),
        ('"*"', False),
    ],
)
def test_etags(header: str | None, known: bool) -> None:
    assert is_known('"a"', header) is known


def test_long_headers_take_no_long_time() -> None:
    content_coding("gzip;q=" * 2300)
    content_coding(" " * 16_000 + ",")
    content_coding("a" * 16_000)
    is_known('"a"', '"' * 16_000)
    is_known('"a"', 'W/"' + "!" * 16_000)
