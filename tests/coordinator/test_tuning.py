"""Tuning: what is chosen, what it may read, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.graph import TEST, Graph
from cluster.readers.sbm import BlockModel, block_model
from cluster.segments import graph_digest
from coordinator.config import load_config
from coordinator.pareto import pareto_front
from coordinator.plots import Spot, draw_front
from coordinator.study import Study, TrialLog
from coordinator.trial import Task, seeded
from coordinator.tuning import (
    DESIGNS,
    OWN,
    Point,
    Tuning,
    choose,
    find_designs,
    mark_front,
    run_tuning,
    to_yaml,
)
from tests.coordinator.systems import Workbench, planted
from tests.coordinator.test_cli import answer, unweave, write_folder

pytestmark = pytest.mark.slow

FAST = {"shards.hidden": 8, "shards.training_epochs": 3}
GRAPH = block_model(BlockModel(num_nodes=90, num_classes=3, num_features=10, seed=1))
FAST_CLI = [word for field, value in FAST.items() for word in ("--set", f"{field}={value}")]
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def point(design: str, accuracy: float, cost: float, shards: int = 20) -> Point:
    return Point(design, shards, "oblivious", accuracy, cost, cost, cost, cost, 1.0, 0.1)


def tune(home: Path, graph: Graph, **options: Any) -> Tuning:
    study = Study("sbm", graph, TrialLog(home))
    designs = find_designs(["hash linear learned", "louvain gcn learned"])
    return run_tuning(study, designs, [2, 3], 1, settings=FAST, **options)


# ---- choosing


def test_the_front_is_what_no_other_point_beats() -> None:
    #          best       cheaper    beaten by the second  equal to it  cheapest
    points = [(1.0, 0.9), (0.1, 0.8), (0.2, 0.8), (0.1, 0.8), (0.05, 0.1)]

    assert pareto_front(points) == [True, True, False, True, True]


def test_marking_reads_validation_accuracy_and_cost_of_one_erasure() -> None:
    marked = mark_front([point("a", 0.9, 0.1), point("b", 0.8, 0.2), point("c", 0.7, 0.05)])

    assert [p.on_front for p in marked] == [True, False, True]


def test_the_cheapest_design_within_half_a_point_of_the_best_is_chosen() -> None:
    points = [point("best", 0.9, 1.0), point("near", 0.895, 0.1), point("far", 0.894, 0.01)]

    assert choose(points).design == "near"


def test_the_most_accurate_design_within_the_bound_is_chosen() -> None:
    points = [point("best", 0.9, 1.0), point("near", 0.8, 0.1), point("far", 0.7, 0.01)]

    assert choose(points, 0.5).design == "near"
    assert choose(points, 0.05).design == "far"


def test_a_bound_that_nothing_meets_names_the_cheapest() -> None:
    with pytest.raises(ConfigError, match="cheapest is a, 20 shards"):
        choose([point("a", 0.9, 0.1), point("b", 0.9, 0.2)], 0.01)


# ---- the table of designs


def test_groups_stand_for_their_designs() -> None:
    assert [d.name for d in find_designs(["default"])] == list(OWN)
    assert [d.name for d in find_designs(["all", "sisa"])] == list(DESIGNS)


def test_an_unknown_design_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hash linear learned'"):
        find_designs(["hash linear lerned"])


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_fits_a_small_graph(name: str, tmp_path: Path) -> None:
    config = DESIGNS[name].config(4, FAST)

    (row,) = Study("planted", planted(2, 80).graph(), TrialLog(tmp_path)).run(
        [Task(name, seeded(config, 0), "validation")]
    )

    assert row.shards == 4
    assert 0 <= row.validation <= 1
    assert row.one_unsharded > 0


# ---- what is read and written


def test_tuning_reads_no_test_label(tmp_path: Path) -> None:
    test = GRAPH.roles(seeded(None, 0).roles) == TEST
    poisoned = replace(
        GRAPH, y=np.where(test, (GRAPH.y + 1) % 3, GRAPH.y).astype(GRAPH.y.dtype), segment_cache={}
    )
    assert graph_digest(poisoned) != graph_digest(GRAPH)

    clean, blind = tune(tmp_path / "a", GRAPH), tune(tmp_path / "b", poisoned)

    def figures(tuning: Tuning) -> list[Any]:
        timeless = {"training_cpu_s": 0.0, "aggregator_cpu_s": 0.0}
        return [replace(p, **timeless) for p in (*tuning.points, tuning.chosen)]

    keys = [sorted(r.key for r in TrialLog(tmp_path / name).rows()) for name in "ab"]
    assert figures(blind) == figures(clean)
    assert keys[0] == keys[1]
    without = {"tuned_on": None}
    assert blind.config.model_copy(update=without) == clean.config.model_copy(update=without)


def test_the_chosen_file_loads_fits_and_says_what_it_was_tuned_on(
    tmp_path: Path, bench: Workbench
) -> None:
    tuning = tune(tmp_path / "study", GRAPH)
    path = tmp_path / "chosen.yaml"
    path.write_text(to_yaml(tuning))

    config = load_config(str(path))
    system = bench.fit(GRAPH, config.model_dump())
    plain = bench.fit(GRAPH, config.model_dump(exclude={"tuned_on"}))

    assert config.tuned_on is not None
    assert config.tuned_on.graph == graph_digest(GRAPH) in path.read_text()
    assert config.partition.num_shards == tuning.chosen.shards
    assert "tuned configuration" in [item["name"] for item in system.status()["retained"]]
    assert "tuned configuration" not in [item["name"] for item in plain.status()["retained"]]
    assert system.generation.key == plain.generation.key


def test_what_a_system_was_tuned_on_survives_opening_it_again(
    tmp_path: Path, bench: Workbench
) -> None:
    note = {"graph": "0" * 64, "data": "sbm"}
    home = bench.fit(planted(4), {"tuned_on": note}, home=tmp_path / "home").home
    bench.close()

    retained = bench.open(home).status()["retained"]

    assert {"name": "tuned configuration"}.items() <= retained[-1].items()
    assert "sbm, graph 0000000000000000" in retained[-1]["why"]


def test_a_wrong_field_of_the_note_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'graph'"):
        load_config({"tuned_on": {"grpah": "00", "data": "x", "graph": "00"}})


# ---- the picture, the command


def test_the_picture_is_a_png_of_a_readable_size(tmp_path: Path) -> None:
    spots = [
        Spot(f"design {i}", 0.02 * (i + 1), 0.8 + 0.001 * i, guarantee)
        for i, guarantee in enumerate(["oblivious", "frozen", "rederived", "frozen"])
    ]

    draw_front(spots, tmp_path / "new" / "front.png", title="t", accuracy="validation")

    content = (tmp_path / "new" / "front.png").read_bytes()
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert content.startswith(PNG_HEAD) and len(content) > 10_000
    assert width > 1000 and height > 500


def test_the_command_prints_a_table_or_one_json_object_and_writes_both_files(
    tmp_path: Path,
) -> None:
    data = write_folder(GRAPH, tmp_path / "data")
    words = [
        "tune", "--data", str(data), "--shards", "2,3", "--designs", "hash linear learned,sisa",
        "--home", str(tmp_path / "study"), "--out", str(tmp_path / "chosen.yaml"),
        "--plot", str(tmp_path / "front.png"), *FAST_CLI, "--set", "shards.slices=2",
    ]  # fmt: skip

    shown = unweave(*words)
    found = answer(unweave(*words, "--json"))

    assert shown.returncode == 0, shown.stderr
    assert "chosen: " in shown.stdout and "oblivious" in shown.stdout
    assert "4 of 4 trials to run" in shown.stderr
    assert [(p["design"], p["shards"]) for p in found["points"]] == [
        ("hash linear learned", 2), ("hash linear learned", 3), ("sisa", 2), ("sisa", 3),
    ]  # fmt: skip
    assert found["chosen"] in found["points"]
    assert load_config(str(tmp_path / "chosen.yaml")).tuned_on is not None
    assert (tmp_path / "front.png").read_bytes().startswith(PNG_HEAD)
    assert json.loads(json.dumps(found["config"]))["tuned_on"]["data"] == "data"


def test_shard_counts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    done = unweave("tune", "--data", "sbm", "--shards", "10,x", "--home", str(tmp_path))

    assert done.returncode == 3
    assert "10,20,50" in done.stderr
