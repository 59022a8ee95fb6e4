"""The learned aggregator's numbers: experts over the graph, gate and stack on the fit rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from shards.affinity import affinity
from shards.ball import whole
from shards.label_step import (
    class_frequencies,
    correct_and_smooth,
    one_hot,
    propagate_labels,
    symmetric_operator,
    with_prior,
)
from shards.ridge import RidgeHead, RidgeState, scores
from shards.stacking import (
    GateInput,
    fit_gate,
    fit_stack,
    gated,
    held_labels,
    log_experts,
    node_features,
    stacked,
)

Array = npt.NDArray[Any]

LABEL_STEPS = 3
NEIGHBOUR_PRIOR = 0.5  # labels of the class frequencies that a node has beside its neighbours'


@dataclass(frozen=True)
class FitRows:
    """The rows a gate and a stack are fitted on.

    Attributes:
        rows: ``[R]`` ascending rows of the graph.
        shards: the s shards that have a submodel.
        posteriors: ``[s, R, C]`` their answers there.
        owner: ``[N]`` owner of every row of the graph.
    """

    rows: Array
    shards: Sequence[int]
    posteriors: Array
    owner: Array


def graph_experts(graph: Graph, state: RidgeState, head: RidgeHead) -> dict[str, Array]:
    """``[N, C]`` answers of the experts that read the graph and no submodel."""
    around, num_classes = whole(graph), graph.schema.num_classes
    step, given = symmetric_operator(around), one_hot(state.labels, num_classes)
    ridge, prior = scores(state.z, head), class_frequencies(given)
    base = np.clip(ridge, 0, 1)
    return {
        "propagation": propagate_labels(step, given, LABEL_STEPS),
        "neighbours": with_prior(
            graph.adjacency.matrix().astype(np.float32) @ given, prior, NEIGHBOUR_PRIOR
        ),
        "ridge": ridge,
        "correct_and_smooth": correct_and_smooth(step, base, given, state.labels >= 0, LABEL_STEPS),
    }


def fit_learned(graph: Graph, state: RidgeState, head: RidgeHead, fit: FitRows) -> dict[str, Array]:
    """Parameters of the gate (``[8]``) and of the stack (``[E, 3]``)."""
    y = graph.y[fit.rows].astype(np.int64)
    given = gate_input(graph, state.labels, fit)
    theta = fit_gate(given, y)
    experts = {name: table[fit.rows] for name, table in graph_experts(graph, state, head).items()}
    logits = log_experts(experts | shard_experts(given, theta))
    return {"gate": theta, "stack": fit_stack(logits, nodes_of(graph, state.labels, fit.rows), y)}


def answer_learned(
    given: GateInput, nodes: Array, experts: dict[str, Array], theta: Array, weights: Array
) -> Array:
    """``[n, C]`` float64 probabilities of the fitted aggregator."""
    return stacked(log_experts(experts | shard_experts(given, theta)), nodes, weights)


def shard_experts(given: GateInput, theta: Array) -> dict[str, Array]:
    """Answers of the experts that are made of the submodels'; uniform without a submodel."""
    num_shards, num_rows, num_classes = given.posteriors.shape
    if not num_shards:
        uniform = np.full((num_rows, num_classes), 1 / num_classes)
        return {"gate": uniform, "mean": uniform}
    mean = np.add.accumulate(given.posteriors.astype(np.float64), axis=0)[-1] / num_shards
    return {"gate": gated(given, theta), "mean": mean}


def gate_input(graph: Graph, labels: Array, fit: FitRows) -> GateInput:
    """What the gate reads about the fit rows."""
    num_classes = graph.schema.num_classes
    return GateInput(
        affinity(graph, fit.owner, fit.shards, fit.rows),
        fit.posteriors,
        held_labels(fit.owner, labels, fit.shards, num_classes),
        nodes_of(graph, labels, fit.rows)[:, 1],
    )


def nodes_of(graph: Graph, labels: Array, rows: Array) -> Array:
    """``[n, 3]`` features of some nodes that the stack's weights depend on."""
    beside = graph.adjacency.matrix() @ (labels >= 0).astype(np.float64) > 0
    return node_features(graph.adjacency.degree[rows], beside[rows].astype(np.float64))
