"""Closed forms of the erasure cost, against hand-worked figures, brute force and draws."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.partition import UNASSIGNED
from shards.erasure_cost import (
    Cost,
    ErasureCost,
    Spread,
    batch_probability,
    by_degree,
    cost_spread,
    erasure_cost,
    expected_batch_cost,
    expected_cost,
    hit_probability,
    row_costs,
    training_sizes,
    uniform,
)
from shards.shard_graph import ReaderIndex, build_index
from tests.graphs import random_graph, round_robin, two_triangles

# Rows 0..5 of the two triangles; shard 0 owns 0 and 1, shard 1 owns 2, 3 and 4, nobody 5.
# Shard 0 also reads row 2, shard 1 also reads rows 1 and 5; shard 2 reads nothing.
READERS = [[0], [0, 1], [0, 1], [1], [1], [1]]
OWNER = [0, 0, 1, 1, 1, UNASSIGNED]
TRAINING = np.arange(5)
SIZES = np.asarray([3, 5, 0])


def index_of(readers: list[list[int]], owner: list[int]) -> ReaderIndex:
    indptr = np.cumsum([0, *map(len, readers)])
    flat = np.asarray([shard for row in readers for shard in row], np.int32)
    return ReaderIndex(np.asarray(owner, np.int32), indptr, flat)


INDEX = index_of(READERS, OWNER)


@st.composite
def problems(draw: st.DrawFn) -> tuple[ReaderIndex, np.ndarray, np.ndarray]:
    """A random index, the sizes of its shards, and a uniform request on the owned rows."""
    k, n = draw(st.integers(1, 5)), draw(st.integers(1, 25))
    owner = draw(st.lists(st.integers(-1, k - 1), min_size=n, max_size=n).filter(
        lambda owners: max(owners) >= 0))  # fmt: skip
    extra = draw(st.lists(st.sets(st.integers(0, k - 1)), min_size=n, max_size=n))
    readers = [sorted(more | ({own} - {-1})) for own, more in zip(owner, extra, strict=True)]
    index = index_of(readers, owner)
    asked = np.asarray(owner) >= 0
    return index, training_sizes(index, k), asked / asked.sum()


# ---- by hand


def test_sizes_are_the_rows_that_each_training_reads() -> None:
    assert training_sizes(INDEX, 3).tolist() == SIZES.tolist()


def test_one_uniform_request_costs_what_is_worked_out_by_hand() -> None:
    request = uniform(two_triangles(), TRAINING)

    assert request.tolist() == [0.2, 0.2, 0.2, 0.2, 0.2, 0]
    assert hit_probability(INDEX, request, 3) == pytest.approx([3 / 5, 4 / 5, 0])
    # 3/5 * 3 + 4/5 * 5 = 5.8 rows, of the 8 rows of all trainings and of 5 training rows
    assert expected_cost(INDEX, SIZES, request) == pytest.approx(Cost(5.8 / 8, 5.8 / 5))


def test_a_request_by_degree_costs_what_is_worked_out_by_hand() -> None:
    request = by_degree(two_triangles(), TRAINING)  # degrees 2, 2, 3, 3, 2

    assert request == pytest.approx(np.asarray([2, 2, 3, 3, 2, 0]) / 12)
    assert hit_probability(INDEX, request, 3) == pytest.approx([7 / 12, 10 / 12, 0])
    assert expected_cost(INDEX, SIZES, request).share == pytest.approx((21 + 50) / 12 / 8)


def test_without_edges_a_request_by_degree_is_uniform() -> None:
    graph = random_graph(0, num_nodes=6, degree=0)

    assert by_degree(graph, TRAINING).tolist() == uniform(graph, TRAINING).tolist()


def test_a_batch_of_two_costs_what_is_worked_out_by_hand() -> None:
    request = uniform(two_triangles(), TRAINING)

    without = expected_batch_cost(INDEX, SIZES, request, 2)
    again = expected_batch_cost(INDEX, SIZES, request, 2, replacement=True)

    # missed: both requests among the 2 (1) rows the shard does not read, of 10 pairs
    assert without.share == pytest.approx((3 * (1 - 1 / 10) + 5 * 1) / 8)
    assert again.share == pytest.approx((3 * (1 - 0.4**2) + 5 * (1 - 0.2**2)) / 8)


def test_single_requests_by_cost() -> None:
    request = uniform(two_triangles(), TRAINING)

    assert row_costs(INDEX, SIZES).tolist() == [3, 8, 8, 5, 5, 5]
    assert cost_spread(INDEX, SIZES, request) == Spread(5 / 8, 1, 1)
    rare = np.asarray([0.985, 0, 0, 0.01, 0.005, 0])
    assert cost_spread(INDEX, SIZES, rare) == Spread(3 / 8, 5 / 8, 5 / 8)


def test_disjoint_shards_cost_what_sisa_says() -> None:
    index = index_of([[i // 10] for i in range(50)], [i // 10 for i in range(50)])
    sizes, request = np.full(5, 10), np.full(50, 1 / 50)

    assert expected_cost(index, sizes, request) == pytest.approx(Cost(1 / 5, 1 / 5))
    for count in (1, 3, 20):
        again = expected_batch_cost(index, sizes, request, count, replacement=True)
        assert again.share == pytest.approx(1 - (1 - 1 / 5) ** count)


def test_the_figures_of_a_system_are_those_of_its_parts() -> None:
    found = erasure_cost(two_triangles(), INDEX, SIZES)

    assert found.one_uniform == pytest.approx(5.8 / 8)
    assert found.one_by_degree == pytest.approx(71 / 96)
    assert found.batch_1_percent == pytest.approx(5.8 / 8)  # one percent of five rows is one row
    assert found.worst == 1
    assert found.to_json().keys() == ErasureCost.__dataclass_fields__.keys()


def test_a_system_without_training_rows_costs_nothing() -> None:
    index = index_of([[]] * 6, [UNASSIGNED] * 6)

    assert erasure_cost(two_triangles(), index, np.zeros(2, int)) == ErasureCost(0, 0, 0, 0)


@pytest.mark.parametrize("count", [-1, 6])
def test_a_batch_beyond_the_rows_is_refused(count: int) -> None:
    request = uniform(two_triangles(), TRAINING)

    with pytest.raises(ValueError, match="without replacement from 5 rows"):
        expected_batch_cost(INDEX, SIZES, request, count)


def test_a_weighted_batch_without_replacement_is_refused() -> None:
    request = by_degree(two_triangles(), TRAINING)

    with pytest.raises(ValueError, match="use replacement"):
        expected_batch_cost(INDEX, SIZES, request, 2)


# ---- invariants


@settings(max_examples=80, deadline=None)
@given(problems())
def test_a_batch_of_one_is_one_request(problem: tuple[ReaderIndex, np.ndarray, np.ndarray]) -> None:
    index, sizes, request = problem

    one = expected_cost(index, sizes, request)

    for replacement in (False, True):
        batch = expected_batch_cost(index, sizes, request, 1, replacement=replacement)
        assert batch == pytest.approx(one, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_cost_rises_with_the_batch_from_nothing_to_everything(
    problem: tuple[ReaderIndex, np.ndarray, np.ndarray],
) -> None:
    index, sizes, request = problem
    total = int((request > 0).sum())
    reached = hit_probability(index, request, len(sizes)) > 0

    costs = [expected_batch_cost(index, sizes, request, k).share for k in range(total + 1)]
    again = [
        expected_batch_cost(index, sizes, request, k, replacement=True).share
        for k in range(total + 1)
    ]

    assert costs[0] == again[0] == 0
    assert (np.diff(costs) >= -1e-12).all() and (np.diff(again) >= -1e-12).all()
    assert (np.asarray(costs) >= np.asarray(again) - 1e-12).all()
    assert costs[-1] == pytest.approx(sizes[reached].sum() / sizes.sum())


def test_erasing_every_row_trains_everything_again() -> None:
    graph = random_graph(3, num_nodes=40)
    index = build_index(graph, round_robin(graph, 4))
    rows = np.flatnonzero(index.owner != UNASSIGNED)

    cost = expected_batch_cost(index, training_sizes(index, 4), uniform(graph, rows), len(rows))

    assert cost == Cost(1, 1)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 3))
def test_batches_equal_the_average_over_all_of_them(
    problem: tuple[ReaderIndex, np.ndarray, np.ndarray], count: int
) -> None:
    index, sizes, request = problem
    rows = np.flatnonzero(request)[:8]
    request = np.zeros(len(request))
    request[rows] = 1 / len(rows)
    count = min(count, len(rows))

    def average(batches: list[tuple[int, ...]]) -> float:
        assert batches
        return float(np.mean([sum(sizes[s] for s in index.of_rows(b)) for b in batches]))

    drawn = expected_batch_cost(index, sizes, request, count).share * sizes.sum()
    again = expected_batch_cost(index, sizes, request, count, replacement=True).share * sizes.sum()

    assert drawn == pytest.approx(average(list(combinations(rows.tolist(), count))))
    assert again == pytest.approx(average(list(product(rows.tolist(), repeat=count))))


@pytest.mark.parametrize(("total", "read", "count"), [(10**6, 50_000, 10**4), (10**5, 3, 500)])
def test_the_hypergeometric_form_holds_for_large_graphs(total: int, read: int, count: int) -> None:
    index = index_of([], [])
    index = ReaderIndex(
        np.zeros(total, np.int32),
        np.minimum(np.arange(total + 1), read),
        np.zeros(read, np.int32),
    )

    found = batch_probability(index, np.full(total, 1 / total), 1, count, replacement=False)

    exact = 1 - comb(total - read, count) / comb(total, count) if total < 10**6 else 1.0
    assert found[0] == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_drawn_requests_cost_what_is_expected_within_four_standard_errors(
    seed: int, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(seed, num_nodes=200)
    owner = rng.integers(-1, 6, graph.num_nodes)
    readers = [
        sorted(({int(o)} | set(rng.choice(6, rng.integers(0, 3)).tolist())) - {-1}) for o in owner
    ]
    index = index_of(readers, owner.tolist())
    sizes, rows = training_sizes(index, 6), np.flatnonzero(owner >= 0)
    request = (by_degree if weighted else uniform)(graph, rows)
    drawn = rng.choice(graph.num_nodes, size=(4000, 3), p=request)

    for count in (1, 3):
        batches = [index.of_rows(batch[:count].tolist()) for batch in drawn]
        costs = np.asarray([sizes[list(b)].sum() for b in batches]) / sizes.sum()
        expected = expected_batch_cost(index, sizes, request, count, replacement=True).share
        error = costs.std(ddof=1) / np.sqrt(len(costs))
        assert abs(costs.mean() - expected) < 4 * error + 1e-12
