"""The trial of GraphRevoker: partitions that hold, attention that learns, a just verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.graphrevoker import SHARDS, Bench, wins
from benchmarks.revoker_attention import Examples, Setting, fit_attention
from benchmarks.revoker_cut import Greedy, Network, partition_loss, place
from cluster.config import PartitionConfig, RolesConfig
from cluster.graph import TRAIN
from cluster.partitioners.base import Partitioner, Problem, make_problem
from shards.submodels.inputs import ModelInput
from tests.coordinator.systems import planted
from tests.graphs import random_graph, two_triangles

ALL_TRAIN = RolesConfig(train=1, val=0, test=0)


def problem(shards: int, **options: object) -> Problem:
    config = PartitionConfig.model_validate({"num_shards": shards, "method": "louvain", **options})
    return make_problem(random_graph(3, 60), config, RolesConfig(), lambda done, total: None)


@pytest.mark.parametrize("cut", [Network(0.01, 5, -0.1), Greedy(-0.5), Greedy(0.5)])
def test_every_node_gets_a_shard_with_room_and_the_same_one_again(cut: Partitioner) -> None:
    given = problem(4)

    shards = cut(given)

    assert len(shards) == given.num_nodes and shards.min() >= 0
    assert np.bincount(shards, minlength=4).max() <= given.capacity
    np.testing.assert_array_equal(shards, cut(given))


def test_the_surest_nodes_are_placed_first_where_they_want_to_be() -> None:
    config = PartitionConfig(num_shards=2, method="louvain", capacity=3)
    given = make_problem(two_triangles(), config, ALL_TRAIN, lambda done, total: None)
    first = np.asarray([0.9, 0.8, 0.95, 0.7, 0.99, 0.6])

    shards = place(np.stack([first, 1 - first], axis=1), given)

    np.testing.assert_array_equal(shards, [0, 1, 0, 1, 0, 1])


def test_the_loss_of_two_triangles_in_two_shards() -> None:
    graph = two_triangles()
    config = PartitionConfig(num_shards=2, method="louvain")
    given = make_problem(graph, config, ALL_TRAIN, lambda done, total: None)
    degree = np.diff(given.indptr).astype(np.float32)
    inputs = ModelInput(graph.x, given.indptr, given.indices, None, degree, symmetric=True)
    shares = torch.tensor([[1.0, 0]] * 3 + [[0, 1.0]] * 3)

    loss = partition_loss(shares, inputs, torch.eye(2).repeat_interleave(3, dim=0), 1.0)

    assert (graph.roles(ALL_TRAIN) == TRAIN).all()
    # cut 1/7 + 1/7, time 1e-3 * (3 * 6 + 3 * 6) / 6, entropy 0
    assert loss.item() == pytest.approx(2 / 7 + 0.006, abs=1e-5)


@pytest.mark.parametrize("mixture", [False, True])
def test_the_attention_finds_the_shard_that_knows(mixture: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (80,), generator=generator)
    right = torch.nn.functional.one_hot(y, 2) * 0.8 + 0.1
    posteriors = torch.stack([torch.full((80, 2), 0.5), 1 - right, right], 1)
    examples = Examples(posteriors.log(), posteriors.log(), y, posteriors)

    model = fit_attention(examples, 0, Setting(TRAIN, hidden=False, epochs=60, mixture=mixture))

    found = model.log_answers(examples.z, posteriors).argmax(1)
    assert (found == y).float().mean() > 0.9


def test_a_win_is_by_more_than_the_paired_deviation() -> None:
    assert wins([0.9, 0.8, 0.7], [0.88, 0.78, 0.68])
    assert not wins([0.9, 0.8, 0.7], [0.88, 0.82, 0.68])
    assert not wins([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])


def test_the_submodels_of_a_system_say_something_of_every_row() -> None:
    graph = planted(5, 200).graph()

    said = Bench("planted", graph, "gcn", seeds=1).shards_say("hash", 0)

    assert said.hidden.shape == (graph.num_nodes, SHARDS, 64)
    assert said.posteriors.shape == (graph.num_nodes, SHARDS, graph.schema.num_classes)
    np.testing.assert_allclose(said.posteriors.sum(2), 1, atol=1e-5)
    assert 0 <= said.optimal() <= 1
