"""Row-wise inference: the submodels' answers, in bits that no other row has a part in."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Change, Graph
from shards.ball import ball
from shards.submodels.inputs import ball_input, inference_input
from shards.submodels.rowwise import row_posteriors, times
from shards.submodels.table import SUBMODELS, receptive_field
from shards.training import posteriors
from tests.graphs import random_graph
from tests.shards.test_submodels import CASES, config_of, random_submodel

Case = tuple[str, str]


def with_isolated_nodes(graph: Graph) -> Graph:
    """The graph with all edges of its first two nodes gone."""
    lonely = set(graph.ids[:2].tolist())
    pairs = zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True)
    return graph.apply(Change(edges=tuple(edge for edge in pairs if lonely & set(edge))))


@cache
def graph_of(layout: Any, directed: bool, weighted: bool) -> Graph:
    return with_isolated_nodes(random_graph(5, layout=layout, directed=directed, weighted=weighted))


@cache
def weights_of(case: Case) -> dict[str, Any]:
    model = random_submodel(*case, graph_of("dense", False, False))
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("case", CASES)
def test_every_submodel_answers_as_its_module_does(
    case: Case, directed: bool, weighted: bool, layout: str
) -> None:
    graph = graph_of(layout, directed, weighted)
    model, inputs = random_submodel(*case, graph), inference_input(graph, "cpu")

    found = row_posteriors(weights_of(case), config_of(*case), inputs)

    assert found.dtype == np.float32
    assert np.allclose(found, posteriors(model, inputs), atol=1e-5)
    assert found.std(axis=0).max() > 0.01


@settings(max_examples=40, deadline=None)
@given(
    case=st.sampled_from(CASES),
    rows=st.sets(st.integers(0, 29), min_size=1, max_size=6),
    layout=st.sampled_from(["dense", "sparse"]),
    directed=st.booleans(),
    weighted=st.booleans(),
)
def test_some_rows_on_their_ball_get_the_bits_that_the_whole_graph_gives_them(
    case: Case, rows: set[int], layout: str, directed: bool, weighted: bool
) -> None:
    graph, config, wanted = graph_of(layout, directed, weighted), config_of(*case), sorted(rows)
    around = ball(graph, np.asarray(wanted), receptive_field(config))

    alone = row_posteriors(weights_of(case), config, ball_input(around, "cpu"))[around.targets]

    together = row_posteriors(weights_of(case), config, inference_input(graph, "cpu"))[wanted]
    assert alone.tobytes() == together.tobytes()


def test_every_model_of_the_table_can_be_asked_row_by_row() -> None:
    assert {config_of(*case).model for case in SUBMODELS} == {
        "gcn", "sage", "gin", "gat", "sgc", "sign", "mlp", "linear",
    }  # fmt: skip


def test_a_row_of_a_product_does_not_depend_on_the_rows_above_it() -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((70, 40)).astype(np.float32)
    right = rng.standard_normal((40, 33)).astype(np.float32)

    assert np.array_equal(times(left, right)[50:], times(left[50:], right))
    assert np.allclose(times(left, right), left @ right, atol=1e-4)
