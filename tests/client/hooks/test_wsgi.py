"""The middleware on a real wsgiref server, over a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import httpx
import pytest

from tests.audit.producer import ALICE
from tests.client.hooks.conftest import Told
from tlog.client import Producer
from tlog.client.hooks.act import Act
from tlog.client.hooks.wsgi import AuditMiddleware


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def application(environ: Any, start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/crash":
        raise KeyError(ALICE)
    status = "403 Forbidden" if path == "/forbidden" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [b"answer"]


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
        wrong = http.get("/wrong")
    assert wrong.status_code == 500
    assert "answer" not in wrong.text
    events = told()
    assert [(e["resource"], e["outcome"], e["details"]) for e in events] == [
        ("/kunden/ü", "success", {"status": 200}),
        ("/forbidden", "denied", {"status": 403}),
        ("/crash", "failure", {"error": "KeyError"}),
    ]
    assert {e["action"] for e in events} == {"GET"}
    assert "purpose: access.read requires it" in capfd.readouterr().err
