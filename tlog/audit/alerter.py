"""Tells of deadlines that come near and of those that have gone by, while a records log is open.

The docket is looked through once a minute, if the log has grown or the day is another one. Each
sink has tasks of its own, and the database a thread: whoever is away or slow holds up nobody else,
and nothing here is waited for by a record. What did not arrive is told again, after longer and
longer pauses, as long as it is true.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from tlog.audit.alert_store import AlertStore
from tlog.audit.alerts import Alert, AlertSink, alerts_of
from tlog.audit.calendar import day_of
from tlog.audit.errors import AlertError, AuditError
from tlog.store import StoreError

if TYPE_CHECKING:
    from tlog.audit.records import Records

LOOK: Final = 60.0
"""Seconds between two looks at the docket."""
PAUSE = 5.0
MAX_PAUSE = 600.0
"""Seconds until a sink that failed is tried again: the first, and at most."""
AT_ONCE: Final = 4
"""Alerts that one sink is told at the same time."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Way:
    """One sink, and what it is to be told.

    Attributes:
        told: the ids of what it knows.
        due: by id, what it does not know yet.
        under_way: the ids of what it is being told.
        more: set when something is due.
        pause: how long to wait after the next failure.
    """

    sink: AlertSink
    told: set[str]
    due: dict[str, Alert] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = field(default_factory=lambda: PAUSE)


class Alerter:
    """Tells the sinks of one records log. Make one with `alerting`.

    Args:
        records: whose deadlines they are.
        store: what is remembered; the caller's to close.
        sinks: who is told.
        warn: on how many days before the last one.
        look: seconds between two looks.
        clock: the time.
    """

    def __init__(
        self,
        records: Records,
        store: AlertStore,
        sinks: Sequence[AlertSink],
        *,
        warn: Collection[int],
        look: float = LOOK,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._records = records
        self._store = store
        self._ways = [_Way(sink, store.told(sink.name)) for sink in sinks]
        self._warn = warn
        self._look = look
        self._clock = clock or records.clock
        self._seen: tuple[int, date] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tlog-alerts")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell while inside."""
        name = self._records.log.name
        tasks = [asyncio.create_task(self._watch(), name=f"{name}-deadlines")]
        for way in self._ways:
            for _ in range(AT_ONCE):
                tasks.append(asyncio.create_task(self._tell(way), name=f"{name}-alerts"))
        for task in tasks:
            task.add_done_callback(self._stopped)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._thread.shutdown()  # what has arrived is put down

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A mistake in the program ends the alerts, not the log."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("alerts stopped", task=task.get_name(), exc_info=error)

    async def _watch(self) -> None:
        while True:
            try:
                await self._find()
            except (AuditError, StoreError) as error:
                _log.error("deadlines not reckoned", log=self._records.log.name, reason=str(error))
            except Exception as error:  # noqa: BLE001 -- the next look may do better
                _log.critical("deadlines not reckoned", log=self._records.log.name, exc_info=error)
            await asyncio.sleep(self._look)

    async def _find(self) -> None:
        """Look for what is to be told, if it can be anything else than the last time."""
        docket, now = self._records.docket, self._clock()
        seen = (await docket.catch_up(), day_of(now, docket.terms.zone))
        if seen == self._seen:
            return
        standings = await docket.standings(now)
        found = alerts_of(
            standings,
            tenant=self._records.tenant,
            log=self._records.log.name,
            warn=self._warn,
        )
        alerts = {alert.id: alert for alert in found}
        for way in self._ways:
            # What is no longer true is not told.
            way.due = {name: each for name, each in alerts.items() if name not in way.told}
            if way.due:
                way.more.set()
        self._seen = seen

    async def _tell(self, way: _Way) -> None:
        while True:
            alert = next((e for name, e in way.due.items() if name not in way.under_way), None)
            if alert is None:
                way.more.clear()
                await way.more.wait()
                continue
            way.under_way.add(alert.id)
            try:
                await way.sink.send(alert.event())
                await self._blocking(partial(self._store.put, way.sink.name, alert.id))
            except Exception as error:  # noqa: BLE001 -- it is told again, whatever it was
                if isinstance(error, AlertError):
                    _log.warning("an alert was not told", sink=way.sink.name, reason=str(error))
                else:
                    _log.error("an alert was not told", sink=way.sink.name, exc_info=error)
                pause, way.pause = way.pause, min(2 * way.pause, MAX_PAUSE)
                await asyncio.sleep(pause)
                if way.due.get(alert.id) == alert:  # behind all others
                    del way.due[alert.id]
                    way.due[alert.id] = alert
            else:
                way.told.add(alert.id)
                way.due.pop(alert.id, None)
                way.pause = PAUSE
            finally:
                way.under_way.discard(alert.id)

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


@contextlib.asynccontextmanager
async def alerting(
    directory: Path, records: Records, sinks: Sequence[AlertSink], *, warn: Collection[int]
) -> AsyncIterator[None]:
    """Tell the sinks of the deadlines of a records log while inside; nobody, if there are none.

    Raises:
        AlertError: what was told before cannot be read.
    """
    if not sinks:
        yield
        return
    store = AlertStore(directory)
    try:
        async with Alerter(records, store, sinks, warn=warn).running():
            yield
    finally:
        store.close()
