"""Metrics of the ingress and of the office, as Prometheus reads them; no label holds an id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

LATENCY_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_GAUGES: Final = {
    "oldest_due_s": ("unweave_oldest_due_seconds", "Seconds left of the request due first."),
    "stale_shards": ("unweave_stale_shards", "Shards that have read what is to be forgotten."),
    "mask_lag_s": ("unweave_mask_lag_seconds", "Wait for the mask to be in force, the last time."),
    "replicas": ("unweave_replicas", "Replicas that hold a lease."),
    "generation": ("unweave_generation", "Number of the published generation."),
    "epoch": ("unweave_epoch", "Graph epoch."),
}
_GROUPS: Final = {
    "queue_depth": ("unweave_queue_depth", "Requests in each state."),
    "deliveries": ("unweave_deliveries", "Deliveries that wait, and dead letters."),
}
_HISTOGRAMS: Final = {
    "retrain_seconds": ("unweave_retrain_seconds", "From the start of a batch to publication."),
    "erasure_latency_seconds": ("unweave_erasure_latency_seconds", "From receipt to completion."),
}


class Meters:
    """What this ingress counts itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter(
            "unweave_http_requests", "Answers.", labels, registry=self.registry
        )
        self._seconds = Histogram(
            "unweave_http_seconds",
            "Time to the end of an answer.",
            ("route",),
            buckets=LATENCY_S,
            registry=self.registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, office: Mapping[str, Any]) -> bytes:
        """Everything in Prometheus' text format.

        Args:
            office: what :meth:`Office.metrics` answered.
        """
        registry = CollectorRegistry()
        registry.register(_Office(office))
        return generate_latest(self.registry) + generate_latest(registry)


class _Office:
    """The office's numbers as metric families."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """Every family that the office knows."""
        for name, (title, text) in _GAUGES.items():
            if self._found.get(name) is not None:
                yield GaugeMetricFamily(title, text, value=float(self._found[name]))
        for name, (title, text) in _GROUPS.items():
            family = GaugeMetricFamily(title, text, labels=["state"])
            for state, number in sorted(self._found.get(name, {}).items()):
                family.add_metric([str(state)], float(number))
            yield family
        for name, (title, text) in _HISTOGRAMS.items():
            data = self._found.get(name)
            if data is not None:
                buckets = [(bound, float(count)) for bound, count in data["buckets"]]
                yield HistogramMetricFamily(title, text, buckets=buckets, sum_value=data["sum"])
