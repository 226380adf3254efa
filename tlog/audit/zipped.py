"""Zip files in one spelling: what any `unzip` reads, and we read only as we write it.

Members stand in the order of their names, stored, without dates, comments, extra fields or gaps:
so each byte of a file has one right value, nothing can be hidden between members, and nothing
unpacks to more than it is. A member's name is relative, of plain characters, and climbs nowhere.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from tlog.audit.errors import AuditError

MAX_ZIP_SIZE: Final = 64 << 20
MAX_MEMBERS: Final = 16_384
MAX_NAME: Final = 128

# PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16; all numbers are little-endian.
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")
_NEEDED: Final = 10  # version 1.0: files, stored
_MADE_BY: Final = 3 << 8 | 30  # Unix, for the mode
_MIDNIGHT, _NEW_YEAR_1980 = 0, 1 << 5 | 1
_MODE: Final = 0o100644 << 16  # a file, not a symbolic link
_COMPONENT = r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")


class ZipError(AuditError):
    """Bytes that are no zip file as `write_zip` makes it."""


def write_zip(members: Mapping[str, bytes]) -> bytes:
    """The file with these members.

    Raises:
        ZipError: too many or too large, or a name that is refused.
    """
    if len(members) > MAX_MEMBERS:
        raise ZipError(f"{len(members)} members, the limit is {MAX_MEMBERS}")
    body, directory, offset = [], [], 0
    for name in sorted(members):
        check_name(name)
        data = members[name]
        local = _local(name, data)
        body += [local, data]
        directory.append(_central(name, data, offset))
        offset += len(local) + len(data)
        if offset > MAX_ZIP_SIZE:
            break
    central = b"".join(directory)
    size = offset + len(central) + _END.size
    if size > MAX_ZIP_SIZE:
        raise ZipError(f"it has over {MAX_ZIP_SIZE} bytes, the most that is read")
    end = _END.pack(_SIGNATURES[2], 0, 0, len(members), len(members), len(central), offset, 0)
    return b"".join([*body, central, end])


def read_zip(data: bytes) -> dict[str, bytes]:
    """Inverse of `write_zip`, of bytes that a stranger gave.

    Raises:
        ZipError: what is wrong, and with which member.
    """
    if len(data) > MAX_ZIP_SIZE:
        raise ZipError(f"{len(data)} bytes, the limit is {MAX_ZIP_SIZE}")
    if len(data) < _END.size or not data.startswith(_SIGNATURES[:1] + _SIGNATURES[2:]):
        raise ZipError("no zip file")
    at = len(data) - _END.size
    signature, disk, first, here, count, size, start, comment = _END.unpack_from(data, at)
    if signature != _SIGNATURES[2] or comment:
        raise ZipError("the end of the zip file is missing, or there is something after it")
    if disk or first or here != count or count > MAX_MEMBERS:
        raise ZipError(f"a zip file in parts, or with more than {MAX_MEMBERS} members")
    if start + size != at:
        raise ZipError("its directory is not where the end of the zip file says")
    members: dict[str, bytes] = {}
    place, offset, last = start, 0, ""
    for _ in range(count):
        name, length, crc = _read_central(data, place, at, offset)
        if name <= last:
            raise ZipError(f"{name} comes twice, or out of the order of names")
        begin = offset + _LOCAL.size + len(name)
        content = data[begin : begin + length]
        if begin + length > start or data[offset:begin] != _local(name, content, crc):
            raise ZipError(f"{name}: its header is not what the directory says")
        if crc32(content) != crc:
            raise ZipError(f"{name} is damaged: it does not have its CRC-32")
        members[name] = content
        place += _CENTRAL.size + len(name)
        offset, last = begin + length, name
    if (place, offset) != (at, start):
        raise ZipError("there is something between its members, or after its directory")
    return members


def check_name(name: str) -> None:
    """Refuse a name that not every system takes for the same file below here."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ZipError(
            f"{name!r:.160} is no name of a member: a relative path of A-Z a-z 0-9 . _ -"
        )


def _read_central(data: bytes, place: int, end: int, offset: int) -> tuple[str, int, int]:
    """The name, the size and the CRC-32 of the member that begins at an offset."""
    if place + _CENTRAL.size > end:
        raise ZipError("its directory is cut short")
    fields = _CENTRAL.unpack_from(data, place)
    flags, method, crc, _, length, name_size = *fields[3:5], *fields[7:11]
    raw = data[place + _CENTRAL.size : min(place + _CENTRAL.size + name_size, end)]
    if not raw.isascii():
        raise ZipError(f"the name {raw!r:.160} is not ASCII")
    name = raw.decode("ascii")
    check_name(name)
    if flags & 1:
        raise ZipError(f"{name} is encrypted")
    if method:
        raise ZipError(f"{name} is compressed (method {method}): members are stored as they are")
    if (mode := fields[15]) != _MODE:
        raise ZipError(f"{name} is no plain file: it has the mode {mode >> 16:o}")
    if data[place : place + _CENTRAL.size + len(raw)] != _central(
        name, b"", offset, crc=crc, size=length
    ):
        raise ZipError(f"{name}: the directory has what we never write: a date, a gap, a comment")
    return name, length, crc


def _local(name: str, data: bytes, crc: int | None = None) -> bytes:
    return (
        _LOCAL.pack(
            *(_SIGNATURES[0], _NEEDED, 0, 0, _MIDNIGHT, _NEW_YEAR_1980),
            *(crc32(data) if crc is None else crc, len(data), len(data), len(name), 0),
        )
        + name.encode()
    )


def _central(
    name: str, data: bytes, offset: int, *, crc: int | None = None, size: int | None = None
) -> bytes:
    crc, size = crc32(data) if crc is None else crc, len(data) if size is None else size
    return (
        _CENTRAL.pack(
            *(_SIGNATURES[1], _MADE_BY, _NEEDED, 0, 0, _MIDNIGHT, _NEW_YEAR_1980),
            *(crc, size, size, len(name), 0, 0, 0, 0, _MODE, offset),
        )
        + name.encode()
    )
