"""What a worker does for the aggregators: it keeps the ridge statistics of the latest graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import keyed_hash
from cluster.graph import Graph
from cluster.home import load_partition
from cluster.store import LocalStore
from shards.jobs import AnswerJob, GraphMove, LearnJob, RidgeJob
from shards.learned import (
    Evidence,
    FitRows,
    answer_learned,
    cross_fitted,
    fit_learned,
    gather,
)
from shards.ridge import RidgeHead, RidgeSpec, RidgeState, fit_state, scores, solve, update_state

Array = npt.NDArray[Any]


class Aggregation:
    """Fits and applies aggregators; holds one ridge state a home, that of the latest graph."""

    def __init__(self, load_graph: Callable[[str, str, GraphMove | None], Graph]) -> None:
        self._load_graph = load_graph
        self._held: dict[str, tuple[tuple[str, RidgeSpec], RidgeState]] = {}

    def forget(self, home: str) -> None:
        """Let go of what was computed for a home."""
        self._held.pop(home, None)

    def keep(self, home: str, graph_key: str | None) -> None:
        """Let go of what was computed for a home on any graph but this one."""
        held = self._held.get(home)
        if held is not None and held[0][0] != graph_key:
            self.forget(home)

    def fit_ridge(self, job: RidgeJob) -> dict[str, Array]:
        """``weights`` ``[d, C]`` and ``ridge`` ``[1]`` of the head."""
        return _tensors_of(self._head(job))

    def learn(self, job: LearnJob) -> dict[str, Array]:
        """Ridge head, gate and stack."""
        head = self._head(job.ridge)
        fitted = fit_learned(self._evidence(job, head), self._labels(job))
        return _tensors_of(head) | fitted

    def cross_fit(self, job: LearnJob) -> Array:
        """``[R, C]`` answers on the fit rows, each half by a gate and stack of the other half."""
        head, graph = self._head(job.ridge), self._graph(job.ridge)
        fold = keyed_hash("fold", job.ridge.seed, graph.ids[job.rows].tolist()) % np.uint64(2) == 0
        return cross_fitted(self._evidence(job, head), self._labels(job), fold)

    def answer(self, job: AnswerJob) -> Array:
        """``[N, C]`` float64 probabilities on every row of the graph."""
        tensors = job.tensors
        head = RidgeHead(tensors["weights"], float(tensors["ridge"][0]))
        if "stack" not in tensors:
            return as_probabilities(scores(self._state(job.learn.ridge), head))
        return answer_learned(self._evidence(job.learn, head), tensors["gate"], tensors["stack"])

    def _evidence(self, job: LearnJob, head: RidgeHead) -> Evidence:
        graph, state = self._graph(job.ridge), self._state(job.ridge)
        partition = load_partition(LocalStore(job.ridge.home), job.partition_key)
        fit = FitRows(job.rows, job.shards, job.posteriors, partition.owners(graph))
        return gather(graph, state, head, fit)

    def _labels(self, job: LearnJob) -> Array:
        labels: Array = self._graph(job.ridge).y[job.rows].astype(np.int64)
        return labels

    def _graph(self, job: RidgeJob) -> Graph:
        return self._load_graph(job.home, job.graph_key, job.move)

    def _head(self, job: RidgeJob) -> RidgeHead:
        return solve(self._state(job), job.probe)

    def _state(self, job: RidgeJob) -> RidgeState:
        """Statistics of the job's graph: held, carried over the last change, or made afresh."""
        spec, move = RidgeSpec(job.width, job.seed), job.move
        key, held = self._held.pop(job.home, (None, None))
        graph = self._graph(job)
        same_graph = held is not None and key == (job.graph_key, spec)
        if held is not None and same_graph and np.array_equal(held.labels, job.labels):
            state = held
        elif held is not None and move is not None and key == (move.previous_key, spec):
            state = update_state(held, graph, job.labels, spec, move)
        else:
            state = fit_state(graph, job.labels, spec)
        self._held[job.home] = (job.graph_key, spec), state
        return state


def _tensors_of(head: RidgeHead) -> dict[str, Array]:
    """As a store returns them: a scalar has one dimension."""
    return {"weights": head.weights, "ridge": np.asarray([head.ridge])}


def as_probabilities(ridge_scores: Array) -> Array:
    """Scores cut to 0..1 and divided by their sum, ``[n, C]`` float64."""
    positive = np.maximum(ridge_scores.astype(np.float64), 1e-6)
    return np.asarray(positive / np.add.accumulate(positive, axis=1)[:, -1:])
