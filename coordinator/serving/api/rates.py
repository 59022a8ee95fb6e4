"""How often and how much one key may ask; requests to forget are never refused for load."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from coordinator.serving.api.problems import ProblemError


class Rates:
    """Counts calls in a moving window, in this process."""

    def __init__(self, rate: str) -> None:
        self._rate, self._limiter = parse(rate), MovingWindowRateLimiter(MemoryStorage())

    def take(self, name: str) -> None:
        """Count a call.

        Raises:
            ProblemError: 429 with the seconds after which there is room again.
        """
        if self._limiter.hit(self._rate, name):
            return
        ends = self._limiter.get_window_stats(self._rate, name).reset_time
        wait = max(1, math.ceil(ends - time.time()))
        text = f"more than {self._rate} predictions; try again after {wait} s"
        raise ProblemError(429, text, headers={"Retry-After": str(wait)}, kind="rate-limit")


class Streams:
    """Counts the streams of events that are open, in this process."""

    def __init__(self, most: int) -> None:
        self._most, self._open = most, Counter[str]()

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Count a stream of somebody as long as it is open.

        Raises:
            ProblemError: 429, as many are open as one may have.
        """
        if self._open[name] >= self._most:
            text = f"{self._most} streams of events are open; close one, or ask without a stream"
            raise ProblemError(429, text, headers={"Retry-After": "1"}, kind="stream-limit")
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            self._open += Counter()  # forget who has none
