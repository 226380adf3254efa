"""What two witnesses tell each other at once: signed heads and conflicts, bounded."""

import random
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from tlog.notes import MAX_NOTE_SIZE
from tlog.witness.conflict import MAX_CONFLICT_SIZE
from tlog.witness.errors import BadRequest

MAX_HEADS: Final = 16384
"""Heads of one message."""
MAX_CONFLICTS: Final = 64
"""Conflicts of one message."""
MAX_MESSAGE_SIZE: Final = 3 << 20
"""Bytes of the heads and conflicts of one message: below gRPC's usual limit of 4 MiB."""


class Peer(Protocol):
    """Another witness. Whatever it raises counts as silence."""

    async def exchange(
        self, heads: Sequence[bytes], conflicts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Give it ours, get its own. The answer is not larger than one message may be."""


def check_message(heads: Sequence[bytes], conflicts: Sequence[bytes]) -> None:
    """Refuse more than one message may hold; nothing of it is looked at.

    Raises:
        BadRequest: as the name says.
    """
    for what, items, most, size in (
        ("heads", heads, MAX_HEADS, MAX_NOTE_SIZE),
        ("conflicts", conflicts, MAX_CONFLICTS, MAX_CONFLICT_SIZE),
    ):
        if len(items) > most:
            raise BadRequest(f"{len(items)} {what}, the limit of one message is {most}")
        if (longest := max(map(len, items), default=0)) > size:
            raise BadRequest(f"one of the {what} has {longest} bytes, the limit is {size}")
    if (total := sum(map(len, heads)) + sum(map(len, conflicts))) > MAX_MESSAGE_SIZE:
        raise BadRequest(f"a message of {total} bytes, the limit is {MAX_MESSAGE_SIZE}")


def pack(
    heads: list[bytes], conflicts: list[bytes], rng: random.Random
) -> tuple[list[bytes], list[bytes]]:
    """A message of these heads and conflicts: a random part of them, if they are too much."""
    # Conflicts first: they matter more than any head.
    told = fit(rng.sample(conflicts, min(MAX_CONFLICTS, len(conflicts))), MAX_MESSAGE_SIZE)
    room = MAX_MESSAGE_SIZE - sum(map(len, told))
    return fit(rng.sample(heads, min(MAX_HEADS, len(heads))), room), told


def fit(items: Iterable[bytes], room: int) -> list[bytes]:
    """The items, in their order, without those for which no room is left."""
    fitting = []
    for item in items:
        if len(item) <= room:
            room -= len(item)
            fitting.append(item)
    return fitting
