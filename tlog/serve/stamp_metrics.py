"""What Prometheus scrapes of the time-stamps, read at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.audit.stamper import AuthorityStatus

Stamps = Mapping[str, Mapping[str, AuthorityStatus]]
"""How the authorities do, by log and by name."""


class StampMetrics(Collector):
    """The authorities of the logs that are stamped."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for kind, name, what, read in _FAMILIES:
            metric = kind(f"tlog_stamp_{name}", what, labels=["log", "authority"])
            for log, authorities in self._stamps.items():
                for status in authorities.values():
                    metric.add_metric([log, status.name], read(status))
            yield metric


_Kind = type[GaugeMetricFamily | CounterMetricFamily]
_FAMILIES: tuple[tuple[_Kind, str, str, Callable[[AuthorityStatus], float]], ...] = (
    (
        GaugeMetricFamily,
        "stamped_size",
        "Entries of the largest checkpoint that the authority stamped.",
        lambda status: status.tally.size,
    ),
    (
        GaugeMetricFamily,
        "waiting",
        "Checkpoints that wait for the authority.",
        lambda status: status.tally.waiting,
    ),
    (
        GaugeMetricFamily,
        "waiting_since_timestamp_seconds",
        "When the first of these was due, POSIX time; 0 when none waits.",
        lambda status: status.tally.since or 0,
    ),
    (
        GaugeMetricFamily,
        "clock_ahead_seconds",
        "By how much the clock of the authority was ahead of this one at its last stamp.",
        lambda status: status.ahead,
    ),
    (
        CounterMetricFamily,
        "failures",
        "Requests to which the authority gave no stamp.",
        lambda status: status.failures,
    ),
)
