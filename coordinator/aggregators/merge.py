"""A ridge head whose statistics add up over the shards to those of the unsharded fit."""

from __future__ import annotations

from cluster.digest import digest
from cluster.store import Blob
from coordinator.aggregators.base import (
    AGGREGATOR,
    Aggregator,
    AggregatorState,
    Array,
    FitContext,
    View,
)
from coordinator.config import Config
from shards.jobs import AnswerJob, LearnJob, RidgeJob

RIDGE_HOPS = 2  # shards.ridge.HOPS, which cannot be imported without torch


class Merge(Aggregator):
    """The mergeable ridge alone; the submodels have no say."""

    kind = "merge"
    fitted = True

    def fit(self, context: FitContext) -> AggregatorState:
        """Fit the head on the training rows, statistics of unmoved rows kept."""
        key = digest("aggregator", context.identity, context.graph_key)
        tensors = context.pool.map("fit_ridge", [ridge_job(context)])[0]
        context.write({(AGGREGATOR, str(key)): Blob(tensors)})
        return AggregatorState(key, tensors, {}, ((AGGREGATOR, str(key)),))

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """The head's scores as probabilities."""
        return answer(posteriors, view, state, config)


def ridge_job(context: FitContext) -> RidgeJob:
    """What a worker needs to fit the ridge head."""
    change = context.disturbance
    return RidgeJob(
        context.home,
        context.graph_key,
        context.recipe,
        context.config.roles,
        context.config.aggregator.ridge_width,
        context.config.seed,
        change.as_move(RIDGE_HOPS) if change is not None else None,
    )


def answer(posteriors: Array, view: View, state: AggregatorState, config: Config) -> Array:
    """Let a worker answer for every row of the view's graph."""
    import numpy as np

    home = view.home
    assert home is not None, "an aggregator that reads the graph needs to know where it is stored"
    ridge = RidgeJob(
        home.path,
        home.graph_key,
        home.recipe,
        config.roles,
        config.aggregator.ridge_width,
        config.seed,
    )
    rows = np.arange(view.graph.num_nodes)
    learn = LearnJob(ridge, home.partition_key, view.shards, rows, posteriors)
    found: Array = home.pool.map("answer", [AnswerJob(learn, state.tensors)])[0]
    return found
