"""Signing with ML-DSA-44 (FIPS 204): in half the time where PyCryptodome is installed.

`cryptography` is the reference: it keeps the keys, makes them and verifies everything. PyCryptodome
(mldsa-native, in C) only signs, provided that in a self-check its key of a seed is the reference's,
and its signatures verify there. Both are hedged: two signatures of one message differ.
"""

import functools
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

Sign: TypeAlias = Callable[[bytes], bytes]
"""A message -> the bare signature over it, 2420 bytes. In any thread; it lets go of the GIL."""
_Keyed: TypeAlias = Callable[[bytes], tuple[bytes, Sign]]
"""A seed -> the public key, and what signs with the private one."""

_CHECKS: Final = 3


def signing(key: MLDSA44PrivateKey) -> Sign:
    """What signs with this key, as fast as can be."""
    if (keyed := _accelerator()) is None:
        return key.sign
    public_key, sign = keyed(key.private_bytes_raw())
    return sign if public_key == key.public_key().public_bytes_raw() else key.sign


def backend() -> str:
    """The library that signs."""
    return "cryptography" if _accelerator() is None else "pycryptodome"


@functools.cache
def _accelerator() -> _Keyed | None:
    # At the first key, not at import: who only verifies does not wait for it.
    keyed = _load_pycryptodome()
    return keyed if keyed is not None and _agrees_with_cryptography(keyed) else None


def _load_pycryptodome() -> _Keyed | None:
    try:
        # Optional: the `speed` extra.
        from Crypto.PublicKey import MLDSA  # noqa: PLC0415
        from Crypto.Signature import mldsa  # noqa: PLC0415
    except ImportError:  # not there, or of a version without ML-DSA
        return None

    def keyed(seed: bytes) -> tuple[bytes, Sign]:
        key = MLDSA.construct(param_set=MLDSA.ML_DSA_44, seed=seed)
        return key.pk, mldsa.new(key).sign

    return keyed


def _agrees_with_cryptography(keyed: _Keyed) -> bool:
    """Whether another implementation has the reference's keys and makes signatures it accepts."""
    try:
        for number in range(_CHECKS):
            reference = MLDSA44PrivateKey.from_seed_bytes(bytes([number]) * 32).public_key()
            public_key, sign = keyed(bytes([number]) * 32)
            message = bytes(range(number * 100))
            first, second = sign(message), sign(message)
            reference.verify(first, message)
            reference.verify(second, message)
            if first == second or public_key != reference.public_bytes_raw():
                return False
    except Exception:  # noqa: BLE001  (a broken accelerator, however broken, is not used)
        return False
    return True
