"""The middleware on a real wsgiref server, over a socket."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import httpx
import pytest

from tests.audit.producer import ALICE
from tests.client.hooks.conftest import Told
from tlog.audit import EventRefused
from tlog.client import Producer, SpoolError
from tlog.client.hooks.act import Act
from tlog.client.hooks.wsgi import AuditMiddleware


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


TEXT = [("Content-Type", "text/plain")]


def application(environ: Any, start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/crash":
        raise KeyError(ALICE)
    if path == "/file":
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"answer"))  # type: ignore[no-any-return]
    if path == "/replaced":
        start_response("200 OK", TEXT)
        start_response("500 Oops", TEXT, error())
    status = "403 Forbidden" if path == "/forbidden" else "200 OK"
    if path != "/replaced":
        start_response(status, TEXT)
    return [b"answer"]


def error() -> Any:
    try:
        raise ValueError(ALICE)
    except ValueError:
        return sys.exc_info()


def generated(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Each path is what it does, in order."""
    for step in environ["PATH_INFO"].strip("/").split("/"):
        match step:
            case "start":
                start_response("200 OK", TEXT)
            case "replace":
                start_response("500 Oops", TEXT, error())
            case "empty":
                yield b""
            case "write":
                start_response("200 OK", TEXT)(b"answer")
            case "answer":
                yield b"answer"
            case "deny":
                raise PermissionError(ALICE)
            case "crash":
                raise KeyError(ALICE)
            case "leave":
                raise SystemExit


class Server:
    """Sends the headers with the first byte of the body, as PEP 3333 has it."""

    def __init__(self) -> None:
        self.status = ""
        self.sent: list[bytes] = []

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info and self.sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or not self.status
        self.status = status
        return self.send

    def send(self, data: bytes) -> None:
        if data:
            self.sent += [self.status.encode()] * (not self.sent) + [data]

    def run(self, app: Any, path: str, parts: int = 100) -> None:
        """Ask for a path; the client goes away after so many parts."""
        answer = app({"REQUEST_METHOD": "GET", "PATH_INFO": path}, self.start_response)
        try:
            for part in itertools.islice(answer, parts):
                self.send(part)
        finally:
            getattr(answer, "close", lambda: None)()


def describe(environ: Any) -> Act | None:
    if environ["PATH_INFO"] == "/health":
        return None
    if environ["PATH_INFO"] == "/wrong":
        return Act("access.read")
    return Act("access.read", {"purpose": "support"}, [ALICE])


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_requests(shop: Producer, told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    app = validator(AuditMiddleware(validator(application), producer=shop, describe=describe))
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/kunden/%C3%BC", params={"q": "1"}).text == "answer"
        assert http.get("/health").text == "answer"
        assert http.get("/forbidden").status_code == 403
        assert http.get("/crash").status_code == 500
        assert http.get("/replaced").status_code == 500
        assert http.get("/file").text == "answer"
        wrong = http.get("/wrong")
    assert wrong.status_code == 500
    assert "answer" not in wrong.text
    events = told()
    assert [(e["resource"], e["outcome"], e["details"]) for e in events] == [
        ("/kunden/ü", "success", {"status": 200}),
        ("/forbidden", "denied", {"status": 403}),
        ("/crash", "failure", {"error": "KeyError"}),
        ("/replaced", "failure", {"status": 500}),
        ("/file", "success", {"status": 200}),
    ]
    assert {e["action"] for e in events} == {"GET"}
    assert "purpose: access.read requires it" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_is_made_while_it_is_sent(shop: Producer, told: Told) -> None:
    app = validator(AuditMiddleware(validator(generated), producer=shop, describe=describe))
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/start/answer/answer").text == "answeranswer"
        for path in ("/crash", "/deny", "/start/crash", "/start/replace/answer"):
            answer = http.get(path)
            assert (answer.status_code, ALICE in answer.text) == (500, False)
    assert [(e["resource"], e["outcome"], e["details"]) for e in told()] == [
        ("/start/answer/answer", "success", {"status": 200}),
        ("/crash", "failure", {"error": "KeyError"}),
        ("/deny", "denied", {"error": "PermissionError"}),
        ("/start/crash", "failure", {"error": "KeyError"}),
        ("/start/replace/answer", "failure", {"status": 500}),
    ]


SUCCESS, OOPS = ("success", {"status": 200}), ("failure", {"status": 500})


@pytest.mark.parametrize(
    ("path", "parts", "outcomes"),
    [
        ("/start", 9, [SUCCESS]),  # no body
        ("/start/answer/crash", 9, [SUCCESS]),
        ("/start/answer/replace", 9, [SUCCESS]),  # too late
        ("/start/empty/replace/answer", 9, [SUCCESS, OOPS]),  # a server might have sent it
        ("/start/replace/replace/answer", 9, [OOPS]),
        ("/write/crash", 9, [SUCCESS]),
        ("/write/answer", 9, [SUCCESS]),
        ("/start/answer/answer", 1, [SUCCESS]),  # the client is gone
        ("/start/answer", 0, [("unknown", {"answer": "none"})]),  # before anything was done
        ("/empty", 1, [("unknown", {"answer": "none"})]),
        ("/", 9, [("unknown", {"answer": "none"})]),
        ("/leave", 9, [("unknown", {"error": "SystemExit"})]),
    ],
)
def test_what_is_recorded_is_what_left(
    shop: Producer, told: Told, path: str, parts: int, outcomes: list[Any]
) -> None:
    server = Server()
    app = AuditMiddleware(generated, producer=shop, describe=describe)
    with contextlib.suppress(KeyError, ValueError, SystemExit):
        server.run(app, path, parts)
    events = told()
    assert [(e["outcome"], e["details"]) for e in events] == outcomes
    if server.sent:
        assert server.sent[0].split()[0] == str(outcomes[-1][1]["status"]).encode()


@pytest.mark.parametrize("path", ["/start/answer", "/write", "/crash", "/start/crash", "/"])
def test_no_record_no_byte(shop: Producer, told: Told, path: str) -> None:
    server = Server()
    app = AuditMiddleware(generated, producer=shop, describe=lambda _: Act("access.read"))
    with pytest.raises(EventRefused, match="purpose"):
        server.run(app, path)
    assert server.sent == []
    assert told() == []


def test_no_record_no_byte_however_often_it_is_written(shop: Producer, told: Told) -> None:
    def stubborn(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        for _ in range(2):
            with contextlib.suppress(EventRefused):
                write(b"answer")
        return []

    server = Server()
    app = AuditMiddleware(stubborn, producer=shop, describe=lambda _: Act("access.read"))
    with pytest.raises(EventRefused, match="purpose"):
        server.run(app, "/")
    assert (server.sent, told()) == ([], [])


def test_the_application_is_closed_even_if_it_cannot_be_recorded(shop: Producer) -> None:
    class Body:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            raise KeyError(ALICE)

        def close(self) -> None:
            self.closed = True

    body = Body()
    shop.close()
    app = AuditMiddleware(lambda *_: body, producer=shop, describe=describe)
    with pytest.raises(SpoolError):
        Server().run(app, "/")
    assert body.closed
