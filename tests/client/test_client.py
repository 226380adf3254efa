"""The good path over a real server, and what a client says when there is none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.client.servers import World, serving
from tests.client.servers import world as running
from tlog.client import ClientError, Head, MemoryState, Refused, TimedOut, Unreachable
from tlog.merkle import leaf_hash
from tlog.notes import parse_proof, verify_proof
from tlog.v1 import log_pb2 as pb

ENTRIES = [b"entry %d" % number for number in range(1000)]


def test_import_is_lazy() -> None:
    code = (
        "import sys, tlog; assert 'grpc' not in sys.modules; tlog.AsyncClient; tlog.Client\n"
        "try: tlog.Nothing\nexcept AttributeError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


async def test_append_and_read_back(world: World) -> None:
    async with world.client(honest=True) as client:
        assert (await client.checkpoint()).size == 0
        assert [entry async for entry in client.entries()] == []
        assert (await client.append(b"first")).index == 0
        receipt = await client.append(b"second", wait="published")
        assert receipt.index == 1
        assert receipt.proof is not None
        verify_proof(parse_proof(receipt.proof.encode()), b"second", world.vkeys)
        many = await client.append_batch(ENTRIES, wait="published")
        assert [one.index for one in many] == list(range(2, 1002))
        assert many[7].proof is not None
        verify_proof(many[7].proof, ENTRIES[7], world.vkeys)
        everything = [b"first", b"second", *ENTRIES]
        for start, end in ((0, None), (0, 1), (255, 257), (256, 512), (300, 900), (1001, 1002)):
            found = [entry async for entry in client.entries(start, end)]
            assert found == everything[start:end]
        assert [entry async for entry in client.entries(5, 5)] == []
        assert await client.entry(1001) == ENTRIES[999]
        (info,) = await client.list_logs()
        assert (info.origin, info.tree_size) == (world.log.origin, 1002)


async def test_proofs(world: World) -> None:
    await world.append(ENTRIES)
    async with world.client(honest=True) as client:
        by_index = await client.inclusion_proof(7)
        assert by_index.proof is not None
        verify_proof(by_index.proof, ENTRIES[7], world.vkeys)
        leaf = leaf_hash(ENTRIES[7])
        assert await client.inclusion_proof(leaf_hash=leaf) == by_index
        assert await client.inclusion_proof(7, leaf_hash=leaf) == by_index
        assert await client.inclusion_proof(7, tree_size=1000) == by_index
        for size in (8, 256, 999):
            older = await client.inclusion_proof(7, tree_size=size)
            assert (older.tree_size, older.proof) == (size, None)
        leaves = [leaf_hash(entry) for entry in ENTRIES]
        proven = await client.inclusion_proofs(leaves * 2, indices=[*range(1000)] * 2)
        assert [one.index for one in proven] == [*range(1000)] * 2
        proven = await client.inclusion_proofs(leaves[:300], tree_size=300)
        assert [one.head for one in proven] == [None] * 300
        assert await client.inclusion_proofs([]) == []


async def test_consistency_proof(world: World) -> None:
    heads = [Head(world.log.published.checkpoint, b"")]
    heads += [await world.append([b"entry"] * count) for count in (1, 255, 300)]
    async with world.client(honest=True) as client:
        for head in heads:
            newest, hashes = await client.consistency_proof(head)
            assert newest == heads[-1]
            assert bool(hashes) == (0 < head.size < heads[-1].size)
        newer, _ = await client.consistency_proof(heads[1].checkpoint, heads[2].checkpoint)
        assert newer == heads[2].checkpoint


async def test_stream(world: World) -> None:
    async def source() -> AsyncIterator[bytes]:
        for number, entry in enumerate(ENTRIES):
            if number % 100 == 0:
                await asyncio.sleep(0.002)
            yield entry

    async with world.client(honest=True) as client:
        assert [index async for index in client.append_stream(source())] == list(range(1000))
        assert [index async for index in client.append_stream(ENTRIES)] == list(range(1000, 2000))
        assert [index async for index in client.append_stream([])] == []


async def test_stream_of_a_failing_source(world: World) -> None:
    def broken() -> Iterator[bytes]:
        yield from ENTRIES[:10]
        raise KeyError("source")

    async with world.client(honest=True) as client:
        for source, kind in ((broken(), KeyError), ([*ENTRIES[:10], bytes(70_000)], Refused)):
            indices = []
            with pytest.raises(kind):
                async for index in client.append_stream(source):
                    indices.append(index)
            assert len(indices) == 10
    assert world.log.sequencer.edge.size == 20


async def test_watch(world: World) -> None:
    async with world.client(honest=True) as client:
        heads = client.watch()
        assert (await anext(heads)).size == 0
        for size in range(1, 5):
            waiting = asyncio.ensure_future(anext(heads))
            await asyncio.sleep(0)
            assert await world.append([b"entry"]) == await waiting
            assert (await client.checkpoint()).size == size
        await heads.aclose()
        again = client.watch()
        assert (await anext(again)).size == 4
        await again.aclose()


async def test_concurrent_calls_see_heads_out_of_order(world: World) -> None:
    async with world.client(honest=True) as client:
        receipts = await asyncio.gather(
            *(client.append(entry, wait="published") for entry in ENTRIES[:200])
        )
        assert sorted(one.index for one in receipts) == list(range(200))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "entry"),
        ({"index": -1}, "index"),
        ({"index": 1 << 64}, "index"),
        ({"index": 0, "tree_size": 0}, "tree_size"),
        ({"index": 0, "tree_size": -1}, "tree_size"),
        ({"leaf_hash": b"short"}, "leaf_hash"),
    ],
)
async def test_bad_arguments(world: World, arguments: dict[str, Any], field: str) -> None:
    async with world.client(honest=True) as client:
        with pytest.raises(Refused) as caught:
            await client.inclusion_proof(**arguments)
        assert caught.value.violations[0].field == field


async def test_refusals_of_the_server(world: World) -> None:
    async with world.client(honest=True) as client:
        for arguments, code in (
            ({"index": 5}, grpc.StatusCode.OUT_OF_RANGE),
            ({"index": 5, "tree_size": 10}, grpc.StatusCode.OUT_OF_RANGE),
            ({"leaf_hash": bytes(32)}, grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(Refused) as caught:
                await client.inclusion_proof(**arguments)
            assert caught.value.code is code
            assert caught.value.violations
        with pytest.raises(Refused, match="not a range"):
            _ = [entry async for entry in client.entries(0, 5)]
        with pytest.raises(Refused, match="at least one"):
            await client.append_batch([])
        with pytest.raises(Refused, match="65536 bytes"):
            await client.append(bytes(65536))
    async with world.client(honest=True, log="nope") as client:
        with pytest.raises(Refused, match="no log is named"):
            await client.checkpoint()


async def test_nothing_listens() -> None:
    async with serving() as target:
        pass
    from tlog.client import AsyncClient

    async with AsyncClient(target, state=MemoryState(), trust_on_first_use=True) as client:
        for call in (client.checkpoint(), client.append(b"entry"), anext(client.watch())):
            with pytest.raises(Unreachable, match="start one with `tlog serve DIR`") as caught:
                await call
            assert not caught.value.outcome_unknown
    with pytest.raises(ClientError, match="not open"):
        await client.checkpoint()


def busy(times: int, *, retry_info: bool = True, code: int = 8) -> Any:
    """A method that refuses so many times, and then answers."""
    answered: list[int] = []

    async def method(request: Any, context: Any) -> Any:
        answered.append(len(answered))
        if len(answered) > times:
            if isinstance(request, pb.AppendRequest):
                return pb.AppendResponse(index=42)
            return pb.ListLogsResponse(logs=[pb.LogInfo(name="log")])
        status = status_pb2.Status(code=code, message="full")
        if retry_info:
            delay = duration_pb2.Duration(nanos=20_000_000)
            packed = any_pb2.Any()
            packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status.details.append(packed)
        return await context.abort_with_status(rpc_status.to_status(status))

    method.answered = answered  # type: ignore[attr-defined]
    return method


async def test_a_full_log_is_asked_again() -> None:
    from tlog.client import AsyncClient

    append, listing = busy(2), busy(2)
    async with (
        serving(Append=append, ListLogs=listing) as target,
        AsyncClient(target, state=MemoryState()) as client,
    ):
        assert (await client.append(b"entry")).index == 42
        assert len(append.answered) == 3
        assert len(await client.list_logs()) == 1
        assert len(listing.answered) == 3


@pytest.mark.parametrize(
    ("method", "unknown"),
    [
        (busy(9, retry_info=False), False),
        (busy(9, code=14), True),
        (busy(9, code=14, retry_info=False), True),
        (busy(9, code=13), True),
        (busy(9, code=4), True),
    ],
)
async def test_an_append_that_may_have_been_taken_is_not_sent_again(
    method: Any, unknown: bool
) -> None:
    from tlog.client import AsyncClient

    async with (
        serving(Append=method) as target,
        AsyncClient(target, state=MemoryState()) as client,
    ):
        with pytest.raises(ClientError) as caught:
            await client.append(b"entry")
        assert caught.value.outcome_unknown is unknown
        assert len(method.answered) == 1


async def test_push_back_beyond_the_timeout() -> None:
    from tlog.client import AsyncClient

    async with (
        serving(Append=busy(1000)) as target,
        AsyncClient(target, state=MemoryState(), timeout=0.3) as client,
    ):
        with pytest.raises(Refused) as caught:
            await client.append(b"entry")
        assert caught.value.retry_after == pytest.approx(0.02)


async def test_silence_times_out() -> None:
    from tlog.client import AsyncClient

    async def silent(request: Any, context: Any) -> Any:
        await asyncio.sleep(5)

    async with (
        serving(Append=silent, ListLogs=silent) as target,
        AsyncClient(target, state=MemoryState(), timeout=0.2) as client,
    ):
        with pytest.raises(TimedOut, match="within 0.2 s") as caught:
            await client.append(b"entry")
        assert caught.value.outcome_unknown
        with pytest.raises(TimedOut) as caught:
            await client.list_logs()
        assert not caught.value.outcome_unknown


async def test_words_of_strangers_are_made_printable() -> None:
    from tlog.client import AsyncClient

    async def rude(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "\x1b[2J" + "x" * 5000)

    async with (
        serving(Append=rude) as target,
        AsyncClient(target, state=MemoryState()) as client,
    ):
        with pytest.raises(Refused) as caught:
            await client.append(b"entry")
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 600


async def test_reads_outlast_a_restart(tmp_path: Path) -> None:
    """The same port is taken again while the client waits; the watch and the entries go on."""
    from tlog.client import AsyncClient
    from tlog.log import Log
    from tlog.serve import Logs, grpc_server

    async with running(tmp_path / "log") as first:
        await first.append(ENTRIES)
        target, vkeys = first.target, first.vkeys
        client = AsyncClient(target, vkeys=vkeys, state=MemoryState(), timeout=10)
        async with client:
            heads = client.watch()
            assert (await anext(heads)).size == 1000
    async with client:
        heads = client.watch()
        waiting: asyncio.Future[Any] | None = None
        for _ in range(2):
            async with Log.opened(tmp_path / "log") as log, grpc_server(Logs([log]), target):
                if waiting is None:
                    assert (await anext(heads)).size == 1000
                    reading = client.bundles()
                    found = await anext(reading)
                else:
                    await log.append_published([b"more"])
                    assert (await waiting).size == 1001
                    async for bundle in reading:
                        found += bundle
                    assert found == ENTRIES
                    break
                waiting = asyncio.ensure_future(anext(heads))
                await asyncio.sleep(0.05)
        await heads.aclose()
