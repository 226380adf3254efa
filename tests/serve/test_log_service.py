"""LogService over a real socket: what it answers, and how it refuses what it should."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tlog.log import Log, LogConfig, LogError, create_log
from tlog.merkle import CompactRange, leaf_hash, verify_consistency, verify_subtree_consistency
from tlog.notes import open_checkpoint, parse_proof, verify_proof
from tlog.serve import Logs, check_address, grpc_server
from tlog.v1 import log_pb2 as pb
from tlog.v1 import log_pb2_grpc

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def served(
    tmp_path: Path, *names: str, **settings: Any
) -> AsyncIterator[tuple[log_pb2_grpc.LogServiceAsyncStub, grpc.aio.Channel, list[Log]]]:
    async with contextlib.AsyncExitStack() as stack:
        logs = []
        for name in names or ("one",):
            config = LogConfig(
                origin=f"example.com/{name}",
                name=name,
                **{"checkpoint_interval": 0, "max_entry_size": 1000, **settings},
            )
            create_log(tmp_path / name, config)
            logs.append(await stack.enter_async_context(Log.opened(tmp_path / name)))
        port = await stack.enter_async_context(grpc_server(Logs(logs), "127.0.0.1:0"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield log_pb2_grpc.LogServiceStub(channel), channel, logs


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The google.rpc details of a refusal, by the name of their type."""
    packed = dict(error.trailing_metadata() or {}).get("grpc-status-details-bin", b"")
    assert isinstance(packed, bytes)
    found: dict[str, Any] = {}
    for detail in status_pb2.Status.FromString(packed).details:
        kind = detail.TypeName().removeprefix("google.rpc.")
        found[kind] = message = getattr(error_details_pb2, kind)()
        detail.Unpack(message)
    return found


async def fill(stub: Any, count: int, log: str = "") -> list[bytes]:
    entries = [b"entry %d" % i for i in range(count)]
    await stub.AppendBatch(
        pb.AppendBatchRequest(log=log, entries=entries, wait_for=pb.WAIT_FOR_PUBLISHED)
    )
    return entries


BAD: list[tuple[str, Message, grpc.StatusCode, str, str]] = [
    ("Append", pb.AppendRequest(entry=b"x" * 1001), Code.INVALID_ARGUMENT, "entry", "at most 1000"),
    (
        "Append",
        pb.AppendRequest(entry=b"x" * 70_000, wait_for=pb.WAIT_FOR_PUBLISHED),
        Code.INVALID_ARGUMENT,
        "entry",
        "70000 bytes",
    ),
    ("Append", pb.AppendRequest(log="none"), Code.NOT_FOUND, "log", "no log is named 'none'"),
    ("AppendBatch", pb.AppendBatchRequest(), Code.INVALID_ARGUMENT, "entries", "at least one"),
    (
        "AppendBatch",
        pb.AppendBatchRequest(entries=[b"ok", b"x" * 1001]),
        Code.INVALID_ARGUMENT,
        "entries[1]",
        "1001 bytes",
    ),
    (
        "AppendBatch",
        pb.AppendBatchRequest(entries=[b"x"] * 16_385),
        Code.INVALID_ARGUMENT,
        "entries",
        "at most 16384",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(index=300),
        Code.OUT_OF_RANGE,
        "index",
        "index 300 is not below tree size 300",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(index=2**64 - 1),
        Code.OUT_OF_RANGE,
        "index",
        "not below",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(index=1, tree_size=301),
        Code.OUT_OF_RANGE,
        "tree_size",
        "not published",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(),
        Code.INVALID_ARGUMENT,
        "entry",
        "which entry",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(leaf_hash=b"short"),
        Code.INVALID_ARGUMENT,
        "leaf_hash",
        "32 bytes",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(leaf_hash=b"h" * 32),
        Code.NOT_FOUND,
        "leaf_hash",
        "no entry",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(leaf_hash=leaf_hash(b"entry 299"), tree_size=299),
        Code.NOT_FOUND,
        "leaf_hash",
        "no entry",
    ),
    (
        "BatchGetInclusionProofs",
        pb.BatchGetInclusionProofsRequest(),
        Code.INVALID_ARGUMENT,
        "indices",
        "1 to 4096",
    ),
    (
        "BatchGetInclusionProofs",
        pb.BatchGetInclusionProofsRequest(indices=[1] * 4097),
        Code.INVALID_ARGUMENT,
        "indices",
        "1 to 4096",
    ),
    (
        "BatchGetInclusionProofs",
        pb.BatchGetInclusionProofsRequest(leaf_hashes=[leaf_hash(b"entry 1"), b""]),
        Code.INVALID_ARGUMENT,
        "leaf_hashes[1]",
        "32 bytes",
    ),
    (
        "GetConsistencyProof",
        pb.GetConsistencyProofRequest(old_size=200, new_size=100),
        Code.INVALID_ARGUMENT,
        "old_size",
        "above new size",
    ),
    (
        "GetConsistencyProof",
        pb.GetConsistencyProofRequest(old_size=1, new_size=301),
        Code.OUT_OF_RANGE,
        "tree_size",
        "not published",
    ),
    ("GetEntry", pb.GetEntryRequest(index=300), Code.OUT_OF_RANGE, "index", "not below"),
    (
        "GetEntry",
        pb.GetEntryRequest(index=5, tree_size=5),
        Code.OUT_OF_RANGE,
        "index",
        "not below tree size 5",
    ),
    (
        "StreamEntries",
        pb.StreamEntriesRequest(start=5, end=4),
        Code.INVALID_ARGUMENT,
        "start",
        "above end",
    ),
    (
        "StreamEntries",
        pb.StreamEntriesRequest(start=5, end=301),
        Code.OUT_OF_RANGE,
        "end",
        "above tree size",
    ),
    (
        "WatchCheckpoints",
        pb.WatchCheckpointsRequest(old_size=301),
        Code.OUT_OF_RANGE,
        "tree_size",
        "not published",
    ),
]


async def _first(call: Any) -> None:
    if isinstance(call, grpc.aio.UnaryStreamCall):
        async for _ in call:
            return
    else:
        await call


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[grpc.aio.AioRpcError | None]:
    """What one server answers to each bad request in turn."""

    async def ask() -> list[grpc.aio.AioRpcError | None]:
        answers: list[grpc.aio.AioRpcError | None] = []
        async with served(tmp_path_factory.mktemp("bad")) as (stub, _, logs):
            await fill(stub, 300)
            for method, request, *_ in BAD:
                try:
                    await _first(getattr(stub, method)(request))
                    answers.append(None)
                except grpc.aio.AioRpcError as error:
                    answers.append(error)
            # Nothing of it was taken, and the log goes on.
            assert logs[0].published.size == 300
            assert (await stub.Append(pb.AppendRequest(entry=b"next"))).index == 300
        return answers

    return asyncio.run(ask())


@pytest.mark.parametrize("number", range(len(BAD)), ids=lambda n: f"{BAD[n][0]}-{BAD[n][4]}")
def test_a_bad_request_is_refused_with_its_field_named(
    refusals: list[grpc.aio.AioRpcError | None], number: int
) -> None:
    _, _, code, field, said = BAD[number]
    error = refusals[number]
    assert error is not None, "it was accepted"
    assert (error.code(), said in (error.details() or "")) == (code, True), error
    (violation,) = details_of(error)["BadRequest"].field_violations
    assert (violation.field, violation.description) == (field, error.details())


METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["LogService"].methods]


@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x08"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    tmp_path: Path, garbage: bytes
) -> None:
    async with served(tmp_path) as (stub, channel, _):
        await fill(stub, 3)
        for method in METHODS:
            if method == "ListLogs" and garbage.startswith(b"\x0a\x02"):
                continue  # an unknown field, which a later version may know
            path = f"/tlog.v1.LogService/{method}"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                if method == "AppendStream":
                    stream: Any = channel.stream_stream(path)
                    async for _ in stream(iter([garbage])):
                        pass
                else:
                    call: Any = channel.unary_stream(path)
                    async for _ in call(garbage):
                        pass
            assert caught.value.code() == Code.INVALID_ARGUMENT, method
            assert "is not a tlog.v1" in (caught.value.details() or "")
        assert (await stub.Append(pb.AppendRequest(entry=b"next"))).index == 3


async def test_a_message_beyond_the_bound_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AppendBatch(pb.AppendBatchRequest(entries=[bytes(1 << 20)] * 33))
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED
        assert (await stub.Append(pb.AppendRequest(entry=b"next"))).index == 0


async def test_a_full_log_says_when_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path, max_pending_entries=1) as (stub, _, _):
        batches = [
            stub.AppendBatch(pb.AppendBatchRequest(entries=[b"%d" % i] * 50)) for i in range(40)
        ]
        results = await asyncio.gather(*batches, return_exceptions=True)
        refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert refused, "there was no push-back"
        assert {error.code() for error in refused} == {Code.RESOURCE_EXHAUSTED}
        assert details_of(refused[0])["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
        taken = [result for result in results if isinstance(result, pb.AppendBatchResponse)]
        assert sorted(i for each in taken for i in each.indices) == list(range(50 * len(taken)))


async def test_a_receipt_verifies_offline_with_either_key(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _, (log,)):
        await fill(stub, 700)
        request = pb.AppendRequest(entry=b"receipt", wait_for=pb.WAIT_FOR_PUBLISHED)
        answer = await stub.Append(request)
    proof = parse_proof(answer.tlog_proof)
    assert proof.index == answer.index == 700
    for vkey in log.vkeys:
        verify_proof(proof, b"receipt", [vkey])


async def test_a_wait_is_bounded_and_the_entry_is_durable_all_the_same(tmp_path: Path) -> None:
    async with served(tmp_path, checkpoint_interval=30) as (stub, _, (log,)):
        await stub.Append(pb.AppendRequest(entry=b"first"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Append(
                pb.AppendRequest(entry=b"second", wait_for=pb.WAIT_FOR_PUBLISHED), timeout=0.5
            )
        assert caught.value.code() == Code.DEADLINE_EXCEEDED
        assert log.sequencer.edge.size == 2


async def test_watching_proves_every_step(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _, (log,)):
        await fill(stub, 10)
        old = log.published
        watch = stub.WatchCheckpoints(pb.WatchCheckpointsRequest(old_size=old.size))
        size, root = old.size, old.checkpoint.root_hash
        async for step in watch:
            head = open_checkpoint(step.checkpoint.note, log.vkeys).checkpoint
            assert (head.size, head.root_hash) == (
                step.checkpoint.tree_size,
                step.checkpoint.root_hash,
            )
            verify_consistency(
                old_size=size,
                new_size=head.size,
                old_root=root,
                new_root=head.root_hash,
                proof=list(step.consistency_proof),
            )
            size, root = head.size, head.root_hash
            if size > 2000:
                break
            await stub.AppendBatch(pb.AppendBatchRequest(entries=[b"x"] * 300))
        watch.cancel()


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (255, 257), (256, 512), (600, 700)])
async def test_streamed_bundles_are_each_proven(tmp_path: Path, start: int, end: int) -> None:
    async with served(tmp_path) as (stub, _, (log,)):
        entries = await fill(stub, 700)
        head = log.published.checkpoint
        got: dict[int, bytes] = {}
        async for chunk in stub.StreamEntries(pb.StreamEntriesRequest(start=start, end=end)):
            subtree = CompactRange()
            for offset, entry in enumerate(chunk.entries):
                subtree.append(leaf_hash(entry))
                got[chunk.first_index + offset] = entry
            verify_subtree_consistency(
                start=chunk.first_index,
                end=chunk.first_index + len(chunk.entries),
                size=head.size,
                subtree_root=subtree.root(),
                root=head.root_hash,
                proof=list(chunk.subtree_proof),
            )
        wanted = range(start, end or 700)
        assert [got[i] for i in wanted] == entries[start : end or 700]


async def test_a_stream_is_acknowledged_in_order(tmp_path: Path) -> None:
    async with served(tmp_path, max_pending_entries=64) as (stub, _, (log,)):

        async def requests() -> AsyncIterator[pb.AppendStreamRequest]:
            for i in range(500):
                yield pb.AppendStreamRequest(entries=[b"%d.%d" % (i, k) for k in range(i % 3 + 1)])

        acknowledged: list[int] = []
        async for answer in stub.AppendStream(requests()):
            acknowledged.extend(answer.indices)
        assert acknowledged == list(range(sum(i % 3 + 1 for i in range(500))))
        assert log.sequencer.edge.size == len(acknowledged)


async def test_a_bad_message_ends_a_stream_after_what_was_accepted_is_acknowledged(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (stub, _, _):
        requests = [pb.AppendStreamRequest(entries=[b"%d" % i]) for i in range(50)]
        requests.append(pb.AppendStreamRequest(entries=[b"x" * 1001]))
        requests.append(pb.AppendStreamRequest(entries=[b"after"]))
        acknowledged: list[int] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for answer in stub.AppendStream(iter(requests)):
                acknowledged.extend(answer.indices)
        assert caught.value.code() == Code.INVALID_ARGUMENT
        assert details_of(caught.value)["BadRequest"].field_violations[0].field == "entries[0]"
        assert acknowledged == list(range(50))
        assert (await stub.Append(pb.AppendRequest(entry=b"next"))).index == 50


async def test_a_client_that_vanishes_in_mid_stream_disturbs_nobody(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, _, (log,)):
        for _ in range(20):
            stream = stub.AppendStream()
            for i in range(10):
                await stream.write(pb.AppendStreamRequest(entries=[b"%d" % i]))
            stream.cancel()
        answer = await stub.Append(pb.AppendRequest(entry=b"last"))
        head = await log.publisher.wait_for(answer.index + 1)
        assert log.reader.entry(answer.index, head.size) == b"last"


async def test_each_log_is_addressed_by_its_name(tmp_path: Path) -> None:
    async with served(tmp_path, "a", "b") as (stub, _, logs):
        await fill(stub, 3, log="a")
        await fill(stub, 5, log="b")
        listed = (await stub.ListLogs(pb.ListLogsRequest())).logs
        assert [(log.name, log.origin, log.tree_size) for log in listed] == [
            ("a", "example.com/a", 3),
            ("b", "example.com/b", 5),
        ]
        assert [list(log.vkeys) for log in listed] == [
            [str(vkey) for vkey in log.vkeys] for log in logs
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Append(pb.AppendRequest(entry=b"to whom?"))
        assert caught.value.code() == Code.NOT_FOUND
        assert "name one of a, b" in (caught.value.details() or "")


async def test_shutting_down_ends_the_endless_and_finishes_what_was_accepted(
    tmp_path: Path,
) -> None:
    ends: list[grpc.StatusCode] = []

    async def until_the_end(call: Any) -> None:
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            ends.append(error.code())

    config = LogConfig(origin="example.com/x", name="x", checkpoint_interval=0)
    create_log(tmp_path / "x", config)
    async with contextlib.AsyncExitStack() as stack:
        async with Log.opened(tmp_path / "x") as log:
            async with grpc_server(Logs([log]), "127.0.0.1:0") as port:
                channel = await stack.enter_async_context(
                    grpc.aio.insecure_channel(f"127.0.0.1:{port}")
                )
                stub: Any = log_pb2_grpc.LogServiceStub(channel)
                watch = asyncio.create_task(
                    until_the_end(stub.WatchCheckpoints(pb.WatchCheckpointsRequest()))
                )
                stream = stub.AppendStream()
                await stream.write(pb.AppendStreamRequest(entries=[b"streamed"]))
                acknowledged = await stream.read()
                idle = asyncio.create_task(stream.code())
                appends = [
                    asyncio.ensure_future(stub.Append(pb.AppendRequest(entry=b"%d" % i)))
                    for i in range(100)
                ]
                await asyncio.sleep(0.05)
                started = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - started < 5, "it waited for the endless"
        answers = await asyncio.gather(*appends, return_exceptions=True)
        await asyncio.gather(watch, idle)
    assert list(acknowledged.indices) == [0]
    assert [*ends, idle.result()] == [Code.UNAVAILABLE, Code.UNAVAILABLE]
    done = [answer.index for answer in answers if isinstance(answer, pb.AppendResponse)]
    async with Log.opened(tmp_path / "x") as log:
        assert log.published.size > max(done, default=0)


async def test_two_servers_on_one_port_the_second_says_why(tmp_path: Path) -> None:
    create_log(tmp_path / "x", LogConfig(origin="example.com/x", name="x"))
    async with (
        Log.opened(tmp_path / "x") as log,
        grpc_server(Logs([log]), "127.0.0.1:0") as port,
    ):
        with pytest.raises(LogError, match="the port is taken"):
            async with grpc_server(Logs([log]), f"127.0.0.1:{port}"):
                pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("0.0.0.0:6962", "refusing to listen on 0.0.0.0"),
        ("192.0.2.1:6962", "refusing to listen"),
        ("example.com:6962", "refusing to listen"),
        ("[::]:6962", "refusing to listen"),
        ("6962", "is not HOST:PORT"),
        ("127.0.0.1:", "is not HOST:PORT"),
        ("127.0.0.1:65536", "is not HOST:PORT"),
    ],
)
def test_it_listens_on_loopback_only(address: str, said: str) -> None:
    with pytest.raises(LogError, match=said):
        check_address(address)


def test_loopback_addresses_are_fine() -> None:
    check: Callable[[str], tuple[str, int]] = check_address
    assert [check(a) for a in ("127.0.0.1:1", "[::1]:6962", "localhost:0", "127.8.9.1:5")] == [
        ("127.0.0.1", 1),
        ("::1", 6962),
        ("localhost", 0),
        ("127.8.9.1", 5),
    ]
