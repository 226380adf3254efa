"""Spools in tests, and what kill -9 leaves of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from tlog.client import spool as spools
from tlog.client.frames import Frame, read_frames
from tlog.client.spool import Spool

OWNER = "acme/shop"
SMALL = 160  # bytes of a segment


def opened(path: Path, **more: Any) -> Spool:
    return Spool(path, owner=OWNER, **more)


def killed(spool: Spool) -> None:
    """As kill -9 leaves it: nothing is written, the lock is gone."""
    spools._OPEN.discard(spool)
    spool.forget()


def put(spool: Spool, data: bytes) -> int:
    return spool.append(lambda _: data)


def drained(spool: Spool) -> dict[int, bytes]:
    taken: dict[int, bytes] = {}
    while spool.wait(0):
        frames = spool.peek(3, 100)
        if frames:
            spool.advance(frames)
        taken |= {frame.number: frame.data for frame in frames}
    return taken


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.segment"))


def left_on_disk(path: Path) -> set[int]:
    """The numbers of the records that can be read from any file of a spool."""
    found: set[int] = set()
    for file in path.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            frames = read_frames(file.read_bytes(), 0)
            found |= {each.number for each in frames if isinstance(each, Frame)}
    return found
