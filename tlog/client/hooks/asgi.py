"""ASGI middleware: Starlette, FastAPI, Django, Quart, Litestar.

    app.add_middleware(AuditMiddleware, producer=producer, describe=describe)

`describe(scope)` is called when the application begins its answer, so that it finds there what
routing and authentication have put into the scope (`path_params`, `user`); or when the application
ends without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any

from tlog.client.hooks.act import NO_ANSWER, Act, Seen, method_of, outcome_of_status, record
from tlog.client.operation import outcome_of
from tlog.client.producer import Producer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Describe = Callable[[Scope], Act | None]


class AuditMiddleware:
    """Records requests and the opening of web sockets.

    Args:
        app: the application.
        producer: closed by whoever made it.
        describe: says what a request is; None: nothing to record.
    """

    def __init__(self, app: App, *, producer: Producer, describe: Describe) -> None:
        self._app = app
        self._producer = producer
        self._describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification.

        Raises:
            EventRefused, SpoolError: the request cannot be recorded; no byte of an answer was sent.
        """
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        seen = Seen(
            method_of(scope.get("method", "CONNECT")),
            str(scope["path"]),
            datetime.now().astimezone(),
        )
        recorded = False

        async def tell(outcome: str, details: dict[str, Any]) -> None:
            nonlocal recorded
            recorded = True  # whoever is cancelled may have told
            try:
                if (act := self._describe(scope)) is not None:
                    told = asyncio.to_thread(record, self._producer, act, seen, outcome, details)
                    await asyncio.shield(told)
            except Exception:
                recorded = False
                raise

        async def sending(message: Message) -> None:
            if not recorded and (status := _status(message)):
                await tell(outcome_of_status(status), {"status": status})
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except BaseException as error:
            if not recorded:
                await tell(outcome_of(error), {"error": type(error).__qualname__})
            raise
        if not recorded:
            await tell("unknown", NO_ANSWER)


def _status(message: Message) -> int:
    """The status with which an answer begins; 0 for a message that does not begin one."""
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return 101
        case "websocket.close":  # before it was accepted, or this is recorded already
            return 403
    return 0
