"""Tokens: keyed pseudonyms in the leaf, so that records are found with no plaintext at hand.

    value = HMAC-SHA256(key, "tlog/token/v1" 0x00 field 0x00 epoch 0x00 canonical identifier)

The key is the tenant's for the epoch (class evidence), or that of the subject (class erasable).
Epochs bound what the equality of tokens tells: two tokens of two quarters have nothing in common.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from tlog.audit.catalogue import TokenClass
from tlog.audit.codec import encode_base64url
from tlog.audit.mac import hmac_sha256

FIELDS = ("subject", "actor", "resource")
MAX_NAME = 1024
"""Characters of an actor or a resource that is found by its token."""


class Token(NamedTuple):
    """One token of a leaf.

    Attributes:
        token_class: whose key made it.
        epoch: `2026Q1`: the quarter of the receipt, in UTC.
        field: what it is of: `subject`, `actor` or `resource`.
        value: 32 bytes in base64url.
    """

    token_class: TokenClass
    epoch: str
    field: str
    value: str


def epoch_of(time: datetime) -> str:
    """The epoch of a time, which is in UTC."""
    return f"{time.year:04}Q{(time.month + 2) // 3}"


def canonical(identifier: str) -> str:
    """The one spelling of an identifier: NFKC, no case, no space around it; it is its own, too.

    Published, so that others may check which token an identifier has.
    """
    if identifier.isascii():
        return identifier.strip().lower()
    # NFKC may bring back capitals and space: `№` is `No`. What is found by the form of a form, as
    # the record of a read, must be whoever it was.
    while (form := unicodedata.normalize("NFKC", identifier.strip().casefold())) != identifier:
        identifier = form
    return form


def identifier_of(value: Any) -> str | None:
    """What an actor or a resource is known by: the string, or its `id`; None if it has none."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and value else None


def identifiers_of(value: Any) -> list[str]:
    """What a resource, or each of a list of them, is known by: in canonical form, and once."""
    return forms_of(map(identifier_of, value if isinstance(value, list) else [value]))


def forms_of(names: Iterable[str | None]) -> list[str]:
    """The canonical form of each name, once; of none that is longer than one can ask for.

    NFKC puts marks that combine in order with the square of how many there are.
    """
    found = [canonical(name) for name in names if name is not None and len(name) <= MAX_NAME]
    return found if len(found) < 2 else list(dict.fromkeys(found))


def make_token(
    key: bytes, token_class: TokenClass, *, epoch: str, field: str, identifier: str
) -> Token:
    """The token of an identifier that is in canonical form."""
    message = f"tlog/token/v1\0{field}\0{epoch}\0{identifier}".encode("utf-8", "surrogatepass")
    value = encode_base64url(hmac_sha256(key, message))
    return Token(token_class, epoch, field, value)
