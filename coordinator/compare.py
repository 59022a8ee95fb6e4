"""Compare: unsharded models, published designs and ours side by side on one data set.

Every contender may try the same number of settings, judged on validation nodes of seed 0; what is
chosen there is fixed for all seeds and measured on test nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from cluster.segments import graph_digest
from coordinator.contenders import (
    ONE_MODELS,
    STACKED,
    UNSHARDED_GCN,
    UNSHARDED_SAGE,
    Contender,
)
from coordinator.plots import Spot
from coordinator.study import Study
from coordinator.trial import Design, Task, Trial, seeded
from coordinator.tuning import Point, summarise


@dataclass(frozen=True)
class Standing:
    """One row: a contender with the settings it was given or chose.

    Attributes:
        name: name of the contender.
        design: name of its settings.
        tried: how many settings it chose from; 1 for none.
        point: its figures, means over the seeds.
        tests: accuracy on test nodes, one a seed.
        to_unsharded: test accuracy less that of the better unsharded model, one a seed.
        to_stacked: test accuracy less that of the unsharded model with the same stacker.
    """

    name: str
    design: str
    tried: int
    point: Point
    tests: tuple[float, ...]
    to_unsharded: tuple[float, ...]
    to_stacked: tuple[float, ...]

    @property
    def test(self) -> float:
        """Mean accuracy on test nodes."""
        return mean(self.tests)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        point = asdict(self.point)
        del point["on_front"]  # of validation figures, which are not compared here
        return asdict(self) | {"point": point, "test": self.test, "test_sd": spread(self.tests)}


@dataclass(frozen=True)
class Comparison:
    """All rows on one data set.

    Attributes:
        data: name of the data set.
        graph: digest of the graph.
        shards: number of shards of the sharded rows.
        seeds: number of seeds.
        budget: settings each contender might try.
        better: the unsharded model with the higher validation accuracy.
        standings: the rows.
    """

    data: str
    graph: str
    shards: int
    seeds: int
    budget: int
    better: str
    standings: tuple[Standing, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self) | {"standings": [row.to_json() for row in self.standings]}

    def spots(self) -> list[Spot]:
        """The rows as points of a picture: test accuracy against cost."""
        return [
            Spot(row.name, row.point.one_unsharded, row.test, row.point.guarantee)
            for row in self.standings
        ]


def run_comparison(
    study: Study,
    contenders: Sequence[Contender],
    num_shards: int,
    seeds: int,
    *,
    budget: int = 8,
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Tune every contender with one budget on seed 0, fix it, measure it under every seed.

    Args:
        study: where trials run and are kept.
        contenders: the rows besides the unsharded models.
        num_shards: shards of the sharded rows.
        seeds: how many seeds, from 0.
        budget: settings each may try; 0 to take every contender as it is.
        settings: dotted field -> value, applied to every contender.

    Raises:
        ConfigError: a contender does not fit the graph; nothing was run.
    """
    rows = [*ONE_MODELS, *contenders]
    grids = [row.choices(budget, num_shards) for row in rows]
    chosen = tune_all(study, rows, grids, num_shards, settings)
    tasks = [
        Task(row.name, seeded(row.config(design, num_shards, settings), seed), "test")
        for row, design in zip(rows, chosen, strict=True)
        for seed in range(seeds)
    ]
    trials = study.run(tasks)
    groups = {row.name: trials[i * seeds : (i + 1) * seeds] for i, row in enumerate(rows)}
    better = max(
        (UNSHARDED_GCN, UNSHARDED_SAGE),
        key=lambda name: mean(trial.validation for trial in groups[name]),
    )
    points = [summarise(group) for group in groups.values()]
    standings = tuple(
        Standing(
            row.name,
            design.name,
            len(grid),
            point,
            tuple(_tests(groups[row.name])),
            paired(groups[row.name], groups[better]),
            paired(groups[row.name], groups[STACKED]),
        )
        for row, grid, design, point in zip(rows, grids, chosen, points, strict=True)
    )
    graph = str(graph_digest(study.graph))
    return Comparison(study.data, graph, num_shards, seeds, budget, better, standings)


def tune_all(
    study: Study,
    rows: Sequence[Contender],
    grids: Sequence[Sequence[Design]],
    num_shards: int,
    settings: Mapping[str, Any] | None,
) -> list[Design]:
    """The setting of each row with the highest validation accuracy on seed 0; ties to the first."""
    tasks = [
        Task(
            f"{row.name}: {design.name}",
            seeded(row.config(design, num_shards, settings), 0),
            "validation",
        )
        for row, grid in zip(rows, grids, strict=True)
        if len(grid) > 1
        for design in grid
    ]
    trials = iter(study.run(tasks))
    chosen = []
    for grid in grids:
        found = [next(trials).validation for _ in grid] if len(grid) > 1 else [0.0]
        chosen.append(grid[found.index(max(found))])
    return chosen


def paired(one: Sequence[Trial], other: Sequence[Trial]) -> tuple[float, ...]:
    """Differences in test accuracy, seed by seed."""
    return tuple(a - b for a, b in zip(_tests(one), _tests(other), strict=True))


def _tests(trials: Sequence[Trial]) -> list[float]:
    found = [trial.test for trial in trials if trial.test is not None]
    assert len(found) == len(trials), "a comparison measures test nodes"
    return found


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return stdev(values) if len(values) > 1 else 0.0
