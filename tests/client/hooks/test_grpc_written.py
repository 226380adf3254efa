"""Clients of grpc.aio that write their requests one by one, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.audit.producer import ALICE
from tests.client.audit_server import until
from tests.client.hooks.conftest import Told
from tests.client.hooks.test_grpc import (
    EXPECTED,
    SHAPES,
    Aio,
    check_outward,
    handlers,
    hanging,
    hung,
    outward,
)
from tlog.audit.errors import EventRefused
from tlog.client import Producer, SpoolError
from tlog.client.hooks.act import Act
from tlog.client.hooks.grpc_client import Describe, aio_interceptors

WRITTEN = ("stream_unary", "stream_stream")
ANSWERS = {"stream_unary": [b"show"], "stream_stream": [b"show", b"last"]}
PATIENCE = 20  # seconds: a call that hangs fails here


@contextlib.asynccontextmanager
async def calling(
    shop: Producer, service: Any, says: Describe = outward
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(service),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    interceptors = aio_interceptors(shop, says)
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        yield channel
    await server.stop(None)


class Denying(Aio):
    """Does not read what is asked."""

    async def one(self, request: Any, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return b""


def begin(channel: grpc.aio.Channel, shape: str) -> Any:
    made: Any = getattr(channel, shape)(f"/shop.Customers/{shape}")
    return made()


async def answers(call: Any, shape: str) -> list[bytes]:
    if shape == "stream_unary":
        return [await call]
    got = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        got.append(answer)
    return got


@pytest.mark.parametrize("shape", WRITTEN)
async def test_written_requests_are_answered_and_recorded(
    shop: Producer, told: Told, shape: str
) -> None:
    async with calling(shop, Aio()) as channel, asyncio.timeout(PATIENCE):
        for expected in EXPECTED:
            before = len(await asyncio.to_thread(told))
            call = begin(channel, shape)
            half = len(expected[0]) // 2
            await call.write(expected[0][:half])
            await call.write(expected[0][half:])
            await call.done_writing()
            if expected[1] == "OK":
                assert await answers(call, shape) == ANSWERS[shape]
            else:
                with pytest.raises(grpc.aio.AioRpcError, match=expected[1]):
                    await answers(call, shape)
            assert (await call.code()).name == expected[1]
            check_outward((await asyncio.to_thread(told))[before:], shape, expected)


@pytest.mark.parametrize("shape", WRITTEN)
async def test_a_connection_and_first_metadata_come_before_the_requests(
    shop: Producer, told: Told, shape: str
) -> None:
    class Greeting(Aio):
        async def one(self, request: Any, context: Any) -> bytes:
            await context.send_initial_metadata((("greeting", "hello"),))
            return await super().one(request, context)

    async with calling(shop, Greeting()) as channel, asyncio.timeout(PATIENCE):
        call = begin(channel, shape)
        await call.wait_for_connection()
        assert ("greeting", "hello") in list(await call.initial_metadata())
        assert await asyncio.to_thread(told) == []
        await call.write(b"show")
        await call.done_writing()
        assert (await answers(call, shape))[0] == b"show"
    assert len(await asyncio.to_thread(told)) == 1


@pytest.mark.parametrize("shape", WRITTEN)
async def test_a_server_that_ends_before_the_writes_do(
    shop: Producer, told: Told, shape: str
) -> None:
    async with calling(shop, Denying()) as channel, asyncio.timeout(PATIENCE):
        call = begin(channel, shape)
        with pytest.raises(asyncio.InvalidStateError):
            while True:
                await call.write(b"show")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answers(call, shape)
        await asyncio.to_thread(until, lambda: len(told()) > 0)
    (event,) = await asyncio.to_thread(told)
    expected = [("denied", "PERMISSION_DENIED")]
    if shape == "stream_stream":  # gRPC itself says now this and now that of a write too late
        expected.append(("failure", "INTERNAL"))
    assert (event["outcome"], event["details"]["code"]) in expected
    assert shape == "stream_stream" or refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
async def test_a_stream_that_ends_and_is_never_read(shop: Producer, told: Told, shape: str) -> None:
    async with calling(shop, Denying()) as channel, asyncio.timeout(PATIENCE):
        call = hung(channel, shape)
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        await asyncio.to_thread(until, lambda: len(told()) > 0)
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await call.read()
    (event,) = await asyncio.to_thread(told)
    assert (event["outcome"], event["details"]) == ("denied", {"code": "PERMISSION_DENIED"})


async def test_a_code_that_is_asked_for_instead_of_the_answer(shop: Producer, told: Told) -> None:
    async with calling(shop, Aio()) as channel, asyncio.timeout(PATIENCE):
        call = begin(channel, "stream_unary")
        await call.write(b"show")
        await call.done_writing()
        asking = asyncio.create_task(call.code())
        await asyncio.sleep(0)
        asking.cancel()  # whoever asks gives up, and not the call
        assert await call.code() is grpc.StatusCode.OK
        (event,) = await asyncio.to_thread(told)
        assert event["outcome"] == "success"
        assert await call == b"show"
    assert len(await asyncio.to_thread(told)) == 1


@pytest.mark.parametrize("how", ["the call", "whoever waits"])
async def test_written_requests_that_are_given_up(shop: Producer, told: Told, how: str) -> None:
    async with hanging(shop) as (channel, service), asyncio.timeout(PATIENCE):
        call = begin(channel, "stream_unary")
        await call.write(b"show")
        await call.done_writing()

        async def wait() -> Any:
            return await call

        waiting = asyncio.create_task(wait())
        assert await service.reached.get() == b"show"
        assert (call if how == "the call" else waiting).cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"more")
        (event,) = await asyncio.to_thread(told)
        assert (event["outcome"], event["details"]) == ("unknown", {"error": "CancelledError"})


async def test_a_call_that_is_given_up_as_soon_as_it_is_made(shop: Producer, told: Told) -> None:
    async with hanging(shop) as (channel, _), asyncio.timeout(PATIENCE):
        call = hung(channel, "stream_unary")
        await asyncio.sleep(0)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        (event,) = await asyncio.to_thread(told)
    assert (event["outcome"], event["details"]) == ("unknown", {"error": "CancelledError"})


async def test_a_call_that_nobody_keeps_goes_on(shop: Producer, told: Told) -> None:
    class Waiting(Aio):
        def __init__(self) -> None:
            self.reached = asyncio.Event()
            self.go_on = asyncio.Event()

        async def one(self, request: Any, context: Any) -> bytes:
            self.reached.set()
            await self.go_on.wait()
            return await super().one(request, context)

    service = Waiting()
    async with calling(shop, service) as channel:
        hung(channel, "stream_unary")
        await service.reached.wait()
        gc.collect()
        service.go_on.set()
        await asyncio.to_thread(until, lambda: len(told()) > 0)
    (event,) = await asyncio.to_thread(told)
    assert (event["outcome"], event["details"]) == ("success", {"code": "OK"})


def unrecordable(_method: str, _request: Any) -> Act:
    return Act("access.read", {}, [ALICE])  # without its purpose


@pytest.mark.parametrize(
    ("shape", "written"), [*((each, False) for each in SHAPES), *((each, True) for each in WRITTEN)]
)
async def test_no_record_no_answer(shop: Producer, told: Told, shape: str, written: bool) -> None:
    async with calling(shop, Aio(), unrecordable) as channel, asyncio.timeout(PATIENCE):
        call = begin(channel, shape) if written else hung(channel, shape)
        if written:
            await call.write(b"show")
            await call.done_writing()
        with pytest.raises(EventRefused):
            if shape.endswith("stream"):
                await call.read()
            else:
                await call
        if shape.endswith("unary"):
            for end in (call, call.code(), call.details(), call.trailing_metadata()):
                with pytest.raises(EventRefused):
                    await end
    assert await asyncio.to_thread(told) == []


@pytest.mark.parametrize("shape", WRITTEN)
async def test_nothing_is_written_that_cannot_be_recorded(shop: Producer, shape: str) -> None:
    async with hanging(shop) as (channel, service), asyncio.timeout(PATIENCE):
        shop.close()
        with pytest.raises(SpoolError):
            await begin(channel, shape).write(b"show")
        with pytest.raises(SpoolError):
            await answers(hung(channel, shape), shape)
        assert service.reached.empty()
