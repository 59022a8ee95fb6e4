"""Comparisons: the same budget for everybody, and differences paired by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from coordinator.compare import Comparison, paired, run_comparison
from coordinator.config import load_config
from coordinator.contenders import (
    ONE_MODELS,
    OURS,
    OURS_UNTUNED,
    PRESETS,
    STACKED,
    UNSHARDED_GCN,
    UNSHARDED_SAGE,
    find_contenders,
)
from coordinator.study import Study, TrialLog
from coordinator.trial import Task, Trial, seeded
from tests.coordinator.systems import planted
from tests.coordinator.test_cli import answer, unweave, write_folder
from tests.coordinator.test_tuning import FAST, FAST_CLI, GRAPH

pytestmark = pytest.mark.slow

ALL = [row for rows in PRESETS.values() for row in rows]
FILES = ["grapheraser", "guide", "safe", "sisa", "unweave"]


def trial(test: float | None, seed: int = 0) -> Trial:
    row = Trial("k", "n", "d", seed, 1, "oblivious", {}, "s", 0.5, test, 0, 0, 1, 1, 1, 1, 1)
    return replace(row, key=f"{seed}")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, list[Trial]]:
    """A comparison with a budget of 2, and all trials that it made."""
    log = TrialLog(tmp_path_factory.mktemp("compared"))
    contenders = find_contenders(["sisa", "unweave"])
    result = run_comparison(Study("sbm", GRAPH, log), contenders, 4, 2, budget=2, settings=FAST)
    return result, log.rows()


def test_differences_are_paired_by_seed() -> None:
    ours = [trial(0.8, 0), trial(0.7, 1), trial(0.9, 2)]
    other = [trial(0.7, 0), trial(0.75, 1), trial(0.9, 2)]

    assert paired(ours, other) == pytest.approx((0.1, -0.05, 0.0))


def test_every_contender_has_eight_different_settings_and_starts_as_its_preset() -> None:
    for row in (*ONE_MODELS, *ALL):
        configs = [row.config(design, 20).model_dump_json() for design in row.grid]
        assert len(set(configs)) == len(configs) == (8 if row.tuned else 1), row.name
    for name in FILES:
        for row in PRESETS[name]:
            assert row.config(row.grid[0], 20) == load_config(name), name


def test_a_budget_takes_the_first_settings_and_none_takes_the_preset() -> None:
    (sisa,) = PRESETS["sisa"]

    assert sisa.choices(3, 20) == sisa.grid[:3]
    assert sisa.choices(0, 20) == sisa.grid[:1]


def test_coarse_shards_that_do_not_divide_the_shards_are_not_tried() -> None:
    (safe,) = PRESETS["safe"]

    assert len(safe.choices(8, 20)) == 8
    assert {d.overrides["partition.fine"] for d in safe.choices(8, 50)} == {2}


def test_an_unsharded_contender_has_one_shard_whatever_is_asked() -> None:
    for row in ONE_MODELS:
        assert {row.config(design, 20).partition.num_shards for design in row.grid} == {1}


def test_no_opponent_is_narrower_than_the_published_models() -> None:
    opponents = [*ONE_MODELS, *(row for name in FILES[:-1] for row in PRESETS[name])]

    widths = {row.config(design, 20).shards.hidden for row in opponents for design in row.grid}

    assert widths == {64}


@pytest.mark.parametrize("name", FILES)
def test_every_preset_fits_a_small_graph(name: str, tmp_path: Path) -> None:
    settings = {**FAST, "partition.num_shards": 4}
    config = seeded(load_config(name, settings), 0)

    (row,) = Study("planted", planted(2, 80).graph(), TrialLog(tmp_path)).run(
        [Task(name, config, "test")]
    )

    assert row.test is not None and 0 <= row.test <= 1


def test_rows_are_compared_to_the_better_unsharded_model_and_the_stacked_one(
    compared: tuple[Comparison, list[Trial]],
) -> None:
    result, _ = compared

    rows = {row.name: row for row in result.standings}
    assert list(rows) == [
        UNSHARDED_GCN, UNSHARDED_SAGE, STACKED, "SISA", OURS, OURS_UNTUNED,
    ]  # fmt: skip
    assert [row.tried for row in rows.values()] == [2, 2, 2, 2, 2, 1]
    validation = {n: rows[n].point.validation for n in (UNSHARDED_GCN, UNSHARDED_SAGE)}
    assert validation[result.better] == max(validation.values())
    for row in rows.values():
        base, stacked = rows[result.better].tests, rows[STACKED].tests
        assert row.to_unsharded == pytest.approx(
            [a - b for a, b in zip(row.tests, base, strict=True)]
        )
        assert row.to_stacked == pytest.approx(
            [a - b for a, b in zip(row.tests, stacked, strict=True)]
        )
        assert len(row.tests) == 2
    assert rows[STACKED].point.one_unsharded == pytest.approx(1)


def test_what_was_chosen_had_the_highest_validation_accuracy_on_seed_0(
    compared: tuple[Comparison, list[Trial]],
) -> None:
    result, trials = compared

    tried = [row for row in trials if row.test is None and row.name.startswith(f"{OURS}: ")]
    best = max(row.validation for row in tried)
    first = next(row.name for row in tried if row.validation == best)
    chosen = next(row.design for row in result.standings if row.name == OURS)
    assert len(tried) == 2 and {row.seed for row in tried} == {0}
    assert first == f"{OURS}: {chosen}"


def test_an_unknown_contender_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'grapheraser'"):
        find_contenders(["grapherasr"])


def test_the_command_prints_a_table_or_one_json_object(tmp_path: Path) -> None:
    data = write_folder(GRAPH, tmp_path / "data")
    words = [
        "compare", "--data", str(data), "--presets", "unweave", "--shards", "3", "--seeds", "1",
        "--tune-budget", "0", "--home", str(tmp_path / "study"),
        "--plot", str(tmp_path / "c.png"), *FAST_CLI,
    ]  # fmt: skip

    shown = unweave(*words)
    found = answer(unweave(*words, "--json"))

    assert shown.returncode == 0, shown.stderr
    assert "unweave (default, untuned)" in shown.stdout
    assert [row["name"] for row in found["standings"]][-1] == OURS_UNTUNED
    assert found["budget"] == 0 and {row["tried"] for row in found["standings"]} == {1}
    assert (tmp_path / "c.png").stat().st_size > 10_000
