"""WSGI middleware: Flask, Django, Pyramid, Bottle.

    app.wsgi_app = AuditMiddleware(app.wsgi_app, producer=producer, describe=describe)

`describe(environ)` is called when the application begins its answer. The record is made when the
first of the answer is about to leave: until then, an error can take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tlog.client.hooks.act import NO_ANSWER, Act, Seen, method_of, outcome_of_status, record
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
        request = _Request(self._producer, self._describe, environ, start_response)
        try:
            body = self._app(environ, request.start)
        except BaseException as error:
            request.failed(error)
            raise
        if request.status and _is_made(body, environ):
            request.leaves()
            return body
        return _Body(body, request)


class _Request:
    """One request, recorded once; twice, if what was recorded is replaced by an error.

    Attributes:
        status: with which the answer begins; 0 while it has not.
    """

    def __init__(
        self,
        producer: Producer,
        describe: Describe,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> None:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        self._seen = Seen(method_of(environ["REQUEST_METHOD"]), path, datetime.now().astimezone())
        self._producer = producer
        self._describe = describe
        self._environ = environ
        self._start_response = start_response
        self._act: Act | None = None
        self._recorded = False
        self._refusal: Exception | None = None
        self.status = 0

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """The `start_response` of the application."""
        act = self._describe(self._environ)
        write = self._start_response(status, headers, *exc_info)
        # The server took it: nothing of an answer before has left, though it may be recorded.
        self._act, self.status, self._recorded = act, int(status.split(" ", 1)[0]), False
        self._refusal = None

        def writing(data: bytes) -> object:
            self.leaves()
            return write(data)

        return writing

    def leaves(self) -> None:
        """The first of the answer is about to; it has a status, or the server will refuse it."""
        if self.status:
            self._tell(outcome_of_status(self.status), {"status": self.status})

    def failed(self, error: BaseException) -> None:
        """The application did; if nothing has left, the server answers for it."""
        if not self._recorded and not self.status:
            self._act = self._describe(self._environ)
        self._tell(outcome_of(error), {"error": type(error).__qualname__})

    def closed(self) -> None:
        """Nothing follows."""
        if self._refusal is not None:
            return
        self.leaves()
        if not self._recorded:
            self._act = self._describe(self._environ)
            self._tell("unknown", NO_ANSWER)

    def _tell(self, outcome: str, details: dict[str, Any]) -> None:
        if self._refusal is not None:  # the server has answered for it by now
            raise self._refusal
        if self._recorded:
            return
        try:
            if self._act is not None:
                record(self._producer, self._act, self._seen, outcome, details)
        except Exception as refusal:
            self._refusal = refusal
            raise
        self._recorded = True


class _Body:
    """A body that is made while it is sent."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body = body
        self._request = request
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            part = next(self._parts)
        except StopIteration:
            self._request.leaves()
            raise
        except BaseException as error:
            self._request.failed(error)
            raise
        self._request.leaves()
        return part

    def close(self) -> None:
        """The server calls it in any case; the client may be gone."""
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                close()
        finally:
            self._request.closed()


def _is_made(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether no code of the application runs any more while it is sent.

    Servers look at what these are, to tell its length, or have the system send the file.
    """
    file_wrapper = environ.get("wsgi.file_wrapper")
    kinds = (list, tuple, *([file_wrapper] if isinstance(file_wrapper, type) else []))
    return isinstance(body, kinds)
