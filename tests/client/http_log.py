"""A log behind a real HTTP server that grows, forks, rolls back and falls silent as a test wants.

And a receiver of webhooks that remembers all it got.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.client.tiled import TiledLog
from tests.notes.keyring import LOG, LOG_ED, LOG_PQ
from tlog.merkle import HASH_SIZE, RightEdge, leaf_hashes
from tlog.notes import Checkpoint, Signer, cosign, sign_checkpoint


def signed(
    entries: Sequence[bytes],
    *,
    at: float | None = None,
    signers: Sequence[Signer] = (LOG_ED, LOG_PQ),
    witnesses: Sequence[Signer] = (),
) -> bytes:
    """A checkpoint of these entries, signed and cosigned now, or at another time."""
    root = RightEdge().extend(leaf_hashes(list(entries)))[0].root()
    checkpoint = Checkpoint(LOG, len(entries), root)
    when = int(time.time() if at is None else at)
    note = sign_checkpoint(checkpoint, signers, timestamp=when)
    return note + b"".join(
        cosign(checkpoint, witness, timestamp=when).encode() for witness in witnesses
    )


class _Server:
    """An HTTP server on a thread, until left."""

    def __init__(self, handle: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                with contextlib.suppress(ConnectionError):
                    status, body = handle(self)
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class HttpLog(_Server):
    """A log of `entries`, which shows `note` as its checkpoint. Change both at will.

    Attributes:
        lie: may change any answer, which it is told the path of.
        status: of all answers.
        refuse: whether a path is answered with 503.
        hang: while set, nothing is answered.
        asked: the paths.
    """

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        super().__init__(self._handle)
        self.lie: Callable[[str, bytes], bytes] = lambda path, answer: answer
        self.status = 200
        self.refuse: Callable[[str], bool] = lambda path: False
        self.hang = threading.Event()
        self.asked: list[str] = []
        self.show(entries)

    def show(self, entries: Sequence[bytes], note: bytes | None = None) -> None:
        """From now on this is the log, and it has always been."""
        resources = TiledLog(list(entries)).resources()
        self._shown = resources | {"checkpoint": signed(entries) if note is None else note}

    def _handle(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        path = request.path.removeprefix("/")
        self.asked.append(path)
        if self.hang.is_set():
            time.sleep(30)
        if self.refuse(path):
            return 503, b"not now\n"
        body = _resource(self._shown, path)
        if body is None:
            return 404, b"no such thing\n"
        return self.status, self.lie(path, body)

    def __enter__(self) -> HttpLog:  # type: ignore[override]
        super().__enter__()
        return self


def _resource(shown: Mapping[str, bytes], path: str) -> bytes | None:
    if path in shown:
        return shown[path]
    # A partial of a tile that has grown.
    whole, _, width = path.partition(".p/")
    for stored, data in shown.items():
        if stored.partition(".p/")[0] == whole and width:
            if whole.startswith("tile/entries/"):
                return _first_entries(data, int(width))
            if len(data) >= int(width) * HASH_SIZE:
                return data[: int(width) * HASH_SIZE]
    return None


def _first_entries(bundle: bytes, width: int) -> bytes | None:
    end = 0
    for _ in range(width):
        if end >= len(bundle):
            return None
        end += 2 + int.from_bytes(bundle[end : end + 2], "big")
    return bundle[:end]


class Receiver(_Server):
    """Takes webhooks. `refuse`: how many more it answers with 500, all of them remembered too."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        self.refuse = 0

    def _handle(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        assert request.headers["Content-Type"] == "application/json"
        if len(body) < int(request.headers["Content-Length"]):
            return 400, b"whoever sent this was killed\n"
        if self.refuse > 0:
            self.refuse -= 1
            self.refused += 1
            return 500, b"not now\n"
        self.events.append(json.loads(body))
        return 200, b""

    def __enter__(self) -> Receiver:  # type: ignore[override]
        super().__enter__()
        return self

    def indices(self, rule: str | None = None) -> set[int]:
        """Of the entries that were found."""
        return {
            event["index"]
            for event in list(self.events)
            if event["event"] == "match" and rule in (None, event["rule"])
        }

    def alarms(self) -> list[str]:
        """Kinds of the alarms that were raised, with a minus where they were cleared."""
        return [
            ("" if event["event"] == "alarm" else "-") + event["kind"]
            for event in list(self.events)
            if event["event"] != "match"
        ]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.01)
