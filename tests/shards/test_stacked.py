"""Stacked inference against the row-wise answers of each submodel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Graph
from shards.ball import ball
from shards.stacked import FORWARD, Stack
from shards.submodels import rowwise
from shards.submodels.inputs import ball_input, inference_input
from shards.submodels.registry import make_submodel
from shards.submodels.rowwise import row_posteriors
from shards.submodels.table import receptive_field
from tests.shards.test_rowwise import graph_of
from tests.shards.test_submodels import CASES, config_of, random_submodel

Case = tuple[str, str]


def several(case: Case, graph: Graph, count: int) -> list[dict[str, Any]]:
    """State dicts of that many submodels, all of them different."""
    first = random_submodel(*case, graph).state_dict()
    generator = torch.Generator().manual_seed(9)

    def other(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor * (0.5 + torch.rand(tensor.shape, generator=generator))

    return [{name: other(t).detach().numpy() for name, t in first.items()} for _ in range(count)]


def one_by_one(case: Case, weights: list[dict[str, Any]], graph: Graph) -> Any:
    inputs = inference_input(graph, "cpu")
    return np.stack([row_posteriors(one, config_of(*case), inputs) for one in weights])


def test_every_model_that_answers_row_by_row_can_be_stacked() -> None:
    assert FORWARD.keys() == rowwise.FORWARD.keys()


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("case", CASES)
def test_a_stack_answers_as_its_submodels_do_one_by_one(
    case: Case, directed: bool, weighted: bool, layout: str
) -> None:
    graph = graph_of(layout, directed, weighted)
    weights = several(case, graph, 3)

    found = Stack(config_of(*case), weights).posteriors(
        inference_input(graph, "cpu"), np.arange(graph.num_nodes)
    )

    wanted = one_by_one(case, weights, graph)
    assert found.dtype == np.float32
    assert np.allclose(found, wanted, atol=1e-5)
    assert wanted.std(axis=0).max() > 0.01  # the submodels differ


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(CASES),
    rows=st.sets(st.integers(0, 29), max_size=6),
    layout=st.sampled_from(["dense", "sparse"]),
    directed=st.booleans(),
    weighted=st.booleans(),
    count=st.integers(1, 4),
)
def test_a_ball_with_the_degrees_of_the_graph_gives_the_answers_of_the_graph(
    case: Case, rows: set[int], layout: str, directed: bool, weighted: bool, count: int
) -> None:
    graph, config = graph_of(layout, directed, weighted), config_of(*case)
    weights, wanted = several(case, graph, count), np.asarray(sorted(rows), np.int64)
    around = ball(graph, wanted, receptive_field(config))

    found = Stack(config, weights).posteriors(ball_input(around, "cpu"), around.targets)

    assert found.shape == (count, len(rows), graph.schema.num_classes)
    assert np.allclose(found, one_by_one(case, weights, graph)[:, wanted], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_may_be_asked_in_any_order_and_twice(case: Case) -> None:
    graph = graph_of("sparse", False, True)
    weights, targets = several(case, graph, 2), np.asarray([7, 3, 7, 0])

    found = Stack(config_of(*case), weights).posteriors(inference_input(graph, "cpu"), targets)

    assert np.allclose(found, one_by_one(case, weights, graph)[:, targets], atol=1e-5)


@pytest.mark.parametrize("hidden", [1, 40], ids=["narrow", "wide"])
@pytest.mark.parametrize("model", ["gcn", "sage", "gin"])
def test_products_and_steps_may_change_places(model: str, hidden: int) -> None:
    graph = graph_of("dense", False, True)
    config = config_of("torch", model).model_copy(update={"hidden": hidden, "layers": 3})
    weights = [
        {name: tensor.detach().numpy() for name, tensor in submodel.state_dict().items()}
        for submodel in (make_submodel(config, graph.schema, seed) for seed in range(2))
    ]
    inputs, targets = inference_input(graph, "cpu"), np.asarray([1, 20])

    found = Stack(config, weights).posteriors(inputs, targets)

    wanted = np.stack([row_posteriors(one, config, inputs)[targets] for one in weights])
    assert np.allclose(found, wanted, atol=1e-5)


def test_a_stack_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        Stack(config_of("torch", "gcn"), [])
