"""The affinity gate: a node listens to the shards that its two-hop training neighbours live in.

No parameters, so nothing to forget but the adjacency. The weight of shard s at node v is
``(1 - mix) / k + mix * q(v, s)`` with the affinity q of :func:`shards.affinity.affinity`. A node
without training neighbours listens to all shards alike.
"""

from __future__ import annotations

import numpy as np

from coordinator.aggregators.base import Aggregator, AggregatorState, Array, View, weighted_sum
from coordinator.config import Config
from shards.affinity import affinity


class Gate(Aggregator):
    """Affinity-gated mixture of the submodels' posteriors."""

    kind = "gate"
    reads_walk = True

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """Mix per node."""
        weights = gate_weights(view, config.aggregator.mix)
        return weighted_sum(posteriors, weights)


def gate_weights(view: View, mix: float) -> Array:
    """``[n, s]`` float64 weights on the view's rows, each row adding up to 1."""
    share = affinity(view.graph, view.owner, view.shards, view.rows)
    return np.asarray((1 - mix) / len(view.shards) + mix * share)
