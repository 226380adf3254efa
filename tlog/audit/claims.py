"""The kinds of claims, and what each lets through.

A check returns the text in which personal data is to be looked for: what people may write freely,
and whatever else may hold a number of somebody. Of hex that is digits from end to end: somewhere in
a digest, or an id, a number of a card comes up by chance.

`searched = false` in the catalogue is for a name, an integer or hex that cannot be anybody's, and
must not be refused for how it looks: what is registered, a place in a sequence, drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tlog.audit.errors import CatalogueError, EventRefused
from tlog.audit.times import parse_time
from tlog.notes import NoteError, VerifierKey

MAX_STRING = 1024
"""Most characters of one string of a public claim, whatever the catalogue says."""
MAX_STRINGS = 64
MAX_INTEGER = (1 << 53) - 1
"""The largest integer that every JSON parser keeps (RFC 8259, section 6)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = r'\{"protected":"[A-Za-z0-9_-]+","signature":"[A-Za-z0-9_-]+"\}'
# RFC 7515, section 7.2.1, with no unprotected header: nothing in it is in no signature.
_SIGNED = re.compile(
    rf'\{{"payload":"[A-Za-z0-9_-]+","signatures":\[{_SIGNATURE}(?:,{_SIGNATURE})*\]\}}'
)
_HEX = re.compile(r"(?:[0-9a-f]{2})+")

Check = Callable[[str, Any], str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a catalogue says of one claim.

    Attributes:
        name: as in the event.
        personal: disclosed only; else it stands in the clear.
        check: refuses a value with EventRefused; None when any JSON value will do.
    """

    name: str
    personal: bool
    check: Check | None


def claim_of(name: str, table: dict[str, Any]) -> Claim:
    """A claim from its table in a catalogue.

    Raises:
        CatalogueError: what is wrong with the table.
    """
    where = f"claims.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise CatalogueError("a name of a-z, 0-9 and _, at most 63", field=where)
    rest = dict(table)
    personal, kind = rest.pop("personal", False), rest.pop("kind", None)
    if not isinstance(personal, bool):
        raise CatalogueError("true or false", field=f"{where}.personal")
    if kind == "any" and not personal:
        raise CatalogueError("a public claim needs a kind that bounds it", field=f"{where}.kind")
    check = None if kind == "any" else _check_of(kind, rest, where)
    if rest:
        raise CatalogueError("not a setting of this kind", field=f"{where}.{min(rest)}")
    return Claim(name, personal, check)


def _check_of(kind: object, rest: dict[str, Any], where: str) -> Check:
    match kind:
        case "string" | "strings":
            text = _string(_bound(rest, "max", 256, MAX_STRING, where))
            return text if kind == "string" else _strings(text)
        case "name" | "integer" | "hex":
            return _bounded(kind, rest, where)
        case "enum":
            return _enum(rest.pop("values", None), where)
    if not isinstance(kind, str) or kind not in _SIMPLE:
        raise CatalogueError(f"unknown kind {kind!r}", field=f"{where}.kind")
    return _SIMPLE[kind]


def _bounded(kind: str, rest: dict[str, Any], where: str) -> Check:
    """The check of a kind in which nobody writes freely, and yet there may be anybody's number."""
    check = check_producer_name
    if kind == "integer":
        check = _integer(_bound(rest, "min", -MAX_INTEGER, MAX_INTEGER, where))
    elif kind == "hex":
        check = _pattern(_HEX, "lowercase hex", _bound(rest, "max", 256, MAX_STRING, where))
    searched = rest.pop("searched", True)
    if type(searched) is not bool:
        raise CatalogueError("true or false", field=f"{where}.searched")
    if not searched:
        return check

    def check_and_search(field: str, value: Any) -> str:
        check(field, value)
        text = str(value)
        return text if kind != "hex" or text.isdigit() else ""

    return check_and_search


def _bound(rest: dict[str, Any], key: str, default: int, limit: int, where: str) -> int:
    value = rest.pop(key, default)
    if type(value) is not int or abs(value) > limit:
        raise CatalogueError(f"an integer of at most {limit}", field=f"{where}.{key}")
    return value


def _string(limit: int) -> Check:
    def check(field: str, value: Any) -> str:
        if type(value) is not str or not value:
            raise EventRefused("a string that is not empty", field=field)
        if len(value) > limit:
            raise EventRefused(
                f"{len(value)} characters, the limit is {limit}: put it into `details`, which is "
                "personal, or shorten it",
                field=field,
            )
        if _CONTROL.search(value):
            raise EventRefused("it holds a control character or half of one", field=field)
        return value

    return check


def _strings(item: Check) -> Check:
    def check(field: str, value: Any) -> str:
        if type(value) is not list or not 1 <= len(value) <= MAX_STRINGS:
            raise EventRefused(f"a list of 1 to {MAX_STRINGS} strings", field=field)
        return "\n".join(item(f"{field}[{i}]", each) for i, each in enumerate(value))

    return check


def _integer(least: int) -> Check:
    def check(field: str, value: Any) -> str:
        if type(value) is not int or not least <= value <= MAX_INTEGER:
            raise EventRefused(f"an integer of at least {least}, below 2^53", field=field)
        return ""

    return check


def _enum(values: object, where: str) -> Check:
    if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
        raise CatalogueError("a list of strings", field=f"{where}.values")
    allowed = frozenset(values)

    def check(field: str, value: Any) -> str:
        if type(value) is not str or value not in allowed:
            raise EventRefused(f"one of {', '.join(sorted(allowed))}", field=field)
        return ""

    return check


def _pattern(pattern: re.Pattern[str], what: str, limit: int) -> Check:
    def check(field: str, value: Any) -> str:
        if type(value) is not str or len(value) > limit or not pattern.fullmatch(value):
            raise EventRefused(what, field=field)
        return ""

    return check


def _boolean(field: str, value: Any) -> str:
    if type(value) is not bool:
        raise EventRefused("true or false", field=field)
    return ""


def _time(field: str, value: Any) -> str:
    if type(value) is not str:
        raise EventRefused("a string with a time of RFC 3339", field=field)
    parse_time(value, field=field)
    return ""


def _vkey(field: str, value: Any) -> str:
    try:
        VerifierKey.parse(value if type(value) is str else "")
    except NoteError as error:
        raise EventRefused(f"a vkey: {error}", field=field) from None
    return ""


_SIMPLE: Final[dict[str, Check]] = {
    "boolean": _boolean,
    "time": _time,
    "vkey": _vkey,
    "uuid7": _pattern(_UUID7, "a UUID of version 7 (RFC 9562), in lowercase", 36),
    "signed": _pattern(_SIGNED, "a JWS in the general JSON serialization (RFC 7515)", 8192),
    "sha256": _pattern(_SHA256, "a SHA-256 hash in lowercase hex", 64),
}

check_producer_name: Final[Check] = _pattern(
    _NAME, "a name of a-z, 0-9, `.`, `_` and `-`, at most 63", 63
)
"""The check of the name of a producer, or of a tenant."""

_identifier: Final[Check] = _string(512)


def check_identifier(field: str, value: Any) -> str:
    """The check of a subject's identifier: none is empty in its canonical form."""
    text = _identifier(field, value)
    if not text.strip():
        raise EventRefused("a string that is not all space", field=field)
    return text


def event_id_bytes(event_id: str) -> bytes:
    """The 16 bytes of an event id that passed its check; they sort by the time of its making."""
    return bytes.fromhex(event_id.replace("-", ""))
