"""What the benchmarks do besides measuring: fewer labels, tables of comparisons."""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy import overview
from benchmarks.audit_power import Outcome, Setting, row
from benchmarks.scarce import keep_few_labels
from cluster.config import RolesConfig
from cluster.graph import TRAIN, Change
from coordinator.compare import Comparison, Standing
from coordinator.tuning import Point
from tests.coordinator.systems import planted

POINT = Point("d", 1, "oblivious", 0.5, 1, 1, 1, 1, 1, 1)


def standing(name: str, tests: tuple[float, ...]) -> Standing:
    gap = tuple(value - 0.8 for value in tests)
    return Standing(name, "d", 1, POINT, tests, gap, gap)


def comparison(data: str, ours: tuple[float, ...]) -> Comparison:
    rows = (standing("unsharded GCN", (0.8, 0.8)), standing("unweave", ours))
    return Comparison(data, "0", 20, 2, 8, "unsharded GCN", rows)


def test_few_training_nodes_keep_their_label_and_all_others_keep_theirs() -> None:
    graph, roles = planted(5, 300).graph(), RolesConfig()
    train = graph.roles(roles) == TRAIN

    few = keep_few_labels(graph, roles, 0.1)

    kept = few.y[train] >= 0
    assert 0 < kept.sum() < 0.2 * train.sum()
    np.testing.assert_array_equal(few.y[train][kept], graph.y[train][kept])
    np.testing.assert_array_equal(few.y[~train], graph.y[~train])


def test_who_keeps_a_label_does_not_depend_on_other_nodes() -> None:
    graph, roles = planted(5, 60).graph(), RolesConfig()
    rest = graph.apply(Change(nodes=tuple(graph.ids[:20].tolist())))

    whole, part = keep_few_labels(graph, roles, 0.5), keep_few_labels(rest, roles, 0.5)

    np.testing.assert_array_equal(part.y, whole.y[20:])


def test_the_average_is_over_data_sets_and_its_deviation_over_seeds() -> None:
    text = overview([comparison("a", (0.9, 0.7)), comparison("b", (0.7, 0.7))])

    accuracy, *_ = text.split("\n\n**")
    (line,) = [line for line in accuracy.splitlines() if line.startswith("| unweave")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["unweave", "80.0 ± 14.1", "70.0 ± 0.0", "75.0 ± 7.1"]
    assert "| -5.0 ± 7.1 |" in text


def test_a_table_has_a_column_for_each_data_set() -> None:
    head = overview([comparison("a", (0.9, 0.7)), comparison("b", (0.7, 0.7))]).splitlines()[2]

    assert head == "| system | a | b | average |"


def test_the_audit_table_counts_what_was_said_of_kept_and_of_retrained_weights() -> None:
    sure = Outcome("fail", "pass", (1.0, 1.0), (9.0, 3.0), (0.0, 0.125), 1.0)
    unsure = Outcome("inconclusive", "no power", (0.5, 0.0), (1.0, 1.0), (0.0, 0.125), 3.0)

    line = row(Setting("folder/cora", "unweave", 20, (5,)), 5, [sure, sure, unsure])

    assert line["data"] == "cora" and line["erased"] == "5"
    assert line["kept weights fail"] == line["retrained pass"] == "2/3"
    assert line["otherwise (kept; retrained)"] == "1 inconclusive; 1 no power"
    assert line["power gap / LiRA"] == "0.83 / 0.67"
    assert line["distance gap / LiRA"] == "9.0 / 3.0"
