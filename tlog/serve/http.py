"""The HTTP server: C2SP's resources of all logs, appends, health and metrics on one port."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from tlog.serve.http_app import HttpApp
from tlog.serve.http_listener import http_listener
from tlog.serve.logs import Logs
from tlog.serve.stamp_metrics import Stamps

if TYPE_CHECKING:
    from tlog.audit.records import Records


def http_server(
    logs: Logs,
    address: str,
    *,
    stamps: Stamps | None = None,
    records: Mapping[str, Records] | None = None,
) -> AbstractAsyncContextManager[int]:
    """Serve the logs over HTTP: see `http_listener`.

    `stamps` and `records`, those of the records logs by name, are told in the metrics.
    """
    return http_listener(HttpApp(logs, stamps=stamps, records=records), address)
