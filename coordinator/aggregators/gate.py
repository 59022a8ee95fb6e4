"""The affinity gate: a node listens to the shards that its two-hop training neighbours live in.

No parameters, so nothing to forget but the adjacency. The weight of shard s at node v is
``(1 - mix) / k + mix * q(v, s)``, where q is the chance that a two-step random walk from v (each
step stays or goes to a neighbour, all alike), among those that end in a training node, ends in one
of s. Dividing by degree at each step keeps hubs from deciding for everybody, as plain path counts
would. A node without training neighbours listens to all shards alike.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from coordinator.aggregators.base import Aggregator, AggregatorState, Array, View, weighted_sum
from coordinator.config import Config


class Gate(Aggregator):
    """Affinity-gated mixture of the submodels' posteriors."""

    kind = "gate"

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """Mix per node."""
        weights = gate_weights(view, config.aggregator.mix)
        return weighted_sum(posteriors, weights)


def gate_weights(view: View, mix: float) -> Array:
    """``[N, s]`` float64 weights, each row adding up to 1."""
    column = {shard: i for i, shard in enumerate(view.shards)}
    rows = [row for row, shard in enumerate(view.owner.tolist()) if shard in column]
    columns = [column[int(view.owner[row])] for row in rows]
    shape = (view.graph.num_nodes, len(view.shards))
    owned = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    size = view.graph.num_nodes
    lazy = view.graph.adjacency.matrix() + sp.identity(size, format="csr")
    step = sp.diags(1 / np.asarray(lazy.sum(axis=1)).ravel()) @ lazy
    ends = np.asarray((step @ (step @ owned)).todense())
    total = ends.sum(axis=1, keepdims=True)
    uniform = 1 / len(view.shards)
    share = np.where(total > 0, ends / np.where(total > 0, total, 1), uniform)
    return np.asarray((1 - mix) * uniform + mix * share)
