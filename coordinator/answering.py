"""Answers of one generation: posteriors on the pool, the aggregator, the label step.

Everything is computed when it is first asked for and kept as long as the generation is current.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import GraphError
from cluster.graph import Graph
from cluster.home import PARTITION, SEGMENT, graph_blobs, partition_blob
from cluster.partition import Partition
from cluster.segments import graph_digest
from coordinator.aggregators import find_aggregator
from coordinator.aggregators.base import ServingHome, View
from coordinator.aggregators.merge import training_labels
from coordinator.config import Config
from coordinator.engine import Engine, Live
from coordinator.generation import Generation
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from shards.ball import ball
from shards.jobs import EvaluateJob
from shards.label_step import apply_step, reach_of
from shards.recipe import Recipe

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Answering:
    """Predicts with one generation.

    Attributes:
        path: folder of the system.
        generation: the keys it reads: those published, the graph perhaps without what is masked.
        graph: that graph.
        partition: its partition.
        live: what was published when it was made.
        recipe: recipe of the submodels.
        config: root configuration.
        pool: where posteriors are computed.
        progress: told of every evaluation.
    """

    path: str
    generation: Generation
    graph: Graph
    partition: Partition
    live: Live
    recipe: Recipe
    config: Config
    pool: Pool
    progress: Progress
    _posteriors: Array | None = field(default=None, init=False)
    _tables: dict[str, Array] = field(default_factory=dict, init=False)

    def probabilities(self, rows: Array, kind: str) -> Array:
        """``[n, C]`` float64 answers of an aggregator on some rows, after the label step.

        The label step is evaluated on what the rows reach, not on the whole graph.
        """
        settings, table = self.config.aggregator, self.table(kind)
        if settings.label_step == "none" or find_aggregator(kind).reads_labels:
            return table[rows]
        wanted, place = np.unique(rows, return_inverse=True)
        around = ball(self.graph, wanted, reach_of(settings.label_step, settings.label_steps))
        labels = training_labels(self.graph, self.config)
        base = table[around.rows]
        step, steps = settings.label_step, settings.label_steps
        found = apply_step(step, base, around, labels, steps)[around.targets]
        return found[place].astype(np.float64)

    def table(self, kind: str) -> Array:
        """``[N, C]`` float64 answers of an aggregator on every row, without the label step."""
        if kind not in self._tables:
            shards = tuple(self.generation.submodels)
            view = View(self.graph, self.partition.owners(self.graph), shards, self._home())
            aggregator = find_aggregator(kind)
            answers = self.posteriors() if aggregator.reads_submodels else self._unasked()
            self._tables[kind] = aggregator.combine(
                answers, view, self.live.aggregator, self.config
            )
        return self._tables[kind]

    def posteriors(self) -> Array:
        """``[s, N, C]`` float32 answers of the submodels on the full current graph."""
        if self._posteriors is None:
            keys = tuple(self.generation.submodels.values())
            job = EvaluateJob(self.path, self.generation.graph_key, keys, self.recipe)
            self._posteriors = evaluate_all(self.pool, job, self.progress)
        return self._posteriors

    def _unasked(self) -> Array:
        """Posteriors of nobody, for an aggregator that asks no submodel."""
        require_submodels(self.generation.submodels)
        size = (0, self.graph.num_nodes, self.graph.schema.num_classes)
        return np.empty(size, np.float32)

    def _home(self) -> ServingHome:
        generation = self.generation
        keys = (generation.graph_key, generation.partition_key)
        return ServingHome(self.path, *keys, self.recipe, self.pool)


def require_submodels(submodels: Collection[Any]) -> None:
    """Check that there is something to predict with.

    Raises:
        GraphError: there is no submodel, since every shard is silent.
    """
    if not submodels:
        raise GraphError(
            "every shard is silent: no training label is left, so there is nothing to predict "
            "with; fit a new system on a graph with labels"
        )


def evaluate_all(pool: Pool, job: EvaluateJob, progress: Progress) -> Array:
    """``[s, N, C]`` posteriors of the job's submodels on the full current graph.

    The submodels are shared out over the actors; each computes its own, so the bits do not depend
    on how.

    Raises:
        GraphError: there is no submodel, since every shard is silent.
    """
    keys = job.submodel_keys
    require_submodels(keys)
    size = max(1, pool.size)
    parts = [keys[i::size] for i in range(size) if keys[i::size]]
    answers = pool.map("evaluate", [replace(job, submodel_keys=part) for part in parts], progress)
    merged: list[Any] = [None] * len(keys)
    for i, answer in enumerate(answers):
        merged[i::size] = list(answer)
    return np.stack(merged)


def store_view(engine: Engine, graph: Graph) -> Generation:
    """Store a graph that predictions read instead of the published one.

    Returns:
        The published generation, pointing at that graph and at its partition.
    """
    partition = engine.live.partition.restrict(graph)
    keys = (str(graph_digest(graph)), str(partition.key))
    present = {item for item in engine.ledger.registered() if engine.store.has(*item)}
    blobs = graph_blobs(graph, {key for kind, key in present if kind == SEGMENT})
    blobs[PARTITION, keys[1]] = partition_blob(partition)
    fresh = {item: blob for item, blob in blobs.items() if item not in present}
    engine.reconciler().write_all(fresh)
    return engine.live.generation.reading(*keys)
