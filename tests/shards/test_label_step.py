"""The label step by hand on a path, and its answers on balls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Change, Graph
from shards.ball import ball, whole
from shards.label_step import LabelStep, apply_step, reach_of
from tests.graphs import path_graph, random_graph

Array = npt.NDArray[Any]

STEPS: list[LabelStep] = ["propagate", "correct_and_smooth"]
HALF = np.sqrt(0.5)  # weight of an edge from an end of the path to its middle


def base_of(graph: Graph, num_classes: int = 3) -> Array:
    """Probabilities that depend on the ids alone."""
    raw = np.stack([graph.hash(f"base {c}") / 2.0**64 + 0.05 for c in range(num_classes)], axis=1)
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def labels_of(graph: Graph) -> Array:
    """Labels of about half the nodes, by id."""
    return np.where(graph.hash("labelled") / 2.0**64 < 0.5, graph.y, -1).astype(np.int64)


def test_one_step_of_propagation_on_a_path_by_hand() -> None:
    """Only node 1 hears of a label in one step, and node 0 keeps its own."""
    graph, base = path_graph(4), np.full((4, 2), [0.3, 0.7])

    found = apply_step("propagate", base, whole(graph), np.asarray([0, -1, -1, -1]), 1)

    assert np.allclose(found, [[1, 0], [1, 0], [0.3, 0.7], [0.3, 0.7]])


def test_two_steps_of_propagation_on_a_path_by_hand() -> None:
    """After one step 0.1, 0.9 h, 0.9 h, 0.1 (h the weight of an end edge) of classes 0, 0, 1, 1."""
    graph, labels = path_graph(4), np.asarray([0, -1, -1, 1])
    own, other = 0.9 * HALF * 0.1, 0.9 * 0.5 * 0.9 * HALF

    found = apply_step("propagate", np.full((4, 2), 0.5), whole(graph), labels, 2)

    share = own / (own + other)
    assert np.allclose(found, [[1, 0], [share, 1 - share], [1 - share, share], [0, 1]])


def test_one_step_of_correct_and_smooth_on_a_path_by_hand() -> None:
    """Node 0 has label 0 and an even base, so its error is (1, -1) / 2."""
    graph, labels = path_graph(4), np.asarray([0, -1, -1, -1])
    lifted = 0.5 + 0.8 * HALF / 2  # node 1 after the error has spread
    first = [
        0.8 * HALF * lifted + 0.2,  # node 0 is put back to (1, 0) before it is smoothed
        0.8 * (HALF + 0.5 * 0.5) + 0.2 * lifted,
        0.8 * (0.5 * lifted + HALF * 0.5) + 0.2 * 0.5,
        0.8 * HALF * 0.5 + 0.2 * 0.5,
    ]
    second = [
        0.8 * HALF * (1 - lifted),
        0.8 * 0.5 * 0.5 + 0.2 * (1 - lifted),
        0.8 * (0.5 * (1 - lifted) + HALF * 0.5) + 0.2 * 0.5,
        0.8 * HALF * 0.5 + 0.2 * 0.5,
    ]
    mass = np.stack([first, second], axis=1) + 0.01 * np.asarray([2 / 3, 1 / 3])

    found = apply_step("correct_and_smooth", np.full((4, 2), 0.5), whole(graph), labels, 1)

    assert np.allclose(found, mass / mass.sum(axis=1, keepdims=True), atol=1e-6)


def test_no_step_leaves_the_answers_as_they_are() -> None:
    graph = path_graph(4)
    base = base_of(graph)

    assert apply_step("none", base, whole(graph), np.full(4, -1), 3) is base
    assert reach_of("none", 3) == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    step=st.sampled_from(STEPS),
    steps=st.integers(1, 3),
    rows=st.sets(st.integers(0, 29), min_size=1, max_size=5),
    form=st.tuples(st.booleans(), st.booleans()),
)
def test_rows_on_their_ball_get_the_bits_that_the_whole_graph_gives_them(
    seed: int, step: LabelStep, steps: int, rows: set[int], form: tuple[bool, bool]
) -> None:
    graph = random_graph(seed, degree=1, directed=form[0], weighted=form[1])
    labels, base, wanted = labels_of(graph), base_of(graph), np.asarray(sorted(rows))
    around = ball(graph, wanted, reach_of(step, steps))

    found = apply_step(step, base[around.rows], around, labels, steps)[around.targets]

    together = apply_step(step, base, whole(graph), labels, steps)[wanted]
    assert found.tobytes() == together.tobytes()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found >= 0).all()


@pytest.mark.parametrize("step", STEPS)
def test_a_ball_one_hop_too_small_gives_another_answer(step: LabelStep) -> None:
    """Node 0 of a path hears of a label at the end of its reach, and of no other."""
    graph, steps = path_graph(8), 2
    reach, base = reach_of(step, steps), np.full((8, 2), [0.3, 0.7])
    labels = np.full(8, -1)
    labels[reach] = 0
    tight = ball(graph, np.asarray([0]), reach - 1)

    found = apply_step(step, base[tight.rows], tight, labels, steps)[tight.targets]

    assert not np.allclose(found, apply_step(step, base, whole(graph), labels, steps)[:1])


@pytest.mark.parametrize("step", STEPS)
def test_an_erased_label_leaves_no_trace(step: LabelStep) -> None:
    """Whatever a hidden label was, and whether it was, nothing tells."""
    graph = random_graph(3)
    labels, base, gone = labels_of(graph), base_of(graph), graph.ids[:10].tolist()
    after = graph.apply(Change(labels=tuple(gone)))

    found = apply_step(step, base, whole(after), labels_of(after), 2)

    never = labels.copy()
    never[:10] = -1
    assert found.tobytes() == apply_step(step, base, whole(graph), never, 2).tobytes()
    assert found.tobytes() != apply_step(step, base, whole(graph), labels, 2).tobytes()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("labels", [[-1] * 4, [0] * 4, [0, -1, -1, 0]], ids=str)
def test_isolated_nodes_and_vanished_classes_leave_answers_finite(
    step: LabelStep, labels: list[int]
) -> None:
    graph = path_graph(4).apply(Change(edges=((0, 1), (1, 2))))  # 0, 1, 2 - 3

    found = apply_step(step, base_of(graph), whole(graph), np.asarray(labels), 3)

    assert np.isfinite(found).all()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_directed_edge_from_a_node_that_hears_nobody_drowns_no_other() -> None:
    """0 -> 2 <- 1 <- 3: in-degrees 0, 1, 2, 0; labels 0 at node 0 and 1 at node 1."""
    graph = Graph.from_arrays(
        [[0, 1, 3], [2, 2, 1]], np.ones((4, 1), np.float32), [0, 1, 0, 1], directed=True
    )

    found = apply_step(
        "propagate", np.full((4, 2), 0.5), whole(graph), np.asarray([0, 1, -1, -1]), 1
    )

    assert np.allclose(found[2], [0.5, 0.5])
