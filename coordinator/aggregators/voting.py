"""Aggregators without parameters: mean and majority (SISA, Bourtoule et al. 2021, section IV-E)."""

from __future__ import annotations

import numpy as np

from coordinator.aggregators.base import Aggregator, AggregatorState, Array, View, weighted_sum
from coordinator.config import Config


class Mean(Aggregator):
    """Mean of the submodels' posteriors."""

    kind = "mean"

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """Every shard weighs the same for every node."""
        num_shards, num_nodes, _ = posteriors.shape
        return weighted_sum(posteriors, np.full((num_nodes, num_shards), 1 / num_shards))


class Majority(Aggregator):
    """Share of submodels that vote for a class; equal votes are settled by the mean posterior."""

    kind = "majority"

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """Votes as probabilities; the mean posterior adds less than one vote."""
        _num_shards, num_nodes, num_classes = posteriors.shape
        votes = np.zeros((num_nodes, num_classes), np.float64)
        for posterior in posteriors:
            votes[np.arange(num_nodes), posterior.argmax(axis=1)] += 1
        mean = Mean().combine(posteriors, view, state, config)
        tied = votes + mean / 2
        return np.asarray(tied / tied.sum(axis=1, keepdims=True))
