"""Bilevel sharding: coarse by hash, fine by a class-balanced draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.config import PartitionConfig, RolesConfig
from cluster.digest import keyed_hash
from cluster.errors import ConfigError
from cluster.graph import UNLABELLED, Change, Graph
from cluster.partition import Partition, capacity
from cluster.partitioners import make_partition
from coordinator.config import load_config

ALL_TRAIN = RolesConfig(train=1, val=0, test=0)


def config(num_shards: int, fine: int, **options: object) -> PartitionConfig:
    return PartitionConfig(method="bilevel", num_shards=num_shards, fine=fine, **options)


def labelled(labels: list[int], *, start: int = 100) -> Graph:
    """A graph without edges; node ``start + i`` has label i, -1 for none."""
    x = np.zeros((len(labels), 1), np.float32)
    ids = list(range(start, start + len(labels)))
    return Graph.from_arrays(np.zeros((2, 0), np.int64), x, labels, ids=ids)


def share(node: int, seed: int = 0) -> float:
    return float(keyed_hash("shard", seed, [node])[0]) / 2.0**64


def class_counts(graph: Graph, partition: Partition, num_classes: int) -> np.ndarray:
    """``[k, C + 1]`` nodes of each class in each shard, unlabelled ones last."""
    counts = np.zeros((partition.num_shards, num_classes + 1), int)
    np.add.at(counts, (partition.shards, graph.y), 1)
    return counts


def test_a_node_s_coarse_shard_is_the_share_of_its_hash() -> None:
    graph = labelled([0, 1] * 60)

    partition = make_partition(graph, config(6, 2, capacity=10**6), ALL_TRAIN)

    for node, shard in partition.assignment.items():
        assert shard // 2 == int(share(node) * 3)


def test_fine_shards_are_dealt_class_by_class_in_hash_order() -> None:
    graph = labelled([0, 1, 0, -1, 1, 0, -1])
    rank = sorted(range(7), key=lambda i: share(100 + i))
    dealt = [
        *(i for i in rank if graph.y[i] == 0),
        *(i for i in rank if graph.y[i] == 1),
        *(i for i in rank if graph.y[i] == UNLABELLED),
    ]

    partition = make_partition(graph, config(3, 3), ALL_TRAIN)

    assert partition.assignment == {100 + i: turn % 3 for turn, i in enumerate(dealt)}


def test_a_coarse_shard_without_room_gives_its_largest_hashes_to_the_emptiest() -> None:
    graph = labelled([0] * 40)
    wished = {node: int(share(node) * 2) for node in graph.ids.tolist()}
    crowded = max((0, 1), key=list(wished.values()).count)
    excess = list(wished.values()).count(crowded) - 20
    assert excess > 0
    last = sorted((n for n in wished if wished[n] == crowded), key=share)[-excess:]

    partition = make_partition(graph, config(4, 2, capacity=10), ALL_TRAIN)

    moved = {node for node, shard in partition.assignment.items() if shard // 2 != wished[node]}
    assert moved == set(last)
    assert partition.sizes().tolist() == [10, 10, 10, 10]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=12, max_size=150),
    coarse=st.integers(1, 3),
    fine=st.integers(1, 4),
    slack=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 5),
)
def test_fine_shards_differ_by_at_most_one_node_in_size_and_in_every_class(
    labels: list[int], coarse: int, fine: int, slack: float, seed: int
) -> None:
    graph = labelled([*labels, 0, 1, 2, 3])
    settings_ = config(coarse * fine, fine, max_imbalance=slack, seed=seed)

    partition = make_partition(graph, settings_, ALL_TRAIN)

    counts = class_counts(graph, partition, 4).reshape(coarse, fine, 5)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    sizes = counts.sum(axis=2)
    assert (sizes.max(axis=1) - sizes.min(axis=1) <= 1).all()
    assert partition.sizes().max() <= capacity(graph, settings_, ALL_TRAIN)


def test_without_pressure_on_the_capacity_a_node_moves_no_other_coarse_shard() -> None:
    graph = labelled([0, 1, 2, -1] * 30)
    settings_ = config(6, 3, capacity=10**6)
    before = make_partition(graph, settings_, ALL_TRAIN).assignment

    smaller = graph.apply(Change(nodes=(107, 150)))
    after = make_partition(smaller, settings_, ALL_TRAIN).assignment

    assert {i: shard // 3 for i, shard in after.items()} == {
        i: shard // 3 for i, shard in before.items() if i not in (107, 150)
    }


def test_the_guarantee_is_never_oblivious_since_the_draw_reads_labels() -> None:
    assert config(4, 2).effective_guarantee == "frozen"
    assert config(4, 2, guarantee="rederived").effective_guarantee == "rederived"
    with pytest.raises(ValidationError, match="oblivious"):
        config(4, 2, guarantee="oblivious")


@pytest.mark.parametrize(("num_shards", "fine"), [(5, 2), (8, 3), (2, 4)])
def test_shards_that_no_number_of_coarse_ones_gives_are_refused(num_shards: int, fine: int) -> None:
    sections = {"method": "bilevel", "num_shards": num_shards, "fine": fine}

    with pytest.raises(ConfigError, match="must be a multiple"):
        load_config({"partition": sections})


def test_other_methods_leave_the_number_of_fine_shards_alone() -> None:
    assert PartitionConfig(method="louvain", num_shards=5, fine=2).num_shards == 5
