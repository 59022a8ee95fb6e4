"""Features in combination: every two of them meet, and forgetting stays exact."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from cluster.partitioners import PARTITIONERS
from coordinator.aggregators import AGGREGATORS
from coordinator.config import load_config
from coordinator.erasure import Erasure
from coordinator.system import System
from tests.coordinator.systems import (
    Records,
    Workbench,
    assert_same,
    assert_same_packs,
    kept_partition,
    keys_of,
    moved,
    planted,
    summary,
    tiny,
    weights_of,
)

pytestmark = pytest.mark.slow

Overrides = dict[str, Any]
Combination = dict[str, str]  # factor -> value

BASE: Overrides = {
    "partition.num_shards": 4,
    "shards.hidden": 4,
    "shards.training_epochs": 2,
    "aggregator.ridge_width": 16,
}


def _halo(**fields: Any) -> Overrides:
    return {f"partition.halo.{name}": value for name, value in fields.items()}


FACTORS: Mapping[str, Mapping[str, Overrides]] = {
    "partitioner": {name: {"partition.method": name} for name in sorted(PARTITIONERS)},
    "submodel": {
        name: {"shards.model": name}
        for name in (
            "gcn",
            "sage",
            "gin",
            "gat",
            "sgc",
            "sign",
            "mlp",
            "linear",
        )
    }
    | {"dgl": {"shards.model": "gcn", "shards.backend": "dgl"}},
    "aggregator": {name: {"aggregator.kind": name} for name in sorted(AGGREGATORS)},
    "halo": {
        "alone": {},
        "half": _halo(hops=1, budget=0.5),
        "near": _halo(hops=1, budget=None),
        "far": _halo(hops=2, budget=None),
        "clique": _halo(hops=1, budget=None, arcs="clique"),
        "labels": _halo(budget=None, arcs="clique", labels=True),
        "ranked": _halo(hops=2, budget=0.5, arcs="ranked", max_cost=2.0),
    },
    "repair": {name: {"shards.repair": name} for name in ("none", "zero", "mirror", "mixup")},
    "slices": {"whole": {}, "sliced": {"shards.slices": 3}},
    "guarantee": {"usual": {}, "rederived": {"partition.guarantee": "rederived"}},
}


def overrides_of(combination: Combination) -> Overrides:
    """Settings of a combination, or of a part of one."""
    merged = dict(BASE)
    for factor, value in combination.items():
        merged |= FACTORS[factor][value]
    return merged


@cache
def _is_valid(combination: tuple[tuple[str, str], ...]) -> bool:
    try:
        tiny(overrides_of(dict(combination)))
    except ConfigError:
        return False
    return True


def is_valid(combination: Combination) -> bool:
    """Whether the configuration allows a combination, or a part of one."""
    return _is_valid(tuple(sorted(combination.items())))


def pairs_of(combination: Combination) -> set[tuple[tuple[str, str], ...]]:
    """Every two values that meet in it."""
    return set(combinations(sorted(combination.items()), 2))


def pairwise(factors: Mapping[str, Sequence[str]]) -> list[Combination]:
    """Combinations in which every two values of two factors meet, if they may; greedy, in order."""
    left = [
        pair
        for a, b in combinations(sorted(factors), 2)
        for pair in product(((a, x) for x in factors[a]), ((b, y) for y in factors[b]))
        if is_valid(dict(pair))
    ]
    found: list[Combination] = []
    while left:
        combination = dict(left[0])
        for factor in factors:
            if factor not in combination:
                choices = [{**combination, factor: value} for value in factors[factor]]
                uncovered = set(left)
                combination = max(
                    filter(is_valid, choices),
                    key=lambda choice: len(pairs_of(choice) & uncovered),
                )
        found.append(combination)
        left = [pair for pair in left if pair not in pairs_of(combination)]
    return found


COMBINATIONS = pairwise({factor: tuple(values) for factor, values in FACTORS.items()})


def test_every_two_values_that_may_meet_do() -> None:
    met = set().union(*map(pairs_of, COMBINATIONS))

    for a, b in combinations(sorted(FACTORS), 2):
        for x, y in product(FACTORS[a], FACTORS[b]):
            if ((a, x), (b, y)) not in met:
                with pytest.raises(ConfigError):
                    tiny(overrides_of({a: x, b: y}))
    assert all(combination.keys() == FACTORS.keys() for combination in COMBINATIONS)
    assert len(COMBINATIONS) < 100


def test_few_pairs_are_excluded() -> None:
    met = set().union(*map(pairs_of, COMBINATIONS))
    every = sum(len(FACTORS[a]) * len(FACTORS[b]) for a, b in combinations(FACTORS, 2))

    assert every - len(met) == 2  # hash is neither rederived nor ranked


# ---- exactness

RECORDS = planted(40, num_nodes=36)


def parts_of(system: System, records: Records) -> tuple[Erasure, Erasure]:
    """A node and an edge; a feature and a label: all of the training part, none of another's."""
    owner = system.partition.assignment
    node, one, other = [i for i in owner if i in records.labels][:3]
    edge = next(e for e in sorted(records.edges) if set(e) <= owner.keys() - {node})
    column = next(i for i, cell in enumerate(records.features[one]) if cell)
    return (
        Erasure(nodes=[node], edges=[edge]),
        Erasure(features={one: [f"f{column}"]}, labels=[other]),
    )


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: " ".join(c.values()))
def test_a_combination_forgets_exactly(
    combination: Combination, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing here is to outlive a crash
    overrides = overrides_of(combination)
    system = bench.fit(RECORDS, overrides)
    partition, parts = system.partition, parts_of(system, RECORDS)
    keys, weights = keys_of(system), weights_of(system)
    system.close()
    shutil.copytree(system.home, tmp_path / "copy")
    system, other = bench.open(system.home), bench.open(tmp_path / "copy")

    plan = system.plan(parts)
    receipt = system.erase(plan)
    other.erase(parts[1])
    other.erase(parts[0])

    survivors = RECORDS.without(*parts)
    kept = kept_partition(partition, survivors) if partition.guarantee == "frozen" else None
    fresh = bench.fit(survivors, overrides, partition=kept)
    assert_same(summary(system), summary(fresh))
    assert_same_packs(system, fresh)
    assert other.generation.key == system.generation.key
    retrained = set(receipt.shards_retrained)
    assert moved(weights, weights_of(system)) <= retrained <= set(plan.shards)
    if partition.guarantee != "rederived":
        assert moved(keys, keys_of(system)) == retrained == set(plan.shards)


def test_the_settings_of_a_combination_are_those_of_its_values() -> None:
    config = load_config(None, overrides_of(COMBINATIONS[0]))

    assert config.partition.method == COMBINATIONS[0]["partitioner"]
    assert config.aggregator.kind == COMBINATIONS[0]["aggregator"]
