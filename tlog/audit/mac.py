"""HMAC-SHA256 (RFC 2104): for each record some five are made, and OpenSSL sets each up anew.

The standard library's is the reference. Where stringzilla is installed its own is used, a quarter
of the time, provided that both agree at import.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

Mac = Callable[[bytes, bytes], bytes]
"""Key and message -> 32 bytes."""


def _reference(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def agrees(mac: Mac) -> bool:
    """Whether a function gives HMAC-SHA256, on both sides of each boundary of a block."""
    lengths = (0, 1, 16, 31, 32, 33, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 1000)
    pattern = bytes(range(251)) * 5
    try:
        return all(
            mac(pattern[:key], pattern[key % 7 :][:size])
            == _reference(pattern[:key], pattern[key % 7 :][:size])
            for key in lengths
            for size in lengths
        )
    except Exception:  # noqa: BLE001  (a broken accelerator, however broken, is not used)
        return False


def _choose() -> Mac:
    try:
        from stringzilla import hmac_sha256 as fast  # noqa: PLC0415  (optional: `speed`)
    except ImportError:
        return _reference
    return fast if agrees(fast) else _reference


hmac_sha256: Final = _choose()
"""The code of a message under a key."""
