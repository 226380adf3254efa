"""Zip files: others read ours, and of others' we read only those that are spelt as ours."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlog.audit.zipped import MAX_MEMBERS, MAX_ZIP_SIZE, ZipError, read_zip, write_zip

MEMBERS = {"a.txt": b"one", "b/c.json": b"", "b/d": bytes(range(256)) * 9}
GOOD = write_zip(MEMBERS)

names = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}(\.[a-z]{1,4})?(/[a-z0-9]{1,9}){0,2}", fullmatch=True
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(names, st.binary(max_size=300), max_size=8))
def test_others_read_what_we_write_and_so_do_we(members: dict[str, bytes]) -> None:
    data = write_zip(members)
    assert read_zip(data) == members
    theirs = zipfile.ZipFile(BytesIO(data))
    assert theirs.testzip() is None
    assert {name: theirs.read(name) for name in theirs.namelist()} == members
    assert theirs.namelist() == sorted(members)
    assert all(info.external_attr >> 16 == 0o100644 for info in theirs.infolist())


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(GOOD)):
        for bit in range(8) if position < 200 or position > len(GOOD) - 250 else (position % 8,):
            bad = bytearray(GOOD)
            bad[position] ^= 1 << bit
            with pytest.raises(ZipError):
                read_zip(bytes(bad))


def test_every_other_length_is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(ZipError):
            read_zip(GOOD[:length])
    for more in (b"\0", b"PK\x05\x06" + bytes(18), GOOD):
        with pytest.raises(ZipError):
            read_zip(GOOD + more)
        with pytest.raises(ZipError):
            read_zip(more + GOOD)


def theirs(
    change: Callable[[zipfile.ZipInfo], None] = lambda _: None,
    *,
    name: str = "a.txt",
    content: bytes = b"one",
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """A file that Python's own module has written."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        info = zipfile.ZipInfo(name)
        info.create_system, info.create_version, info.extract_version = 3, 30, 10
        info.external_attr = 0o100644 << 16
        info.compress_type = method
        change(info)
        file.writestr(info, content)
    return out.getvalue()


def with_mode(mode: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, "external_attr", mode << 16)


def of_date(info: zipfile.ZipInfo) -> None:
    info.date_time = (2026, 1, 31, 9, 30, 0)


def with_extra(info: zipfile.ZipInfo) -> None:
    info.extra = b"\x75\x70\x00\x00"


def with_comment(info: zipfile.ZipInfo) -> None:
    info.comment = b"more"


def raw_name(raw: bytes) -> bytes:
    return GOOD.replace(b"a.txt", raw)


def flagged(flag: int) -> bytes:
    """As the bit of a flag says, everywhere."""
    local, central = GOOD.index(b"PK\x03\x04") + 6, GOOD.index(b"PK\x01\x02") + 8
    bad = bytearray(GOOD)
    bad[local : local + 2] = bad[central : central + 2] = struct.pack("<H", flag)
    return bytes(bad)


def twice() -> bytes:
    """The same name for two members."""
    return write_zip({"a.txt": b"one", "b.txt": b"two"}).replace(b"b.txt", b"a.txt")


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no zip file"),
    "no zip": (b"%PDF-1.7 " * 9, "no zip file"),
    "compressed": (theirs(method=zipfile.ZIP_DEFLATED), "is compressed (method 8)"),
    "a bomb": (theirs(method=zipfile.ZIP_DEFLATED, content=bytes(64 << 20)), "is compressed"),
    "another method": (theirs(method=zipfile.ZIP_LZMA), "is compressed (method 14)"),
    "encrypted": (flagged(1), "a.txt is encrypted"),
    "a size that comes later": (flagged(8), "the directory has what we never write"),
    "a symbolic link": (theirs(with_mode(0o120777)), "is no plain file: it has the mode 120777"),
    "a directory": (theirs(with_mode(0o040755)), "is no plain file"),
    "a program": (theirs(with_mode(0o100755)), "is no plain file"),
    "a date": (theirs(of_date), "the directory has what we never write"),
    "an extra field": (theirs(with_extra), "the directory has what we never write"),
    "a comment": (theirs(with_comment), "the directory has what we never write"),
    "a name twice": (twice(), "a.txt comes twice, or out of the order of names"),
    "a name that climbs": (raw_name(b"../ab"), "'../ab' is no name of a member"),
    "a name from the root": (raw_name(b"/etc/"), "is no name of a member"),
    "a name of Windows": (raw_name(b"C:\\ab"), "is no name of a member"),
    "a hidden name": (raw_name(b".abcd"), "is no name of a member"),
    "an empty component": (raw_name(b"a//bc"), "is no name of a member"),
    "a name with a null": (raw_name(b"a.t\0t"), "is no name of a member"),
    "a name with a newline": (raw_name(b"a.tx\n"), "is no name of a member"),
    "a name that is not UTF-8": (raw_name(b"a\xff\xfe.t"), "is not ASCII"),
    "a name in UTF-8": (raw_name("ä.tx".encode()), "is not ASCII"),
    "no name": (theirs(name="a", content=b"").replace(b"\x01\x00\x00\x00a", b"\0\0\0\0"), "zip"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_is_refused(bad: str) -> None:
    data, message = BAD[bad]
    with pytest.raises(ZipError) as caught:
        read_zip(data)
    assert message in str(caught.value)


def test_a_directory_that_lies_about_sizes() -> None:
    choose = random.Random(7)
    central = GOOD.index(b"PK\x01\x02")
    for offset in (16, 20, 24, 28, 30, 32, 42):
        for value in (1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, choose.getrandbits(31)):
            bad = bytearray(GOOD)
            bad[central + offset : central + offset + 2] = struct.pack("<H", value & 0xFFFF)
            bad[-10:-6] = struct.pack("<L", value) if offset == 42 else bad[-10:-6]
            with pytest.raises(ZipError):
                read_zip(bytes(bad))


def test_many_members_that_are_not_there_take_no_memory() -> None:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0, 0, 0)
    tracemalloc.start()
    with pytest.raises(ZipError, match="more than"):
        read_zip(end)
    many = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, MAX_MEMBERS, MAX_MEMBERS, 0, 0, 0)
    with pytest.raises(ZipError, match="cut short"):
        read_zip(many)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_bounds_are_those_of_the_writer_too() -> None:
    with pytest.raises(ZipError, match="the limit is"):
        read_zip(bytes(MAX_ZIP_SIZE + 1))
    half = bytes(MAX_ZIP_SIZE // 2)
    with pytest.raises(ZipError, match="over"):
        write_zip({"a": half, "b": half})
    with pytest.raises(ZipError, match="the limit is"):
        write_zip({f"m{number}": b"" for number in range(MAX_MEMBERS + 1)})
    for name in ("", "../a", "/a", "a/", "a b", "a" * 129):
        with pytest.raises(ZipError, match="no name of a member"):
            write_zip({name: b""})
