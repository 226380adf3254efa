"""Answers that are made as a whole and sent in pieces, and clients that do not read them.

Such an answer waits in memory until its client has it. How much waits is bounded, and for how long:
a client that stops reading holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.message import Message

from tlog.log import Overloaded
from tlog.serve.handlers import Context

PIECE: Final = 1 << 16
"""Bytes of an answer in one message."""
PATIENCE = 30.0
PACE = 256 << 10
"""An answer is read in this many seconds, and one more for each so many bytes of it."""
_RETRY_AFTER: Final = 5.0


class Outbox:
    """Room for the answers of a service.

    Args:
        limit: bytes of all answers together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextlib.contextmanager
    def room(self, most: int) -> Iterator[Room]:
        """Room for an answer of `most` bytes, that is to be made and then sent inside.

        Raises:
            Overloaded: the answers before it have taken the room.
        """
        if self._taken + most > self._limit:
            raise Overloaded(
                f"{self._taken} bytes wait for those who asked for them, and the limit is "
                f"{self._limit}: come back later",
                retry_after=_RETRY_AFTER,
            )
        room = Room(self, most)
        self._taken += most
        try:
            yield room
        finally:
            room.keep(0)

    def give_back(self, size: int) -> None:
        """So many bytes are free again."""
        self._taken -= size


class Room:
    """Room for one answer; made by `Outbox.room`."""

    def __init__(self, outbox: Outbox, size: int) -> None:
        self._outbox = outbox
        self._size = size

    def keep(self, size: int) -> None:
        """The answer is no longer than this: the rest is for others."""
        self._outbox.give_back(self._size - size)
        self._size = size


async def send(context: Context, pieces: Iterable[Message], *, size: int) -> None:
    """Send an answer of so many bytes.

    Raises:
        TimeoutError: its client does not read it.
    """
    seconds = PATIENCE + size / PACE
    try:
        async with asyncio.timeout(seconds):
            for piece in pieces:
                await context.write(piece)
    except TimeoutError:
        raise TimeoutError(
            f"the answer of {size} bytes was not read within {seconds:.0f} s: ask again, and read "
            "it as it comes"
        ) from None
