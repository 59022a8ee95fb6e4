"""How often one key may ask for predictions; requests to forget are never refused for load."""

from __future__ import annotations

import math
import time

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
