"""Gate and stack: gradients, symmetry of the shards, and what they learn from toy evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import shards.stacking
from cluster.graph import Graph
from shards.affinity import affinity
from shards.learned import (
    FitRows,
    answer_learned,
    cross_fitted,
    fit_learned,
    gather,
    graph_experts,
    nodes_of,
)
from shards.ridge import RidgeSpec, fit_state, solve
from shards.stacking import (
    EXPERTS,
    FEW_ROWS,
    GATE_PRIOR,
    GateInput,
    fit_gate,
    fit_stack,
    gated,
    held_labels,
    log_experts,
    stacked,
)
from tests.graphs import random_graph

Array = npt.NDArray[Any]
Loss = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
ROWS, SHARDS, CLASSES = 300, 4, 3


def probabilities(rng: np.random.Generator, *shape: int) -> Array:
    raw = rng.random(shape) + 0.02
    return np.asarray(raw / raw.sum(axis=-1, keepdims=True))


def gate_input(seed: int, num_rows: int = ROWS) -> GateInput:
    rng = np.random.default_rng(seed)
    return GateInput(
        probabilities(rng, num_rows, SHARDS),
        probabilities(rng, SHARDS, num_rows, CLASSES).astype(np.float32),
        rng.integers(0, 20, (SHARDS, CLASSES)).astype(np.float64),
        rng.standard_normal(num_rows),
    )


def stack_input(seed: int, num_rows: int = ROWS) -> tuple[Array, Array, Array]:
    """Logits of experts that know nothing, node features, labels."""
    rng = np.random.default_rng(seed)
    logits = np.log(probabilities(rng, len(EXPERTS), num_rows, CLASSES))
    nodes = np.stack([np.ones(num_rows), *rng.standard_normal((2, num_rows))], axis=1)
    return logits, nodes, rng.integers(0, CLASSES, num_rows)


def labels(seed: int, num_rows: int = ROWS) -> Array:
    return np.random.default_rng(seed).integers(0, CLASSES, num_rows)


def expert(name: str) -> int:
    return EXPERTS.index(name)


# ---- losses


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[Loss]:
    """The losses that are minimised from here on."""
    seen: list[Loss] = []
    original = shards.stacking.minimise

    def minimise(loss: Loss, start: torch.Tensor) -> torch.Tensor:
        seen.append(loss)
        return original(loss, start)

    monkeypatch.setattr(shards.stacking, "minimise", minimise)
    return seen


def assert_gradient(loss: Loss, size: int) -> None:
    """The slope that a loss claims is that of its values."""
    at, step = torch.from_numpy(np.random.default_rng(9).standard_normal(size) / 4), 1e-5
    _, slope = loss(at)
    for i in range(size):
        away = torch.zeros(size, dtype=torch.float64)
        away[i] = step
        found = (loss(at + away)[0] - loss(at - away)[0]) / (2 * step)
        assert float(slope[i]) == pytest.approx(float(found), rel=1e-4, abs=1e-4)


def test_the_gradient_of_the_gate_s_loss_is_its_slope(losses: list[Loss]) -> None:
    fit_gate(gate_input(0), labels(1))

    (loss,) = losses
    assert_gradient(loss, len(GATE_PRIOR))


@pytest.mark.parametrize(("num_rows", "width"), [(ROWS, 3), (FEW_ROWS - 1, 1)])
def test_the_gradient_of_the_stack_s_loss_is_its_slope(
    num_rows: int, width: int, losses: list[Loss]
) -> None:
    fit_stack(*stack_input(0, num_rows))

    (loss,) = losses
    assert_gradient(loss, len(EXPERTS) * width)


def test_the_fit_ends_where_the_slope_vanishes(losses: list[Loss]) -> None:
    theta = fit_gate(gate_input(0), labels(1))
    logits, nodes, y = stack_input(2)
    weights = fit_stack(logits, nodes, y)

    for loss, found in zip(losses, (theta, weights), strict=True):
        assert float(loss(torch.from_numpy(found.ravel()))[1].abs().max()) < 0.1


# ---- few rows


def test_few_rows_give_the_gate_its_prior_and_each_expert_one_weight() -> None:
    few = FEW_ROWS - 1

    assert tuple(fit_gate(gate_input(0, few), labels(1, few))) == GATE_PRIOR
    weights = fit_stack(*stack_input(2, few))
    assert not weights[:, 1:].any()
    assert len(set(weights[:, 0])) > 1


def test_no_row_gives_every_expert_the_same_weight() -> None:
    weights = fit_stack(*stack_input(2, 0))

    assert np.allclose(weights[:, 0], 1 / len(EXPERTS))
    assert not weights[:, 1:].any()


# ---- answers


def test_answers_are_probabilities() -> None:
    logits, nodes, y = stack_input(3)

    proba = stacked(logits, nodes, fit_stack(logits, nodes, y))

    assert proba.shape == (ROWS, CLASSES)
    assert (proba >= 0).all()
    assert np.allclose(proba.sum(axis=1), 1)


def test_stacked_logits_are_a_weighted_sum_by_hand() -> None:
    """Two experts and weights 1 and 1/2: odds of 3 : 1 and 1 : 4 give 3 : 2."""
    logits = np.log([[[0.75, 0.25]], [[0.2, 0.8]]])
    nodes, weights = np.asarray([[1.0, 0, 0]]), np.asarray([[1.0, 9, 9], [0.5, 9, 9]])

    assert np.allclose(stacked(logits, nodes, weights), [[0.6, 0.4]])


def test_the_prior_gate_mixes_by_affinity() -> None:
    given = gate_input(4, 5)

    found = gated(given, np.asarray(GATE_PRIOR))

    share = given.affinity + 0.1 / SHARDS
    weights = share / share.sum(axis=1, keepdims=True)
    assert np.allclose(found, np.einsum("ns,snc->nc", weights, given.posteriors))


def test_renumbering_the_shards_changes_no_answer() -> None:
    given, y, order = gate_input(5), labels(6), np.asarray([2, 0, 3, 1])
    renumbered = replace(
        given,
        affinity=given.affinity[:, order],
        posteriors=given.posteriors[order],
        held=given.held[order],
    )

    ours, theirs = (gated(g, fit_gate(g, y)) for g in (given, renumbered))

    assert np.allclose(ours, theirs, atol=1e-9)


def test_the_gate_learns_to_follow_the_shard_that_is_right() -> None:
    """The shard with the largest share of a row is always wrong, the others know."""
    rng, y = np.random.default_rng(7), labels(7)
    near = rng.integers(0, SHARDS, ROWS)
    share = np.full((ROWS, SHARDS), 0.1)
    share[np.arange(ROWS), near] = 0.7
    right = np.where(np.eye(CLASSES)[y] > 0, 0.8, 0.1).astype(np.float32)
    posteriors = np.repeat(right[None], SHARDS, axis=0)
    posteriors[near, np.arange(ROWS)] = np.roll(right, 1, axis=1)
    given = replace(gate_input(7), affinity=share, posteriors=posteriors)

    theta = fit_gate(given, y)

    assert (gated(given, theta).argmax(axis=1) == y).all()
    assert (gated(given, np.asarray(GATE_PRIOR)).argmax(axis=1) != y).mean() > 0.9


def test_held_labels_count_what_each_shard_owns_of_each_class() -> None:
    owner, y = np.asarray([0, 0, 2, -1, 2, 1]), np.asarray([1, 1, 0, 2, -1, 2])

    assert held_labels(owner, y, (0, 2), 3).tolist() == [[0, 2, 0], [1, 0, 0]]
    assert held_labels(owner, y, (), 3).shape == (0, 3)


# ---- what the stack learns


def test_an_expert_that_is_right_everywhere_gets_the_weight() -> None:
    logits, nodes, y = stack_input(8)
    logits[2] = np.log(np.where(np.eye(CLASSES)[y] > 0, 0.9, 0.05))

    weights = fit_stack(logits, nodes, y)

    others = np.delete(weights[:, 0], 2)
    assert weights[2, 0] > 5 * np.abs(others).max()
    assert (stacked(logits, nodes, weights).argmax(axis=1) == y).all()


def evidence_of(graph: Graph, train: Array, num_shards: int = 2) -> tuple[Any, Array]:
    """Evidence on the labelled rows that are not trained on, with submodels that know nothing."""
    y = np.where(train, graph.y, -1).astype(np.int64)
    state = fit_state(graph, y, RidgeSpec(16, 0))
    head = solve(state, np.flatnonzero(y >= 0))
    rows = np.flatnonzero(~train & (graph.y >= 0))
    posteriors = np.full((num_shards, len(rows), CLASSES), 1 / CLASSES, np.float32)
    owner = np.where(train, np.arange(graph.num_nodes) % max(num_shards, 1), -1)
    fit = FitRows(rows, tuple(range(num_shards)), posteriors, owner)
    return gather(graph, state, head, fit), graph.y[rows].astype(np.int64)


def toy(seed: int, *, alike: bool, num_nodes: int = 600) -> tuple[Graph, Array]:
    """Each node has six neighbours of its own class, or of any other; features tell little."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, num_nodes)
    pairs = []
    for node in range(num_nodes):
        side = np.flatnonzero((y == y[node]) == alike)
        pairs += [(node, int(other)) for other in rng.choice(side, 3) if other != node]
    ends = np.unique(np.sort(np.asarray(pairs), axis=1), axis=0)
    x = rng.random((num_nodes, 4)).astype(np.float32)
    return Graph.from_arrays(ends.T, x, y), rng.random(num_nodes) < 0.5


def test_propagation_is_believed_where_neighbours_agree_and_not_where_they_differ() -> None:
    agreeing, differing = (
        fit_learned(*evidence_of(*toy(9, alike=alike)))["stack"][:, 0] for alike in (True, False)
    )
    spreading = [expert(name) for name in ("propagation", "neighbours")]

    assert agreeing[spreading].sum() > 0.5
    assert differing[spreading].max() < 0.05


def test_answers_on_unseen_rows_come_from_the_fit_on_the_other_half() -> None:
    evidence, y = evidence_of(*toy(10, alike=True))
    fold = np.arange(len(y)) % 2 == 0

    found = cross_fitted(evidence, y, fold)

    fitted = fit_learned(evidence.take(fold), y[fold])
    wanted = answer_learned(evidence.take(~fold), fitted["gate"], fitted["stack"])
    assert np.array_equal(found[~fold], wanted)
    assert (found.argmax(axis=1) == y).mean() > 0.8


def test_without_a_submodel_the_other_experts_answer() -> None:
    evidence, y = evidence_of(*toy(11, alike=True), num_shards=0)

    fitted = fit_learned(evidence, y)

    found = answer_learned(evidence, fitted["gate"], fitted["stack"])
    assert len(y) > FEW_ROWS
    assert (found.argmax(axis=1) == y).mean() > 0.8


# ---- evidence


def test_evidence_on_some_rows_is_a_slice_of_the_evidence_on_all() -> None:
    graph = random_graph(12)
    labelled = np.where(np.arange(30) % 2 == 0, graph.y, -1).astype(np.int64)
    state = fit_state(graph, labelled, RidgeSpec(16, 0))
    head, owner = solve(state, np.flatnonzero(labelled >= 0)), np.arange(30) % 3
    rows = np.asarray([1, 5, 6, 29])
    posteriors = np.full((3, 4, CLASSES), 1 / CLASSES, np.float32)

    found = gather(graph, state, head, FitRows(rows, (0, 1, 2), posteriors, owner))

    tables = graph_experts(graph, state, head, np.arange(30))
    assert {name: table.tolist() for name, table in found.experts.items()} == {
        name: table[rows].tolist() for name, table in tables.items()
    }
    assert set(tables) | {"gate", "mean"} == set(EXPERTS)
    assert np.array_equal(found.gate.affinity, affinity(graph, owner, (0, 1, 2))[rows])
    assert np.array_equal(found.nodes, nodes_of(graph, labelled, np.arange(30))[rows])


def test_only_the_ridge_speaks_in_scores_and_the_others_in_probabilities() -> None:
    tables = {name: np.full((2, CLASSES), 0.5) for name in EXPERTS}

    logits = log_experts({**tables, "ridge": np.full((2, CLASSES), -0.25)})

    assert np.allclose(logits[expert("ridge")], -1)
    assert np.allclose(np.delete(logits, expert("ridge"), axis=0), np.log(0.5))
