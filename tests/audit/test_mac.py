"""HMAC-SHA256: the vectors of RFC 4231, and that whoever differs is not used."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.audit.mac import agrees, hmac_sha256

# RFC 4231, sections 4.2, 4.3, 4.4, 4.7 and 4.8: key, message, code.
VECTORS = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 20,
        b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
]


@pytest.mark.parametrize(("key", "message", "code"), VECTORS)
def test_vectors(key: bytes, message: bytes, code: str) -> None:
    assert hmac_sha256(key, message).hex() == code


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_as_the_standard_library(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


def test_whoever_differs_is_not_used() -> None:
    def late(key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message[:999], "sha256")

    def broken(key: bytes, message: bytes) -> bytes:
        raise OSError

    assert agrees(hmac_sha256)
    assert not agrees(late)
    assert not agrees(broken)
