"""The files of a spool: frames, one after the other, and what is found between them when it is bad.

    frame = magic[4] number[8] durable[8] length[4] crc[4] data[length]     integers big-endian

`durable` is the number of the last frame that was known to be on the disk when this one was
written. It tells a torn tail, which nobody was promised, from damage to what somebody was. The CRC
is over all fields but itself, and over the data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DATA = 1 << 20
_MAGIC = b"tlSP"
_HEADER = struct.Struct(">4sQQII")
_CHECKED = struct.Struct(">QQI")
MAX_FRAME = _HEADER.size + MAX_DATA


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame.

    Attributes:
        end: the offset after it.
    """

    number: int
    durable: int
    data: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A place where the next frame should be and is not.

    Attributes:
        offset: where.
        number: the frame that should be there.
        following: the next number that can be read after it; None if there is none.
    """

    offset: int
    number: int
    following: int | None

    def __str__(self) -> str:
        last = "on" if self.following is None else f"to {self.following - 1}"
        return f"records {self.number} {last} cannot be read at offset {self.offset}"


def encode_frame(number: int, durable: int, data: bytes) -> bytes:
    """A frame; at most MAX_DATA bytes of data."""
    crc = _crc(number, durable, data)
    return _HEADER.pack(_MAGIC, number, durable, len(data), crc) + data


def frame_size(data: bytes) -> int:
    """How many bytes its frame has."""
    return _HEADER.size + len(data)


def read_frames(data: bytes, number: int, offset: int = 0) -> Iterator[Frame | Damage]:
    """The frames from an offset on, the first of which should have this number.

    Damage is stepped over: what follows it is the next frame that is whole.
    """
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is None or frame.number != number:
            frame = _next_frame(data, offset, number)
            yield Damage(offset, number, None if frame is None else frame.number)
            if frame is None:
                return
        yield frame
        number, offset = frame.number + 1, frame.end


def _next_frame(data: bytes, offset: int, number: int) -> Frame | None:
    """The next whole frame with a higher number."""
    while (offset := data.find(_MAGIC, offset)) >= 0:
        frame = _frame_at(data, offset)
        if frame is not None and frame.number > number:
            return frame
        offset += 1
    return None


def _frame_at(data: bytes, offset: int) -> Frame | None:
    start = offset + _HEADER.size
    if start > len(data):
        return None
    magic, number, durable, length, crc = _HEADER.unpack_from(data, offset)
    end = start + length
    if magic != _MAGIC or length > MAX_DATA or end > len(data):
        return None
    body = data[start:end]
    return Frame(number, durable, body, end) if _crc(number, durable, body) == crc else None


def _crc(number: int, durable: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_CHECKED.pack(number, durable, len(data))))
