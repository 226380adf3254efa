"""The encodings of the room, strict: base64url without padding, and bounded JSON."""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections import Counter
from collections.abc import Callable, Sequence
from math import isinf
from typing import Any, NoReturn

from tlog.audit.errors import EventRefused

MAX_DEPTH = 16
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # `!` is in no alphabet
_SPACE = " \t\n\r"


def encode_base64url(data: bytes) -> str:
    """RFC 4648, section 5, without padding."""
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def decode_base64url(text: str, *, field: str) -> bytes:
    """Inverse of `encode_base64url`, but for spare bits, which may be set.

    What is signed, or hashed, in its encoded form has no second spelling all the same.
    """
    try:
        padded = text.encode("ascii").translate(_FROM_URL) + b"=="[: -len(text) % 4]
        return a2b_base64(padded, strict_mode=True)
    except ValueError:
        raise EventRefused("not base64url (RFC 4648, section 5, no padding)", field=field) from None


def load_json(data: bytes, *, field: str) -> Any:
    """One JSON value: UTF-8, no name twice in an object, no NaN, at most 17 levels deep.

    That is a disclosure, and a value of `MAX_DEPTH` in it. What is read can be written again, then,
    by whoever is a few calls further down.

    The caller bounds the bytes.
    """
    try:
        text = data.decode("utf-8").strip(_SPACE)
        value, end = _scan(text, 0)
    except EventRefused as refusal:
        raise EventRefused(str(refusal), field=field) from None
    except StopIteration:
        raise EventRefused("not JSON: no value where one should be", field=field) from None
    except (ValueError, RecursionError) as error:
        raise EventRefused(f"not JSON: {error}", field=field) from None
    if end != len(text):
        raise EventRefused("not JSON: more than one value", field=field)
    # Each level takes a bracket, and nearly all have few of them.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        check_depth(value, field=field, depth=MAX_DEPTH + 1)
    return value


def check_depth(value: Any, *, field: str, depth: int = MAX_DEPTH) -> None:
    """Refuse a value that is nested too deep."""
    if isinstance(value, (dict, list)):
        if not depth:
            raise EventRefused(f"nested deeper than {MAX_DEPTH}", field=field)
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                check_depth(item, field=field, depth=depth - 1)


def dump_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, names sorted."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = next(name for name, times in names.items() if times > 1)
        raise EventRefused(f"the name {twice!r:.80} stands twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise EventRefused(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise EventRefused(f"{text:.40} is too large a number")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
# Without `decode`, which looks for space with two regular expressions.
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]
