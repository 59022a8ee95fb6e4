"""Repaired systems forget exactly, in the shards of the erased record's neighbours too."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from tests.coordinator.reference import Case, fit_elsewhere
from tests.coordinator.systems import (
    Records,
    Workbench,
    assert_same,
    erasure_of_every_kind,
    kept_partition,
    keys_of,
    moved,
    planted,
    random_erasures,
    summary,
)

MODES = ("zero", "mirror", "mixup")
LOUVAIN = {"partition.method": "louvain", "partition.num_shards": 5}
Both = dict[tuple[str, str], Any]


def readers_by_hand(system: System, records: Records, erasure: Erasure) -> set[int]:
    """Owners of the named records, of their training neighbours, and of both ends of edges."""
    shard = system.partition.assignment
    named = {i for i in (*erasure.nodes, *erasure.features, *erasure.labels) if i in shard}
    ends = [*erasure.edges, *(e for e in records.edges if set(e) & set(erasure.nodes))]
    named |= {end for edge in ends if set(edge) <= shard.keys() for end in edge}
    return {shard[i] for i in named}


@pytest.fixture(scope="module")
def both(pool: InlinePool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Both, Both, Both]:
    """Per mode and kind: what erasing gave, what an independent fit gave, and who was to move."""
    folder, records = tmp_path_factory.mktemp("repair"), planted(0)
    bench = Workbench(pool, folder)
    here, cases, shards = {}, {}, {}
    for mode in MODES:
        overrides = {**LOUVAIN, "shards.repair": mode}
        fitted = bench.fit(records, overrides)
        fitted.close()
        for kind, erasure in erasure_of_every_kind(fitted, records).items():
            copy = folder / f"{mode} {kind}"
            shutil.copytree(fitted.home, copy)
            system = bench.open(copy)
            before = keys_of(system)
            expected = readers_by_hand(system, records, erasure)
            planned = set(system.plan(erasure).shards)
            retrained = set(system.erase(erasure).shards_retrained)
            shards[mode, kind] = expected, planned, retrained, moved(before, keys_of(system))
            here[mode, kind] = summary(system)
            survivors = records.without(erasure)
            kept = kept_partition(fitted.partition, survivors)
            cases[mode, kind] = Case(survivors, overrides, kept)
            system.close()
    return here, fit_elsewhere(cases, folder), shards


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_erasure_equals_never_having_had_the_data(
    mode: str, both: tuple[Both, Both, Both]
) -> None:
    here, elsewhere, _ = both

    for at in here:
        if at[0] == mode:
            assert_same(here[at], elsewhere[at])


@pytest.mark.parametrize("mode", MODES)
def test_the_shards_of_former_neighbours_are_retrained_and_no_others(
    mode: str, both: tuple[Both, Both, Both]
) -> None:
    shards = {kind: found for (m, kind), found in both[2].items() if m == mode}

    for kind, (expected, planned, retrained, changed) in shards.items():
        assert expected == planned == retrained == changed, kind
    assert len(shards["node"][0]) > 1
    assert len(shards["edge across shards"][0]) == 2
    assert len(shards["edge inside a shard"][0]) == 1


def test_many_requests_end_in_the_keys_of_the_surviving_graph_and_verify(bench: Workbench) -> None:
    records = planted(2, num_nodes=90)
    overrides = {**LOUVAIN, "shards.repair": "mixup", "shards.training_epochs": 3}
    system = bench.fit(records, overrides)
    requests = random_erasures(records, 20, seed=3)

    for request in requests:
        system.erase(request)

    survivors = records.without(*requests)
    direct = bench.fit(survivors, overrides, partition=kept_partition(system.partition, survivors))
    assert_same(summary(system), summary(direct))
    assert system.verify(replay="all").ok


def test_repair_trains_other_submodels_and_leaves_inference_to_the_full_graph(
    bench: Workbench,
) -> None:
    records = planted(0)
    plain, repaired = (
        bench.fit(records, {**LOUVAIN, "shards.repair": mode}) for mode in ("none", "mirror")
    )

    assert len(moved(keys_of(plain), keys_of(repaired))) == 5
    assert repaired.predict(list(records.features)).proba.shape == (len(records.features), 3)
