"""Which checkpoint is stamped when: the newest published one, once in an interval, by everybody.

The schedule and each authority have a task of their own, and the database has a thread: whoever is
away or slow holds up nobody else, and nothing here is waited for by an append. What an authority
has not stamped waits for it on the disk; when it is back it stamps the newest first, then the rest.
Whatever fails is tried again, later and later, a mistake in this program too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from tlog.audit.authorities import StampSettings, load_settings
from tlog.audit.stamp_store import Due, StampStore, Tally, not_kept
from tlog.audit.stamps import (
    Authority,
    Connect,
    Stamp,
    StampError,
    StampTime,
    TimeStamper,
    make_request,
    verify_stamp,
)
from tlog.audit.times import format_time
from tlog.log import Head, Log, Unavailable

# Seconds until an authority, or a disk, that failed is asked again: the first, and at most.
PAUSE = 5.0
MAX_PAUSE = 600.0
# Seconds between two requests to one authority: one that is back is not flooded with what waited.
PACE = 1.0
# Seconds by which the clock of an authority may be behind ours.
MAX_EARLY = 300.0

Published = Callable[[int], Awaitable[Head]]
"""Waits until a published head has at least so many entries, and gives the latest.

Raises Unavailable when the log stops."""

T = TypeVar("T")
_NOT_QUEUED: Final = "no checkpoint queued to be stamped"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class AuthorityStatus:
    """How an authority does.

    Attributes:
        name: of the authority.
        tally: what it stamped and what waits for it; `tally.since` is where the gap begins.
        ahead: seconds by which its clock was ahead of ours at the last stamp, as far as it says.
        failures: how often it gave no stamp, since the start.
        last_error: why it gave none the last time; empty when it did.
    """

    name: str
    tally: Tally
    ahead: float = 0.0
    failures: int = 0
    last_error: str = ""


class Stamper:
    """Stamps the checkpoints of one log. Make one with `stamping`.

    Args:
        store: where the stamps are kept.
        settings: how often, and by whom.
        published: the log's heads.
        connect: the way to an authority.
        name: of the log, for messages.
        clock: POSIX time.

    Attributes:
        authorities: whose stamps count: those that stamp, and those that did earlier.
        status: how each authority that stamps does.
    """

    def __init__(
        self,
        store: StampStore,
        settings: StampSettings,
        *,
        published: Published,
        connect: Connect,
        name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings
        self._published = published
        self._name = name
        self._clock = clock
        self._names = [authority.name for authority in settings.authorities]
        self._ways = {authority: connect(authority.url) for authority in settings.authorities}
        self._queued = {name: asyncio.Event() for name in self._names}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tlog-stamps-{name}")
        store.expect(settings.authorities)
        earlier = store.earlier(settings.authorities)
        self.authorities = (*settings.authorities, *filter(None, earlier.values()))
        if lost := [each for each, kept in earlier.items() if kept is None]:
            _log.error("time-stamps in no evidence", log=name, reason=not_kept(lost))
        self.status = {name: AuthorityStatus(name, store.tally(name)) for name in self._names}

    async def around(self, indices: Sequence[int]) -> list[Stamp]:
        """The stamps on either side of these entries, of each authority, by it and size.

        Raises:
            StampError: they cannot be read.
        """
        return await self._blocking(partial(self._around, indices))

    def _around(self, indices: Sequence[int]) -> list[Stamp]:
        found: dict[tuple[str, int], Stamp] = {}
        for name in (each.name for each in self.authorities):
            for index in indices:
                for find in (self._store.including, self._store.excluding):
                    if (stamp := find(index, name)) is not None:
                        found[name, stamp.size] = stamp
        return [found[place] for place in sorted(found)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stamp while inside."""
        tasks = [asyncio.create_task(self._schedule(), name=f"{self._name}-stamps")]
        for authority, way in self._ways.items():
            drain = self._drain(authority, way)
            tasks.append(asyncio.create_task(drain, name=f"{self._name}-stamps-{authority.name}"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._thread.shutdown()  # a stamp that has come is put down

    async def _schedule(self) -> None:
        """Queue the newest head at each interval, if it has grown."""
        pause = PAUSE
        while True:
            try:
                last = await self._blocking(self._store.newest)
                head = await self._published(1 if last is None else last.size + 1)
                if last is not None:
                    # No longer than that, should the clock have gone backwards.
                    due = last.since + self._settings.interval - self._clock()
                    await asyncio.sleep(min(due, self._settings.interval))
                    head = await self._published(head.size)
                await self._queue(Due(head.size, head.note, self._clock()))
                pause = PAUSE
            except Unavailable:
                return  # the log has stopped
            except StampError as error:
                _log.error(_NOT_QUEUED, log=self._name, reason=str(error))
                pause = await _rest(pause)
            except Exception as error:  # noqa: BLE001 -- it goes on, whatever it was
                _log.critical(_NOT_QUEUED, log=self._name, exc_info=error)
                pause = await _rest(pause)

    async def _queue(self, due: Due) -> None:
        await self._blocking(partial(self._store.queue, due, self._names))
        for queued in self._queued.values():
            queued.set()
        for name in self._names:
            await self._tell(name)

    async def _drain(self, authority: Authority, way: TimeStamper) -> None:
        """Have an authority stamp what waits for it."""
        status = self.status[authority.name]
        queued = self._queued[authority.name]
        pause = PAUSE
        while True:
            try:
                queued.clear()
                due = await self._blocking(partial(self._store.next, authority.name))
                if due is None:
                    await queued.wait()
                    continue
                await self._stamp(authority, way, due)
            except Exception as error:  # noqa: BLE001 -- it goes on, whatever it was
                self._failed(status, error)
                pause = await _rest(pause)
            else:
                if status.last_error:
                    _log.info("time-stamps again", log=self._name, authority=authority.name)
                status.last_error = ""
                pause = PAUSE
                await asyncio.sleep(PACE)

    def _failed(self, status: AuthorityStatus, error: Exception) -> None:
        """Tell why there is no stamp: once, until there is one again; each mistake of ours, too."""
        reason = str(error)
        if isinstance(error, StampError):
            if not status.last_error:
                _log.warning("no time-stamp", log=self._name, reason=reason)
        else:
            reason = f"a mistake in this program: {type(error).__name__}"
            if status.last_error != reason:
                _log.critical(
                    "no time-stamp", log=self._name, authority=status.name, exc_info=error
                )
        status.failures += 1
        status.last_error = reason

    async def _stamp(self, authority: Authority, way: TimeStamper, due: Due) -> None:
        request = make_request(due.note)
        answer = await way.stamp(request.der)
        stamped = verify_stamp(answer, due.note, authority, nonce=request.nonce)
        self.status[authority.name].ahead = stamped.time.timestamp() - self._clock()
        self._check_time(authority, stamped, due)
        await self._blocking(partial(self._store.keep, authority.name, due.size, answer, stamped))
        await self._tell(authority.name)

    def _check_time(self, authority: Authority, stamped: StampTime, due: Due) -> None:
        """Refuse a time from before the checkpoint: the earliest stamp is that which counts.

        Raises:
            StampError: one of the two clocks is wrong.
        """
        # Ours may have been ahead when it was queued. It is asked again: until both are right.
        since = min(due.since, self._clock())
        if stamped.not_after.timestamp() < since - MAX_EARLY:
            raise StampError(
                f"{authority.name}: stamped at {format_time(stamped.time)}, and the checkpoint of "
                f"size {due.size} was there at {format_time(datetime.fromtimestamp(since, UTC))} "
                "only, by the clock of this machine: one of the two clocks is wrong"
            )

    async def _tell(self, name: str) -> None:
        self.status[name].tally = await self._blocking(partial(self._store.tally, name))

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


async def _rest(pause: float) -> float:
    """Wait before the next try; for how long before the one after that."""
    await asyncio.sleep(pause)
    return min(2 * pause, MAX_PAUSE)


@contextlib.asynccontextmanager
async def stamping(directory: Path, log: Log, connect: Connect) -> AsyncIterator[Stamper | None]:
    """Stamp an open log's checkpoints while inside, by the `timestamps.toml` in its directory.

    None without such a file.

    Raises:
        StampError: the settings or the database cannot be used.
    """
    settings = load_settings(directory)
    if settings is None:
        yield None
        return
    store = StampStore(directory, create=True)
    try:
        stamper = Stamper(
            store, settings, published=log.publisher.wait_for, connect=connect, name=log.name
        )
        async with stamper.running():
            yield stamper
    finally:
        store.close()
