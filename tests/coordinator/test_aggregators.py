"""What every aggregator owes, and the arithmetic of each by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cluster.digest import digest
from cluster.errors import ConfigError
from cluster.graph import Graph
from coordinator.aggregators import AGGREGATORS, find_aggregator
from coordinator.aggregators.base import AggregatorState, View
from coordinator.aggregators.gate import gate_weights
from coordinator.aggregators.optimal import fit_mixture
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.system import System
from tests.coordinator.systems import (
    Workbench,
    kept_partition,
    planted,
    random_erasures,
    training_ids,
    unowned_ids,
)

Array = npt.NDArray[Any]


def path_graph() -> Graph:
    """0 - 1 - 2 - 3."""
    return Graph.from_arrays([[0, 1, 2], [1, 2, 3]], np.ones((4, 1), np.float32), [0, 0, 1, 1])


def random_posteriors(graph: Graph, num_shards: int) -> Array:
    raw = np.random.default_rng(0).random((num_shards, graph.num_nodes, 3)).astype(np.float32)
    return raw / raw.sum(axis=2, keepdims=True)


def state_of(posteriors: Array, y: Array) -> AggregatorState:
    """Fitted parameters for the aggregators that have some."""
    rows = np.flatnonzero(y >= 0)
    return AggregatorState(digest("any"), {"weights": fit_mixture(posteriors[:, rows], y[rows])})


def combine(kind: str, posteriors: Array, view: View, config: Config | None = None) -> Array:
    state = state_of(posteriors, view.graph.y)
    return find_aggregator(kind).combine(posteriors, view, state, config or Config())


@pytest.fixture(scope="module")
def case() -> tuple[Array, View]:
    """Four shards over a graph where a fifth of the nodes has no owner."""
    graph = planted(13).graph()
    owner = (np.arange(graph.num_nodes) % 5 - 1).astype(np.int32)
    return random_posteriors(graph, 4), View(graph, owner, (0, 1, 2, 3))


# ---- contract


def test_the_table_holds_the_four_aggregators() -> None:
    assert sorted(AGGREGATORS) == ["gate", "majority", "mean", "optimal"]
    assert all(AGGREGATORS[kind].kind == kind for kind in AGGREGATORS)
    with pytest.raises(ConfigError, match="choose one of"):
        find_aggregator("median")


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_answers_are_finite_probabilities_and_the_same_each_time(
    kind: str, case: tuple[Array, View]
) -> None:
    proba = combine(kind, *case)

    assert proba.shape == (45, 3)
    assert proba.dtype == np.float64
    assert (proba >= 0).all()
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(proba, combine(kind, *case))


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_renumbering_the_shards_changes_no_answer(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case
    number = np.asarray([2, 0, 3, 1])  # new number of each shard
    owner = np.where(view.owner >= 0, number[view.owner], -1)
    renumbered = View(view.graph, owner, view.shards)

    proba = combine(kind, posteriors[np.argsort(number)], renumbered)

    assert np.allclose(proba, combine(kind, posteriors, view), atol=1e-12)


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_the_answer_of_one_shard_is_its_own(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case

    proba = combine(kind, posteriors[2:3], View(view.graph, view.owner, (2,)))

    assert np.array_equal(proba.argmax(axis=1), posteriors[2].argmax(axis=1))


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_shards_that_agree_are_believed(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case
    same = np.repeat(posteriors[:1], 4, axis=0)

    proba = combine(kind, same, view)

    assert np.array_equal(proba.argmax(axis=1), same[0].argmax(axis=1))
    if kind != "majority":
        assert np.allclose(proba, same[0], atol=1e-6)


# ---- gate


def test_gate_weights_of_a_path_by_hand() -> None:
    """0 - 1 - 2 - 3; nodes 0 and 1 train in shard 4, node 3 in shard 7, node 2 in none.

    A step stays or moves, all alike, so two steps end in 0, 1, 2, 3 with these chances in 36ths:
    from 0: 15 15 6 0; from 1: 10 14 8 4; from 2: 4 8 14 10; from 3: 0 6 15 15.
    """
    view = View(path_graph(), np.asarray([4, 4, -1, 7], np.int32), (4, 7))

    weights = gate_weights(view, 0.8)

    share = np.asarray([[1, 0], [24 / 28, 4 / 28], [12 / 22, 10 / 22], [6 / 21, 15 / 21]])
    assert np.allclose(weights, 0.1 + 0.8 * share)


def test_a_node_without_training_nodes_near_listens_to_all_shards_alike() -> None:
    view = View(path_graph(), np.asarray([4, -1, -1, -1], np.int32), (4, 7))

    weights = gate_weights(view, 0.8)

    assert np.allclose(weights[3], [0.5, 0.5])
    assert np.allclose(weights[2], [0.9, 0.1])


def test_a_silent_shard_s_nodes_draw_no_weight() -> None:
    view = View(path_graph(), np.asarray([4, 5, 5, 7], np.int32), (4, 7))

    weights = gate_weights(view, 1.0)

    assert weights.shape == (4, 2)
    assert np.allclose(weights[0], [1, 0])
    assert np.allclose(weights[1], [10 / 14, 4 / 14])


def test_a_gate_that_follows_no_neighbour_is_the_mean(case: tuple[Array, View]) -> None:
    config = load_config({"aggregator": {"mix": 0}})

    assert np.allclose(combine("gate", *case, config), combine("mean", *case))


# ---- voting


def _three_votes(*rows: list[float]) -> tuple[Array, View]:
    view = View(path_graph(), np.zeros(4, np.int32), tuple(range(len(rows))))
    return np.repeat(np.asarray(rows, np.float32)[:, None, :], 4, axis=1), view


def test_the_mean_is_the_mean() -> None:
    proba = combine("mean", *_three_votes([0.9, 0.1], [0.2, 0.8], [0.1, 0.9]))

    assert np.allclose(proba, [0.4, 0.6])


def test_the_majority_wins_against_one_loud_voice() -> None:
    proba = combine("majority", *_three_votes([1.0, 0.0], [0.45, 0.55], [0.45, 0.55]))

    assert proba.argmax(axis=1).tolist() == [1] * 4
    mean = np.asarray([1.9, 1.1]) / 3
    assert np.allclose(proba, (np.asarray([1, 2]) + mean / 2) / 3.5)


def test_a_tie_of_votes_is_settled_by_the_mean() -> None:
    proba = combine("majority", *_three_votes([0.9, 0.1], [0.4, 0.6]))

    assert proba.argmax(axis=1).tolist() == [0] * 4
    assert np.allclose(proba, np.asarray([1 + 0.325, 1 + 0.175]) / 2.5)


# ---- optimal


def _posteriors(likelihood: list[list[float]]) -> Array:
    """Two-class posteriors that give class 0 these chances."""
    first = np.asarray(likelihood, np.float32)
    return np.stack([first, 1 - first], axis=2)


def test_weights_are_the_shares_of_rows_that_each_shard_alone_explains() -> None:
    posteriors = _posteriors([[1, 1, 0], [0, 0, 1]])

    assert np.allclose(fit_mixture(posteriors, np.zeros(3, np.int64)), [2 / 3, 1 / 3])


def test_weights_maximise_the_likelihood_of_a_literal_example() -> None:
    """(0.9 - 0.4 w)(0.2 + 0.3 w) is largest at w = 0.19 / 0.24."""
    posteriors = _posteriors([[0.5, 0.5], [0.9, 0.2]])

    weights = fit_mixture(posteriors, np.zeros(2, np.int64))

    assert np.allclose(weights, [0.19 / 0.24, 0.05 / 0.24], atol=1e-3)


@pytest.mark.parametrize("rows", [0, 2], ids=["no fit row", "rows that nobody thinks possible"])
def test_weights_are_uniform_where_nothing_tells_the_shards_apart(rows: int) -> None:
    posteriors = _posteriors([[0.0] * rows, [0.0] * rows, [0.0] * rows])

    assert np.allclose(fit_mixture(posteriors, np.zeros(rows, np.int64)), 1 / 3)


def test_a_row_that_nobody_thinks_possible_changes_no_weight() -> None:
    posteriors = _posteriors([[1, 1, 0, 0], [0, 0, 1, 0]])

    assert np.allclose(fit_mixture(posteriors, np.zeros(4, np.int64)), [2 / 3, 1 / 3])


def _blocks(system: System) -> dict[str, Array]:
    """Block key -> posteriors, over all packs."""
    blocks: dict[str, Array] = {}
    for kind, key in system.generation.artefacts:
        if kind == "posteriors":
            blocks |= system._store.get(kind, key).tensors
    return blocks


@pytest.mark.parametrize("model", ["gcn", "gat", "mlp"])
def test_blocks_after_erasures_equal_blocks_made_from_scratch(model: str, bench: Workbench) -> None:
    records, overrides = planted(14, num_nodes=80), {"aggregator.kind": "optimal"}
    overrides = {**overrides, "shards.model": model}
    system = bench.fit(records, overrides)
    requests = random_erasures(records, 6, seed=15)

    for request in requests:
        system.erase(request)

    survivors = records.without(*requests)
    kept = kept_partition(system.partition, survivors)
    fresh = bench.fit(survivors, overrides, partition=kept)
    ours, theirs = _blocks(system), _blocks(fresh)
    assert ours.keys() == theirs.keys()
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)


def test_an_erasure_far_from_every_fit_row_recomputes_no_block(bench: Workbench) -> None:
    records = planted(14, num_nodes=200, degree=1)
    system = bench.fit(records, {"aggregator.kind": "optimal", "shards.layers": 1})
    before = set(_blocks(system))
    read = {end for edge in records.edges if set(training_ids(system)) & set(edge) for end in edge}
    beside = {end for edge in records.edges if read & set(edge) for end in edge}
    apart = [i for i in unowned_ids(system) if i not in read | beside]

    receipt = system.erase(Erasure(nodes=apart[:1]))

    assert receipt.records["nodes"] == 1
    assert receipt.shards_retrained == ()
    assert set(_blocks(system)) == before


def test_an_erasure_beside_one_fit_row_recomputes_only_the_blocks_it_reaches(
    bench: Workbench,
) -> None:
    records = planted(14, num_nodes=200, degree=1)
    system = bench.fit(records, {"aggregator.kind": "optimal", "shards.layers": 1})
    before = set(_blocks(system))
    train = set(training_ids(system))
    edge = next(e for e in sorted(records.edges) if len(train & set(e)) == 1)

    system.erase(Erasure(edges=[edge]))

    kept = before & set(_blocks(system))
    assert 0 < len(kept) < len(before)
