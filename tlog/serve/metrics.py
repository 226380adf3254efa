"""What Prometheus scrapes, read from the logs at that moment: appends pay nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.log import CosignerStatus, Log
from tlog.notes import Algorithm, open_checkpoint
from tlog.serve.logs import Logs, readable


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
            (
                "tlog_scrubbed_timestamp_seconds",
                "When the whole log was last re-hashed and in order, POSIX time; 0 for never.",
                _scrubbed_at,
            ),
            ("tlog_accepting", "1 while the log takes entries, 0 while it refuses.", _accepting),
        ):
            gauge = GaugeMetricFamily(name, what, labels=["log"])
            for log in self._logs:
                gauge.add_metric([log.name], read(log))
            yield gauge
        yield from self._witnesses()
        counter = CounterMetricFamily(
            "tlog_http_answers", "HTTP requests answered.", labels=["resource", "status"]
        )
        for (kind, status), count in sorted(self._answered.items()):
            counter.add_metric([kind, str(status)], count)
        yield counter

    def _witnesses(self) -> Iterator[Metric]:
        """What the logs with a policy know of their witnesses."""
        witnessed = [(log, log.cosigners) for log in self._logs if log.cosigners is not None]
        waiting = GaugeMetricFamily(
            "tlog_waiting_for_quorum",
            "1 while the newest head waits for its quorum.",
            labels=["log"],
        )
        fail_open = GaugeMetricFamily(
            "tlog_fail_open",
            "1 when checkpoints are published without their quorum too.",
            labels=["log"],
        )
        for log, cosigners in witnessed:
            waiting.add_metric([log.name], bool(log.publisher.refusal))
            fail_open.add_metric([log.name], cosigners.fail_open)
        yield waiting
        yield fail_open
        for family, read in (_COSIGNED, _AWAY, _SECONDS, _FAILURES):
            metric = family()
            for log, cosigners in witnessed:
                for status in cosigners.status():
                    metric.add_metric([log.name, readable(status.url)], read(status))
            yield metric


_Read = Callable[[CosignerStatus], float]
_Family = tuple[Callable[[], GaugeMetricFamily | CounterMetricFamily], _Read]


def _of_witness(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, what: str, read: _Read
) -> _Family:
    return lambda: kind(f"tlog_witness_{name}", what, labels=["log", "witness"]), read


_COSIGNED = _of_witness(
    GaugeMetricFamily,
    "cosigned_size",
    "Entries of the last head that the witness cosigned.",
    lambda status: status.cosigned_size,
)
_AWAY = _of_witness(
    GaugeMetricFamily,
    "away",
    "1 while the witness does not answer as it should.",
    lambda status: status.away,
)
_SECONDS = _of_witness(
    GaugeMetricFamily,
    "seconds",
    "How long the last cosignature of the witness took.",
    lambda status: status.last_seconds,
)
_FAILURES = _of_witness(
    CounterMetricFamily,
    "failures",
    "Submissions to the witness that failed.",
    lambda status: status.failures,
)


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


def _scrubbed_at(log: Log) -> float:
    return log.scrubber.finished_at if log.scrubber else 0


def _accepting(log: Log) -> float:
    return log.sequencer.refusal is None
