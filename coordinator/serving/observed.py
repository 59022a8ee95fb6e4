"""How long batches and requests took since the office was opened, as histograms."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from coordinator.requests.record import RequestRecord

RETRAIN_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
LATENCY_S: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 259200.0, 1209600.0)


class Histogram:
    """Counts of values at or below some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        place = next((i for i, end in enumerate(self.bounds) if value <= end), len(self.bounds))
        self.counts[place] += 1
        self.sum += value

    def to_json(self) -> dict[str, Any]:
        """``buckets``: upper bound (``+Inf`` last) and how many are at or below it; ``sum``."""
        names = [*map(str, self.bounds), "+Inf"]
        return {
            "buckets": [list(item) for item in zip(names, accumulate(self.counts), strict=True)],
            "sum": self.sum,
        }


class Observed:
    """What batches took; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.retrain, self.latency = Histogram(RETRAIN_S), Histogram(LATENCY_S)

    def note(self, records: Sequence[RequestRecord]) -> None:
        """Take note of a batch that was completed."""
        with self._lock:
            seconds = [r.receipt.get("seconds", 0.0) for r in records if r.receipt is not None]
            if seconds:
                self.retrain.note(max(seconds))
            for record in records:
                if record.completed_at is not None:
                    waited = record.completed_at - record.received_at
                    self.latency.note(waited.total_seconds())

    def to_json(self) -> dict[str, Any]:
        """Both histograms."""
        with self._lock:
            return {
                "retrain_seconds": self.retrain.to_json(),
                "erasure_latency_seconds": self.latency.to_json(),
            }
