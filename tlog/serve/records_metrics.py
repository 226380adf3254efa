"""What Prometheus scrapes of the records, read at that moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.audit.producers import RECORDER

if TYPE_CHECKING:
    from tlog.audit.records import Records

# Name, what it is, the label, and which counter stands behind each value of the label.
_FAMILIES: Final = (
    (
        "events",
        "Events that came in, by what became of them.",
        "outcome",
        {"recorded": "recorded", "duplicate": "duplicates", "refused": "refused"},
    ),
    (
        "findings",
        "What the log found odd about events, and recorded.",
        "kind",
        {
            "gap": "gap",
            "repeat": "repeat",
            "clock": "clock",
            "conflict": "conflicts",
            "enrolled_again": "enrolled_again",
        },
    ),
    (
        "erasures_stopped",
        "Erasures that were refused because there were too many in an hour: look who orders them.",
        "",
        {"": "erasures_stopped"},
    ),
    ("expired", "Records whose personal part was past its time, and went.", "", {"": "expired"}),
)


class RecordsMetrics(Collector):
    """The records logs of a server, by name."""

    def __init__(self, records: Mapping[str, Records]) -> None:
        self._records = records

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for name, what, label, counters in _FAMILIES:
            labels = ["log", label] if label else ["log"]
            metric = CounterMetricFamily(f"tlog_records_{name}", what, labels=labels)
            for log, records in self._records.items():
                for value, counter in counters.items():
                    values = [log, value] if label else [log]
                    metric.add_metric(values, getattr(records.counters, counter))
            yield metric
        behind = GaugeMetricFamily(
            "tlog_records_index_entries_behind",
            "Entries of the log that are not in its search index yet.",
            labels=["log"],
        )
        for log, records in self._records.items():
            if records.index is not None:
                size = records.log.sequencer.edge.size
                behind.add_metric([log], max(0, size - records.index.size))
        yield behind
        strays = GaugeMetricFamily(
            "tlog_records_unknown_type",
            "Records that never expire, because the catalogue has no such type: put it back.",
            labels=["log"],
        )
        for log, records in self._records.items():
            strays.add_metric([log], records.counters.strays)
        yield strays
        heard = GaugeMetricFamily(
            "tlog_records_producer_heard_timestamp_seconds",
            "When the last event of each producer came in: it has been silent since.",
            labels=["log", "producer"],
        )
        for log, records in self._records.items():
            for name, producer in records.counters.producers.items():
                if producer.heard_at and RECORDER in producer.roles:
                    heard.add_metric([log, name], producer.heard_at)
        yield heard
