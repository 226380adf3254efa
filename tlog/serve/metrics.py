"""What Prometheus scrapes, read from the logs at that moment: appends pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.log import Log
from tlog.notes import Algorithm, open_checkpoint
from tlog.serve.logs import Logs


class ServerMetrics(Collector):
    """The state of a server's logs, and how HTTP requests were answered.

    Args:
        logs: what is served.
        answered: how many requests, by kind of resource and status code.
    """

    def __init__(self, logs: Logs, answered: Mapping[tuple[str, int], int]) -> None:
        self._logs = logs
        self._answered = answered

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for name, what, read in (
            ("tlog_tree_size", "Entries that are durable.", _integrated),
            ("tlog_published_size", "Entries of the latest published checkpoint.", _published),
            (
                "tlog_published_timestamp_seconds",
                "When the latest published checkpoint was signed, POSIX time.",
                _published_at,
            ),
            ("tlog_pending_entries", "Entries accepted and not yet durable.", _pending),
            ("tlog_accepting", "1 while the log takes entries, 0 while it refuses.", _accepting),
        ):
            gauge = GaugeMetricFamily(name, what, labels=["log"])
            for log in self._logs:
                gauge.add_metric([log.name], read(log))
            yield gauge
        counter = CounterMetricFamily(
            "tlog_http_answers", "HTTP requests answered.", labels=["resource", "status"]
        )
        for (kind, status), count in sorted(self._answered.items()):
            counter.add_metric([kind, str(status)], count)
        yield counter


def _integrated(log: Log) -> float:
    return log.sequencer.edge.size


def _published(log: Log) -> float:
    return log.tree_size


def _published_at(log: Log) -> float:
    if log.publisher.latest is None:
        return 0
    # The ML-DSA-44 signature carries the time; a scrape can afford to read it from the note.
    signed_by = open_checkpoint(log.published.note, log.vkeys).signed_by
    return next(time or 0 for vkey, time in signed_by if vkey.algorithm is Algorithm.MLDSA44)


def _pending(log: Log) -> float:
    return log.sequencer.pending


def _accepting(log: Log) -> float:
    return log.sequencer.refusal is None
