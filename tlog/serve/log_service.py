"""LogService: translates between `tlog.v1` messages and the log room. No rules live here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from tlog.log import (
    Accepted,
    CosignerStatus,
    Head,
    InvalidRequest,
    Log,
    LogError,
    OutOfRange,
    Overloaded,
    Receipt,
    ShuttingDown,
)
from tlog.merkle import HASH_SIZE, TILE_WIDTH
from tlog.serve.company import Company
from tlog.serve.handlers import Context
from tlog.serve.logs import Logs, readable
from tlog.v1 import log_pb2 as pb

# A stream may run this many messages ahead of its acknowledgements; then it is read no further.
STREAM_WINDOW = 256
MAX_BATCH_PROOFS = 4096

T = TypeVar("T")


class LogService:
    """The gRPC face of a server's logs. One coroutine for each method of `log.proto`.

    Args:
        logs: the logs that are served.
        max_wait: seconds an append may wait for a published checkpoint when its caller set no
            deadline.
    """

    def __init__(self, logs: Logs, *, max_wait: float = 60.0) -> None:
        self._logs = logs
        self._max_wait = max_wait
        self._endless: set[asyncio.Task[Any]] = set()
        self._unpublished: dict[asyncio.Task[Any], Log] = {}
        self._draining = False
        self._company = Company()

    def drain(self) -> None:
        """End the calls that would never end by themselves; others finish what was accepted."""
        self._draining = True
        for task in self._endless:
            task.cancel()
        for task, log in self._unpublished.items():
            if log.publisher.refusal:
                task.cancel()

    # ---- appending ----

    async def Append(self, request: pb.AppendRequest, context: Context) -> pb.AppendResponse:
        log = self._logs.get(request.log)
        try:
            if request.wait_for == pb.WAIT_FOR_PUBLISHED:
                (receipt,) = await self._published(log, [request.entry])
                return pb.AppendResponse(index=receipt.index, tlog_proof=receipt.tlog_proof())
            (index,) = await log.submit([request.entry])
        except InvalidRequest as error:
            raise InvalidRequest(str(error), field="entry") from None
        return pb.AppendResponse(index=index)

    async def AppendBatch(
        self, request: pb.AppendBatchRequest, context: Context
    ) -> pb.AppendBatchResponse:
        log = self._logs.get(request.log)
        entries = list(request.entries)
        if request.wait_for != pb.WAIT_FOR_PUBLISHED:
            return pb.AppendBatchResponse(indices=await log.submit(entries))
        receipts = await self._published(log, entries)
        head = receipts[0].head
        return pb.AppendBatchResponse(
            indices=[receipt.index for receipt in receipts],
            proofs=[_inclusion(receipt.index, head.size, receipt.hashes) for receipt in receipts],
            checkpoint=_checkpoint(head),
        )

    async def _published(self, log: Log, entries: Sequence[bytes]) -> list[Receipt]:
        try:
            async with asyncio.timeout(self._max_wait):
                indices = await log.submit(entries)
                return await self._receipts(log, indices)
        except TimeoutError:
            raise TimeoutError(
                f"no published checkpoint includes the entries after {self._max_wait:g} s: they "
                "are durable; ask for their proofs by leaf hash later"
            ) from None

    async def _receipts(self, log: Log, indices: Sequence[int]) -> list[Receipt]:
        """Wait for publication, but beyond `drain` only when a quorum is there to come."""
        task = asyncio.create_task(log.receipts(indices))
        self._unpublished[task] = log
        try:
            return await task
        except asyncio.CancelledError:
            if not self._draining:
                raise
            raise ShuttingDown(
                "the server is shutting down before a quorum has cosigned the entries: they are "
                "durable; ask for their proofs by leaf hash later"
            ) from None
        finally:
            del self._unpublished[task]
            task.cancel()

    async def AppendStream(
        self, requests: AsyncIterator[pb.AppendStreamRequest], context: Context
    ) -> None:
        if self._draining:
            raise ShuttingDown("the server is shutting down: come back soon")
        accepted: _Window = asyncio.Queue(STREAM_WINDOW)
        feed = asyncio.create_task(self._feed(requests, accepted))
        self._endless.add(feed)
        try:
            while await self._acknowledge(accepted, context):
                pass
        finally:
            self._endless.discard(feed)
            feed.cancel()

    async def _feed(
        self, requests: AsyncIterator[pb.AppendStreamRequest], accepted: _Window
    ) -> None:
        """Submit the entries of a stream in order; last comes why it ended, None if by itself."""
        log: Log | None = None
        try:
            async for request in requests:
                log = log or self._logs.get(request.log)
                await accepted.put(await _submit_patiently(log, list(request.entries)))
        except LogError as refusal:
            await accepted.put(refusal)
        except asyncio.CancelledError:
            if not self._draining:
                raise
            await accepted.put(ShuttingDown("the server is shutting down: send the rest again"))
        else:
            await accepted.put(None)

    @staticmethod
    async def _acknowledge(accepted: _Window, context: Context) -> bool:
        """Acknowledge all that was accepted by now in one message; False when the stream ended.

        What was accepted before a refusal is acknowledged before the refusal is told.
        """
        items = [await accepted.get()]
        while not accepted.empty():
            items.append(accepted.get_nowait())
        indices: list[int] = []
        try:
            for item in items:
                if item is None:
                    return False
                if isinstance(item, LogError):
                    raise item
                indices.extend(await item)
        finally:
            if indices:
                await context.write(pb.AppendStreamResponse(indices=indices))
        return True

    # ---- heads ----

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        return pb.GetCheckpointResponse(
            checkpoint=_checkpoint(self._logs.get(request.log).published)
        )

    async def WatchCheckpoints(self, request: pb.WatchCheckpointsRequest, context: Context) -> None:
        log = self._logs.get(request.log)
        old_size, size = log.published_size(request.old_size), 0
        if not request.old_size:
            old_size = 0
        while True:
            head = await self._until_drained(log.publisher.wait_for(size))
            await context.write(
                pb.WatchCheckpointsResponse(
                    checkpoint=_checkpoint(head),
                    consistency_proof=log.reader.consistency_proof(old_size, head.size),
                )
            )
            old_size, size = head.size, head.size + 1

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        log = self._logs.get(request.log)
        size = log.published_size(request.new_size)
        return pb.GetConsistencyProofResponse(
            old_size=request.old_size,
            new_size=size,
            hashes=log.reader.consistency_proof(request.old_size, size),
            checkpoint=_latest(log, request.new_size),
        )

    async def ListLogs(self, request: pb.ListLogsRequest, context: Context) -> pb.ListLogsResponse:
        return pb.ListLogsResponse(
            logs=[
                pb.LogInfo(
                    name=log.name,
                    origin=log.origin,
                    vkeys=[str(vkey) for vkey in log.vkeys],
                    tree_size=log.tree_size,
                )
                for log in self._logs
            ]
        )

    async def GetLogStatus(
        self, request: pb.GetLogStatusRequest, context: Context
    ) -> pb.GetLogStatusResponse:
        log = self._logs.get(request.log)
        refusal = log.sequencer.refusal
        status = pb.GetLogStatusResponse(
            name=log.name,
            origin=log.origin,
            integrated_size=log.sequencer.edge.size,
            signed_size=log.signed_size,
            published_size=log.tree_size,
            refusal="" if refusal is None else str(refusal),
            no_quorum=log.publisher.refusal,
        )
        if (cosigners := log.cosigners) is not None:
            status.quorum = readable(cosigners.policy.quorum)
            status.fail_open = cosigners.fail_open
            status.witnesses.extend(map(_witness, cosigners.status()))
        return status

    # ---- entries and their proofs ----

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.GetInclusionProofResponse:
        await self._company.gather()
        log = self._logs.get(request.log)
        size = log.published_size(request.tree_size)
        which = request.WhichOneof("entry")
        if which is None:
            raise InvalidRequest("which entry? give an index or a leaf hash", field="entry")
        if which == "index":
            index = request.index
        else:
            index = log.reader.index_of(_leaf_hash(request.leaf_hash, "leaf_hash"), size)
        return pb.GetInclusionProofResponse(
            proof=_inclusion(index, size, log.reader.inclusion_proof(index, size)),
            checkpoint=_latest(log, request.tree_size),
        )

    async def BatchGetInclusionProofs(
        self, request: pb.BatchGetInclusionProofsRequest, context: Context
    ) -> pb.BatchGetInclusionProofsResponse:
        log = self._logs.get(request.log)
        size = log.published_size(request.tree_size)
        count = len(request.indices) + len(request.leaf_hashes)
        if not 1 <= count <= MAX_BATCH_PROOFS:
            raise InvalidRequest(
                f"{count} entries: ask for 1 to {MAX_BATCH_PROOFS} at once", field="indices"
            )
        wanted = [
            *request.indices,
            *(
                log.reader.index_of(_leaf_hash(leaf, f"leaf_hashes[{i}]"), size)
                for i, leaf in enumerate(request.leaf_hashes)
            ),
        ]
        return pb.BatchGetInclusionProofsResponse(
            proofs=[
                _inclusion(index, size, log.reader.inclusion_proof(index, size)) for index in wanted
            ],
            checkpoint=_latest(log, request.tree_size),
        )

    async def GetEntry(self, request: pb.GetEntryRequest, context: Context) -> pb.GetEntryResponse:
        await self._company.gather()
        log = self._logs.get(request.log)
        size = log.published_size(request.tree_size)
        hashes = log.reader.inclusion_proof(request.index, size)
        return pb.GetEntryResponse(
            entry=log.reader.entry(request.index, size),
            proof=_inclusion(request.index, size, hashes),
            checkpoint=_latest(log, request.tree_size),
        )

    async def StreamEntries(self, request: pb.StreamEntriesRequest, context: Context) -> None:
        log = self._logs.get(request.log)
        size = log.published_size(request.tree_size)
        end = request.end or size
        if request.start > end:
            raise InvalidRequest(f"start {request.start} is above end {end}", field="start")
        if end > size:
            raise OutOfRange(f"end {end} is above tree size {size}", field="end")
        checkpoint = _latest(log, request.tree_size)
        for index in range(request.start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            entries, proof = log.reader.bundle(index, size)
            await context.write(
                pb.StreamEntriesResponse(
                    first_index=index * TILE_WIDTH,
                    entries=entries,
                    subtree_proof=proof,
                    checkpoint=checkpoint,
                )
            )
            checkpoint = None

    async def _until_drained(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something that may never come, but not beyond `drain`."""
        task = asyncio.create_task(waiting)
        self._endless.add(task)
        if self._draining:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if self._draining:
                raise ShuttingDown("the server is shutting down: come back soon") from None
            raise
        finally:
            self._endless.discard(task)
            task.cancel()


_Window = asyncio.Queue[Accepted | LogError | None]


async def _submit_patiently(log: Log, entries: Sequence[bytes]) -> Accepted:
    """Submit entries of a stream.

    A full log is no error here: the stream is read no further, and flow control tells the client.
    """
    while True:
        try:
            return log.submit(entries)
        except Overloaded as full:
            await asyncio.sleep(full.retry_after)


def _leaf_hash(value: bytes, field: str) -> bytes:
    if len(value) != HASH_SIZE:
        raise InvalidRequest(
            f"a leaf hash has {HASH_SIZE} bytes, this one {len(value)}", field=field
        )
    return value


def _latest(log: Log, tree_size: int) -> pb.Checkpoint | None:
    """The checkpoint to send along when the request left the size open."""
    return None if tree_size else _checkpoint(log.published)


def _checkpoint(head: Head) -> pb.Checkpoint:
    return pb.Checkpoint(
        note=head.note,
        origin=head.checkpoint.origin,
        tree_size=head.size,
        root_hash=head.checkpoint.root_hash,
    )


def _witness(status: CosignerStatus) -> pb.CosignerStatus:
    return pb.CosignerStatus(
        names=list(map(readable, status.names)),
        url=readable(status.url),
        cosigned_size=status.cosigned_size,
        failures=status.failures,
        away=status.away,
        last_error=readable(status.last_error),
        last_seconds=status.last_seconds,
    )


def _inclusion(index: int, size: int, hashes: Sequence[bytes]) -> pb.InclusionProof:
    return pb.InclusionProof(index=index, tree_size=size, hashes=hashes)
