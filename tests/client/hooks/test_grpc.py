"""The interceptors on real servers and channels, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.audit.producer import ALICE
from tests.client.audit_server import producer, until
from tests.client.hooks.conftest import Told
from tests.client.test_producer import Taker
from tlog.audit.errors import EventRefused
from tlog.client import Producer, SpoolError
from tlog.client.hooks.act import Act
from tlog.client.hooks.grpc_client import AuditClientInterceptor, aio_interceptors
from tlog.client.hooks.grpc_server import AioAuditInterceptor, AuditInterceptor

SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Sync:
    """What is asked for decides what happens."""

    def one(self, request: Any, context: Any) -> bytes:
        asked = request if isinstance(request, bytes) else b"".join(request)
        if asked == b"deny":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        if asked == b"crash":
            raise KeyError(ALICE)
        if asked == b"missing":
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return asked

    def many(self, request: Any, context: Any) -> Iterator[bytes]:
        yield self.one(request, context)
        yield b"last"


class Aio:
    async def one(self, request: Any, context: Any) -> bytes:
        asked = request if isinstance(request, bytes) else b"".join([r async for r in request])
        if asked == b"deny":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        if asked == b"crash":
            raise KeyError(ALICE)
        if asked == b"missing":
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return asked

    async def many(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await self.one(request, context)
        yield b"last"


class Writer(Aio):
    """As generated code knows it as well: answers that are written, requests that are read."""

    async def one(self, request: Any, context: Any) -> bytes:
        if not isinstance(request, bytes):
            request = b""
            while (part := await context.read()) is not grpc.aio.EOF:
                request += part
        return await super().one(request, context)

    async def many(self, request: Any, context: Any) -> None:  # type: ignore[override]
        answer = await self.one(request, context)
        with contextlib.suppress(EventRefused):
            await context.write(answer)
        await context.write(b"last")


def handlers(service: Any) -> grpc.GenericRpcHandler:
    made = {
        shape: getattr(grpc, f"{shape}_rpc_method_handler")(
            service.many if shape.endswith("stream") else service.one
        )
        for shape in SHAPES
    }
    return grpc.method_handlers_generic_handler("shop.Customers", made)


def describe(method: str, request: Any, context: Any) -> Act | None:
    if request == b"health":
        return None
    purpose = {} if request == b"wrong" else {"purpose": "support"}
    return Act("access.read", purpose, [ALICE])


@contextlib.contextmanager
def sync_served(shop: Producer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[AuditInterceptor(shop, describe)])
    server.add_generic_rpc_handlers((handlers(Sync()),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextlib.asynccontextmanager
async def aio_served(shop: Producer, service: Any) -> AsyncIterator[str]:
    server = grpc.aio.server(
        ThreadPoolExecutor(2), interceptors=[AioAuditInterceptor(shop, describe)]
    )
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def ask(channel: Any, shape: str, asked: bytes) -> tuple[str, list[bytes]]:
    """The code and the answers."""
    call = getattr(channel, shape)(f"/shop.Customers/{shape}")
    try:
        answer = call(iter([asked]) if shape.startswith("stream") else asked, timeout=10)
        return "OK", [answer] if isinstance(answer, bytes) else list(answer)
    except grpc.RpcError as error:
        return error.code().name, []


EXPECTED = [
    (b"show", "OK", "success", {"code": "OK"}),
    (b"deny", "PERMISSION_DENIED", "denied", {"code": "PERMISSION_DENIED"}),
    (b"crash", "UNKNOWN", "failure", {"code": "OK", "error": "KeyError"}),
    (b"missing", "NOT_FOUND", "failure", {"code": "NOT_FOUND"}),
]


def check(events: list[dict[str, Any]], shape: str, expected: Any) -> None:
    (event,) = events
    _, _, outcome, details = expected
    assert event["outcome"] == outcome
    assert details.items() <= event["details"].items()
    assert event["action"] == f"shop.Customers/{shape}"
    assert event["subjects"] == [ALICE]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sync_server(shop: Producer, told: Told, shape: str) -> None:
    with sync_served(shop) as target, grpc.insecure_channel(target) as channel:
        for expected in EXPECTED:
            before = len(told())
            assert ask(channel, shape, expected[0])[0] == expected[1]
            check(told()[before:], shape, expected)
        if shape.startswith("unary"):
            before = len(told())
            assert ask(channel, shape, b"health")[1][0] == b"health"
            assert ask(channel, shape, b"wrong") == ("UNKNOWN", [])  # no record, no answer
            assert len(told()) == before
        assert ask(channel, "unary_unary", b"x")[0] == "OK"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "service",
    [Aio, Writer, Sync],  # grpc.aio runs what is no coroutine on other threads
)
async def test_an_aio_server(shop: Producer, told: Told, service: Any, shape: str) -> None:
    def grown(since: int) -> bool:
        return len(told()) > since

    async with aio_served(shop, service()) as target:

        def calls() -> None:
            with grpc.insecure_channel(target) as channel:
                for expected in EXPECTED:
                    before = len(told())
                    assert ask(channel, shape, expected[0])[0] == expected[1]
                    # An abort of grpc.aio is sent before its handler ends.
                    until(functools.partial(grown, before))
                    check(told()[before:], shape, expected)
                if shape.startswith("unary"):
                    before = len(told())
                    assert ask(channel, shape, b"health")[1][0] == b"health"
                    assert ask(channel, shape, b"wrong") == ("UNKNOWN", [])
                    assert len(told()) == before

        await asyncio.to_thread(calls)


def test_methods_that_are_not_served_are_nobodys(shop: Producer, told: Told) -> None:
    with sync_served(shop) as target, grpc.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(f"/shop.Customers/{ALICE}")
        with pytest.raises(grpc.RpcError, match="not found"):
            call(b"x", timeout=10)
    assert not told()


def outward(method: str, request: Any) -> Act | None:
    return describe(method, request, None)


# What a stream says before it fails is its answer.
@pytest.mark.parametrize("shape", SHAPES)
def test_a_client(tmp_path: Any, shop: Producer, told: Told, shape: str) -> None:
    with (
        producer(Taker(), tmp_path, spool=tmp_path / "other") as other,
        sync_served(other) as target,
        grpc.insecure_channel(target) as plain,
    ):
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward))
        for expected in EXPECTED:
            before = len(told())
            assert ask(channel, shape, expected[0])[0] == expected[1]
            check_outward(told()[before:], shape, expected)
        if shape.startswith("unary"):
            before = len(told())
            assert ask(channel, shape, b"health")[1][0] == b"health"
            assert len(told()) == before


def check_outward(events: list[dict[str, Any]], shape: str, expected: Any) -> None:
    (event,) = events
    asked, code, outcome, _ = expected
    details: dict[str, str] = {"code": code}
    if shape.endswith("stream") and asked in (b"show", b"missing"):
        outcome, details = "success", {"stream": "begun"}
    assert (event["outcome"], event["details"]) == (outcome, details)
    assert event["action"] == f"shop.Customers/{shape}"


async def ask_aio(channel: Any, shape: str, asked: bytes) -> tuple[str, list[bytes]]:
    async def many() -> AsyncIterator[bytes]:
        yield asked

    call = getattr(channel, shape)(f"/shop.Customers/{shape}")
    made = call(many() if shape.startswith("stream") else asked, timeout=10)
    try:
        if shape.endswith("stream"):
            return "OK", [answer async for answer in made]
        return "OK", [await made]
    except grpc.aio.AioRpcError as error:
        return error.code().name, []


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_aio_client(tmp_path: Any, shop: Producer, told: Told, shape: str) -> None:
    with producer(Taker(), tmp_path, spool=tmp_path / "other") as other, sync_served(other) as to:
        async with grpc.aio.insecure_channel(
            to, interceptors=aio_interceptors(shop, outward)
        ) as channel:
            for expected in EXPECTED:
                before = len(await asyncio.to_thread(told))
                assert (await ask_aio(channel, shape, expected[0]))[0] == expected[1]
                check_outward((await asyncio.to_thread(told))[before:], shape, expected)
            if shape.startswith("unary"):
                before = len(await asyncio.to_thread(told))
                assert (await ask_aio(channel, shape, b"health"))[1][0] == b"health"
                assert len(await asyncio.to_thread(told)) == before


def test_nothing_is_asked_that_cannot_be_recorded(
    tmp_path: Any, shop: Producer, told: Told
) -> None:
    reached: list[str] = []

    def describe_inward(method: str, _request: Any, _context: Any) -> Act | None:
        reached.append(method)
        return None

    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[AuditInterceptor(shop, describe_inward)]
    )
    server.add_generic_rpc_handlers((handlers(Sync()),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward))
        shop.close()
        for shape in SHAPES:
            with pytest.raises(SpoolError):
                ask(channel, shape, b"show")
    server.stop(None).wait()
    assert reached == []


def test_a_stream_that_is_given_up(tmp_path: Any, shop: Producer, told: Told) -> None:
    with (
        producer(Taker(), tmp_path, spool=tmp_path / "other") as other,
        sync_served(other) as target,
        grpc.insecure_channel(target) as plain,
    ):
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward))
        call: Any = channel.unary_stream("/shop.Customers/unary_stream")
        call(b"show", timeout=10).cancel()
        (event,) = told()
        assert (event["outcome"], event["details"]) == ("unknown", {"stream": "given up"})


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
def test_a_stream_that_is_never_read(tmp_path: Any, shop: Producer, told: Told, shape: str) -> None:
    with (
        producer(Taker(), tmp_path, spool=tmp_path / "other") as other,
        sync_served(other) as target,
        grpc.insecure_channel(target) as plain,
    ):
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward))

        def begin(asked: bytes) -> Any:
            call: Any = getattr(channel, shape)(f"/shop.Customers/{shape}")
            return call(iter([asked]) if shape.startswith("stream") else asked, timeout=10)

        begin(b"show")  # and dropped
        until(lambda: len(told()) == 1)
        refused = begin(b"deny")
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        until(lambda: len(told()) == 2)
        with pytest.raises(grpc.RpcError):
            next(refused)
    dropped, denied = told()
    assert (dropped["outcome"], dropped["details"]) == ("unknown", {"stream": "given up"})
    assert (denied["outcome"], denied["details"]) == ("denied", {"code": "PERMISSION_DENIED"})


def test_a_stream_without_a_record_has_no_answer_however_often_it_is_asked(
    tmp_path: Any, shop: Producer, told: Told
) -> None:
    with (
        producer(Taker(), tmp_path, spool=tmp_path / "other") as other,
        sync_served(other) as target,
        grpc.insecure_channel(target) as plain,
    ):
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward))
        call: Any = channel.unary_stream("/shop.Customers/unary_stream")
        answers = call(b"wrong", timeout=10)
        for _ in range(2):
            with pytest.raises(EventRefused):
                next(answers)
    assert not told()


class Hanging:
    """Has the request, and never answers."""

    def __init__(self) -> None:
        self.reached: asyncio.Queue[bytes] = asyncio.Queue()

    async def one(self, request: Any, context: Any) -> bytes:
        asked = request if isinstance(request, bytes) else b"".join([r async for r in request])
        await self.reached.put(asked)
        await asyncio.Event().wait()
        return b"never"

    async def many(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await self.one(request, context)


@contextlib.asynccontextmanager
async def hanging(shop: Producer) -> AsyncIterator[tuple[Any, Hanging]]:
    service = Hanging()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(service),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    interceptors = aio_interceptors(shop, outward)
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        yield channel, service
    await server.stop(None)


def hung(channel: Any, shape: str) -> Any:
    async def many() -> AsyncIterator[bytes]:
        yield b"show"

    call = getattr(channel, shape)(f"/shop.Customers/{shape}")
    return call(many() if shape.startswith("stream") else b"show")


@pytest.mark.parametrize("shape", ["unary_unary", "stream_unary"])
@pytest.mark.parametrize("how", ["the call", "whoever waits"])
async def test_a_call_that_is_given_up_is_recorded(
    shop: Producer, told: Told, shape: str, how: str
) -> None:
    async with hanging(shop) as (channel, service):
        call = hung(channel, shape)

        async def wait() -> Any:
            return await call

        waiting = asyncio.create_task(wait())
        assert await service.reached.get() == b"show"
        (call if how == "the call" else waiting).cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()
        (event,) = await asyncio.to_thread(told)
        assert (event["outcome"], event["details"]) == ("unknown", {"error": "CancelledError"})
        assert event["action"] == f"shop.Customers/{shape}"


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
@pytest.mark.parametrize("asked", [False, True])
async def test_a_stream_of_aio_that_is_given_up_is_recorded(
    shop: Producer, told: Told, shape: str, asked: bool
) -> None:
    async with hanging(shop) as (channel, service):
        call = hung(channel, shape)
        if asked:
            reading = asyncio.create_task(call.read())
        assert await service.reached.get() == b"show"
        assert await asyncio.to_thread(told) == []
        call.cancel()
        if asked:
            with pytest.raises(asyncio.CancelledError):
                await reading
        await asyncio.to_thread(until, lambda: len(told()) > 0)
    (event,) = await asyncio.to_thread(told)
    assert event["outcome"] == ("failure" if asked else "unknown")


async def test_another_interceptor_that_fails_is_no_reason_not_to_record(
    shop: Producer, told: Told
) -> None:
    class Failing(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            await (await continuation(client_call_details, request))
            raise KeyError(ALICE)

    with sync_served(shop) as target:
        interceptors = [*aio_interceptors(shop, outward), Failing()]
        async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
            call: Any = channel.unary_unary("/shop.Customers/unary_unary")
            with pytest.raises(KeyError):
                await call(b"show")
    inward, event = await asyncio.to_thread(told)
    assert inward["outcome"] == "success"
    assert (event["outcome"], event["details"]) == ("failure", {"error": "KeyError"})


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
def test_an_interrupt_while_it_waits(shop: Producer, told: Told, shape: str) -> None:
    class Interrupted:
        cancelled = False

        def code(self) -> grpc.StatusCode:
            raise KeyboardInterrupt

        def __next__(self) -> bytes:
            raise KeyboardInterrupt

        def add_callback(self, callback: Any) -> bool:
            return True

        def cancel(self) -> bool:
            self.cancelled = True
            return True

    class Details:
        method = f"/shop.Customers/{shape}"

    call = Interrupted()
    intercept = getattr(AuditClientInterceptor(shop, outward), f"intercept_{shape}")
    with pytest.raises(KeyboardInterrupt):
        next(intercept(lambda *_: call, Details(), b"show"))
    assert call.cancelled == (shape == "unary_unary")
    (event,) = told()
    assert (event["outcome"], event["details"]) == ("unknown", {"error": "KeyboardInterrupt"})


class Tracing(grpc.UnaryStreamClientInterceptor):
    """As some tracers do, it makes a mere iterator of a stream."""

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        yield from continuation(details, request)


def test_a_stream_of_which_another_interceptor_leaves_an_iterator(
    tmp_path: Any, shop: Producer, told: Told
) -> None:
    with (
        producer(Taker(), tmp_path, spool=tmp_path / "other") as other,
        sync_served(other) as target,
        grpc.insecure_channel(target) as plain,
    ):
        channel = grpc.intercept_channel(plain, AuditClientInterceptor(shop, outward), Tracing())
        call: Any = channel.unary_stream("/shop.Customers/unary_stream")
        assert list(call(b"show", timeout=10)) == [b"show", b"last"]
        with pytest.raises(grpc.RpcError):
            list(call(b"deny", timeout=10))
    shown, denied = told()
    assert shown["outcome"] == "success"
    assert (denied["outcome"], denied["details"]) == ("denied", {"code": "PERMISSION_DENIED"})
