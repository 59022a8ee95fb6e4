"""Affinity by hand on a path, and what holds on any graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.affinity import affinity
from tests.graphs import path_graph, random_graph


def test_the_affinity_of_a_path_by_hand() -> None:
    """0 - 1 - 2 - 3; nodes 0 and 1 train in shard 4, node 3 in shard 7, node 2 in none.

    A step stays or moves, all alike, so two steps end in 0, 1, 2, 3 with these chances in 36ths:
    from 0: 15 15 6 0; from 1: 10 14 8 4; from 2: 4 8 14 10; from 3: 0 6 15 15.
    """
    owner = np.asarray([4, 4, -1, 7], np.int32)

    found = affinity(path_graph(4), owner, (4, 7))

    assert np.allclose(found, [[1, 0], [24 / 28, 4 / 28], [12 / 22, 10 / 22], [6 / 21, 15 / 21]])


def test_a_row_that_no_walk_from_counts_listens_to_all_shards_alike() -> None:
    owner = np.asarray([4, -1, -1, -1], np.int32)

    found = affinity(path_graph(4), owner, (4, 7))

    assert found.tolist() == [[1, 0], [1, 0], [1, 0], [0.5, 0.5]]


def test_walks_into_a_shard_that_is_not_asked_do_not_count() -> None:
    owner = np.asarray([4, 5, 5, 7], np.int32)

    assert np.allclose(affinity(path_graph(4), owner, (4, 7))[1], [10 / 14, 4 / 14])


def test_without_shards_there_is_no_share() -> None:
    assert affinity(path_graph(4), np.full(4, -1, np.int32), ()).shape == (4, 0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    directed=st.booleans(),
    rows=st.sets(st.integers(0, 29), max_size=8),
)
def test_rows_add_up_to_one_and_some_of_them_are_a_slice_of_all(
    seed: int, directed: bool, rows: set[int]
) -> None:
    graph = random_graph(seed, degree=1, directed=directed)
    owner = np.random.default_rng(seed).integers(-1, 4, graph.num_nodes).astype(np.int32)
    wanted = np.asarray(sorted(rows), np.int64)

    found = affinity(graph, owner, (0, 1, 3))

    assert found.sum(axis=1) == pytest.approx(1)
    assert (found >= 0).all()
    assert affinity(graph, owner, (0, 1, 3), wanted).tobytes() == found[wanted].tobytes()
