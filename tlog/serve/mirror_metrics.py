"""What Prometheus scrapes of a mirror, read at that moment: requests pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.mirror import Followers, Mirror


class MirrorMetrics(Collector):
    """The state of a mirror, and how HTTP requests were answered.

    Args:
        mirror: whose.
        followers: what it fetches.
        answered: how many requests, by kind of resource and status code.
    """

    def __init__(
        self, mirror: Mirror, followers: Followers, answered: Mapping[tuple[str, int], int]
    ) -> None:
        self._mirror = mirror
        self._followers = followers
        self._answered = answered

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        copies = list(self._mirror.copies())
        for name, what, values in (
            ("tree_size", "Entries of the mirror checkpoint.", [copy.size for copy in copies]),
            (
                "next_entry",
                "The first entry that is missing.",
                [copy.next_entry for copy in copies],
            ),
            (
                "pending_size",
                "Entries of the pending checkpoint.",
                [self._mirror.pending.cosigned_size(copy.origin) or 0 for copy in copies],
            ),
            (
                "writable",
                "1 while the copy can be written, 0 while its disk refuses.",
                [copy.failure is None for copy in copies],
            ),
        ):
            gauge = GaugeMetricFamily(f"tlog_mirror_{name}", what, labels=["origin"])
            for copy, value in zip(copies, values, strict=True):
                gauge.add_metric([copy.origin], value)
            yield gauge
        following = GaugeMetricFamily(
            "tlog_mirror_following",
            "1 while the last look at a log went well, 0 while it did not.",
            labels=["origin"],
        )
        for origin, problem in self._followers.problems().items():
            following.add_metric([origin], problem is None)
        yield following
        counter = CounterMetricFamily(
            "tlog_mirror_http_answers", "HTTP requests answered.", labels=["resource", "status"]
        )
        for (kind, status), count in sorted(self._answered.items()):
            counter.add_metric([kind, str(status)], count)
        yield counter
