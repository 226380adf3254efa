"""Batching that the caller does not see: single appends, coalesced into AppendBatch calls.

A unary call costs a server about as much as a batch of hundreds, so that this is what makes a busy
producer fast. `Pump` does the work on an event loop; `Batcher` is its face for coroutines,
`SyncBatcher` (in `tlog.client.sync`) that for threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import grpc

from tlog.client.errors import ClientError, Refused
from tlog.client.values import Appended
from tlog.client.verification import check_entry

Send = Callable[[Sequence[bytes]], Awaitable[Sequence[Appended]]]


class Promise(Protocol):
    """Of asyncio or of concurrent.futures."""

    def done(self) -> bool:
        """Whether there is a result, an error, or nobody who waits."""

    def set_result(self, result: Any, /) -> None:
        """Keep the promise."""

    def set_exception(self, exception: Any, /) -> None:
        """Break it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a batcher batches.

    max_entries and max_bytes bound one batch, linger (seconds) is how long the first entry of a
    batch waits for company, in_flight is how many batches may be under way at once.
    """

    max_entries: int = 1024
    max_bytes: int = 4 << 20
    linger: float = 0.005
    in_flight: int = 4

    def __post_init__(self) -> None:
        if min(self.max_entries, self.max_bytes, self.in_flight) < 1 or self.linger < 0:
            raise ValueError(f"{self}: all must be at least 1, linger at least 0")

    def full(self, entries: int, size: int) -> bool:
        """Whether so many entries wait that the next one must wait for room: back-pressure."""
        batches = self.in_flight + 1
        return entries >= batches * self.max_entries or size >= batches * self.max_bytes


@dataclass(frozen=True, slots=True)
class Item:
    """An entry, and the promise of its index."""

    entry: bytes
    promise: Promise


class Pump:
    """Takes entries in order and sends them in batches. Bounds nothing: its faces do.

    Args:
        send: appends one batch, all of it or nothing.
        limits: how to batch.
        settled: told of every batch whose promises are settled: its entries and bytes.
    """

    def __init__(self, send: Send, limits: Limits, settled: Callable[[int, int], None]) -> None:
        self._send = send
        self._limits = limits
        self._settled = settled
        self._queue: deque[Item] = deque()
        self._queued_bytes = 0
        self._put = self._taken = 0
        self._hurry_to = 0
        self._oldest = 0.0
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._slots = asyncio.Semaphore(limits.in_flight)
        self._under_way: dict[int, asyncio.Task[None]] = {}  # by the number of their first entry
        self._progress = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self._running = self._loop.create_task(self._run())

    def put(self, item: Item) -> None:
        """Take an entry."""
        if not self._queue:
            self._oldest = self._loop.time()
            self._some.set()
        self._queue.append(item)
        self._queued_bytes += len(item.entry)
        self._put += 1
        if self._is_enough():
            self._enough.set()

    async def flush(self) -> None:
        """Wait until every promise made before this call is settled."""
        target = self._hurry_to = self._put
        if self._is_enough():
            self._enough.set()
        async with self._progress:
            await self._progress.wait_for(
                lambda: min(self._under_way, default=self._taken) >= target
            )

    async def close(self) -> None:
        """Flush and stop. If that is cut short, the promises that are left are broken."""
        try:
            await self.flush()
        finally:
            tasks = [self._running, *self._under_way.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _is_enough(self) -> bool:
        return (
            len(self._queue) >= self._limits.max_entries
            or self._queued_bytes >= self._limits.max_bytes
            or self._taken < self._hurry_to
        )

    async def _run(self) -> None:
        try:
            await self._send_batches()
        finally:
            _break(self._queue, ClientError("the batcher was closed before it sent this"))
            self._settled(len(self._queue), self._queued_bytes)
            self._queue.clear()

    async def _send_batches(self) -> None:
        while True:
            await self._some.wait()
            # While all slots are taken the queue grows: larger batches when the log is slower.
            await self._slots.acquire()
            await self._linger()
            batch, start = self._take(), self._taken
            self._taken += len(batch)
            self._under_way[start] = self._loop.create_task(self._deliver_all(batch, start))

    async def _linger(self) -> None:
        if not self._is_enough():
            self._enough.clear()
            try:
                async with asyncio.timeout_at(self._oldest + self._limits.linger):
                    await self._enough.wait()
            except TimeoutError:
                pass

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._queue and len(batch) < self._limits.max_entries:
            size += len(self._queue[0].entry)
            if batch and size > self._limits.max_bytes:
                break
            batch.append(self._queue.popleft())
            self._queued_bytes -= len(batch[-1].entry)
        self._oldest = self._loop.time()
        if not self._queue:
            self._some.clear()
        return batch

    async def _deliver_all(self, batch: list[Item], start: int) -> None:
        try:
            await self._deliver(batch)
        finally:
            _break(batch, ClientError("the batcher was closed", outcome_unknown=True))
            self._slots.release()
            self._settled(len(batch), sum(len(item.entry) for item in batch))
            del self._under_way[start]
            async with self._progress:
                self._progress.notify_all()

    async def _deliver(self, batch: Sequence[Item]) -> None:
        try:
            appended = await self._send([item.entry for item in batch])
        except Refused as refusal:
            # All of the batch or none was taken: none. The halves find out whose fault it was.
            if refusal.code is grpc.StatusCode.INVALID_ARGUMENT and len(batch) > 1:
                middle = len(batch) // 2
                await self._deliver(batch[:middle])
                await self._deliver(batch[middle:])
            else:
                _break(batch, refusal)
        except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must know)
            _break(batch, error)
        else:
            for item, result in zip(batch, appended, strict=True):
                if not item.promise.done():
                    item.promise.set_result(result)


def _break(items: Iterable[Item], error: Exception) -> None:
    for item in items:
        if not item.promise.done():
            item.promise.set_exception(error)


class Batcher:
    """Coalesces single appends. Get one from `AsyncClient.batcher`; leaving it sends what is left.

    The entries of one batch keep their order. Batches that are under way at the same time may
    overtake one another: with `in_flight=1` the whole log has the order of the calls.
    """

    def __init__(self, send: Send, limits: Limits) -> None:
        self._limits = limits
        self._pump = Pump(send, limits, self._settled)
        self._entries = self._bytes = 0
        self._gate = asyncio.Lock()
        self._room = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def submit(self, entry: bytes) -> asyncio.Future[Appended]:
        """Take an entry, as soon as there is room, and promise its index.

        Raises:
            Refused: too long for any log. Others are not affected.
            ClientError: the batcher is closed.

        The future raises what `AsyncClient.append_batch` does.
        """
        check_entry(entry)
        async with self._gate:  # first come, first served
            while self._limits.full(self._entries, self._bytes) and not self._closed:
                self._room.clear()
                await self._room.wait()
            if self._closed:
                raise ClientError("the batcher is closed")
            self._entries += 1
            self._bytes += len(entry)
            promise: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
            self._pump.put(Item(entry, promise))
        return promise

    async def append(self, entry: bytes) -> Appended:
        """Append an entry together with those of other callers; answers as `submit` promises."""
        return await (await self.submit(entry))

    async def flush(self) -> None:
        """Send what is there without lingering; wait until all of it is answered."""
        await self._pump.flush()

    async def close(self) -> None:
        """Take nothing more and flush."""
        self._closed = True
        self._room.set()
        await self._pump.close()

    def _settled(self, entries: int, size: int) -> None:
        self._entries -= entries
        self._bytes -= size
        self._room.set()
