"""One AppendStream call: entries go in, their indices come out in the same order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any

import grpc

from tlog.client.errors import VerificationError
from tlog.client.transport import Transport, parse
from tlog.client.verification import check_entry
from tlog.v1 import log_pb2 as pb

MESSAGE_ENTRIES = 256
MESSAGE_BYTES = 1 << 20
# Entries that may be read ahead of the stream, and indices that may wait for their taker.
AHEAD = 4 * MESSAGE_ENTRIES
UNTAKEN = 1 << 16

Source = AsyncIterable[bytes] | Iterable[bytes]


class AppendSession:
    """An open stream. Get one from `append_session`."""

    def __init__(self, call: Any, log: str) -> None:
        self._call = call
        self._log = log
        self._unacknowledged = 0
        self._finished = False
        self._indices: list[int] = []
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def send(self, entries: Sequence[bytes]) -> None:
        """Send at least one entry; waits when the log is too busy to read on."""
        self._unacknowledged += len(entries)
        request = pb.AppendStreamRequest(log=self._log, entries=entries)
        await self._writing(self._call.write(request.SerializeToString()))

    async def finish(self) -> None:
        """There are no more entries."""
        self._finished = True
        await self._writing(self._call.done_writing())

    def arrived(self) -> list[int]:
        """The indices that have come since they were last taken."""
        indices, self._indices = self._indices, []
        self._arrived.clear()
        self._taken.set()
        return indices

    async def indices(self) -> list[int]:
        """The next indices, at least one; none when all are acknowledged after `finish`."""
        while not self._indices:
            if self._reader.done():
                self._reader.result()
                return []
            await self._arrived.wait()
        return self.arrived()

    async def close(self) -> None:
        """Forget what was not acknowledged."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _writing(self, operation: Any) -> None:
        try:
            await operation
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended; why, the reader is told.
            await self._reader
            raise VerificationError("echo", "the stream ended before its entries did") from None

    async def _read(self) -> None:
        try:
            async for data in self._call:
                indices = parse(pb.AppendStreamResponse, data).indices
                self._unacknowledged -= len(indices)
                if self._unacknowledged < 0 or not indices:
                    raise VerificationError(
                        "echo", "the stream acknowledges entries that were not sent"
                    )
                self._indices.extend(indices)
                self._arrived.set()
                while len(self._indices) > UNTAKEN:
                    self._taken.clear()
                    await self._taken.wait()
            if self._unacknowledged or not self._finished:
                raise VerificationError(
                    "echo", f"the stream ended with {self._unacknowledged} entries unacknowledged"
                )
        finally:
            self._arrived.set()


@contextlib.asynccontextmanager
async def append_session(transport: Transport, log: str) -> AsyncIterator[AppendSession]:
    """Open a stream; on leaving, whatever was not acknowledged may be appended or not."""
    async with transport.duplex("AppendStream") as call:
        session = AppendSession(call, log)
        try:
            yield session
        finally:
            await session.close()


async def acknowledge(
    transport: Transport, log: str, source: Source
) -> AsyncGenerator[list[int], None]:
    """Append all that a source gives, and give the indices, in order, as they come.

    When the source fails, or gives what no log takes, everything before it is acknowledged first.
    """
    async with append_session(transport, log) as session:
        queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(AHEAD)
        tasks = (
            asyncio.create_task(_feed(source, queue)),
            asyncio.create_task(_write(queue, session)),
        )
        try:
            while indices := await session.indices():
                yield indices
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(source: Source, queue: asyncio.Queue[bytes | BaseException | None]) -> None:
    try:
        if isinstance(source, AsyncIterable):
            async for entry in source:
                await queue.put(check_entry(entry))
        else:
            for entry in source:
                await queue.put(check_entry(entry))
    except Exception as error:  # noqa: BLE001  (raised by the writer, after all that came before)
        await queue.put(error)
    else:
        await queue.put(None)


async def _write(
    queue: asyncio.Queue[bytes | BaseException | None], session: AppendSession
) -> None:
    """Send what there is, as much as there is: alone when entries are few, together when many."""
    while True:
        item = await queue.get()
        batch: list[bytes] = []
        size = 0
        while isinstance(item, bytes):
            batch.append(item)
            size += len(item)
            if queue.empty() or len(batch) >= MESSAGE_ENTRIES or size >= MESSAGE_BYTES:
                break
            item = queue.get_nowait()
        if batch:
            await session.send(batch)
        if isinstance(item, bytes):
            continue
        await session.finish()
        if item is not None:
            raise item
        return
