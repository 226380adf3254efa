"""The segment files of a spool, as they are found when it is opened: checked, and a torn tail cut.

A segment is named by the number of its first frame. All but the last were on the disk, whole,
before the next one began.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tlog.client.errors import SpoolDamaged
from tlog.client.files import replace_file
from tlog.client.frames import Damage, Frame, frame_size, read_frames

_NAME = re.compile(r"\d{20}\.segment")
_TORN_COPY = re.compile(rf"{_NAME.pattern}[a-z0-9_]{{8}}")  # of `trim`, as `replace_file` names it
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Segment:
    """A segment file.

    Attributes:
        first: the number of its first frame.
        size: its bytes that hold frames.
    """

    first: int
    path: Path
    size: int = 0

    @classmethod
    def of(cls, directory: Path, first: int) -> Self:
        """The segment that begins with this number."""
        return cls(first, directory / f"{first:020}.segment")


@dataclass(frozen=True, slots=True)
class Found:
    """What a directory holds.

    Attributes:
        segments: from the cursor's on; at least one.
        offset: of the cursor in the first of them.
        cursor: the number of the next frame to deliver.
        next: the number of the next frame to write.
    """

    segments: list[Segment]
    offset: int
    cursor: int
    next: int


def find_segments(directory: Path, *, cursor: int | None, durable: int, abandon: bool) -> Found:
    """Read what was written, cut what nobody was promised, drop what was delivered.

    Args:
        directory: where they are.
        cursor: the number of the next frame to deliver; None for the first that is there.
        durable: the number of the last frame known to have been on the disk.
        abandon: step over damage, instead of refusing.

    Raises:
        SpoolDamaged: frames that were on the disk cannot be read.
        OSError: the disk.
    """
    there = sorted(directory.iterdir())
    for path in there:
        if _TORN_COPY.fullmatch(path.name):
            path.unlink()
    paths = [path for path in there if _NAME.fullmatch(path.name)]
    segments = [Segment(int(path.stem), path, path.stat().st_size) for path in paths]
    if cursor is None:
        cursor = segments[0].first if segments else 1
    while len(segments) > 1 and segments[1].first <= cursor:
        segments.pop(0).path.unlink()
    expected, offset = min(cursor, segments[0].first) if segments else cursor, 0
    damage = _Damages(directory)
    for segment in segments:
        if segment.first != expected:
            missing = sorted((expected, segment.first))
            damage.add(segment.path.name, Damage(0, *missing))
        last = segment is segments[-1]
        scan = _scan(segment, cursor, durable if last else None)
        for each in scan.damages:
            damage.add(segment.path.name, each)
        if segment is segments[0]:
            offset = scan.offset
        expected = max(scan.next, segment.first)
    if expected <= durable:
        damage.add("the last segment", Damage(0, expected, durable + 1))
        # In a segment of its own, so that each still begins with the number in its name.
        segments.append(Segment.of(directory, durable + 1))
        expected = durable + 1
    damage.judge(abandon=abandon)
    if not segments:
        segments.append(Segment.of(directory, expected))
    return Found(segments, offset, max(cursor, segments[0].first), expected)


def trim(segment: Segment, cursor: int, offset: int) -> Segment:
    """Copy what a segment holds from an offset on, durably, to one that begins with the cursor.

    The cursor MUST be written down before: by it a restart knows the copy from the original, which
    is for the caller to delete. Raises OSError: there is no copy.
    """
    copy = Segment.of(segment.path.parent, cursor)
    # Meanwhile others append: a copy that takes the last room would have their records refused.
    if shutil.disk_usage(copy.path.parent).free // 2 < segment.size - offset:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with segment.path.open("rb") as file:
        file.seek(offset)
        rest = file.read()
    replace_file(copy.path, rest)
    copy.size = len(rest)
    return copy


@dataclass(slots=True)
class _Damages:
    directory: Path
    found: list[str] = field(default_factory=list)

    def add(self, name: str, damage: Damage) -> None:
        self.found.append(f"{name}: {damage}")

    def judge(self, *, abandon: bool) -> None:
        if not self.found:
            return
        if not abandon:
            raise SpoolDamaged(
                f"the spool {self.directory} is damaged: {'; '.join(self.found[:3])}. Restore the "
                "directory if you can, or copy it and open it with abandon_damaged=True: the rest "
                "is delivered, and the log records the gap"
            )
        _log.error("records of the spool %s are lost: %s", self.directory, "; ".join(self.found))


@dataclass(slots=True)
class _Scan:
    next: int
    offset: int
    damages: list[Damage]


def _scan(segment: Segment, cursor: int, durable: int | None) -> _Scan:
    """Read a segment through; `durable` is given for the last one, whose tail may be torn."""
    data = segment.path.read_bytes()
    scan = _Scan(segment.first, 0, [])
    items = list(read_frames(data, segment.first))
    if durable is not None:
        items = _untorn(segment, items, durable)
    for item in items:
        if isinstance(item, Frame):
            scan.next = item.number + 1
            if item.number <= cursor:
                scan.offset = item.end - frame_size(item.data) * (item.number == cursor)
        elif item.number >= cursor or item.following is None or item.following > cursor:
            scan.damages.append(item)
    return scan


def _untorn(segment: Segment, items: list[Frame | Damage], durable: int) -> list[Frame | Damage]:
    """Cut the file where the frames end that somebody was promised, if they end in damage."""
    for i, item in enumerate(items):
        if isinstance(item, Frame):
            continue
        later = [each.durable for each in items[i:] if isinstance(each, Frame)]
        if item.number <= max([durable, *later]):
            continue
        torn = segment.size - item.offset
        _log.warning("%s: a torn tail of %d bytes is cut", segment.path, torn)
        os.truncate(segment.path, item.offset)
        segment.size = item.offset
        return items[:i]
    return items
