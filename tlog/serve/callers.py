"""Who calls, as the transport knows it; identities of TLS and tokens come in here later.

On loopback the kernel knows whose socket the call came from: `/proc/net/tcp` says so.
"""

from __future__ import annotations

import contextlib
import ipaddress
import pwd
import re
import struct
from pathlib import Path
from urllib.parse import unquote

from tlog.audit.reading import Caller
from tlog.serve.handlers import Context

_PEER = re.compile(r"ipv[46]:\[?([0-9a-fA-F:.]+)\]?:([0-9]{1,5})")
_ESTABLISHED = "01"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def caller_of(context: Context) -> Caller:
    """Who makes a call: the local user, or where it came from when that is all that is known."""
    match = _PEER.fullmatch(unquote(context.peer()))
    if match is None:
        return Caller("nowhere", "unknown")
    try:
        address = ipaddress.ip_address(match[1])
    except ValueError:
        return Caller("nowhere", "unknown")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_loopback:
        return Caller("this network" if address.is_private else "the internet", "unknown")
    uid = owner_of(address, int(match[2]))
    if uid is None:
        return Caller("this machine", "unknown")
    with contextlib.suppress(KeyError):
        return Caller(pwd.getpwuid(uid).pw_name, "local_user")
    return Caller(f"uid {uid}", "local_user")


def owner_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> int | None:
    """The user whose connection is from an address of this machine; None if nobody can tell."""
    wanted = [f"{_spelt(address)}:{port:04X}"]
    if isinstance(address, ipaddress.IPv4Address):
        # A socket of IPv6 may speak IPv4.
        wanted.append(f"{_spelt(ipaddress.IPv6Address(f'::ffff:{address}'))}:{port:04X}")
    found = set()
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open() as lines:
            for line in lines:
                fields = line.split()
                # What is left of a closed connection says that it was root's.
                if len(fields) > 7 and fields[1] in wanted and fields[3] == _ESTABLISHED:
                    found.add(int(fields[7]) if fields[7].isdecimal() else None)
    # Two connections may leave from one port, to two servers: then it may be either's.
    return found.pop() if len(found) == 1 else None


def _spelt(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As the kernel writes it: words in the order of this machine's bytes."""
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", address.packed))
