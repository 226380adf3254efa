"""WSGI middleware: Flask, Django, Pyramid, Bottle.

    app.wsgi_app = AuditMiddleware(app.wsgi_app, producer=producer, describe=describe)

`describe(environ)` is called when the application begins its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tlog.client.hooks.act import Act, Seen, method_of, outcome_of_status, record
from tlog.client.operation import outcome_of
from tlog.client.producer import Producer

Describe = Callable[[WSGIEnvironment], Act | None]


class AuditMiddleware:
    """Records requests.

    Args:
        app: the application.
        producer: closed by whoever made it.
        describe: says what a request is; None: nothing to record.
    """

    def __init__(self, app: WSGIApplication, *, producer: Producer, describe: Describe) -> None:
        self._app = app
        self._producer = producer
        self._describe = describe

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333.

        Raises:
            EventRefused, SpoolError: the request cannot be recorded; no byte of an answer was sent.
        """
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        seen = Seen(method_of(environ["REQUEST_METHOD"]), path, datetime.now().astimezone())
        recorded = False

        def tell(outcome: str, details: dict[str, Any]) -> None:
            nonlocal recorded
            recorded = True
            if (act := self._describe(environ)) is not None:
                record(self._producer, act, seen, outcome, details)

        def starting(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            if not recorded:
                code = int(status.split(" ", 1)[0])
                tell(outcome_of_status(code), {"status": code})
            return start_response(status, headers, *exc_info)

        try:
            return self._app(environ, starting)
        except BaseException as error:
            if not recorded:
                tell(outcome_of(error), {"error": type(error).__qualname__})
            raise
