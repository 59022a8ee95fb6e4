"""Contents: canonical, complete, and changed only where the index says."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.config import PartitionConfig, RolesConfig
from cluster.graph import TRAIN, Change, Graph
from cluster.halo import Halo
from cluster.halo_choice import clique_arcs
from cluster.partition import UNASSIGNED, Partition
from cluster.partitioners.registry import make_partition
from cluster.readers.columns import Columns
from cluster.store import LocalStore
from shards.content import ShardContent, build_content
from shards.shard_graph import build_index
from shards.submodels.inputs import training_input
from tests.graphs import (
    assign,
    path_graph,
    random_graph,
    random_halo,
    round_robin,
    two_triangles,
)


def digests(graph: Graph, partition: Partition) -> list[str]:
    index = build_index(graph, partition.restrict(graph))
    return [build_content(graph, index, shard).digest for shard in range(partition.num_shards)]


def moved(before: list[str], after: list[str]) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}


def test_a_content_holds_the_rows_of_its_shard_and_the_edges_among_them() -> None:
    graph = two_triangles()

    content = build_content(graph, np.asarray([0, 1, 0, 0, UNASSIGNED, 0]), 0)

    assert content.ids.tolist() == [0, 2, 3, 5]
    assert content.owned.all()
    assert content.x.tolist() == [[1, 0, 2], [3, 0, 1], [0, 2, 2], [0, 0, 4]]
    assert content.y.tolist() == [0, 0, 1, -1]
    assert content.indptr.tolist() == [0, 1, 3, 5, 6]
    assert content.indices.tolist() == [1, 0, 2, 1, 3, 2]
    assert content.weight is None
    assert not content.is_silent


def test_a_directed_content_holds_in_neighbours_with_their_weights() -> None:
    columns = Columns(weight=np.arange(1, 8, dtype=np.float32))
    graph = two_triangles(directed=True, columns=columns)

    content = build_content(graph, np.asarray([0, 0, 0, 1, 1, 1]), 0)

    assert content.indptr.tolist() == [0, 0, 1, 3]
    assert content.indices.tolist() == [0, 0, 1]
    assert content.weight is not None
    assert content.weight.tolist() == [1, 2, 3]


def test_a_halo_row_has_features_and_edges_and_no_label() -> None:
    """Path 0-1-2-3-4-5, two nodes a shard: shard 1 owns 2 and 3 and reads 1 and 4."""
    graph = path_graph(6)
    partition = assign(graph, {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}, 3)
    partition = replace(partition, halo=Halo(1, np.ones(3)))

    content = build_content(graph, build_index(graph, partition), 1)

    assert content.ids.tolist() == [1, 2, 3, 4]
    assert content.owned.tolist() == [False, True, True, False]
    assert content.x.ravel().tolist() == [2, 3, 4, 5]
    assert content.y.tolist() == [-1, 0, 1, -1]
    assert content.indptr.tolist() == [0, 1, 3, 5, 6]
    assert content.indices.tolist() == [1, 0, 2, 1, 3, 2]
    assert training_input(content, "cpu").degree.tolist() == [1, 2, 2, 1]


def test_a_shard_whose_only_labels_are_in_its_halo_is_silent() -> None:
    graph = path_graph(3).apply(Change(labels=(0,)))
    partition = replace(assign(graph, {0: 0, 1: 1, 2: 1}, 2), halo=Halo(2, np.ones(2)))

    content = build_content(graph, build_index(graph, partition), 0)

    assert content.ids.tolist() == [0, 1, 2]
    assert content.is_silent


def test_a_shard_of_a_clique_with_labels_trains_on_the_whole_coarse_shard() -> None:
    graph = path_graph(6)
    partition = assign(graph, {0: 0, 1: 1, 2: 2, 3: 3, 4: 0, 5: 1}, 4)
    halo = Halo(0, np.ones(4), clique_arcs(np.arange(4) // 2), labels=True)

    index = build_index(graph, replace(partition, halo=halo))

    first, second, third = (build_content(graph, index, shard) for shard in range(3))
    assert first.ids.tolist() == [0, 1, 4, 5]
    assert first.y.tolist() == [0, 1, 0, 1]
    assert first.owned.all()
    assert first.digest == second.digest
    assert third.ids.tolist() == [2, 3]


def test_an_empty_shard_and_a_shard_without_labels_are_silent() -> None:
    graph = two_triangles()
    owner = np.asarray([0, 0, 0, 0, 0, 1])

    assert build_content(graph, owner, 2).is_silent
    assert build_content(graph, owner, 2).num_nodes == 0
    assert build_content(graph, owner, 1).is_silent
    assert not build_content(graph, owner, 0).is_silent


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_order_of_rows_and_edges_moves_no_digest(layout: str) -> None:
    graph = random_graph(0, layout="sparse" if layout == "sparse" else "dense", weighted=True)
    rng = np.random.default_rng(1)
    rows, edges = rng.permutation(graph.num_nodes), rng.permutation(graph.num_edges)
    place = np.argsort(rows)
    ends = np.stack([place[graph.src], place[graph.dst]])[:, edges]
    flipped = rng.random(graph.num_edges) < 0.5
    ends[:, flipped] = ends[::-1, flipped]
    assert graph.weight is not None

    shuffled = Graph.from_arrays(
        ends,
        graph.x[rows],
        graph.y[rows],
        ids=graph.ids[rows],
        schema=graph.schema,
        columns=Columns(weight=graph.weight[edges]),
    )

    partition = round_robin(graph, 3)
    assert digests(shuffled, partition) == digests(graph, partition)


def test_a_history_of_erasures_moves_no_digest() -> None:
    graph = two_triangles()
    direct = Graph.from_arrays(
        np.asarray([(0, 1), (1, 2), (3, 4)]).T,
        np.asarray([[1, 0, 2], [0, 0, 0], [3, 0, 1], [0, 2, 2], [1, 1, 0]], np.float32),
        [0, 0, -1, 1, 1],
        schema=graph.schema,
    )

    erased = (
        graph.apply(Change(edges=((0, 2),)))
        .apply(Change(nodes=(5,), labels=(2,)))
        .apply(Change(features=((1, None),), edges=((3, 2),)))
    )

    owner = np.asarray([0, 0, 0, 1, 1])
    for shard in range(2):
        assert (
            build_content(erased, owner, shard).digest == build_content(direct, owner, shard).digest
        )


def test_contents_partition_the_training_ids_and_hold_no_other_node() -> None:
    graph, roles = random_graph(3, num_nodes=80), RolesConfig()
    partition = make_partition(graph, PartitionConfig(method="hash", num_shards=4), roles)

    owner = partition.owners(graph)
    contents = [build_content(graph, owner, shard) for shard in range(4)]

    held = sorted(i for content in contents for i in content.ids.tolist())
    assert held == graph.ids[graph.roles(roles) == TRAIN].tolist()
    assert len(held) < graph.num_nodes


def test_a_validation_or_test_label_reaches_no_content() -> None:
    graph, roles = random_graph(3, num_nodes=80), RolesConfig()
    partition = make_partition(graph, PartitionConfig(method="hash", num_shards=4), roles)
    other = graph.roles(roles) != TRAIN

    rewritten = replace(graph, y=np.where(other, (graph.y + 1) % 3, graph.y).astype(np.int32))

    assert digests(rewritten, partition) == digests(graph, partition)


@pytest.mark.parametrize(
    "ids", [list(range(6)), list("abcdef"), [uuid.UUID(int=i) for i in range(6)]]
)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_content_survives_the_store(
    tmp_path: Path, ids: list[int | str | uuid.UUID], sparse: bool, weighted: bool
) -> None:
    columns = Columns(weight=np.arange(1.0, 8.0) if weighted else None)
    graph = two_triangles(sparse=sparse, ids=ids, columns=columns)
    content = build_content(graph, np.asarray([0, 0, 0, 0, 1, 1]), 0)
    store = LocalStore(tmp_path)
    store.initialise("test")

    store.stage("content", content.digest, content.to_blob(), fence=1)
    store.promote("content", [content.digest], fence=1)
    back = ShardContent.from_blob(store.get("content", content.digest))

    assert back.digest == content.digest
    assert back.schema == content.schema
    assert back.ids.tolist() == content.ids.tolist()


# ---- the index and the digests agree


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, Partition]:
    graph = random_graph(
        draw(st.integers(0, 10**6)),
        draw(st.integers(4, 14)),
        degree=draw(st.integers(1, 3)),
        layout=draw(st.sampled_from(["dense", "sparse"])),
        directed=draw(st.booleans()),
        weighted=draw(st.booleans()),
    )
    left_out = draw(st.integers(2, 6))
    return graph, round_robin(graph, draw(st.integers(2, 4)), left_out=left_out)


@st.composite
def halos(draw: st.DrawFn) -> tuple[Graph, Partition]:
    graph, partition = draw(graphs())
    halo = random_halo(draw(st.integers(0, 10**6)), partition.num_shards)
    return graph, replace(partition, halo=halo)


@st.composite
def erasures(
    draw: st.DrawFn, cases: st.SearchStrategy[tuple[Graph, Partition]]
) -> tuple[Graph, Partition, Change]:
    graph, partition = draw(cases)
    node = draw(st.sampled_from(graph.ids.tolist()))
    column = draw(st.sampled_from(graph.schema.features))
    choices = [Change(nodes=(node,)), Change(features=((node, (column,)),)), Change(labels=(node,))]
    if graph.num_edges:
        at = draw(st.integers(0, graph.num_edges - 1))
        choices.append(Change(edges=((graph.ids[graph.src[at]], graph.ids[graph.dst[at]]),)))
    return graph, partition, draw(st.sampled_from(choices))


@settings(max_examples=150, deadline=None)
@given(erasures(graphs()))
def test_erasing_a_record_moves_exactly_the_contents_that_read_it(
    case: tuple[Graph, Partition, Change],
) -> None:
    graph, partition, change = case
    readers = build_index(graph, partition).of_change(graph, change)

    changed = moved(digests(graph, partition), digests(graph.apply(change), partition))

    assert changed <= readers
    if change.nodes or change.edges:  # a cell that is zero, or a label that is absent, moves none
        assert changed == readers


@settings(max_examples=400, deadline=None)
@given(erasures(halos()))
def test_erasing_a_record_moves_no_content_that_did_not_examine_it_and_all_that_held_it(
    case: tuple[Graph, Partition, Change],
) -> None:
    graph, partition, change = case
    index = build_index(graph, partition)

    changed = moved(digests(graph, partition), digests(graph.apply(change), partition))

    assert changed <= index.of_change(graph, change)
    assert changed >= index.reading(graph.rows(change.nodes).tolist())


@settings(max_examples=100, deadline=None)
@given(halos(), st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_erasing_several_records_moves_no_content_that_examined_none(
    case: tuple[Graph, Partition], draws: list[int]
) -> None:
    graph, partition = case
    edges = [at % graph.num_edges for at in draws if graph.num_edges]
    change = Change(
        nodes=tuple({graph.ids[at % graph.num_nodes] for at in draws[:2]}),
        edges=tuple((graph.ids[graph.src[at]], graph.ids[graph.dst[at]]) for at in edges),
    )

    changed = moved(digests(graph, partition), digests(graph.apply(change), partition))

    assert changed <= build_index(graph, partition).of_change(graph, change)


@settings(max_examples=200, deadline=None)
@given(halos(), st.data())
def test_rewriting_a_value_moves_exactly_the_contents_that_read_it(
    case: tuple[Graph, Partition], data: st.DataObject
) -> None:
    graph, partition = case
    row = data.draw(st.integers(0, graph.num_nodes - 1))
    index, node = build_index(graph, partition), graph.ids[row]
    if data.draw(st.booleans()):
        x = graph.x.tolil() if sp.issparse(graph.x) else graph.x.copy()
        x[row, data.draw(st.integers(0, 5))] += 1
        rewritten = replace(graph, x=sp.csr_matrix(x) if sp.issparse(x) else x)
        readers = index.of_change(graph, Change(features=((node, None),)))
    else:
        y = graph.y.copy()
        y[row] = (y[row] + 2) % 3
        rewritten = replace(graph, y=y)
        readers = index.of_change(graph, Change(labels=(node,)))

    assert moved(digests(graph, partition), digests(rewritten, partition)) == readers


@settings(max_examples=50, deadline=None)
@given(graphs(), st.data())
def test_rewriting_a_weight_moves_the_content_that_holds_both_ends(
    case: tuple[Graph, Partition], data: st.DataObject
) -> None:
    graph, partition = case
    assume(graph.weight is not None and graph.num_edges)
    assert graph.weight is not None
    at = data.draw(st.integers(0, graph.num_edges - 1))
    edge = (graph.ids[graph.src[at]], graph.ids[graph.dst[at]])
    weight = graph.weight.copy()
    weight[at] += 1

    changed = moved(digests(graph, partition), digests(replace(graph, weight=weight), partition))

    assert changed == build_index(graph, partition).of_change(graph, Change(edges=(edge,)))
