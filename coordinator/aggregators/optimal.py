"""LBAggr mended: one weight a shard, fitted to the likelihood of training rows.

GraphEraser (Chen et al., CCS 2022, eq. 8) minimises a cross entropy over a weighted sum of
log-posteriors, which is a double softmax, on a fresh random sample each time. Here the weights
are those of the mixture ``sum_s w_s p_s(y | v)`` on the simplex, fitted by expectation
maximisation on training rows chosen by a keyed hash: a change computes only the answers it moves.
"""

from __future__ import annotations

import numpy as np

from cluster.digest import digest
from cluster.graph import TRAIN
from cluster.store import Blob
from coordinator.aggregators.base import (
    AGGREGATOR,
    PACK,
    Aggregator,
    AggregatorState,
    Array,
    FitContext,
    View,
    reweighted,
    weighted_alike,
)
from coordinator.aggregators.fitrows import fit_answers
from coordinator.config import Config

ITERATIONS = 200


class Optimal(Aggregator):
    """Mixture weights fitted on training rows."""

    kind = "optimal"
    needs_fit = True

    def fit(self, context: FitContext) -> AggregatorState:
        """Compute the moved answers, keep the others, refit the weights."""
        answers, blobs = fit_answers(context, TRAIN)
        y = context.graph.y[answers.rows]
        key = digest("aggregator", context.identity, answers.pack, y)
        weights = np.empty(0)
        if context.submodels:
            job = ("coordinator.aggregators.optimal:fit_mixture", (answers.posteriors, y))
            weights = context.pool.map("call", [job])[0]
        meta = {"pack": answers.pack}
        context.write({**blobs, (AGGREGATOR, str(key)): Blob({"weights": weights}, meta)})
        artefacts = ((AGGREGATOR, str(key)), (PACK, answers.pack))
        return AggregatorState(key, {"weights": weights}, meta, artefacts)

    def leave_out(self, state: AggregatorState, kept: Array) -> AggregatorState:
        """The other shards share the weight."""
        return reweighted(state, kept)

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """The same weights for every node."""
        return weighted_alike(posteriors, state.tensors["weights"])


def fit_mixture(posteriors: Array, y: Array) -> Array:
    """Simplex weights of the mixture with the highest likelihood, by expectation maximisation.

    Args:
        posteriors: ``[s, R, C]`` float32.
        y: ``[R]`` class indices.

    Returns:
        ``[s]`` float64; uniform when there is no fit row.
    """
    num_shards, num_rows, _ = posteriors.shape
    weights = np.full(num_shards, 1 / num_shards)
    likelihood = posteriors[:, np.arange(num_rows), y].astype(np.float64)
    seen = (likelihood > 0).any(axis=0)  # a row that no shard thinks possible says nothing
    if not seen.any():
        return weights
    likelihood = likelihood[:, seen]
    for _ in range(ITERATIONS):
        joint = weights[:, None] * likelihood
        evidence = np.add.accumulate(joint, axis=0)[-1]
        share = joint / evidence
        weights = np.add.accumulate(share, axis=1)[:, -1]
        weights = weights / np.add.accumulate(weights)[-1]
    return weights
