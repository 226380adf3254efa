"""Handlers over a real socket: clients that go away, and those that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from tests.serve.slow import slow
from tlog.serve import sending
from tlog.serve.grpc_listener import grpc_listener
from tlog.serve.handlers import generic_handler
from tlog.serve.sending import PIECE, send
from tlog.v1 import reports_pb2 as pb
from tlog.v1 import reports_pb2_grpc

_SERVICE = pb.DESCRIPTOR.services_by_name["ReportService"]


@pytest.fixture(autouse=True)
def _all_is_told() -> Iterator[None]:
    """Other tests hear of nothing below a warning."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    yield
    structlog.configure(**before)


class Held:
    """Stands for what a method has in memory."""


class Servicer:
    """Sends a megabyte, or raises."""

    def __init__(self) -> None:
        self.held: list[weakref.ref[Held]] = []

    async def ListRequests(  # noqa: N802
        self, request: pb.ListRequestsRequest, context: Any
    ) -> pb.ListRequestsResponse:
        raise ValueError(request.log)

    async def MakeReport(self, request: pb.MakeReportRequest, context: Any) -> None:  # noqa: N802
        held = Held()
        self.held.append(weakref.ref(held))
        await send(context, [pb.MakeReportResponse(data=bytes(PIECE))] * 16, size=16 * PIECE)
        del held

    async def Export(self, request: pb.ExportRequest, context: Any) -> None:  # noqa: N802
        """Not called."""


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[Servicer, Any, grpc.aio.Channel]]:
    servicer = Servicer()
    handlers = {_SERVICE.full_name: generic_handler(_SERVICE, servicer)}
    async with grpc_listener(handlers, "127.0.0.1:0", max_message_bytes=1 << 20) as port:
        (channel,) = slow(port, 1)
        async with channel:
            yield servicer, reports_pb2_grpc.ReportServiceStub(channel), channel


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, but for gRPC's poller: it may still call a loop that a test closed."""
    messages = [record.getMessage() for record in caplog.records]
    return [each for each in messages if "PollerCompletionQueue._handle_events" not in each]


async def test_a_client_that_goes_away_is_no_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with capture_logs() as said:
        async with served() as (servicer, stub, channel):
            # One after the other: a connection whose client does not read may not tell in time
            # that another of its calls is cancelled.
            first = stub.MakeReport(pb.MakeReportRequest())
            assert (await first.read()).data
            first.cancel()
            await until(lambda: servicer.held[0]() is None)
            second = stub.MakeReport(pb.MakeReportRequest())
            assert (await second.read()).data
            await channel.close()
            await until(lambda: all(held() is None for held in servicer.held))
    assert {(line["event"], line["log_level"]) for line in said} <= {("a client went away", "info")}
    assert not logged(caplog)


async def test_a_client_that_hears_of_nothing_goes_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was too much for its patience is not kept, and then it hangs up."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(sending, "PATIENCE", 0.05)
    monkeypatch.setattr(sending, "PACE", 1 << 40)
    with capture_logs() as said:
        async with served() as (servicer, stub, channel):
            call = stub.MakeReport(pb.MakeReportRequest())
            assert (await call.read()).data
            # The server cannot even tell it that it is too late.
            await until(lambda: servicer.held[0]() is None)
            assert not call.done()
            await channel.close()
            await until(lambda: bool(said))
    assert [line["event"] for line in said] == ["a client went away"]
    assert not logged(caplog)


async def test_an_internal_error_is_told_to_the_operator_alone() -> None:
    with capture_logs() as said:
        async with served() as (_, stub, _):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ListRequests(pb.ListRequestsRequest(log="alice"))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert raised.value.details() == "internal error: see the server's log"
    assert [(line["event"], line["method"]) for line in said] == [
        ("internal error", "ListRequests")
    ]
