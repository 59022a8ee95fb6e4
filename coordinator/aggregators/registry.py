"""The table of aggregators."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.errors import ConfigError
from coordinator.aggregators.base import Aggregator
from coordinator.aggregators.gate import Gate
from coordinator.aggregators.learned import Learned
from coordinator.aggregators.merge import Merge
from coordinator.aggregators.optimal import Optimal
from coordinator.aggregators.similarity import Similarity
from coordinator.aggregators.voting import Majority, Mean

AGGREGATORS: Mapping[str, type[Aggregator]] = {
    "gate": Gate,
    "learned": Learned,
    "majority": Majority,
    "mean": Mean,
    "merge": Merge,
    "optimal": Optimal,
    "similarity": Similarity,
}


def find_aggregator(name: str) -> Aggregator:
    """Look an aggregator up by name.

    Raises:
        ConfigError: no aggregator has that name.
    """
    try:
        return AGGREGATORS[name]()
    except KeyError:
        raise ConfigError(
            f"aggregator.kind is {name!r}; choose one of {sorted(AGGREGATORS)}"
        ) from None
