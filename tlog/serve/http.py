"""The HTTP server: C2SP's resources of all logs, appends, health and metrics on one port."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from tlog.serve.http_app import HttpApp
from tlog.serve.http_listener import http_listener
from tlog.serve.logs import Logs
from tlog.serve.stamp_metrics import Stamps


def http_server(
    logs: Logs, address: str, *, stamps: Stamps | None = None
) -> AbstractAsyncContextManager[int]:
    """Serve the logs over HTTP: see `http_listener`. `stamps` is told in the metrics."""
    return http_listener(HttpApp(logs, stamps=stamps), address)
