"""Tuning: designs and shard counts tried on validation nodes; test labels are out of reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from statistics import mean
from typing import Any

import yaml

from cluster.errors import ConfigError
from cluster.graph import Graph
from cluster.segments import graph_digest
from coordinator.config import Config, TunedOn
from coordinator.pareto import pareto_front
from coordinator.study import Study
from coordinator.trial import Design, Task, Trial, seeded

TOLERANCE = 0.005  # of accuracy: within it of the best, the cheapest design is chosen
ROUNDING = 1e-12

MLP = {
    "shards.model": "mlp",
    "shards.hidden": 32,
    "shards.lr": 0.1,
    "shards.training_epochs": 50,
    "shards.weight_decay": 0.0,
}
LINEAR = {**MLP, "shards.model": "linear"}
SAGE = {**MLP, "shards.model": "sage", "shards.hidden": 64}
GCN = {**SAGE, "shards.model": "gcn"}
HASH, LOUVAIN = {"partition.method": "hash"}, {"partition.method": "louvain"}
LEARNED, MERGE = {"aggregator.kind": "learned"}, {"aggregator.kind": "merge"}
HALO = {"partition.halo.hops": 1, "partition.halo.budget": 0.1}
SMOOTH_GATE = {"aggregator.kind": "gate", "aggregator.label_step": "correct_and_smooth"}

DEFAULT_DESIGN = "hash linear learned"
OWN: Mapping[str, Mapping[str, Any]] = {
    DEFAULT_DESIGN: {**HASH, **LINEAR, **LEARNED},
    "louvain sage learned": {**LOUVAIN, **SAGE, **LEARNED},
    "louvain gcn learned": {**LOUVAIN, **GCN, **LEARNED},
    "louvain sage learned + halo 10 %": {**LOUVAIN, **SAGE, **LEARNED, **HALO},
    "hash linear merge": {**HASH, **LINEAR, **MERGE},
    "louvain gcn gate + correct_and_smooth": {**LOUVAIN, **GCN, **SMOOTH_GATE},
}
PUBLISHED = ("grapheraser", "guide", "safe", "sisa")  # presets in configs/

DESIGNS: Mapping[str, Design] = {
    **{name: Design(name, overrides) for name, overrides in OWN.items()},
    **{name: Design(name, {}, base=name) for name in PUBLISHED},
}


@dataclass(frozen=True)
class Point:
    """One design at one number of shards; figures are means over the seeds.

    Attributes:
        design: its name.
        shards: number of shards.
        guarantee: ``oblivious``, ``frozen`` or ``rederived``.
        validation: accuracy on validation nodes, cross-fitted.
        one_share: expected cost of one uniform erasure, as a share of all training.
        one_unsharded: the same in trainings of one model without shards.
        batch_share: expected cost of erasing one percent of the training nodes at once.
        batch_unsharded: the same in trainings of one model without shards.
        training_cpu_s: CPU seconds of all trainings.
        aggregator_cpu_s: CPU seconds of fitting the aggregator.
        on_front: whether no other point is at least as accurate and as cheap.
    """

    design: str
    shards: int
    guarantee: str
    validation: float
    one_share: float
    one_unsharded: float
    batch_share: float
    batch_unsharded: float
    training_cpu_s: float
    aggregator_cpu_s: float
    on_front: bool = False

    @property
    def label(self) -> str:
        """What tables and plots call it."""
        return f"{self.design}, {self.shards} shards"


@dataclass(frozen=True)
class Tuning:
    """What was tried and what was chosen.

    Attributes:
        points: every design at every number of shards.
        chosen: the point that is recommended.
        config: its configuration, with what it was tuned on.
    """

    points: tuple[Point, ...]
    chosen: Point
    config: Config

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "points": [asdict(point) for point in self.points],
            "chosen": asdict(self.chosen),
            "config": self.config.model_dump(exclude={"storage"}),
        }


def find_designs(names: Sequence[str]) -> list[Design]:
    """Designs by name; ``default`` stands for our own, ``all`` for those and the published ones.

    Raises:
        ConfigError: a name is not in the table; names the nearest.
    """
    groups = {"default": list(OWN), "all": list(DESIGNS)}
    wanted = [name for text in names for name in groups.get(text.strip(), [text.strip()])]
    for name in wanted:
        if name not in DESIGNS:
            near = get_close_matches(name, DESIGNS, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"no design is called {name!r}; did you mean {near!r}? Choose from "
                f"{list(DESIGNS)}, or 'default' or 'all'"
            )
    return [DESIGNS[name] for name in dict.fromkeys(wanted)]


def run_tuning(
    study: Study,
    designs: Sequence[Design],
    shard_counts: Sequence[int],
    seeds: int,
    *,
    settings: Mapping[str, Any] | None = None,
    max_cost: float | None = None,
) -> Tuning:
    """Try every design at every number of shards, on validation nodes, and choose one.

    Args:
        study: where trials run and are kept.
        designs: what to try.
        shard_counts: numbers of shards to try each at.
        seeds: how many seeds, from 0.
        settings: dotted field -> value, applied to every design.
        max_cost: as in :func:`choose`.

    Raises:
        ConfigError: a design does not fit the graph, or none is cheap enough.
    """
    places = [(design, k) for design in designs for k in shard_counts]
    configs = [design.config(k, settings) for design, k in places]
    tasks = [
        Task(design.name, seeded(config, seed), "validation")
        for (design, _), config in zip(places, configs, strict=True)
        for seed in range(seeds)
    ]
    trials = study.run(tasks)
    groups = [trials[i : i + seeds] for i in range(0, len(trials), seeds)]
    points = mark_front([summarise(group) for group in groups])
    chosen = choose(points, max_cost)
    config = seeded(configs[points.index(chosen)], 0)
    return Tuning(tuple(points), chosen, tuned(config, study.graph, study.data))


def summarise(trials: Sequence[Trial]) -> Point:
    """Mean over the seeds of one design at one number of shards."""
    first = trials[0]
    return Point(
        first.name,
        first.shards,
        first.guarantee,
        mean(t.validation for t in trials),
        mean(t.one_share for t in trials),
        mean(t.one_unsharded for t in trials),
        mean(t.batch_share for t in trials),
        mean(t.batch_unsharded for t in trials),
        mean(t.training_cpu_s for t in trials),
        mean(t.aggregator_cpu_s for t in trials),
    )


def mark_front(points: Sequence[Point]) -> list[Point]:
    """The points, those on the Pareto front marked."""
    front = pareto_front([(point.one_unsharded, point.validation) for point in points])
    return [replace(point, on_front=on) for point, on in zip(points, front, strict=True)]


def choose(points: Sequence[Point], max_cost: float | None = None) -> Point:
    """The most accurate point within ``max_cost``; else the cheapest near the best.

    Args:
        points: what was tried.
        max_cost: bound on the expected cost of one erasure, in trainings of one model without
            shards; None for the cheapest point within 0.5 points of the best accuracy.

    Raises:
        ConfigError: no point is cheap enough.
    """
    if max_cost is None:
        best = max(point.validation for point in points)
        near = [p for p in points if p.validation >= best - TOLERANCE - ROUNDING]
        return min(near, key=lambda p: (p.one_unsharded, -p.validation))
    cheap = [point for point in points if point.one_unsharded <= max_cost]
    if not cheap:
        least = min(points, key=lambda p: p.one_unsharded)
        raise ConfigError(
            f"no design costs at most {max_cost:g} x training one model an erasure; the cheapest "
            f"is {least.label} at {least.one_unsharded:.3g}; raise --max-cost or try more --shards"
        )
    return max(cheap, key=lambda p: (p.validation, -p.one_unsharded))


def tuned(config: Config, graph: Graph, data: str) -> Config:
    """The configuration with a note of the graph it was tuned on."""
    return config.model_copy(update={"tuned_on": TunedOn(graph=graph_digest(graph), data=data)})


def to_yaml(tuning: Tuning) -> str:
    """The chosen configuration as a file, every field written out."""
    point, source = tuning.chosen, tuning.config.tuned_on
    assert source is not None
    body = yaml.safe_dump(tuning.config.model_dump(exclude={"storage"}), sort_keys=False)
    return (
        f"# {point.label}: chosen by `unweave tune` among {len(tuning.points)} designs.\n"
        f"# Tuned on {source.data}, graph {source.graph}:\n"
        f"# validation accuracy {point.validation:.4f}, one erasure is expected to redo "
        f"{point.one_unsharded:.3f} x training one model.\n"
        f"# `tuned_on` stays in the system and is listed as retained in `unweave status`.\n{body}"
    )
