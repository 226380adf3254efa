"""The leaf: what the log holds of an event. Canonical JSON (RFC 8785), and nothing personal.

    {"jws":"…","received_at":"2026-01-31T17:30:00.000000Z","tokens":[
      {"class":"erasable","epoch":"2026Q1","field":"subject","value":"…"}],"v":1}

The tokens of the subjects come first, one for each, in the order of the event; then those of the
actors, and of the resources.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tlog.audit.catalogue import TokenClass
from tlog.audit.codec import load_json
from tlog.audit.errors import EventRefused
from tlog.audit.event import MAX_ACTORS, MAX_RESOURCES, MAX_SUBJECTS
from tlog.audit.times import format_time, parse_time
from tlog.audit.tokens import FIELDS, Token

MAX_LEAF_SIZE = 65_535
MAX_TOKENS = MAX_SUBJECTS + MAX_ACTORS + MAX_RESOURCES
VERSION = 1

_CLASSES = {each.value: each for each in TokenClass}
_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_EPOCH = re.compile(r"[0-9]{4}Q[1-4]")
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(
    rf'\{{"class":"({"|".join(_CLASSES)})","epoch":"({_EPOCH.pattern})",'
    rf'"field":"({"|".join(FIELDS)})","value":"({_VALUE.pattern})"\}}'
)
_LISTED = _TOKEN.pattern.replace("(", "(?:")
# All of `encode_leaf`, in one look: leaves are read more often than anything else.
_WRITTEN = re.compile(
    (
        rf'\{{"jws":"({_JWS.pattern})",'
        r'"received_at":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)",'
        rf'"tokens":\[((?:{_LISTED}(?:,{_LISTED})*)?)\],"v":{VERSION}\}}'
    ).encode("ascii")
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf, parsed; the signature in it is not verified."""

    jws: str
    received_at: datetime
    tokens: Sequence[Token]


def encode_leaf(leaf: Leaf) -> bytes:
    """The bytes of a leaf.

    Its values need no escaping and its names stand sorted, so this is RFC 8785 by construction.

    Raises:
        EventRefused: longer than an entry can be.
    """
    tokens = ",".join(
        [
            f'{{"class":"{token.token_class}","epoch":"{token.epoch}",'
            f'"field":"{token.field}","value":"{token.value}"}}'
            for token in leaf.tokens
        ]
    )
    encoded = (
        f'{{"jws":"{leaf.jws}","received_at":"{format_time(leaf.received_at)}",'
        f'"tokens":[{tokens}],"v":{VERSION}}}'
    ).encode("ascii")
    if len(encoded) > MAX_LEAF_SIZE:
        raise EventRefused(f"a leaf of {len(encoded)} bytes is over {MAX_LEAF_SIZE}")
    return encoded


def parse_leaf(data: bytes) -> Leaf:
    """Read a leaf: exactly what `encode_leaf` writes.

    Raises:
        EventRefused: it is none, or spelled in another way.
    """
    if len(data) > MAX_LEAF_SIZE:
        raise EventRefused(f"over {MAX_LEAF_SIZE} bytes", field="leaf")
    written = _WRITTEN.fullmatch(data)
    if written is None:
        raise _refusal(data)
    jws, received_at, listed = (part.decode("ascii") for part in written.groups())
    tokens = tuple(
        Token(_CLASSES[name], epoch, field, value)
        for name, epoch, field, value in _TOKEN.findall(listed)
    )
    if len(tokens) > MAX_TOKENS:
        raise EventRefused(f"a list of at most {MAX_TOKENS}", field="leaf.tokens")
    return Leaf(jws, parse_time(received_at, field="leaf.received_at"), tokens)


def _refusal(data: bytes) -> EventRefused:
    """What is wrong with what `encode_leaf` does not write."""
    try:
        _explain(data)
    except EventRefused as error:
        return error
    return EventRefused("not in canonical form (RFC 8785)", field="leaf")


def _explain(data: bytes) -> None:
    made = load_json(data, field="leaf")
    if type(made) is not dict or made.keys() != {"jws", "received_at", "tokens", "v"}:
        raise EventRefused("no leaf of a record: jws, received_at, tokens and v", field="leaf")
    if type(made["v"]) is not int or made["v"] != VERSION:
        raise EventRefused(f"only version {VERSION} is known", field="leaf.v")
    jws, received_at, tokens = made["jws"], made["received_at"], made["tokens"]
    if type(jws) is not str or not _JWS.fullmatch(jws):
        raise EventRefused("not a compact JWS", field="leaf.jws")
    if type(received_at) is not str:
        raise EventRefused("a time of RFC 3339", field="leaf.received_at")
    if type(tokens) is not list or len(tokens) > MAX_TOKENS:
        raise EventRefused(f"a list of at most {MAX_TOKENS}", field="leaf.tokens")
    parse_time(received_at, field="leaf.received_at")
    for i, token in enumerate(tokens):
        _explain_token(token, f"leaf.tokens[{i}]")


def _explain_token(made: Any, field: str) -> None:
    if type(made) is not dict or made.keys() != {"class", "epoch", "field", "value"}:
        raise EventRefused("class, epoch, field and value", field=field)
    if not all(type(value) is str for value in made.values()):
        raise EventRefused("holds strings only", field=field)
    if made["class"] not in _CLASSES or made["field"] not in FIELDS:
        raise EventRefused("of an unknown class or field", field=field)
    if not _EPOCH.fullmatch(made["epoch"]) or not _VALUE.fullmatch(made["value"]):
        raise EventRefused("with a malformed epoch or value", field=field)
