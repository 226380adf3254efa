"""Where a server may listen."""

from __future__ import annotations

import ipaddress

from tlog.log import LogError


def check_address(address: str) -> tuple[str, int]:
    """Check an address to listen on: a loopback host and a port.

    Raises:
        LogError: not HOST:PORT, or not loopback.
    """
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise LogError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:6962")
    if host != "localhost":
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise LogError(
                f"refusing to listen on {host}: without TLS and authentication a server listens on "
                "loopback only (127.0.0.1, ::1 or localhost)"
            )
    return host, int(port)
