"""A ridge head whose statistics add up over the shards to those of the unsharded fit."""

from __future__ import annotations

import numpy as np

from cluster.digest import digest
from cluster.graph import TRAIN, UNLABELLED, Graph
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

RIDGE_HOPS = 2  # steps of the walk that shards.ridge averages over
PROBE_ROWS = 160  # expected; leave-one-out residuals are taken on them


class Merge(Aggregator):
    """The mergeable ridge alone; the submodels have no say."""

    kind = "merge"
    needs_fit = True
    reads_submodels = False
    reads_walk = True

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
    change, config = context.disturbance, context.config
    labels = training_labels(context.graph, config)
    return RidgeJob(
        context.home,
        context.graph_key,
        context.recipe,
        labels,
        probe_rows(context.graph, config, labels),
        config.aggregator.ridge_width,
        config.seed,
        change.as_move(RIDGE_HOPS) if change is not None else None,
    )


def training_labels(graph: Graph, config: Config) -> Array:
    """``[N]`` int64 label of each training row, -1 elsewhere."""
    train = graph.roles(config.roles) == TRAIN
    return np.where(train, graph.y, UNLABELLED).astype(np.int64)


def probe_rows(graph: Graph, config: Config, labels: Array) -> Array:
    """Labelled training rows under a keyed-hash threshold that was fixed at creation."""
    share = min(1.0, PROBE_ROWS / max(graph.schema.nominal_nodes * config.roles.train, 1))
    return np.flatnonzero(
        (graph.hash("ridge-probe", config.seed) / 2.0**64 < share) & (labels >= 0)
    )


def answer(posteriors: Array, view: View, state: AggregatorState, config: Config) -> Array:
    """Answer by the view's tables, or let a worker answer for every row of its graph."""
    if view.tables is not None:
        return view.tables.answer(posteriors, view, state.tensors)
    home = view.home
    assert home is not None, "an aggregator that reads the graph needs to know where it is stored"
    ridge = RidgeJob(
        home.path,
        home.graph_key,
        home.recipe,
        training_labels(view.graph, config),
        np.empty(0, np.int64),
        config.aggregator.ridge_width,
        config.seed,
    )
    rows = np.arange(view.graph.num_nodes)
    learn = LearnJob(ridge, home.partition_key, view.shards, rows, posteriors)
    found: Array = home.pool.map("answer", [AnswerJob(learn, state.tensors)])[0]
    return found
