"""What Prometheus scrapes of a witness, read at that moment: requests pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tlog.witness import FreezeReason, Node


class WitnessMetrics(Collector):
    """The state of a witness, and how HTTP requests were answered.

    Args:
        node: whose.
        answered: how many requests, by kind of resource and status code.
    """

    def __init__(self, node: Node, answered: Mapping[tuple[str, int], int]) -> None:
        self._witness = node.witness
        self._gossip = node.gossip
        self._evidence = node.evidence
        self._answered = answered

    def describe(self) -> list[Metric]:
        """Nothing in advance: names are fixed, and only this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        logs = self._witness.logs
        for name, what, value in (
            ("tlog_witness_logs", "Logs that the witness knows.", len(logs)),
            (
                "tlog_witness_list_readable",
                "1 while the list of logs is as its file says, 0 while that is damaged.",
                logs.problem is None,
            ),
            (
                "tlog_witness_recording",
                "1 while heads can be recorded, 0 while the store refuses.",
                self._witness.failure is None,
            ),
        ):
            yield GaugeMetricFamily(name, what, value=value)
        frozen = GaugeMetricFamily(
            "tlog_witness_frozen_logs", "Logs that are not cosigned.", labels=["reason"]
        )
        for reason in FreezeReason:
            frozen.add_metric([reason], sum(log.frozen is reason for log in logs))
        yield frozen
        yield from self._gossiped()
        counter = CounterMetricFamily(
            "tlog_witness_http_answers", "HTTP requests answered.", labels=["resource", "status"]
        )
        for (kind, status), count in sorted(self._answered.items()):
            counter.add_metric([kind, str(status)], count)
        yield counter

    def _gossiped(self) -> Iterator[Metric]:
        gossip = self._gossip
        for name, what, value in (
            (
                "tlog_witness_conflicting_logs",
                "Logs of which there is evidence that they contradicted themselves.",
                len(self._evidence.origins()),
            ),
            (
                "tlog_witness_unproven_heads",
                "Heads that their logs could not be brought to prove consistent.",
                len(gossip.unproven()),
            ),
        ):
            yield GaugeMetricFamily(name, what, value=value)
        peers = GaugeMetricFamily(
            "tlog_witness_peer_answering",
            "1 while the last exchange with a peer went well, 0 while it did not.",
            labels=["peer"],
        )
        for peer in gossip.peers:
            peers.add_metric([peer], peer not in gossip.silent)
        yield peers
        counter = CounterMetricFamily(
            "tlog_witness_gossip", "What has happened in the gossip.", labels=["event"]
        )
        for event, count in sorted(gossip.stats.items()):
            counter.add_metric([event], count)
        yield counter
