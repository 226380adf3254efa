"""The URLs by which others are reached: http(s):// for what speaks C2SP, grpc:// for tlog."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from tlog.log import LogError
from tlog.notes.codec import shown

MAX_URL_SIZE = 2048


class AddressError(LogError, ValueError):
    """A URL that leads nowhere from here. The message says what one looks like."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where somebody is reached.

    Attributes:
        url: without a slash at the end, its scheme in lowercase.
        target: host and port.
        path: what follows them, without slashes around it.
        grpc: tlog's own protocol, not HTTP.
    """

    url: str
    target: str
    path: str
    grpc: bool


def parse_address(url: str) -> Address:
    """Read a URL.

    Raises:
        AddressError: not one of the forms that are known.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"{shown(url)} is not a URL: {error}") from None
    if (
        len(url) > MAX_URL_SIZE
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or not host
        or parts.scheme not in {"http", "https", "grpc"}
        or any(mark in url for mark in "@?#")
        or (parts.scheme == "grpc" and port is None)
    ):
        raise AddressError(
            f"{shown(url)} is not an address: expected http://HOST[:PORT][/PREFIX], the same with "
            "https, or grpc://HOST:PORT"
        )
    path = parts.path.strip("/")
    # Whether there is TLS is read from the scheme, of which every spelling means the same.
    url = parts.scheme + url[len(parts.scheme) :].rstrip("/")
    return Address(url, parts.netloc, path, parts.scheme == "grpc")
