"""The learned aggregator's numbers: experts over the graph, gate and stack on the fit rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def graph_experts(
    graph: Graph, state: RidgeState, head: RidgeHead, rows: Array
) -> dict[str, Array]:
    """``[n, C]`` answers on some rows of the experts that read the graph and no submodel."""
    return experts_beside(graph, state.labels, scores(state, head), rows)


def experts_beside(graph: Graph, labels: Array, ridge: Array, rows: Array) -> dict[str, Array]:
    """:func:`graph_experts`, the scores of the ridge head being known.

    Args:
        graph: the current graph.
        labels: ``[N]`` training label of each row, negative where a row does not count.
        ridge: ``[N, C]`` scores.
        rows: the rows wanted.
    """
    around, num_classes = whole(graph), graph.schema.num_classes
    step, given = symmetric_operator(around), one_hot(labels, num_classes)
    prior = class_frequencies(given)
    known, beside = labels >= 0, graph.adjacency.matrix()[rows].astype(np.float32)
    base = np.clip(ridge, 0, 1)
    return {
        "propagation": propagate_labels(step, given, LABEL_STEPS, prior, rows),
        "neighbours": with_prior(beside @ given, prior, NEIGHBOUR_PRIOR),
        "ridge": ridge[rows],
        "correct_and_smooth": correct_and_smooth(
            step, base, given, known, LABEL_STEPS, prior, rows
        ),
    }


@dataclass(frozen=True)
class Evidence:
    """What gate and stack read about n rows.

    Attributes:
        gate: what the gate reads.
        nodes: ``[n, 3]`` features of the nodes.
        experts: ``[n, C]`` answers of the experts that read no submodel.
    """

    gate: GateInput
    nodes: Array
    experts: Mapping[str, Array]

    def take(self, chosen: Array) -> Evidence:
        """The same about some of the rows (``[n]`` bool)."""
        gate = GateInput(
            self.gate.affinity[chosen],
            self.gate.posteriors[:, chosen],
            self.gate.held,
            self.gate.log_degree[chosen],
        )
        experts = {name: table[chosen] for name, table in self.experts.items()}
        return Evidence(gate, self.nodes[chosen], experts)


def gather(graph: Graph, state: RidgeState, head: RidgeHead, fit: FitRows) -> Evidence:
    """Everything that is known about some rows."""
    tables = graph_experts(graph, state, head, fit.rows)
    nodes = nodes_of(graph, state.labels, fit.rows)
    held = held_labels(fit.owner, state.labels, fit.shards, graph.schema.num_classes)
    return assemble(graph, fit, held, nodes, tables)


def assemble(
    graph: Graph, fit: FitRows, held: Array, nodes: Array, experts: Mapping[str, Array]
) -> Evidence:
    """Everything that is known about some rows, put together.

    Args:
        graph: the current graph.
        fit: the n rows, and what the submodels say of them.
        held: ``[s, C]`` training labels of each class that a shard owns.
        nodes: ``[n, 3]`` features of the rows.
        experts: ``[n, C]`` answers there of the experts that read no submodel.
    """
    near = affinity(graph, fit.owner, fit.shards, fit.rows)
    return Evidence(GateInput(near, fit.posteriors, held, nodes[:, 1]), nodes, experts)


def fit_learned(evidence: Evidence, y: Array) -> dict[str, Array]:
    """Parameters of the gate (``[8]``) and of the stack (``[E, 3]``)."""
    theta = fit_gate(evidence.gate, y)
    logits = log_experts({**evidence.experts, **shard_experts(evidence.gate, theta)})
    return {"gate": theta, "stack": fit_stack(logits, evidence.nodes, y)}


def answer_learned(evidence: Evidence, theta: Array, weights: Array) -> Array:
    """``[n, C]`` float64 probabilities of the fitted aggregator."""
    logits = log_experts({**evidence.experts, **shard_experts(evidence.gate, theta)})
    return stacked(logits, evidence.nodes, weights)


def cross_fitted(evidence: Evidence, y: Array, fold: Array) -> Array:
    """``[n, C]`` answers on each half of the rows by what is fitted on the other half.

    Args:
        evidence: about the rows.
        y: ``[n]`` class indices.
        fold: ``[n]`` bool, which half a row is in.
    """
    answers = np.empty((len(y), next(iter(evidence.experts.values())).shape[1]))
    for half in (fold, ~fold):
        fitted = fit_learned(evidence.take(half), y[half])
        answers[~half] = answer_learned(evidence.take(~half), fitted["gate"], fitted["stack"])
    return answers


def shard_experts(given: GateInput, theta: Array) -> dict[str, Array]:
    """Answers of the experts that are made of the submodels'; uniform without a submodel."""
    num_shards, num_rows, num_classes = given.posteriors.shape
    if not num_shards:
        uniform = np.full((num_rows, num_classes), 1 / num_classes)
        return {"gate": uniform, "mean": uniform}
    mean = np.add.accumulate(given.posteriors.astype(np.float64), axis=0)[-1] / num_shards
    return {"gate": gated(given, theta), "mean": mean}


def nodes_of(graph: Graph, labels: Array, rows: Array) -> Array:
    """``[n, 3]`` features of some nodes that the stack's weights depend on."""
    beside = graph.adjacency.matrix() @ (labels >= 0).astype(np.float64) > 0
    return node_features(graph.adjacency.degree[rows], beside[rows].astype(np.float64))
