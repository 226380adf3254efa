"""What a request's conditional and negotiating headers ask for (RFC 9110, sections 12.5.3, 13)."""

from __future__ import annotations

import re

_CODING = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;\s*[qQ]=([01](?:\.[0-9]{0,3})?)\s*)?")
_ETAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')


def content_coding(accept_encoding: str | None) -> str | None:
    """The coding an entry bundle is sent in.

    Args:
        accept_encoding: the header, None if the request had none.

    Returns:
        "gzip", "identity", or None when the request refuses both.
    """
    if accept_encoding is None:
        return "identity"
    quality: dict[str, float] = {}
    for element in accept_encoding.split(","):
        if (match := _CODING.fullmatch(element)) is not None:
            quality[match[1].lower()] = min(float(match[2] or 1), 1.0)
    gzip = quality.get("gzip", quality.get("x-gzip", quality.get("*")))
    # RFC 9110: "identity" is acceptable unless it, or "*", is excluded by name.
    identity = quality.get("identity")
    if identity is None:
        identity = 0.0 if quality.get("*") == 0 else None
    if gzip and (identity is None or gzip >= identity):
        return "gzip"
    if identity != 0:
        return "identity"
    # SPEC tlog-tiles: "Logs MAY use `Content-Encoding: gzip` with no negotiation": whoever refuses
    # identity and does not speak of gzip gets it.
    return "gzip" if gzip is None else None


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the requester has the representation with this entity tag already."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)
