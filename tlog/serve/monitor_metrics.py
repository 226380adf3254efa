"""What Prometheus scrapes of a monitor, read at that moment, on a loopback port."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.client import Monitor, Watch
from tlog.client.watch import Kind
from tlog.log import LogError
from tlog.serve.addresses import check_address


class MonitorMetrics(Collector):
    """The state of a monitor and its logs."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        watches = self._monitor.watches
        gauges: tuple[tuple[str, str, Callable[[Watch], float]], ...] = (
            ("tlog_monitor_up", "1 if the log could be read, 0 if not.", _up),
            (
                "tlog_monitor_checked_timestamp_seconds",
                "When the log was last checked, POSIX time.",
                lambda watch: watch.checked,
            ),
            ("tlog_monitor_head_size", "Entries of the last verified head.", _size),
            (
                "tlog_monitor_head_timestamp_seconds",
                "When that head was last known to be the newest, POSIX time.",
                lambda watch: watch.watched.fresh,
            ),
            (
                "tlog_monitor_entries_read",
                "Entries that were verified, and whose findings were delivered.",
                lambda watch: watch.watched.edge.size,
            ),
            (
                "tlog_monitor_untold",
                "Alarms that nobody could be told yet.",
                lambda watch: len(watch.watched.untold),
            ),
        )
        for name, what, read in gauges:
            gauge = GaugeMetricFamily(name, what, labels=["log"])
            for watch in watches:
                gauge.add_metric([watch.name], read(watch))
            yield gauge
        alarms = GaugeMetricFamily(
            "tlog_monitor_alarm", "1 while an alarm of that kind stands.", labels=["log", "kind"]
        )
        matches = CounterMetricFamily(
            "tlog_monitor_matches", "Entries that a rule found.", labels=["log", "rule"]
        )
        for watch in watches:
            for kind in get_args(Kind):
                alarms.add_metric([watch.name, kind], kind in watch.watched.alarms)
            for rule, count in sorted(watch.found.items()):
                matches.add_metric([watch.name, rule], count)
        failing = GaugeMetricFamily(
            "tlog_monitor_failed_deliveries", "How often in a row a sink failed.", labels=["sink"]
        )
        for sink, count in sorted(self._monitor.undelivered.items()):
            failing.add_metric([sink], count)
        yield from (alarms, matches, failing)


@contextlib.contextmanager
def monitor_metrics(monitor: Monitor, address: str) -> Iterator[int]:
    """Serve the metrics of a monitor; gives the port (of use when 0 was asked for).

    Raises:
        LogError: the address is refused or taken.
    """
    host, port = check_address(address)
    registry = CollectorRegistry()
    registry.register(MonitorMetrics(monitor))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise LogError(
            f"cannot listen on {address}: {error.strerror}. Choose another port with --metrics"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _up(watch: Watch) -> float:
    return bool(watch.reached)


def _size(watch: Watch) -> float:
    return 0 if watch.watched.head is None else watch.watched.head.size
