"""The client for threads: an `AsyncClient` on a private event loop, and thin methods over it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography import x509

from tlog.audit.evidence_check import Verdict
from tlog.client.aio import AsyncClient
from tlog.client.batcher import Item, Limits, Pump, Send
from tlog.client.errors import ClientError
from tlog.client.state import State
from tlog.client.status import LogStatus
from tlog.client.stream import MESSAGE_BYTES, MESSAGE_ENTRIES
from tlog.client.values import Appended, LogInfo, Wait
from tlog.client.verification import Head, Inclusion, check_entry
from tlog.notes import Checkpoint, Policy, VerifierKey

T = TypeVar("T")

# An entry that its source took longer than this to give is sent at once, alone.
SLOW_SOURCE = 0.001
CANCEL_PATIENCE = 1.0


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._closing = threading.Lock()
        # What is handed to the loop must not come after the last of it was cancelled.
        self._entering = threading.Lock()
        self._left = False
        self._thread = threading.Thread(target=self._run, name="tlog-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine. Whatever interrupts the wait, such as Ctrl-C, cancels it."""
        if os.getpid() != self._pid:
            coroutine.close()
            raise ClientError("a client does not survive a fork: make a new one in the child")
        ended = threading.Event()
        with self._entering:
            if self._left:
                coroutine.close()
                raise ClientError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(_announced(coroutine, ended), self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientError("the client was closed", outcome_unknown=True) from None
        except BaseException:
            # Not before it has ended: what it used is about to be cleaned up.
            if future.cancel():
                ended.wait(CANCEL_PATIENCE)
            raise

    def stop(self) -> None:
        """Cancel what runs and end the thread; again, do nothing."""
        with self._closing:
            if os.getpid() == self._pid and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        with self._entering:
            self._left = True
        # What came before is not a task yet.
        self.loop.run_until_complete(asyncio.sleep(0))
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


async def _announced(coroutine: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await coroutine
    finally:
        ended.set()


class Client:
    """A client of one log for programs without asyncio: the same as `AsyncClient`, which see.

    A context manager, or call `close`. May be used from several threads. Ctrl-C while a call waits
    cancels the call. It has a thread, so it does not survive a fork: make it in the child.
    """

    def __init__(
        self,
        target: str,
        *,
        vkeys: Sequence[str | VerifierKey] | None = None,
        policy: Policy | bytes | None = None,
        max_age: float | None = None,
        log: str = "",
        state: Path | State | None = None,
        trust_on_first_use: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self._client = AsyncClient(
            target,
            vkeys=vkeys,
            policy=policy,
            max_age=max_age,
            log=log,
            state=state,
            trust_on_first_use=trust_on_first_use,
            timeout=timeout,
        )
        self._thread = LoopThread()
        self._thread.run(self._client.__aenter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls of other threads end with ClientError."""
        with contextlib.suppress(ClientError):
            self._thread.run(self._client.close())
        self._thread.stop()

    def append(self, entry: bytes, *, wait: Wait = "durable") -> Appended:
        """See `AsyncClient.append`."""
        return self._thread.run(self._client.append(entry, wait=wait))

    def append_batch(self, entries: Sequence[bytes], *, wait: Wait = "durable") -> list[Appended]:
        """See `AsyncClient.append_batch`."""
        return self._thread.run(self._client.append_batch(entries, wait=wait))

    def append_stream(self, entries: Iterable[bytes]) -> Iterator[int]:
        """See `AsyncClient.append_stream`. The source is read on the thread that iterates."""
        run, stack = self._thread.run, AsyncExitStack()
        session = run(stack.enter_async_context(self._client.open_stream()))
        try:
            for batch in _batches(entries):
                run(session.send(batch))
                yield from session.arrived()
            run(session.finish())
            while indices := run(session.indices()):
                yield from indices
        finally:
            run(stack.aclose())

    def batcher(
        self,
        *,
        max_entries: int = 1024,
        max_bytes: int = 4 << 20,
        linger: float = 0.005,
        in_flight: int = 4,
        wait: Wait = "durable",
    ) -> SyncBatcher:
        """See `AsyncClient.batcher`; a context manager."""
        limits = Limits(max_entries, max_bytes, linger, in_flight)
        return SyncBatcher(self._thread, self._client.sender(wait), limits)

    def checkpoint(self) -> Head:
        """See `AsyncClient.checkpoint`."""
        return self._thread.run(self._client.checkpoint())

    def watch(self) -> Iterator[Head]:
        """See `AsyncClient.watch`."""
        return self._iterate(self._client.watch())

    def consistency_proof(
        self, old: Checkpoint | Head, new: Checkpoint | Head | None = None
    ) -> tuple[Checkpoint | Head, tuple[bytes, ...]]:
        """See `AsyncClient.consistency_proof`."""
        return self._thread.run(self._client.consistency_proof(old, new))

    def inclusion_proof(
        self,
        index: int | None = None,
        *,
        leaf_hash: bytes | None = None,
        tree_size: int | None = None,
    ) -> Inclusion:
        """See `AsyncClient.inclusion_proof`."""
        return self._thread.run(
            self._client.inclusion_proof(index, leaf_hash=leaf_hash, tree_size=tree_size)
        )

    def inclusion_proofs(
        self,
        leaf_hashes: Sequence[bytes],
        *,
        indices: Sequence[int] | None = None,
        tree_size: int | None = None,
    ) -> list[Inclusion]:
        """See `AsyncClient.inclusion_proofs`."""
        return self._thread.run(
            self._client.inclusion_proofs(leaf_hashes, indices=indices, tree_size=tree_size)
        )

    def entry(self, index: int) -> bytes:
        """See `AsyncClient.entry`."""
        return self._thread.run(self._client.entry(index))

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `AsyncClient.entries`."""
        for bundle in self._iterate(self._client.bundles(start, end)):
            yield from bundle

    def list_logs(self) -> list[LogInfo]:
        """See `AsyncClient.list_logs`."""
        return self._thread.run(self._client.list_logs())

    def log_status(self) -> LogStatus:
        """See `AsyncClient.log_status`."""
        return self._thread.run(self._client.log_status())

    def evidence(
        self,
        package: bytes,
        *,
        service: str | VerifierKey | None = None,
        tsa_roots: Sequence[x509.Certificate] = (),
    ) -> Verdict:
        """See `AsyncClient.evidence`."""
        return self._thread.run(
            self._client.evidence(package, service=service, tsa_roots=tsa_roots)
        )

    def _iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        """Give what an asynchronous generator gives; it runs no further than is asked for."""
        try:
            while True:
                try:
                    item = self._thread.run(_next(source))
                except _End:
                    return
                yield item
        finally:
            with contextlib.suppress(ClientError):
                self._thread.run(source.aclose())


class _End(Exception):
    """Stands for StopAsyncIteration, which does not travel through a future."""


async def _next(source: AsyncIterator[T]) -> T:
    try:
        return await anext(source)
    except StopAsyncIteration:
        raise _End from None


def _batches(entries: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Entries in messages: alone when they come slowly, together when they come fast.

    An error of the source is raised when all entries before it were given.
    """
    source = iter(entries)
    failed: Exception | None = None
    while True:
        batch: list[bytes] = []
        size, slow = 0, False
        while len(batch) < MESSAGE_ENTRIES and size < MESSAGE_BYTES and not slow:
            asked = time.monotonic()
            try:
                batch.append(check_entry(next(source)))
            except StopIteration:
                if batch:
                    yield batch
                return
            except Exception as error:  # noqa: BLE001  (raised below)
                failed = error
                break
            size += len(batch[-1])
            slow = time.monotonic() - asked > SLOW_SOURCE
        if batch:
            yield batch
        if failed is not None:
            raise failed


class SyncBatcher:
    """Coalesces single appends of many threads. See `Batcher`; get one from `Client.batcher`."""

    def __init__(self, thread: LoopThread, send: Send, limits: Limits) -> None:
        self._thread = thread
        self._limits = limits
        self._changed = threading.Condition()
        self._entries = self._bytes = 0
        self._handed_over: list[Item] = []
        self._closed = False
        self._pump = thread.run(self._start(send))

    async def _start(self, send: Send) -> Pump:
        return Pump(send, self._limits, self._settled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, entry: bytes) -> concurrent.futures.Future[Appended]:
        """Take an entry, as soon as there is room, and promise its index. Do not cancel it.

        Raises:
            Refused: too long for any log. Others are not affected.
            ClientError: the batcher is closed.
        """
        check_entry(entry)
        promise: concurrent.futures.Future[Appended] = concurrent.futures.Future()
        promise.set_running_or_notify_cancel()
        with self._changed:
            while self._limits.full(self._entries, self._bytes) and not self._closed:
                self._changed.wait()
            if self._closed or self._thread.loop.is_closed():
                raise ClientError("the batcher is closed")
            self._entries += 1
            self._bytes += len(entry)
            self._handed_over.append(Item(entry, promise))
            if len(self._handed_over) == 1:
                self._thread.loop.call_soon_threadsafe(self._take_over)
        return promise

    def flush(self) -> None:
        """See `Batcher.flush`."""
        self._thread.run(self._pump.flush())

    def close(self) -> None:
        """See `Batcher.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.run(self._pump.close())

    def _take_over(self) -> None:
        with self._changed:
            items, self._handed_over = self._handed_over, []
        for item in items:
            self._pump.put(item)

    def _settled(self, entries: int, size: int) -> None:
        with self._changed:
            self._entries -= entries
            self._bytes -= size
            self._changed.notify_all()
