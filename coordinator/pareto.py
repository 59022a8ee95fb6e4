"""The Pareto front of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Mark the points that no other beats: as good in both figures and better in one.

    Args:
        points: (cost, accuracy) of each; a lower cost and a higher accuracy are better.
    """

    def is_beaten(cost: float, accuracy: float) -> bool:
        return any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)

    return [not is_beaten(cost, accuracy) for cost, accuracy in points]
