"""ML-DSA-44: whoever signs, `cryptography` verifies it; an accelerator that errs is not used."""

import sys
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tlog.notes import Algorithm, Signer, mldsa

SEED = bytes(range(32))
REFERENCE = MLDSA44PrivateKey.from_seed_bytes(SEED)


def reference(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    key = MLDSA44PrivateKey.from_seed_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign


@pytest.fixture(autouse=True)
def chosen_anew() -> Iterator[None]:
    mldsa._accelerator.cache_clear()
    yield
    mldsa._accelerator.cache_clear()


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Crypto.PublicKey", None)


@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300))
def test_signatures_verify(seed: bytes, message: bytes) -> None:
    signer = Signer.from_seed("log", Algorithm.MLDSA44, seed)
    first, second = signer.sign(message), signer.sign(message)
    assert first != second
    for signature in (first, second):
        assert signer.vkey.verifies(signature, message)
        assert not signer.vkey.verifies(signature, message + b"x")
    assert signer.seed == seed


def test_the_accelerator_is_used_where_it_is() -> None:
    assert mldsa.backend() == "pycryptodome"
    assert mldsa.signing(REFERENCE) != REFERENCE.sign


def test_the_reference_without_it(without: None) -> None:
    assert mldsa.backend() == "cryptography"
    assert mldsa.signing(REFERENCE) == REFERENCE.sign
    signer = Signer.from_seed("log", Algorithm.MLDSA44, SEED)
    assert signer.vkey.verifies(signer.sign(b"entry"), b"entry")


def raising(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    raise RuntimeError


def other_key(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    return reference(bytes(32))


def lying_about_the_key(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    return bytes(1312), reference(seed)[1]


def other_context(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    key = MLDSA44PrivateKey.from_seed_bytes(seed)
    return reference(seed)[0], lambda message: key.sign(message, b"context")


def not_hedged(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    public_key, sign = reference(seed)
    made: dict[bytes, bytes] = {}
    return public_key, lambda message: made.setdefault(message, sign(message))


def wrong_at_times(seed: bytes) -> tuple[bytes, mldsa.Sign]:
    public_key, sign = reference(seed)
    calls = iter(range(100))
    return public_key, lambda message: sign(message) if next(calls) == 0 else bytes(2420)


@pytest.mark.parametrize(
    "accelerator",
    [raising, other_key, lying_about_the_key, other_context, not_hedged, wrong_at_times],
)
def test_one_that_errs_is_not_used(
    accelerator: Callable[[bytes], tuple[bytes, mldsa.Sign]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mldsa._agrees_with_cryptography(reference)
    monkeypatch.setattr(mldsa, "_load_pycryptodome", lambda: accelerator)
    assert mldsa.backend() == "cryptography"
    assert mldsa.signing(REFERENCE) == REFERENCE.sign


def test_one_with_another_public_key_for_this_seed_does_not_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it passed the self-check."""

    def sometimes(seed: bytes) -> tuple[bytes, mldsa.Sign]:
        return other_key(seed) if seed == SEED else reference(seed)

    monkeypatch.setattr(mldsa, "_load_pycryptodome", lambda: sometimes)
    assert mldsa.backend() == "pycryptodome"
    assert mldsa.signing(REFERENCE) == REFERENCE.sign
