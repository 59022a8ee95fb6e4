"""Phantoms: as many as neighbours were lost, made from their anchor alone, and routed to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Change, Graph
from cluster.halo import Halo
from cluster.halo_choice import clique_arcs
from cluster.partition import Partition
from cluster.readers.columns import Columns
from cluster.store import LocalStore
from shards.config import Repair, ShardsConfig
from shards.content import ShardContent, build_content
from shards.phantoms import phantom_scale
from shards.recipe import Recipe, choose_profile
from shards.shard_graph import build_index, phantom_rows
from shards.submodels.inputs import ModelInput, training_input
from shards.submodels.table import SUBMODELS
from shards.training import train
from tests.graphs import assign, path_graph, random_graph, random_halo, round_robin, two_triangles
from tests.shards.test_content import erasures, graphs, moved

Array = npt.NDArray[Any]
MODES: list[Repair] = ["zero", "mirror", "mixup"]


def halves(graph: Graph) -> Partition:
    """Nodes 0 and 1 in shard 0, 2, 3 and 4 in shard 1, node 5 in none."""
    return assign(graph, {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}, num_shards=2)


def half(graph: Graph, shard: int, repair: Repair = "mirror") -> ShardContent:
    return build_content(graph, halves(graph).owners(graph), shard, repair=repair)


# ---- contents


def test_a_row_lost_the_neighbours_that_another_shard_owns() -> None:
    graph = two_triangles()

    lost = [half(graph, shard).lost for shard in range(2)]

    assert lost[0] is not None and lost[0].tolist() == [1, 1]  # 0-2 and 1-2
    assert lost[1] is not None and lost[1].tolist() == [2, 0, 0]  # 3-5 and 4-5 lead to no shard


def test_a_directed_row_lost_in_neighbours_only() -> None:
    """Edges run from the smaller id, so 2 lost 0 and 1, and shard 0 lost nobody."""
    graph = two_triangles(directed=True)

    lost = [half(graph, shard).lost for shard in range(2)]

    assert lost[0] is not None and lost[0].tolist() == [0, 0]
    assert lost[1] is not None and lost[1].tolist() == [2, 0, 0]


def test_the_content_tells_whether_it_is_repaired_and_not_how() -> None:
    graph = two_triangles()

    digests = {mode: half(graph, 0, mode).digest for mode in ("none", *MODES)}

    assert digests["zero"] == digests["mirror"] == digests["mixup"] != digests["none"]
    assert "lost" not in half(graph, 0, "none").to_blob().tensors


def test_a_repaired_content_survives_the_store(tmp_path: Path) -> None:
    content, store = half(two_triangles(), 1), LocalStore(tmp_path)
    store.initialise("test")
    store.stage("content", content.digest, content.to_blob(), fence=1)
    store.promote("content", [content.digest], fence=1)

    back = ShardContent.from_blob(store.get("content", content.digest))

    assert back.digest == content.digest
    assert back.lost is not None and back.lost.tolist() == [2, 0, 0]


# ---- what training reads


def feature_rows(inputs: ModelInput) -> Array:
    """Features of every row, phantoms among them."""
    rows: Array = (inputs.features @ torch.eye(inputs.features.shape[1])).numpy()
    return rows


def test_an_undirected_phantom_is_a_leaf_of_its_anchor() -> None:
    inputs = training_input(half(two_triangles(), 0), "cpu", "mirror")

    assert inputs.indptr.tolist() == [0, 2, 4, 5, 6]
    assert inputs.indices.tolist() == [1, 2, 0, 3, 0, 1]
    assert inputs.degree.tolist() == [2, 2, 1, 1]
    assert inputs.symmetric
    own = [[1 / 3, 0, 2 / 3], [0, 1, 0]]
    assert np.allclose(feature_rows(inputs), own + own)


def test_a_directed_phantom_points_at_its_anchor_and_hears_nobody() -> None:
    inputs = training_input(half(two_triangles(directed=True), 1), "cpu", "mirror")

    assert inputs.indptr.tolist() == [0, 2, 3, 4, 4, 4]
    assert inputs.indices.tolist() == [3, 4, 0, 1]
    assert inputs.degree.tolist() == [2, 1, 1, 0, 0]
    assert not inputs.symmetric


def test_a_phantom_s_edge_weighs_one() -> None:
    columns = Columns(weight=np.arange(2.0, 9.0))
    inputs = training_input(half(two_triangles(columns=columns), 0), "cpu", "zero")

    assert inputs.weight is not None
    assert inputs.weight.tolist() == [2, 1, 2, 1, 1, 1]
    assert inputs.degree.tolist() == [3, 3, 1, 1]


@pytest.mark.parametrize("mode", MODES)
def test_sparse_and_dense_phantoms_have_the_same_features(mode: Repair) -> None:
    dense, sparse = (
        training_input(half(two_triangles(sparse=sparse), 1), "cpu", mode)
        for sparse in (False, True)
    )

    assert sp.issparse(sparse.x)
    assert np.array_equal(feature_rows(sparse), feature_rows(dense))


def test_features_of_phantoms_are_the_declared_multiple_of_the_anchor_s() -> None:
    contents = {mode: half(two_triangles(), 1) for mode in MODES}
    phantoms = {
        mode: feature_rows(training_input(content, "cpu", mode))[3:]
        for mode, content in contents.items()
    }

    assert np.array_equal(phantoms["zero"], np.zeros((2, 3)))
    assert np.allclose(phantoms["mirror"], [[3 / 4, 0, 1 / 4]] * 2)
    share = phantoms["mixup"][:, 0] / (3 / 4)
    assert np.allclose(phantoms["mixup"], share[:, None] * phantoms["mirror"])
    assert 0 <= share.min() < share.max() < 1


def test_a_mixup_coefficient_belongs_to_the_anchor_s_id_and_the_slot_alone() -> None:
    ids, lost = np.asarray([3, 5, 8]), np.asarray([2, 0, 3])

    scale = phantom_scale(ids, lost, "mixup")

    assert np.array_equal(phantom_scale(ids[2:], lost[2:], "mixup"), scale[2:])
    assert np.array_equal(phantom_scale(ids[2:], lost[2:] - 1, "mixup"), scale[2:4])
    assert len(set(scale.tolist())) == 5


def test_mixup_coefficients_are_uniform() -> None:
    scale = phantom_scale(np.arange(4000), np.ones(4000, np.int64), "mixup")

    assert scale.mean() == pytest.approx(0.5, abs=0.02)
    assert scale.var() == pytest.approx(1 / 12, abs=0.005)


def test_a_content_that_was_built_without_repair_is_refused() -> None:
    with pytest.raises(ValueError, match="without repair"):
        training_input(half(two_triangles(), 0, "none"), "cpu", "zero")


@pytest.mark.parametrize(("backend", "model"), sorted(SUBMODELS))
def test_phantoms_reach_a_submodel_through_messages_and_never_through_the_loss(
    backend: str, model: str
) -> None:
    """Without dropout, whose masks have a row for each phantom, an MLP does not notice them."""
    graph = random_graph(1, num_nodes=24, layout="sparse")
    owner = round_robin(graph, 3).owners(graph)
    training = {"training_epochs": 2, "lr": 0.01, "weight_decay": 5e-4, "dropout": 0}
    base = ShardsConfig(backend=backend, model=model, hidden=4, **training)
    trained = []
    for mode in ("none", *MODES):
        recipe = Recipe(base.model_copy(update={"repair": mode}), choose_profile(base))
        trained.append(train(build_content(graph, owner, 0, repair=mode), recipe, 0))

    assert all(np.isfinite(one.losses).all() for one in trained)
    assert len({one.digest for one in trained}) == (1 if model in ("mlp", "linear") else 4)


# ---- routing


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        (Change(nodes=(2,)), {0, 1}),
        (Change(nodes=(0,)), {0, 1}),
        (Change(nodes=(3,)), {1}),
        (Change(nodes=(5,)), set()),
        (Change(edges=((2, 0),)), {0, 1}),
        (Change(edges=((0, 1),)), {0}),
        (Change(edges=((3, 5),)), set()),
        (Change(features=((2, None),)), {1}),
        (Change(labels=(2,)), {1}),
    ],
)
def test_a_record_is_read_where_a_phantom_stands_for_it(change: Change, readers: set[int]) -> None:
    graph = two_triangles()

    assert build_index(graph, halves(graph), has_phantoms=True).of_change(graph, change) == readers


def test_a_directed_edge_is_read_as_a_phantom_by_its_target_s_owner() -> None:
    graph = two_triangles(directed=True)
    owner = halves(graph).owners(graph)

    assert phantom_rows(graph, owner, Change(edges=((0, 2),))).tolist() == [2]
    assert phantom_rows(graph, owner, Change(nodes=(0,))).tolist() == [2]


def digests(graph: Graph, partition: Partition) -> list[str]:
    owner = partition.restrict(graph).owners(graph)
    shards = range(partition.num_shards)
    return [build_content(graph, owner, shard, repair="zero").digest for shard in shards]


@settings(max_examples=150, deadline=None)
@given(erasures(graphs()))
def test_erasing_a_record_moves_exactly_the_repaired_contents_that_read_it(
    case: tuple[Graph, Partition, Change],
) -> None:
    graph, partition, change = case
    readers = build_index(graph, partition, has_phantoms=True).of_change(graph, change)

    changed = moved(digests(graph, partition), digests(graph.apply(change), partition))

    assert changed <= readers
    if change.nodes or change.edges:  # a cell that is zero, or a label that is absent, moves none
        assert changed == readers


def test_a_phantom_stands_in_every_shard_of_a_clique_that_shares_labels() -> None:
    """The path 0 - 1 - 2, a shard each; shards 0 and 1 train on each other's rows."""
    graph = path_graph(3)
    halo = Halo(0, np.ones(3), clique_arcs(np.asarray([0, 0, 1])), labels=True)
    partition = replace(assign(graph, {0: 0, 1: 1, 2: 2}, 3), halo=halo)

    index = build_index(graph, partition, has_phantoms=True)

    assert index.of_change(graph, Change(edges=((1, 2),))) == {0, 1, 2}
    assert index.of_change(graph, Change(edges=((0, 1),))) == {0, 1}
    assert index.of_change(graph, Change(features=((2, None),))) == {2}


@settings(max_examples=150, deadline=None)
@given(erasures(graphs()), st.integers(0, 10**6))
def test_erasing_a_record_moves_no_repaired_content_with_a_halo_that_the_index_leaves_out(
    case: tuple[Graph, Partition, Change], seed: int
) -> None:
    graph, _, change = case
    partition = replace(round_robin(graph, 4), halo=random_halo(seed, 4))
    after = graph.apply(change)

    def contents(graph: Graph) -> list[str]:
        index = build_index(graph, partition.restrict(graph), has_phantoms=True)
        return [build_content(graph, index, s).digest for s in range(partition.num_shards)]

    readers = build_index(graph, partition, has_phantoms=True).of_change(graph, change)

    assert moved(contents(graph), contents(after)) <= readers


@settings(max_examples=50, deadline=None)
@given(erasures(graphs()), st.data())
def test_a_neighbour_s_features_and_label_reach_its_owner_alone(
    case: tuple[Graph, Partition, Change], data: st.DataObject
) -> None:
    graph, partition, _ = case
    row = data.draw(st.integers(0, graph.num_nodes - 1))
    y, x = graph.y.copy(), graph.x.tolil() if sp.issparse(graph.x) else graph.x.copy()
    y[row], x[row, 0] = (y[row] + 2) % 3, x[row, 0] + 1
    rewritten = replace(graph, y=y, x=sp.csr_matrix(x) if sp.issparse(x) else x)

    owner = int(partition.owners(graph)[row])

    expected = {owner} if owner >= 0 else set()
    assert moved(digests(graph, partition), digests(rewritten, partition)) == expected
