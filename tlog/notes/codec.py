"""The few encodings that every text format of C2SP shares: one canonical form, nothing else.

Two spellings of one value would let somebody change a text without changing its meaning, so each
reader here accepts exactly what its writer produces.
"""

import binascii
import re

from tlog.merkle.hashing import HASH_SIZE
from tlog.notes.errors import NoteError

MAX_INTEGER = (1 << 63) - 1
"""Largest tree size, index or timestamp. SPEC tlog-cosignature: "It MUST NOT exceed 2^63 - 1"."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SHOWN = 80


def shown(value: str | bytes) -> str:
    """`value` as it may stand in an error message: escaped, and cut when it is long."""
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}…"


def encode_base64(data: bytes) -> str:
    """Standard base64 (RFC 4648 section 4), padded."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Inverse of `encode_base64`; refuses every other spelling with NoteError."""
    try:
        data = binascii.a2b_base64(text)
    except ValueError as error:
        raise NoteError(f"{shown(text)} is not base64: {error}") from None
    if encode_base64(data) != text:
        raise NoteError(f"{shown(text)} is not canonical base64 (RFC 4648 section 4, padded)")
    return data


def decode_hash(text: str) -> bytes:
    """One SHA-256 hash in base64."""
    data = decode_base64(text)
    if len(data) != HASH_SIZE:
        raise NoteError(f"{shown(text)} holds {len(data)} bytes, a SHA-256 hash has {HASH_SIZE}")
    return data


def parse_decimal(text: str) -> int:
    """ASCII decimal below 2^63, with no sign and no leading zeroes (but for `0` itself)."""
    if not _DECIMAL.fullmatch(text) or (number := int(text)) > MAX_INTEGER:
        raise NoteError(f"{shown(text)} is not a decimal below 2^63 without leading zeroes")
    return number


def check_integer(value: int, what: str) -> None:
    """Refuse a size, index or timestamp outside [0, 2^63)."""
    if not 0 <= value <= MAX_INTEGER:
        raise NoteError(f"{what} {value} is outside 0 to 2^63 - 1")


def decode_utf8(data: bytes, what: str) -> str:
    """Strict UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NoteError(f"{what} is not valid UTF-8: {error.reason} on line {line}") from None


def encode_utf8(text: str, what: str) -> bytes:
    """UTF-8; NoteError for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise NoteError(f"{what} {shown(text)} cannot be encoded in UTF-8") from None


def check_text(text: str, what: str) -> None:
    """Refuse control characters.

    SPEC signed-note: "MUST NOT contain any ASCII control characters (those below U+0020) other
    than newline".
    """
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise NoteError(
            f"{what} holds the control character U+{ord(found[0]):04X} on line {line}; "
            "only newline is allowed"
        )
