"""The mergeable ridge: whole numbers that add up, and the head that they give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Change, Graph
from coordinator.disturbance import disturbance
from shards.aggregation import Aggregation
from shards.config import ShardsConfig
from shards.jobs import RidgeJob
from shards.recipe import Recipe, choose_profile
from shards.ridge import (
    LAMBDAS,
    SIGNS,
    THINNED,
    UNIT,
    RidgeSpec,
    RidgeState,
    _leave_one_out,
    add_statistics,
    features,
    fit_state,
    no_statistics,
    own_features,
    projection,
    scores,
    solve,
    unit_rows,
    update_state,
)
from tests.graphs import random_graph

Array = npt.NDArray[Any]

NARROW, WIDE = RidgeSpec(16, 0), RidgeSpec(3, 0)  # six columns stay as they are, or become three
HOPS = 2


def labels_of(graph: Graph, share: float = 0.7) -> Array:
    """Training labels of some nodes, by id."""
    chosen = graph.hash("labelled") / 2.0**64 < share
    return np.where(chosen, graph.y, -1).astype(np.int64)


def state_of(seed: int = 0, num_nodes: int = 60, spec: RidgeSpec = NARROW) -> RidgeState:
    graph = random_graph(seed, num_nodes)
    return fit_state(graph, labels_of(graph), spec)


def bits(state: RidgeState) -> tuple[bytes, ...]:
    rows = slice(None)
    parts = (state.near[state.slots], state.features(rows), state.labels, state.gram, state.moment)
    return tuple(np.ascontiguousarray(part).tobytes() for part in parts)


# ---- statistics


@pytest.mark.parametrize("spec", [NARROW, WIDE], ids=["narrow", "projected"])
def test_statistics_are_sums_of_whole_numbers(spec: RidgeSpec) -> None:
    state = state_of(spec=spec)
    rows = np.flatnonzero(state.labels >= 0)
    z = state.z[rows].astype(object)  # Python integers
    given = np.eye(3, dtype=object)[state.labels[rows]].astype(int).astype(object)

    assert np.array_equal(state.gram, (z.T @ z).astype(np.float64))
    assert np.array_equal(state.moment, (z.T @ given).astype(np.float64))
    assert np.array_equal(state.gram, np.rint(state.gram))
    assert state.z.dtype == np.int16
    assert state.z.shape[1] == 2 * state.near.shape[1] + 1
    assert (state.z[:, -1] == UNIT).all()


def test_rows_have_length_one_and_a_zero_row_stays_zero() -> None:
    found = unit_rows(np.asarray([[3, 4], [0, 0], [-1e-6, 0], [0.5, 0.5]], np.float32))

    half = round(UNIT / np.sqrt(2))
    assert found.tolist() == [
        [round(0.6 * UNIT), round(0.8 * UNIT)],
        [0, 0],
        [-UNIT, 0],
        [half] * 2,
    ]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), num_shards=st.integers(1, 7))
def test_statistics_of_the_shards_add_up_to_the_unsharded_ones(seed: int, num_shards: int) -> None:
    state = state_of(seed % 50)
    owner = np.random.default_rng(seed).integers(0, num_shards, len(state.z))

    known = [np.flatnonzero((owner == s) & (state.labels >= 0)) for s in range(num_shards)]
    parts = [no_statistics(state.z.shape[1], 3) for _ in known]
    for sums, rows in zip(parts, known, strict=True):
        add_statistics(*sums, state.z, rows, state.labels[rows])

    assert np.array_equal(sum(gram for gram, _ in parts), state.gram)
    assert np.array_equal(sum(moment for _, moment in parts), state.moment)


# ---- a change


def random_change(graph: Graph, rng: np.random.Generator) -> Change:
    """Some records of every kind, or none of a kind."""
    ids = graph.ids.tolist()
    pairs = list(zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True))

    def some(items: list[Any]) -> list[Any]:
        count = min(int(rng.integers(0, 3)), len(items))
        return [items[at] for at in rng.choice(len(items), count, replace=False)]

    cells = [(i, None if rng.random() < 0.5 else ("f0", "f3")) for i in some(ids)]
    return Change(tuple(some(ids)), tuple(some(pairs)), tuple(cells), tuple(some(ids)))


def carried(state: RidgeState, graph: Graph, change: Change, spec: RidgeSpec) -> Any:
    """The state after a change, and the graph."""
    move = disturbance(graph, "before", change).as_move(HOPS)
    after = graph.apply(change)
    return update_state(state, after, labels_of(after), spec, move), after


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spec=st.sampled_from([NARROW, WIDE]),
    layout=st.sampled_from(["dense", "sparse"]),
    form=st.tuples(st.booleans(), st.booleans()),
    rounds=st.integers(1, 4),
)
def test_statistics_carried_over_changes_are_those_of_the_surviving_graph(
    seed: int, spec: RidgeSpec, layout: Any, form: tuple[bool, bool], rounds: int
) -> None:
    graph = random_graph(seed, degree=1, layout=layout, directed=form[0], weighted=form[1])
    state, rng = fit_state(graph, labels_of(graph), spec), np.random.default_rng(seed)

    for _ in range(rounds):
        state, graph = carried(state, graph, random_change(graph, rng), spec)

    assert bits(state) == bits(fit_state(graph, labels_of(graph), spec))


@pytest.mark.parametrize("kind", ["nodes", "labels", "features", "edges"])
def test_nothing_left_of_a_kind_leaves_the_statistics_of_what_is_left(kind: str) -> None:
    graph = random_graph(1)
    state, ids = fit_state(graph, labels_of(graph), NARROW), tuple(graph.ids.tolist())
    pairs = zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True)
    change = {
        "nodes": Change(nodes=ids),
        "labels": Change(labels=ids),
        "features": Change(features=tuple((i, None) for i in ids)),
        "edges": Change(edges=tuple(pairs)),
    }[kind]

    found, after = carried(state, graph, change, NARROW)

    assert bits(found) == bits(fit_state(after, labels_of(after), NARROW))
    if kind in ("nodes", "labels"):
        assert not found.gram.any()
        assert not found.moment.any()
    head = solve(found, np.flatnonzero(found.labels >= 0))
    assert np.isfinite(scores(found, head)).all()


# ---- features


def test_a_row_s_features_depend_on_its_two_step_neighbourhood_and_on_nothing_else() -> None:
    ends = np.arange(7)
    x = np.stack([ends == 0, ends >= 0], axis=1).astype(np.float32)
    graph = Graph.from_arrays([ends[:-1], ends[1:]], x, ends % 2)  # the path 0 - 1 - ... - 6
    changed = graph.apply(Change(features=((0, ("f0",)),)))

    before, after = (fit_state(g, g.y.astype(np.int64), NARROW).z for g in (graph, changed))

    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [0, 1, 2]


def test_features_of_some_rows_are_the_bits_that_all_rows_have_in_any_slots() -> None:
    graph = random_graph(2)
    everyone, rows = np.arange(30), np.asarray([0, 3, 4, 29])
    near = own_features(graph, everyone, NARROW)
    slots = 2 * everyone + 1
    spread_out = np.full((60, near.shape[1]), 7, np.float32)
    spread_out[slots] = near

    everywhere = features(graph, near, everyone, everyone)

    found = features(graph, spread_out, slots, rows)
    assert found.tobytes() == everywhere[rows].tobytes()


def test_the_slots_of_rows_that_went_are_cleared() -> None:
    graph = random_graph(2)
    state = fit_state(graph, labels_of(graph), NARROW)

    found, _ = carried(state, graph, Change(nodes=tuple(graph.ids[3:6].tolist())), NARROW)

    assert found.slots.tolist() == [0, 1, 2, *range(6, 30)]
    assert not found.near[3:6].any()
    assert not found.z[3:6].any()


def test_the_second_part_is_the_average_over_a_two_step_walk() -> None:
    graph = Graph.from_arrays(
        [[0, 1], [1, 2]], np.asarray([[1, 0], [0, 1], [0, 1]], np.float32), [0, 1, 1]
    )
    # 0 - 1 - 2, a step stays or moves, all alike
    walk = np.asarray([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2]])
    average = walk @ walk @ graph.x
    wanted = UNIT * average / np.linalg.norm(average, axis=1, keepdims=True)

    z = fit_state(graph, graph.y.astype(np.int64), NARROW).z

    assert np.abs(z[:, 2:4] - wanted).max() <= 1
    assert np.array_equal(z[:, :2], UNIT * graph.x)


def test_the_projection_is_decided_by_the_seed_and_spares_narrow_features() -> None:
    found = projection(50, RidgeSpec(16, 0))

    assert np.array_equal(found.toarray(), projection(50, RidgeSpec(16, 0)).toarray())
    assert not np.array_equal(found.toarray(), projection(50, RidgeSpec(16, 1)).toarray())
    assert found.shape == (50, 16)
    assert np.isin(np.abs(found.data), np.arange(SIGNS + 1) / np.sqrt(SIGNS)).all()
    graph = random_graph(0)
    assert own_features(graph, np.arange(30), NARROW).shape[1] == 6
    assert own_features(graph, np.arange(30), WIDE).shape[1] == 3


# ---- the head


def plain_ridge(state: RidgeState, rows: Array, ridge: float) -> Array:
    """``[d, C]`` float64 weights by the normal equations."""
    z, target = state.z[rows] / UNIT, np.eye(3)[state.labels[rows]] - 1 / 3
    return np.asarray(np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ target))


def scale_of(state: RidgeState) -> float:
    return float(np.diag(state.gram).mean() / UNIT**2)


def brute_force(state: RidgeState, ridge: float, rows: Array, sample: Array) -> float:
    """Mean squared error on each row of the sample by a fit on all rows but that one."""
    errors = []
    for row in sample:
        weights = plain_ridge(state, rows[rows != row], ridge)
        errors.append(np.eye(3)[state.labels[row]] - 1 / 3 - state.z[row] / UNIT @ weights)
    return float(np.square(errors).mean())


@pytest.mark.parametrize("spec", [NARROW, WIDE], ids=["narrow", "projected"])
def test_the_head_is_a_plain_ridge_with_the_lambda_it_names(spec: RidgeSpec) -> None:
    state = state_of(spec=spec)
    rows = np.flatnonzero(state.labels >= 0)

    head = solve(state, rows)

    wanted = plain_ridge(state, rows, head.ridge * scale_of(state))
    assert np.allclose(head.weights, wanted, atol=1e-4)
    assert np.allclose(scores(state, head), state.z / UNIT @ wanted + 1 / 3, atol=1e-4)


def loo_error(state: RidgeState, columns: slice, ridge: float, sample: Array) -> float:
    """Mean squared leave-one-out error of a head on some columns, by the shortcut."""
    target = np.eye(3)[state.labels[sample]] - 1 / 3
    moment = state.moment - state.moment.sum(axis=1, keepdims=True) / 3
    gram = state.gram[columns, columns] / UNIT**2
    parts = (gram, moment[columns] / UNIT, state.z[sample][:, columns] / UNIT, target)
    given = [torch.from_numpy(np.ascontiguousarray(part)).float() for part in parts]
    return _leave_one_out(*given[:2], ridge, *given[2:]) / target.size


@pytest.mark.parametrize("relative", LAMBDAS)
def test_the_leave_one_out_error_is_that_of_refits_without_the_row(relative: float) -> None:
    state = state_of()
    rows = np.flatnonzero(state.labels >= 0)
    sample, ridge = rows[::3], relative * scale_of(state)

    found = loo_error(state, slice(None), ridge, sample)

    assert found == pytest.approx(brute_force(state, ridge, rows, sample), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_lambda_chosen_is_a_local_minimum_of_the_error_on_thinned_columns(seed: int) -> None:
    state = state_of(seed)
    rows = np.flatnonzero(state.labels >= 0)

    at = LAMBDAS.index(solve(state, rows).ridge)

    around = LAMBDAS[max(at - 1, 0) : at + 2]
    scale, some = scale_of(state), slice(0, None, THINNED)
    errors = [loo_error(state, some, ridge / THINNED * scale, rows) for ridge in around]
    assert errors[around.index(LAMBDAS[at])] <= min(errors) * (1 + 1e-4)


def test_without_a_row_to_probe_the_middle_lambda_stands() -> None:
    head = solve(state_of(), np.empty(0, np.int64))

    assert np.isfinite(head.weights).all()
    assert head.ridge in LAMBDAS


def test_the_head_learns_what_features_tell() -> None:
    graph = random_graph(4, 300)
    labels = labels_of(graph, 0.5)
    state = fit_state(graph, labels, NARROW)

    answers = scores(state, solve(state, np.flatnonzero(labels >= 0))).argmax(axis=1)

    hidden = (labels < 0) & (graph.y >= 0)
    assert (answers == graph.y)[hidden].mean() > 0.6


def test_dense_and_sparse_features_give_the_same_statistics() -> None:
    dense, sparse = (random_graph(6, layout=layout) for layout in ("dense", "sparse"))

    assert sp.issparse(sparse.x)
    assert bits(fit_state(dense, labels_of(dense), NARROW)) == bits(
        fit_state(sparse, labels_of(sparse), NARROW)
    )


def test_a_lambda_that_float32_cannot_factor_is_passed_over_for_the_next_that_it_can() -> None:
    state = state_of()
    sample = np.flatnonzero(state.labels >= 0)
    shift = 0.05 * scale_of(state) * UNIT**2  # makes the smaller lambdas fail
    indefinite = replace(state, gram=state.gram - shift * np.eye(len(state.gram)))

    head = solve(indefinite, sample)

    assert np.isfinite(head.weights).all()
    assert head.ridge > 0.05


def test_a_worker_reads_no_labels_of_another_system_that_had_the_same_home_and_graph() -> None:
    graph = random_graph(3, num_nodes=60)
    worker, fresh = (Aggregation(lambda home, key, move: graph) for _ in range(2))
    recipe = Recipe(ShardsConfig(), choose_profile(ShardsConfig()))
    first, second = (
        RidgeJob("home", "graph", recipe, labels, np.flatnonzero(labels >= 0), 16, 0)
        for labels in (labels_of(graph, 0.3), labels_of(graph, 0.7))
    )
    worker.fit_ridge(first)

    found, expected = worker.fit_ridge(second), fresh.fit_ridge(second)

    assert found["weights"].tobytes() == expected["weights"].tobytes()
    assert found["ridge"].tolist() == expected["ridge"].tolist()
