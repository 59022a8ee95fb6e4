"""What every aggregator owes, and the arithmetic of each by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from cluster.digest import NodeId, digest, keyed_hash
from cluster.errors import ConfigError
from cluster.graph import TRAIN, Graph
from coordinator.aggregators import AGGREGATORS, find_aggregator
from coordinator.aggregators.base import AggregatorState, View
from coordinator.aggregators.fitrows import choose_rows
from coordinator.aggregators.gate import gate_weights
from coordinator.aggregators.optimal import fit_mixture
from coordinator.aggregators.similarity import (
    histogram,
    pyramid_match,
    softmax,
    spectral_coordinates,
)
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.system import System
from tests.coordinator.systems import (
    Records,
    WatchedPool,
    Workbench,
    assert_same_packs,
    kept_partition,
    keys_of,
    planted,
    random_erasures,
    training_ids,
    unowned_ids,
)

Array = npt.NDArray[Any]

OPTIMAL = {"aggregator.kind": "optimal"}
# The others answer in a worker that reads the stored graph: tests.coordinator.test_learned
BY_POSTERIORS = ("gate", "majority", "mean", "optimal", "similarity")


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


def test_the_table_holds_the_seven_aggregators() -> None:
    assert sorted(AGGREGATORS) == sorted([*BY_POSTERIORS, "learned", "merge"])
    assert all(AGGREGATORS[kind].kind == kind for kind in AGGREGATORS)
    with pytest.raises(ConfigError, match="choose one of"):
        find_aggregator("median")


@pytest.mark.parametrize("kind", BY_POSTERIORS)
def test_answers_are_finite_probabilities_and_the_same_each_time(
    kind: str, case: tuple[Array, View]
) -> None:
    proba = combine(kind, *case)

    assert proba.shape == (45, 3)
    assert proba.dtype == np.float64
    assert (proba >= 0).all()
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(proba, combine(kind, *case))


@pytest.mark.parametrize("kind", BY_POSTERIORS)
def test_renumbering_the_shards_changes_no_answer(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case
    number = np.asarray([2, 0, 3, 1])  # new number of each shard
    owner = np.where(view.owner >= 0, number[view.owner], -1)
    renumbered = View(view.graph, owner, view.shards)

    proba = combine(kind, posteriors[np.argsort(number)], renumbered)

    assert np.allclose(proba, combine(kind, posteriors, view), atol=1e-12)


@pytest.mark.parametrize("kind", BY_POSTERIORS)
def test_the_answer_of_one_shard_is_its_own(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case

    proba = combine(kind, posteriors[2:3], View(view.graph, view.owner, (2,)))

    assert np.array_equal(proba.argmax(axis=1), posteriors[2].argmax(axis=1))


@pytest.mark.parametrize("kind", BY_POSTERIORS)
def test_shards_that_agree_are_believed(kind: str, case: tuple[Array, View]) -> None:
    posteriors, view = case
    same = np.repeat(posteriors[:1], 4, axis=0)

    proba = combine(kind, same, view)

    assert np.array_equal(proba.argmax(axis=1), same[0].argmax(axis=1))
    if kind != "majority":
        assert np.allclose(proba, same[0], atol=1e-6)


@pytest.mark.parametrize("step", ["none", "propagate", "correct_and_smooth"])
@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_an_answer_does_not_depend_on_the_ids_that_are_asked_with_it(
    kind: str, step: str, bench: Workbench
) -> None:
    overrides = {"aggregator.kind": kind, "aggregator.label_step": step}
    system = bench.fit(planted(14), {**overrides, "shards.training_epochs": 1})
    ids = system.graph.ids.tolist()
    together = system.predict(ids).proba

    alone = np.concatenate([system.predict([node_id]).proba for node_id in ids])
    backwards = system.predict([*ids[::-1], ids[3]]).proba

    assert alone.tobytes() == together.tobytes()
    assert np.array_equal(backwards, [*together[::-1], together[3]])
    assert np.allclose(together.sum(axis=1), 1, atol=1e-6)


def test_a_label_step_moves_the_answers_of_aggregators_that_read_no_label(
    bench: Workbench,
) -> None:
    records = planted(14)
    ids = sorted(records.features)

    plain, stepped = (
        bench.fit(records, {"aggregator.label_step": step}) for step in ("none", "propagate")
    )

    assert not np.allclose(plain.predict(ids).proba, stepped.predict(ids).proba)
    assert keys_of(plain) == keys_of(stepped)


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


@pytest.mark.parametrize("model", ["gcn", "gat", "mlp", "linear"])
def test_a_pack_after_erasures_equals_one_made_from_scratch(model: str, bench: Workbench) -> None:
    records, overrides = planted(14, num_nodes=80), {**OPTIMAL, "shards.model": model}
    system = bench.fit(records, overrides)
    requests = random_erasures(records, 6, seed=15)

    for request in requests:
        system.erase(request)

    survivors = records.without(*requests)
    kept = kept_partition(system.partition, survivors)
    assert_same_packs(system, bench.fit(survivors, overrides, partition=kept))


def _neighbours(records: Records, ids: set[NodeId]) -> set[NodeId]:
    """The ids and their neighbours, by the plain records."""
    return ids | {end for edge in records.edges if ids & set(edge) for end in edge}


def _fit_ids(system: System) -> set[NodeId]:
    graph = system.graph
    return set(graph.ids[choose_rows(graph, system.config, TRAIN)].tolist())


def test_an_erasure_far_from_every_fit_row_computes_no_row(bench: Workbench) -> None:
    records, pool = planted(14, num_nodes=200, degree=1), WatchedPool(bench.pool)
    system = bench.fit(records, {**OPTIMAL, "shards.layers": 1}, pool=pool)
    fitted = system.engine.live.aggregator.tensors["weights"]
    near = _neighbours(records, _neighbours(records, set(training_ids(system))))
    apart = [i for i in unowned_ids(system) if i not in near]
    pool.asked.clear()

    receipt = system.erase(Erasure(nodes=apart[:1]))

    assert receipt.records["nodes"] == 1
    assert receipt.shards_retrained == ()
    assert pool.rows_computed(system.graph) == {}
    assert np.array_equal(system.engine.live.aggregator.tensors["weights"], fitted)


def test_an_erasure_beside_a_fit_row_computes_the_rows_it_reaches_and_no_others(
    bench: Workbench,
) -> None:
    records, pool = planted(14, num_nodes=200, degree=1), WatchedPool(bench.pool)
    system = bench.fit(records, {**OPTIMAL, "shards.layers": 1}, pool=pool)
    train = set(training_ids(system))
    edge = next(e for e in sorted(records.edges) if len(train & set(e)) == 1)
    reached = _neighbours(records, set(edge)) & _fit_ids(system)
    pool.asked.clear()

    system.erase(Erasure(edges=[edge]))

    assert 0 < len(reached) < 10
    submodels = system.generation.submodels.values()
    assert pool.rows_computed(system.graph) == dict.fromkeys(submodels, reached)


def test_a_retrained_submodel_answers_on_all_fit_rows_and_the_others_on_those_reached(
    bench: Workbench,
) -> None:
    records, pool = planted(14, num_nodes=200, degree=1), WatchedPool(bench.pool)
    system = bench.fit(records, {**OPTIMAL, "shards.layers": 1}, pool=pool)
    node = next(i for i in training_ids(system) if len(_neighbours(records, {i})) == 3)
    reached = _neighbours(records, _neighbours(records, {node})) - {node}
    pool.asked.clear()

    (retrained,) = system.erase(Erasure(nodes=[node])).shards_retrained

    fit = _fit_ids(system)
    wanted = dict.fromkeys(system.generation.submodels.values(), reached & fit)
    wanted[system.generation.submodels[retrained]] = fit
    assert reached & fit < fit
    assert pool.rows_computed(system.graph) == wanted


@pytest.mark.parametrize("wanted", [10, 40])
def test_about_as_many_rows_are_fitted_on_as_asked_and_a_row_stays_when_others_go(
    wanted: int,
) -> None:
    records, config = planted(14, num_nodes=600), load_config({"aggregator": {"fit_rows": wanted}})
    graph = records.graph()
    before = graph.ids[choose_rows(graph, config, TRAIN)].tolist()

    survivors = records.without(Erasure(nodes=sorted(records.features)[::3]))
    after = survivors.graph()

    kept = [i for i in before if i in survivors.features]
    assert wanted / 2 < len(before) < wanted * 2
    assert after.ids[choose_rows(after, config, TRAIN)].tolist() == kept


# ---- similarity


def _hashes(size: int) -> Array:
    return keyed_hash("similarity", 0, range(size))


def _histogram(matrix: Array, hashes: Array | None = None) -> tuple[Array, ...]:
    csr = sp.csr_matrix(matrix)
    return histogram(csr.indptr, csr.indices, _hashes(len(matrix)) if hashes is None else hashes)


def _clique(size: int) -> Array:
    return np.ones((size, size)) - np.eye(size)


def _random(size: int, seed: int) -> Array:
    upper = np.triu(np.random.default_rng(seed).random((size, size)) < 0.1, 1)
    return (upper | upper.T).astype(float)


def test_coordinates_are_the_leading_eigenvectors_magnitudes_scaled_to_one() -> None:
    matrix = np.diag([9.0, -8, 7, 6, 5, 4, 0.5, 0.4, 0.3])
    matrix[0, 1] = matrix[1, 0] = 3
    values, vectors = np.linalg.eigh(matrix)
    wanted = np.abs(vectors[:, np.argsort(-np.abs(values))[:6]])

    points = spectral_coordinates(sp.csr_matrix(matrix), _hashes(9))

    assert np.allclose(points, wanted / wanted.max(axis=0), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 40])
def test_a_graph_without_edges_lies_in_the_origin(size: int) -> None:
    levels = _histogram(np.zeros((size, size)))

    assert [level.shape for level in levels] == [(6, 1), (6, 2), (6, 4), (6, 8)]
    assert all((level[:, 0] == size).all() for level in levels)


def test_a_graph_of_fewer_nodes_than_dimensions_has_a_histogram() -> None:
    """A single edge: eigenvectors (1, 1) and (1, -1), no more."""
    finest = _histogram(_clique(2))[-1]

    assert finest[:2, 7].tolist() == [2, 2]
    assert finest[2:, 0].tolist() == [2] * 4


def test_a_match_weighs_half_as_much_on_every_coarser_level() -> None:
    """Two nodes a graph; the last lies in bins 0 / 1 / 2 / 4 against 0 / 0 / 0 / 0 of the first."""
    one, other = (
        tuple(np.tile(np.bincount([0, at], minlength=1 << level), (6, 1))
              for level, at in enumerate(bins))
        for bins in ((0, 0, 0, 0), (0, 1, 2, 4))
    )  # fmt: skip

    assert pyramid_match(one, one) == 1
    assert pyramid_match(one, other) == pyramid_match(other, one) == (1 + 1 / 8) / 2


def test_the_kernel_compares_shares_so_a_graph_of_another_size_may_resemble_it() -> None:
    small, large = _histogram(_clique(8)), _histogram(_clique(80))
    other = _histogram(np.diag(np.ones(7), 1) + np.diag(np.ones(7), -1))

    assert pyramid_match(small, small) == 1
    assert 1 / 8 <= pyramid_match(other, large) < pyramid_match(small, large) <= 1


def test_the_kernel_reads_the_ids_and_not_the_order_of_rows() -> None:
    matrix, order = _random(40, seed=1), np.random.default_rng(2).permutation(40)

    there = _histogram(matrix[order][:, order], _hashes(40)[order])

    assert pyramid_match(_histogram(matrix), there) == pytest.approx(1, abs=0.02)


def test_directed_edges_count_in_both_directions() -> None:
    matrix = _random(30, seed=3)

    assert pyramid_match(_histogram(np.triu(matrix)), _histogram(matrix)) == 1


def test_weights_are_a_softmax_that_follows_the_shards() -> None:
    weights = softmax([0.5, 1.0, 0.25])

    assert np.allclose(weights, np.exp([0.5, 1, 0.25]) / np.exp([0.5, 1, 0.25]).sum())
    assert np.allclose(softmax([1.0, 0.25, 0.5]), np.roll(weights, -1))
    assert softmax([]) == []


def test_a_fitted_shard_s_weight_depends_on_its_graph_and_the_whole_alone(
    bench: Workbench,
) -> None:
    """Labels and features leave the weights as they are, an edge does not."""
    records, overrides = planted(14, num_nodes=80), {"aggregator.kind": "similarity"}
    system = bench.fit(records, overrides)
    before, key = system.engine.live.aggregator.tensors["weights"], system.generation.aggregator_key
    train = training_ids(system)

    system.erase(Erasure(labels=train[:1], features={train[1]: None}))
    unread = system.engine.live.aggregator.tensors["weights"]
    system.erase(Erasure(edges=sorted(records.edges)[:40]))

    assert np.array_equal(before, unread)
    assert system.generation.aggregator_key != key
    assert not np.array_equal(before, system.engine.live.aggregator.tensors["weights"])
    assert np.isclose(before.sum(), 1)


def test_an_aggregator_that_needs_a_fit_is_not_compared_without_one(bench: Workbench) -> None:
    system = bench.fit(planted(14))

    with pytest.raises(ConfigError, match="'similarity' has to be fitted"):
        system.accuracy("test", "similarity")
