"""Bytes in a personal claim, verbatim: what somebody signed counts only as it was signed.

JSON has no bytes. In a disclosure they are an object with one name, in standard base64 with its
padding (RFC 4648, section 4), so that any tool has them back:

    {"base64": "JVBERi0xLjc="}
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from typing import Any, Final

from tlog.audit.errors import EventRefused

MAX_DOCUMENT: Final = 32 * 1024
"""Bytes of one document: then its disclosure has room for it (`sdjwt.MAX_DISCLOSURE_SIZE`)."""
_MARK: Final = "base64"


def marked(value: Any, *, field: str) -> Any:
    """A value in which all bytes, at any depth, are marked text.

    Raises:
        EventRefused: a document is too long.
    """
    match value:
        case bytes() | bytearray():
            if len(value) > MAX_DOCUMENT:
                raise EventRefused(
                    f"a document of {len(value)} bytes, the limit is {MAX_DOCUMENT}: keep it "
                    "elsewhere, and its SHA-256 here",
                    field=field,
                )
            return {_MARK: b2a_base64(value, newline=False).decode("ascii")}
        case Mapping():
            return {name: marked(each, field=field) for name, each in value.items()}
        case list() | tuple():
            return [marked(each, field=field) for each in value]
    return value


def bytes_of(value: Any) -> bytes:
    """The bytes that a claim was given as.

    Raises:
        EventRefused: it was given as something else.
    """
    match value:
        case {"base64": str() as text} if len(value) == 1:
            try:
                return a2b_base64(text.encode("ascii"), strict_mode=True)
            except ValueError:
                raise EventRefused("not base64 (RFC 4648, section 4)", field=_MARK) from None
    raise EventRefused('not bytes, which are {"base64": …}')
