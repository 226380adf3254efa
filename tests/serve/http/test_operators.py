"""Index, health, metrics; methods, CORS and the table of refusals."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.http.served import Served
from tlog.log import (
    EntryNotFound,
    InvalidRequest,
    LogConfig,
    LogError,
    OutOfRange,
    Overloaded,
    ShuttingDown,
    StateRefused,
    Unavailable,
)
from tlog.serve.http_answers import (
    Forbidden,
    NotAcceptable,
    NotAllowed,
    NotFound,
    TooLong,
    TooSlow,
    status_of,
)
from tlog.serve.logs import UnknownLog
from tlog.store import StoreCorrupt, StoreFull, StoreMissing


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two logs, one of them with a name that is also a resource's."""
    configs = [
        LogConfig(origin=f"example.com/{name}", name=name, checkpoint_interval=0)
        for name in ("a", "metrics")
    ]
    with Served(tmp_path_factory.mktemp("two"), *configs) as served:
        yield served


@pytest.fixture(scope="module")
def client(two: Served) -> Iterator[httpx.Client]:
    with two.client() as client:
        yield client


def test_logs_are_apart(two: Served, client: httpx.Client) -> None:
    assert client.post("/a/add", content=b"x").text == "0"
    assert client.post("/metrics/add", content=b"y").text == "0"
    for name in ("a", "metrics"):
        two.run(two.logs[name].publisher.publish())
        text = client.get(f"/{name}/checkpoint").text
        assert text.startswith(f"example.com/{name}\n1\n")
    assert (
        client.get("/a/tile/entries/000.p/1").content,
        client.get("/metrics/tile/entries/000.p/1").content,
    ) == (b"\x00\x01x", b"\x00\x01y")


def test_the_index_tells_origins_and_keys(two: Served, client: httpx.Client) -> None:
    text = client.get("/").text
    for log in two.logs.values():
        assert f"/{log.name}/ {log.origin}\n" in text
        for vkey in log.vkeys:
            assert f"  {vkey}\n" in text


def test_an_unknown_log(client: httpx.Client) -> None:
    for resource in ("checkpoint", "tile/0/000", "tile/entries/000", "nope"):
        answer = client.get(f"/other/{resource}")
        assert (answer.status_code, answer.text) == (
            404,
            "no log is named 'other': name one of a, metrics\n",
        )
    assert client.post("/other/add", content=b"x").status_code == 404


def test_health(client: httpx.Client) -> None:
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "ok\n")
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (200, "ready\n")


def test_a_log_that_refuses_is_not_ready(small: Served, writer: httpx.Client) -> None:
    small._loop.call_soon_threadsafe(small.log.sequencer.stop, StateRefused("rollback: look"))
    time.sleep(0.1)
    answer = writer.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "small: rollback: look\n")
    assert writer.get("/healthz").status_code == 200
    assert 'tlog_accepting{log="small"} 0.0' in writer.get("/metrics").text
    # Reads go on.
    assert writer.get("/small/checkpoint").status_code == 200
    answer = writer.post("/small/add", content=b"x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_metrics(small: Served, writer: httpx.Client) -> None:
    before = int(time.time())
    small.append([b"x"] * 3)
    small.publish()
    writer.get("/small/checkpoint")
    writer.get("/small/tile/0/000.p/3")
    writer.get("/small/tile/0/000.p/4")
    answer = writer.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert values["tlog_tree_size", "small"] == 3
    assert values["tlog_published_size", "small"] == 3
    assert values["tlog_pending_entries", "small"] == 0
    assert values["tlog_accepting", "small"] == 1
    assert before <= values["tlog_published_timestamp_seconds", "small"] <= time.time()
    assert values["tlog_http_answers_total", "200", "checkpoint"] == 1
    assert values["tlog_http_answers_total", "200", "tile"] == 1
    assert values["tlog_http_answers_total", "404", "tile"] == 1


def test_strangers_cannot_grow_the_metrics(small: Served, writer: httpx.Client) -> None:
    for number in range(50):
        writer.get(f"/{number}/{number}")
        writer.get(f"/{number}")
        writer.request(f"M{number}", "/small/checkpoint")
    text = writer.get("/metrics").text
    assert len(re.findall("^tlog_http_answers_total", text, re.MULTILINE)) <= 4


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_methods_that_reads_do_not_know(client: httpx.Client, method: str) -> None:
    for path in ("/a/checkpoint", "/a/tile/0/000", "/a/tile/entries/000", "/", "/healthz"):
        answer = client.request(method, path, content=b"body")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_methods_that_add_does_not_know(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/a/add")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_cors(client: httpx.Client) -> None:
    origin = {"Origin": "https://auditor.example"}
    for path in ("/a/checkpoint", "/a/tile/0/000", "/a/tile/entries/000", "/a/tile/0/0"):
        headers = client.get(path, headers=origin).headers
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-expose-headers"] == "ETag, Retry-After"
        preflight = client.options(path, headers=origin)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert preflight.headers["access-control-allow-methods"] == "GET, HEAD"
        assert "content-length" not in preflight.headers
    # What is for the operator is not for web pages.
    for path in ("/", "/metrics", "/readyz"):
        assert "access-control-allow-origin" not in client.get(path, headers=origin).headers


@pytest.mark.parametrize("path", ["/", "/a/checkpoint", "/a/nope", "/nope", "/a/tile/0/0"])
def test_nobody_guesses_types(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


def test_reads_with_a_body(client: httpx.Client) -> None:
    for _ in range(3):
        answer = client.request("GET", "/a/checkpoint", content=b"x" * 200_000)
        assert answer.status_code == 200
    assert client.get("/a/checkpoint").status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest(""), 400),
        (TooLong(""), 413),
        (UnknownLog(""), 404),
        (NotFound(""), 404),
        (EntryNotFound(""), 404),
        (OutOfRange(""), 404),
        (NotAllowed("", allow="GET"), 405),
        (Forbidden(""), 403),
        (NotAcceptable(""), 406),
        (TooSlow(""), 408),
        (Overloaded("", retry_after=1), 429),
        (Unavailable(""), 503),
        (ShuttingDown(""), 503),
        (StateRefused(""), 503),
        (StoreCorrupt(""), 503),
        (StoreFull(""), 503),
        (StoreMissing(""), 503),
        (TimeoutError(), 503),
        (LogError(""), 500),
        (ValueError(), 500),
    ],
)
def test_the_table(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_a_damaged_store_is_said(
    big: Served, reader: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> bytes:
        raise StoreCorrupt("tile/0/000 is gone")

    monkeypatch.setattr(big.log.reader, "tile", read)
    answer = reader.get("/big/tile/0/000")
    assert (answer.status_code, answer.text) == (503, "tile/0/000 is gone\n")
    assert "immutable" not in answer.headers["cache-control"]


def test_serves_after_it_all(tmp_path: Path) -> None:
    """Start and stop leave nothing behind: twice on one thread pool of ports."""
    for number in range(2):
        with Served(tmp_path / str(number)) as served, served.client() as client:
            assert client.get("/a/checkpoint").status_code == 200
