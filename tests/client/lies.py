"""How the liar lies, and how its lies must end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest
from google.protobuf.message import Message

from tests.client.servers import World
from tlog.client import AsyncClient, Head, MemoryState, VerificationError

ENTRIES = [b"entry %d" % number for number in range(700)]
OTHER = bytes(32)


def flip(data: bytes, place: int, bit: int = 1) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def drop(repeated: Any) -> None:
    del repeated[-1]


async def followed(world: World) -> tuple[MemoryState, Head]:
    """A state that has seen the honest head of all entries."""
    head = await world.append(ENTRIES)
    state = MemoryState()
    async with world.client(state, honest=True) as client:
        assert await client.checkpoint() == head
    return state, head


Call = Callable[[AsyncClient], Any]
Change = Callable[[Any], object]


async def refused(world: World, state: MemoryState, call: Call, check: str) -> VerificationError:
    before = state.load()
    async with world.client(state) as client:
        with pytest.raises(VerificationError) as caught:
            await call(client)
    assert caught.value.check == check, caught.value
    assert check in str(caught.value)
    assert state.load() is before
    return caught.value


def telling(change: Change) -> Callable[[Any, Any], Message | bytes]:
    """A lie that changes the truth in place, or replaces it."""

    def lie(_: Any, truth: Any) -> Any:
        told = copy.deepcopy(truth)
        changed: Any = change(told)
        # Some calls on repeated fields give their element back.
        return changed if isinstance(changed, bytes) or type(changed) is type(truth) else told

    return lie


def showing(note: bytes) -> Callable[[Any, Any], Message | bytes]:
    return telling(lambda truth: setattr(truth.checkpoint, "note", note))


def flipping(path: str, which: int, place: int) -> Callable[[Any, Any], Message | bytes]:
    def change(truth: Any) -> None:
        hashes = attrgetter(path)(truth)
        hashes[which] = flip(hashes[which], place)

    return telling(change)
