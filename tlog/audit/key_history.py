"""Which records say what became of the keys of whom, read from the log's leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from tlog.audit.errors import EventRefused
from tlog.audit.event import read_payload
from tlog.audit.evidence import KEY_EVENTS
from tlog.audit.jws import parse_jws
from tlog.audit.leaf import parse_leaf
from tlog.audit.producers import APPROVER
from tlog.log import Log
from tlog.merkle import TILE_WIDTH, split_bundle


class KeyHistory:
    """The records of the keys of one log. It keeps up with the log whenever it is asked.

    Args:
        log: the log, open; belongs to the event loop that it is used on.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._size = 0
        self._events: dict[int, tuple[set[str], str]] = {}
        self._approvers: set[str] = set()
        self._turn = asyncio.Lock()

    async def of(self, indices: Iterable[int]) -> list[int]:
        """The records that register, rotate or revoke the keys that these records are signed with.

        Those of whoever approved what they say, too; and of whoever signed and approved those, up
        to the service itself. With one approver there are all: whether somebody was made one by the
        log alone shows beside those who stood then.

        Raises:
            StoreError: the log cannot be read.
        """
        async with self._turn:
            await self._catch_up()
        wanted: set[str] = set()
        for index in indices:
            entry = self._log.reader.entry(index, self._size)
            payload = read_payload(parse_jws(parse_leaf(entry).jws))
            wanted |= _said_by(payload)
            if str(payload.get("type")).startswith(KEY_EVENTS):
                wanted |= self._approvers & {payload["about_producer"]}
        while True:
            if wanted & self._approvers:
                wanted |= self._approvers
            found = {index for index, (_, about) in self._events.items() if about in wanted}
            more = {name for index in found for name in self._events[index][0]} - wanted
            if not more:
                return sorted(found)
            wanted |= more

    async def _catch_up(self) -> None:
        end = self._log.sequencer.edge.size
        while self._size < end:
            number, skip = divmod(self._size, TILE_WIDTH)
            width = min(TILE_WIDTH, end - number * TILE_WIDTH)
            bundle = split_bundle(self._log.reader.encoded_bundle(number, width))
            for entry in bundle[skip:]:
                if (payload := _key_event(entry)) is not None:
                    about = str(payload["about_producer"])
                    self._events[self._size] = _said_by(payload), about
                    if APPROVER in payload.get("roles", ()):
                        self._approvers.add(about)
                self._size += 1
            await asyncio.sleep(0)


def _said_by(payload: Mapping[str, Any]) -> set[str]:
    """Who signed a record, and the order that it keeps."""
    return {str(name) for name in (payload["producer_id"], *payload.get("approvers", ()))}


def _key_event(entry: bytes) -> dict[str, Any] | None:
    """What a record about a producer says; None if it is none."""
    try:
        payload = read_payload(parse_jws(parse_leaf(entry).jws))
    except EventRefused:
        return None
    return payload if str(payload.get("type")).startswith(KEY_EVENTS) else None
