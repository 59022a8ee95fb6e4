"""What a worker does for the aggregators: it keeps the ridge statistics of the latest graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from cluster.home import load_partition
from cluster.store import LocalStore
from shards.jobs import AnswerJob, LearnJob, RidgeJob
from shards.learned import (
    FitRows,
    answer_learned,
    fit_learned,
    gate_input,
    graph_experts,
    nodes_of,
)
from shards.ridge import RidgeHead, RidgeSpec, RidgeState, fit_state, scores, solve, update_state

Array = npt.NDArray[Any]


class Aggregation:
    """Fits and applies aggregators; holds one ridge state a home, that of the latest graph."""

    def __init__(self, load_graph: Callable[[str, str], Graph]) -> None:
        self._load_graph = load_graph
        self._held: dict[str, tuple[tuple[str, RidgeSpec], RidgeState]] = {}

    def fit_ridge(self, job: RidgeJob) -> dict[str, Array]:
        """``weights`` ``[d, C]`` and ``ridge`` of the head."""
        head = self._head(job)
        return {"weights": head.weights, "ridge": np.asarray(head.ridge)}

    def learn(self, job: LearnJob) -> dict[str, Array]:
        """Ridge head, gate and stack."""
        head, graph = self._head(job.ridge), self._graph(job.ridge)
        state = self._state(job.ridge)
        fitted = fit_learned(graph, state, head, self._fit_rows(job, graph))
        return {"weights": head.weights, "ridge": np.asarray(head.ridge)} | fitted

    def answer(self, job: AnswerJob) -> Array:
        """``[N, C]`` float64 probabilities on every row of the graph."""
        ridge, tensors = job.learn.ridge, job.tensors
        graph, state = self._graph(ridge), self._state(ridge)
        head = RidgeHead(tensors["weights"], float(tensors["ridge"]))
        if "stack" not in tensors:
            return as_probabilities(scores(state.z, head))
        fit = self._fit_rows(job.learn, graph)
        return answer_learned(
            gate_input(graph, state.labels, fit),
            nodes_of(graph, state.labels, fit.rows),
            graph_experts(graph, state, head),
            tensors["gate"],
            tensors["stack"],
        )

    def _fit_rows(self, job: LearnJob, graph: Graph) -> FitRows:
        partition = load_partition(LocalStore(job.ridge.home), job.partition_key)
        return FitRows(job.rows, job.shards, job.posteriors, partition.owners(graph))

    def _graph(self, job: RidgeJob) -> Graph:
        return self._load_graph(job.home, job.graph_key)

    def _head(self, job: RidgeJob) -> RidgeHead:
        return solve(self._state(job), job.probe)

    def _state(self, job: RidgeJob) -> RidgeState:
        """Statistics of the job's graph: held, carried over the last change, or made afresh."""
        spec, move = RidgeSpec(job.width, job.seed), job.move
        key, held = self._held.pop(job.home, (None, None))
        graph = self._graph(job)
        if held is not None and key == (job.graph_key, spec):
            state = held
        elif held is not None and move is not None and key == (move.previous_key, spec):
            state = update_state(held, graph, job.labels, spec, move)
        else:
            state = fit_state(graph, job.labels, spec)
        self._held[job.home] = (job.graph_key, spec), state
        return state


def as_probabilities(ridge_scores: Array) -> Array:
    """Scores cut to 0..1 and divided by their sum, ``[n, C]`` float64."""
    positive = np.maximum(ridge_scores.astype(np.float64), 1e-6)
    return np.asarray(positive / np.add.accumulate(positive, axis=1)[:, -1:])
