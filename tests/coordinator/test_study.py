"""Studies: rows that say what was measured, and go on where they were interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import RolesConfig
from cluster.errors import ConfigError, GraphError
from cluster.graph import TEST, UNLABELLED, Change
from coordinator.config import load_config
from coordinator.study import LOG_FILE, Study, TrialLog
from coordinator.trial import (
    Design,
    MeteredPool,
    Task,
    Trial,
    erasure_prices,
    seeded,
    without_labels,
)
from tests.coordinator.systems import Workbench, planted

pytestmark = pytest.mark.slow

FAST = {"shards.hidden": 8, "shards.training_epochs": 5}
MEAN = Design("mean", {**FAST, "partition.method": "hash", "aggregator.kind": "mean"})


def task(seed: int = 0, **overrides: Any) -> Task:
    return Task(MEAN.name, seeded(MEAN.config(3, overrides), seed), "validation")


class Killed(BaseException):
    """Stands for a kill."""


def study(home: Path, graph: Any = None, **options: Any) -> Study:
    graph = planted(1).graph() if graph is None else graph
    return Study("planted", graph, TrialLog(home), **options)


def test_a_row_says_what_was_measured(tmp_path: Path) -> None:
    (row,) = study(tmp_path).run([task()])

    assert (row.name, row.data, row.seed, row.shards) == ("mean", "planted", 0, 3)
    assert row.guarantee == "oblivious"
    assert 0 <= row.validation <= 1 and row.test is None
    assert row.settings["shards"]["hidden"] == 8
    assert row.training_cpu_s > 0 and row.seconds > row.training_cpu_s
    assert 0 < row.one_share < 1 and 0 < row.batch_share < 1
    assert row.one_unsharded == pytest.approx(row.one_share)  # no halo: every row is trained once
    assert Trial(**json.loads(json.dumps(row.to_json()))) == row


def test_a_killed_study_goes_on_with_the_rows_that_are_missing(tmp_path: Path) -> None:
    tasks, lines = [task(0), task(1), task(2)], list[str]()

    def kill(line: str) -> None:
        if line.startswith("1/3"):
            raise Killed

    with pytest.raises(Killed):
        study(tmp_path, report=kill).run(tasks)
    kept = (tmp_path / LOG_FILE).read_text()
    rows = study(tmp_path, report=lines.append).run(tasks)

    assert len(kept.splitlines()) == 1
    assert (tmp_path / LOG_FILE).read_text().startswith(kept)
    assert "2 of 3 trials to run, expected time" in lines[0]
    assert "an estimate from 1 trials" in lines[0]
    assert [row.seed for row in rows] == [0, 1, 2]
    assert len((tmp_path / LOG_FILE).read_text().splitlines()) == 3


def test_what_is_known_is_not_run_again(tmp_path: Path) -> None:
    lines: list[str] = []
    first = study(tmp_path).run([task()])

    again = study(tmp_path, report=lines.append).run([replace(task(), name="another name")])

    assert lines == []
    assert again == [replace(first[0], name="another name")]


@pytest.mark.parametrize(
    "change",
    [
        {"shards.lr": 0.02},
        {"aggregator.kind": "majority"},
        {"partition.num_shards": 4},
        {"seed": 1},
        {"measure": "test"},
    ],
)
def test_a_changed_task_is_another_trial(tmp_path: Path, change: dict[str, Any]) -> None:
    base = task()
    measure = change.pop("measure", "validation")
    seed = change.pop("seed", 0)
    other = Task(base.name, load_config(seeded(base.config, seed), change), measure)

    assert study(tmp_path).key(other) != study(tmp_path).key(base)


def test_another_graph_is_another_trial_and_a_home_for_systems_is_not(tmp_path: Path) -> None:
    elsewhere = task(**{"storage.home": "elsewhere"})
    note = {"graph": "00", "data": "x"}

    key = study(tmp_path).key(task())

    assert study(tmp_path, planted(2).graph()).key(task()) != key
    assert study(tmp_path).key(elsewhere) == key
    assert study(tmp_path).key(task(tuned_on=note)) == key


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    (row,) = study(tmp_path).run([task()])
    path = tmp_path / LOG_FILE
    path.write_text(path.read_text() + '{"key": "tor')

    log = TrialLog(tmp_path)
    log.add(replace(row, key="another"))

    assert [r.key for r in log.rows()] == [row.key, "another"]
    assert [r.key for r in TrialLog(tmp_path).rows()] == [row.key, "another"]


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    tasks = [task(0), task(1)]

    alone = study(tmp_path / "alone").run(tasks)
    together = study(tmp_path / "together", workers=2).run(tasks)

    def figures(row: Trial) -> tuple[Any, ...]:
        return row.key, row.validation, row.one_share

    assert [figures(row) for row in together] == [figures(row) for row in alone]


def test_nothing_runs_when_a_task_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one"):
        study(tmp_path).run([task(), task(**{"aggregator.kind": "nonesuch"})])

    assert TrialLog(tmp_path).rows() == []


def test_a_graph_without_validation_labels_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no validation node has a label"):
        study(tmp_path).run([task(**{"roles.val": 0.0, "roles.test": 0.4})])


def test_only_the_labels_of_the_role_are_removed() -> None:
    graph, roles = planted(3).graph(), RolesConfig()
    test = graph.roles(roles) == TEST

    blind = without_labels(graph, roles, TEST)

    assert (blind.y[test] == UNLABELLED).all()
    np.testing.assert_array_equal(blind.y[~test], graph.y[~test])
    assert blind.num_edges == graph.num_edges


def test_a_trial_of_validation_cannot_see_test_labels(tmp_path: Path) -> None:
    graph = planted(1).graph()
    test = graph.ids[graph.roles(task().config.roles) == TEST]
    poisoned = graph.apply(Change(labels=tuple(test.tolist())))

    assert study(tmp_path, poisoned).key(task()) == study(tmp_path, graph).key(task())


def test_a_learned_aggregator_is_judged_by_cross_fitting(tmp_path: Path, bench: Workbench) -> None:
    graph, learned = planted(1, 90).graph(), task(**{"aggregator.kind": "learned"})
    system = bench.fit(
        without_labels(graph, learned.config.roles, TEST), learned.config.model_dump()
    )

    (row,) = study(tmp_path, graph).run([learned])

    assert row.validation == system.validation()
    assert row.aggregator_cpu_s > 0


def test_costs_are_told_in_trainings_of_one_model() -> None:
    shards = [
        {"nodes": 4, "halo": 2, "silent": False},
        {"nodes": 3, "halo": 0, "silent": False},
        {"nodes": 3, "halo": 1, "silent": True},
    ]
    status = {"shards": shards, "erasure_cost": {"one_uniform": 0.5, "batch_1_percent": 0.8}}

    prices = erasure_prices(status)

    assert prices["one_share"] == 0.5
    assert prices["one_unsharded"] == pytest.approx(0.5 * 9 / 10)  # 4 + 2 + 3 rows of 10 nodes
    assert prices["batch_unsharded"] == pytest.approx(0.8 * 9 / 10)


def test_a_metered_pool_tells_methods_apart(bench: Workbench) -> None:
    pool = MeteredPool(bench.pool)

    bench.fit(planted(1), {"aggregator.kind": "optimal"}, pool=pool)

    assert pool.spent["build"] > 0
    assert {"build", "rows"} <= pool.spent.keys()
