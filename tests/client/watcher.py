"""A watch whose time the test moves, and what it delivered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.client.tiled import numbered
from tlog.client import Rule, Verifier, Watch, WatchFile
from tlog.client.watchfile import Event
from tlog.remote import open_source

ENTRIES = numbered(700)
RULE = Rule.parse("tens", regex=r"entry \d*0$")


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """A watch over a file, and what it delivered."""

    def __init__(self, directory: Path, url: str, verifier: Verifier, **more: Any) -> None:
        self.file = WatchFile(directory / "state.json", verifier)
        self.found: list[Event] = []
        self._url = url
        self._verifier = verifier
        self._more = {"rules": [RULE], **more}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Watch]:
        source = open_source(self._url)
        try:
            yield Watch("log", source, self._verifier, self.file, **self._more)
        finally:
            await source.aclose()

    async def look(self, *, patience: float = 10.0) -> list[str]:
        """A process's life: one look, all entries; gives the alarms that stand."""
        async with self.opened() as watch:
            await watch.check(patience=patience)
            await watch.read(self.deliver)
            return sorted(watch.watched.alarms)

    async def deliver(self, rule: Rule, event: Event) -> None:
        self.found.append(event)

    def told(self) -> list[str]:
        watched = self.file.load()
        assert watched is not None
        return [
            ("" if event["event"] == "alarm" else "-") + str(event["kind"])
            for event in watched.untold
        ]

    def alarm(self, kind: str) -> Event:
        """The first of that kind that was raised."""
        watched = self.file.load()
        assert watched is not None
        return next(event for event in watched.untold if event["kind"] == kind)
