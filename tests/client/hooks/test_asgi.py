"""The middleware in a real Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.audit.producer import ALICE
from tests.client.hooks.conftest import Told
from tlog.audit import EventRefused
from tlog.client import Producer, SpoolError
from tlog.client.hooks.act import Act
from tlog.client.hooks.asgi import AuditMiddleware


async def customer(request: Request) -> Response:
    return PlainTextResponse(request.path_params["who"])


async def refuse(request: Request) -> Response:
    raise HTTPException(int(request.path_params["status"]))


async def crash(request: Request) -> Response:
    raise KeyError(ALICE)


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("in the middle")

    return StreamingResponse(parts())


async def talk(socket: WebSocket) -> None:
    if socket.path_params["who"] == "eve":
        await socket.close()
        return
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def describe(scope: MutableMapping[str, Any]) -> Act | None:
    if scope["path"] == "/health":
        return None
    who = scope.get("path_params", {}).get("who")
    return Act("access.read", {"purpose": "support"}, [who] if who else [])


def application(shop: Producer, describe: Any = describe) -> Starlette:
    routes = [
        Route("/customers/{who}", customer, methods=["GET", "POST"]),
        Route("/health", lambda request: PlainTextResponse("ok")),
        Route("/refuse/{status}", refuse),
        Route("/crash", crash),
        Route("/stream", stream),
        WebSocketRoute("/talk/{who}", talk),
    ]
    middleware = [Middleware(AuditMiddleware, producer=shop, describe=describe)]
    return Starlette(routes=routes, middleware=middleware)


class Http:
    """Asks the application; what it raises comes through, unless `caught`."""

    def __init__(self, app: Starlette, *, caught: bool = False) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=not caught)

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        async def asking() -> httpx.Response:
            url = "http://shop.example"
            async with httpx.AsyncClient(transport=self.transport, base_url=url) as client:
                return await client.request(method, path)

        return asyncio.run(asking())


async def drive(app: Starlette, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[Any]:
    """Call the application by hand; the messages that it sent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_requests(shop: Producer, told: Told) -> None:
    http = Http(application(shop))
    assert http.get(f"/customers/{ALICE}?q=secret").text == ALICE
    assert http.get("/health").text == "ok"
    http.get(f"/customers/{ALICE}", "PURGE")
    for status in (401, 403, 404, 500):
        assert http.get(f"/refuse/{status}").status_code == status
    with pytest.raises(KeyError):
        http.get("/crash")
    events = told()
    assert [(e["action"], e["outcome"], e["details"]) for e in events] == [
        ("GET", "success", {"status": 200}),
        ("other", "failure", {"status": 405}),
        ("GET", "denied", {"status": 401}),
        ("GET", "denied", {"status": 403}),
        ("GET", "failure", {"status": 404}),
        ("GET", "failure", {"status": 500}),
        ("GET", "failure", {"error": "KeyError"}),
    ]
    assert events[0]["subjects"] == [ALICE]
    assert events[0]["resource"] == f"/customers/{ALICE}"


def test_what_a_caller_sends_is_never_public(shop: Producer, told: Told, taker: Any) -> None:
    Http(application(shop)).get(f"/customers/{ALICE}")
    assert told()
    signed = taker.events[0].jws.payload()
    assert b"alice" not in signed
    assert b"customers" not in signed


async def test_web_sockets(shop: Producer, told: Told) -> None:
    opening = [{"type": "websocket.connect"}]
    for who, sends in (("bob", ["accept", "send", "close"]), ("eve", ["close"])):
        scope = {"type": "websocket", "path": f"/talk/{who}", "headers": [], "query_string": b""}
        sent = await drive(application(shop), scope, list(opening))
        assert [message["type"].removeprefix("websocket.") for message in sent] == sends
    assert [(e["outcome"], e["subjects"], e["action"]) for e in told()] == [
        ("success", ["bob"], "CONNECT"),
        ("denied", ["eve"], "CONNECT"),
    ]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_one_that_ends_without_an_answer(shop: Producer, told: Told, kind: str) -> None:
    """The client is gone, and the application sees it; or it has a fault."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == f"{kind}.disconnect"

    app: Any = AuditMiddleware(silent, producer=shop, describe=describe)
    scope = {"type": kind, "path": "/customers/bob", "method": "GET", "path_params": {"who": "bob"}}
    assert await drive(app, scope, [{"type": f"{kind}.disconnect"}]) == []
    (event,) = told()
    assert (event["outcome"], event["details"]) == ("unknown", {"answer": "none"})
    assert event["subjects"] == ["bob"]


async def test_one_that_is_cancelled_before_its_answer(shop: Producer, told: Told) -> None:
    waiting = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        waiting.set()
        await asyncio.Event().wait()

    app: Any = AuditMiddleware(slow, producer=shop, describe=describe)
    scope = {"type": "http", "path": "/customers/bob", "method": "GET"}
    task = asyncio.create_task(drive(app, scope, []))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = told()
    assert (event["outcome"], event["details"]) == ("unknown", {"error": "CancelledError"})


def test_it_is_recorded_before_the_first_byte(shop: Producer, told: Told) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        Http(application(shop)).get("/stream")
    assert [e["outcome"] for e in told()] == ["success"]


@pytest.mark.parametrize("path", [f"/customers/{ALICE}", "/crash"])
def test_no_record_no_answer(shop: Producer, told: Told, path: str) -> None:
    def wrong(scope: Any) -> Act:
        return Act("access.read")

    with pytest.raises(EventRefused, match="purpose"):
        Http(application(shop, wrong)).get(path)
    answer = Http(application(shop, wrong), caught=True).get(path)
    assert answer.status_code == 500
    assert ALICE not in answer.text
    assert not told()
    shop.close()
    with pytest.raises(SpoolError, match="closed"):
        Http(application(shop)).get(path)


async def test_no_record_no_answer_however_often_it_begins(shop: Producer, told: Told) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            with contextlib.suppress(EventRefused):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": ALICE.encode()})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = AuditMiddleware(stubborn, producer=shop, describe=lambda _: Act("access.read"))
    scope = {"type": "http", "path": "/customers/bob", "method": "GET"}
    with pytest.raises(EventRefused, match="purpose"):
        await app(scope, None, send)
    assert (sent, told()) == ([], [])


async def test_the_lifespan_passes(shop: Producer, told: Told) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = await drive(application(shop), {"type": "lifespan"}, messages)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert not told()
