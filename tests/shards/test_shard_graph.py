"""Readers of records, checked by hand on two triangles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.errors import UnknownIdError
from cluster.graph import Change, Graph
from cluster.halo import Halo
from cluster.partition import Partition
from shards.content import build_content
from shards.shard_graph import ReaderIndex, build_index, retrained_by_nodes
from tests.graphs import (
    assign,
    path_graph,
    random_graph,
    random_halo,
    round_robin,
    two_triangles,
)


@pytest.fixture
def graph() -> Graph:
    return two_triangles()


@pytest.fixture
def partition(graph: Graph) -> Partition:
    """Nodes 0 and 1 in shard 0, 2, 3 and 4 in shard 1, node 5 in none; shard 2 is empty."""
    return assign(graph, {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}, num_shards=3)


@pytest.fixture
def index(graph: Graph, partition: Partition) -> ReaderIndex:
    return build_index(graph, partition)


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        (Change(), set()),
        (Change(nodes=(0,)), {0}),
        (Change(nodes=(2,)), {1}),
        (Change(nodes=(5,)), set()),
        (Change(nodes=(0, 4, 5)), {0, 1}),
        (Change(edges=((0, 1),)), {0}),
        (Change(edges=((1, 0),)), {0}),
        (Change(edges=((0, 2),)), set()),
        (Change(edges=((2, 3),)), {1}),
        (Change(edges=((4, 5),)), set()),
        (Change(edges=((0, 1), (3, 4))), {0, 1}),
        (Change(features=((3, ("f0",)),)), {1}),
        (Change(features=((5, None),)), set()),
        (Change(labels=(1,)), {0}),
        (Change(labels=(5,)), set()),
        (Change(nodes=(5,), edges=((0, 2),), features=((1, None),), labels=(4,)), {0, 1}),
    ],
)
def test_a_record_is_read_by(
    graph: Graph, index: ReaderIndex, change: Change, readers: set[int]
) -> None:
    assert index.of_change(graph, change) == readers


def test_every_row_is_read_by_its_owner_alone(graph: Graph, index: ReaderIndex) -> None:
    assert index.owner.tolist() == [0, 0, 1, 1, 1, -1]
    assert index.indptr.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert index.readers.tolist() == [0, 0, 1, 1, 1]
    assert index.of_rows([0, 5]) == {0}
    assert index.of_rows([]) == set()


def test_a_halo_reader_reads_features_and_edges_but_no_label(graph: Graph) -> None:
    """Shard 0 copies node 2 in, whose owner is shard 1."""
    owner = build_index(graph, assign(graph, {0: 0, 1: 0, 2: 1}, 2)).owner
    index = ReaderIndex(owner, np.asarray([0, 1, 2, 4, 4, 4, 4]), np.asarray([0, 0, 0, 1]))

    assert index.of_change(graph, Change(features=((2, None),))) == {0, 1}
    assert index.of_change(graph, Change(edges=((0, 2),))) == {0}
    assert index.of_change(graph, Change(labels=(2,))) == {1}


@pytest.fixture
def path() -> tuple[Graph, Partition]:
    """Path 0-1-2-3-4-5, two nodes a shard, one hop; only shards 1 and 2 let candidates in."""
    graph = path_graph(6)
    partition = assign(graph, {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}, num_shards=3)
    return graph, replace(partition, halo=Halo(1, np.asarray([0.0, 1.0, 1.0])))


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        (Change(nodes=(0,)), {0}),
        (Change(nodes=(1,)), {0, 1}),
        (Change(nodes=(2,)), {0, 1}),
        (Change(features=((2, None),)), {1}),
        (Change(labels=(2,)), {1}),
        (Change(nodes=(3,)), {1, 2}),
        (Change(features=((3, None),)), {1, 2}),
        (Change(labels=(3,)), {1}),
        (Change(edges=((1, 2),)), {0, 1}),
        (Change(edges=((0, 1),)), {0}),
        (Change(edges=((3, 4),)), {1, 2}),
    ],
)
def test_whoever_examined_a_node_or_edge_is_listed_and_only_readers_of_a_value(
    path: tuple[Graph, Partition], change: Change, readers: set[int]
) -> None:
    graph, partition = path

    assert build_index(graph, partition).of_change(graph, change) == readers


def test_shard_level_arcs_count_the_foreign_records_read(path: tuple[Graph, Partition]) -> None:
    index = build_index(*path)

    assert index.arcs(3).tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert [index.rows_of(shard).tolist() for shard in range(4)] == [
        [0, 1],
        [1, 2, 3, 4],
        [3, 4, 5],
        [],
    ]


def test_an_index_takes_a_few_bytes_a_record(path: tuple[Graph, Partition]) -> None:
    index = build_index(*path)

    assert index.readers.dtype == np.int32
    assert index.read is not None
    assert index.read.dtype == bool


def test_the_index_of_a_smaller_graph_routes_as_before(graph: Graph, partition: Partition) -> None:
    smaller = graph.apply(Change(nodes=(0,)))

    index = build_index(smaller, partition.restrict(smaller))

    assert index.of_change(smaller, Change(nodes=(1,))) == {0}
    assert index.of_change(smaller, Change(edges=((2, 3),))) == {1}


def test_an_unknown_record_is_an_error(graph: Graph, index: ReaderIndex) -> None:
    with pytest.raises(UnknownIdError):
        index.of_change(graph, Change(nodes=(17,)))
    with pytest.raises(UnknownIdError):
        index.of_change(graph, Change(edges=((0, 5),)))


# ---- who retrains for a node


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_erasing_a_node_retrains_the_shards_that_the_cost_counts(
    seed: int, halo_seed: int, directed: bool, repaired: bool
) -> None:
    halo = random_halo(halo_seed, 4)
    assume(halo is None or halo.hops <= 2)
    graph = random_graph(seed, num_nodes=18, directed=directed)
    partition = replace(round_robin(graph, 4), halo=halo)
    index = build_index(graph, partition, has_phantoms=repaired)
    before = [build_content(graph, index, shard).digest for shard in range(4)]
    counted = retrained_by_nodes(graph, index)

    for row in range(graph.num_nodes):
        rest = graph.apply(Change(nodes=(int(graph.ids[row]),)))
        after = build_index(rest, partition.restrict(rest), has_phantoms=repaired)
        moved = {s for s in range(4) if build_content(rest, after, s).digest != before[s]}

        assert moved == counted.of_rows([row])
