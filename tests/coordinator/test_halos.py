"""Systems with halos: exactly the readers of a record retrain, and everyone else stays."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.digest import NodeId
from cluster.partition import quality
from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from shards.checkpoint import CONTENT
from shards.content import ShardContent
from tests.coordinator.systems import (
    Records,
    Workbench,
    artefacts_of,
    assert_same,
    erasure_of_every_kind,
    files_of,
    kept_partition,
    keys_of,
    moved,
    planted,
    random_erasures,
    summary,
    weights_of,
)

FULL: dict[str, Any] = {"partition.halo.hops": 1, "partition.halo.budget": None}
HALF = {"partition.halo.hops": 2, "partition.halo.budget": 0.5}
TIGHT = {"partition.halo.hops": 2, "partition.halo.budget": 0.15}
RANKED = {**HALF, "partition.halo.arcs": "ranked", "partition.halo.max_cost": 1.8}
SAFE = {
    "partition.halo.arcs": "clique",
    "partition.halo.budget": None,
    "partition.halo.labels": True,
}
HASH = {"partition.method": "hash"}
REDERIVED = {"partition.guarantee": "rederived"}


def contents_of(system: System) -> dict[int, ShardContent]:
    """The stored content of every shard that has a submodel."""
    return {
        shard: ShardContent.from_blob(system.engine.store.get(CONTENT, entry.content_digest))
        for shard, entry in system.generation.shards.items()
        if entry.weights_digest is not None
    }


def readers_of(system: System, node: NodeId) -> set[int]:
    """Shards whose stored content holds a node."""
    return {shard for shard, content in contents_of(system).items() if node in content.ids.tolist()}


def a_node_read_by(system: System, count: int) -> NodeId:
    owned: list[NodeId] = system.partition.ids.tolist()
    return next(i for i in owned if len(readers_of(system, i)) == count)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_erased_feature_retrains_the_owner_and_the_halo_readers_and_nobody_else(
    count: int, bench: Workbench
) -> None:
    system = bench.fit(planted(21), FULL)
    node = a_node_read_by(system, count)
    readers, before, files = readers_of(system, node), summary(system), files_of(system.home)

    plan = system.plan(Erasure(features={node: None}))
    receipt = system.erase(plan)

    after = summary(system)
    assert len(readers) == count
    assert set(plan.shards) == set(receipt.shards_retrained) == readers
    for shard in before["weights"].keys() - readers:
        assert after["shards"][shard] == before["shards"][shard]
        key = f"submodel/{system.generation.shards[shard].key}"
        assert files_of(system.home)[key] == files[key]
    assert moved(before["shards"], after["shards"]) == readers
    assert files_of(system.home).keys() == artefacts_of(system)


def test_an_erased_label_retrains_the_owner_alone(bench: Workbench) -> None:
    records = planted(21)
    system = bench.fit(records, FULL)
    owner = system.partition.assignment
    node = next(i for i in records.labels if i in owner and len(readers_of(system, i)) > 1)

    receipt = system.erase(Erasure(labels=[node]))

    assert receipt.shards_retrained == (owner[node],)


def test_an_erased_label_retrains_the_whole_clique_where_labels_are_shared(
    bench: Workbench,
) -> None:
    records = planted(21)
    system = bench.fit(records, SAFE)
    owner = system.partition.assignment
    node = next(i for i in records.labels if owner.get(i) == 0)

    receipt = system.erase(Erasure(labels=[node]))

    assert receipt.shards_retrained == (0, 1)


def test_a_boundary_edge_retrains_the_shards_that_hold_both_ends(bench: Workbench) -> None:
    records = planted(21)
    system = bench.fit(records, FULL)
    shard = system.partition.assignment
    edge = next(e for e in sorted(records.edges) if len({shard.get(i, -1) for i in e} - {-1}) == 2)

    holding = readers_of(system, edge[0]) & readers_of(system, edge[1])
    receipt = system.erase(Erasure(edges=[edge]))

    assert {shard[edge[0]], shard[edge[1]]} <= holding
    assert set(receipt.shards_retrained) == holding


def test_a_node_that_was_examined_and_bridged_nothing_is_retrained_by_no_examiner(
    bench: Workbench,
) -> None:
    system = bench.fit(planted(22), TIGHT)
    index = system.engine.index()
    rows = {i: int(system.graph.rows([i])[0]) for i in system.partition.ids.tolist()}
    spared = 0
    for node, row in rows.items():
        planned = set(system.plan(Erasure(nodes=[node])).shards)
        assert index.reading([row]) <= planned <= index.of_rows([row])
        spared += len(index.of_rows([row]) - planned)

    assert spared > 0


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    halo=st.sampled_from([FULL, HALF, TIGHT, RANKED, SAFE]),
    data=st.data(),
)
def test_a_plan_names_exactly_the_shards_that_retrain(
    seed: int, halo: dict[str, Any], data: st.DataObject, pool: InlinePool
) -> None:
    records = planted(seed, 60)  # enough for every kind of erasure
    overrides = {**halo, "shards.training_epochs": 1, "aggregator.kind": "mean"}
    with TemporaryDirectory() as folder:
        bench = Workbench(pool, Path(folder))
        system = bench.fit(records, overrides)
        kinds = erasure_of_every_kind(system, records)
        before = keys_of(system)

        plan = system.plan(kinds[data.draw(st.sampled_from(sorted(kinds)))])
        receipt = system.erase(plan)

        sounding = set(system.generation.submodels)
        assert plan.shards == receipt.shards_retrained
        assert moved(before, keys_of(system)) & sounding == set(plan.shards)
        bench.close()


def test_a_silent_shard_takes_note_of_what_its_halo_loses(bench: Workbench) -> None:
    records = planted(21)
    system = bench.fit(records, FULL)
    owner = system.partition.assignment
    system.erase(Erasure(labels=[i for i in records.labels if owner.get(i) == 0]))
    rows = system.engine.index().rows_of(0)
    node = next(i for i in system.graph.ids[rows].tolist() if owner[i] != 0)
    before = system.generation.shards[0]

    receipt = system.erase(Erasure(features={node: None}))

    assert before.weights_digest is None
    assert 0 not in receipt.shards_retrained
    assert system.generation.shards[0] != before
    assert system.verify("all").ok


# ---- guarantees


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [RANKED, {**HASH, **HALF}, {**REDERIVED, **TIGHT}, SAFE],
    ids=["frozen ranked", "oblivious", "rederived", "clique with labels"],
)
def test_many_requests_end_in_the_keys_of_the_surviving_graph(
    overrides: dict[str, Any], bench: Workbench
) -> None:
    overrides = {**overrides, "partition.num_shards": 4, "shards.training_epochs": 2}
    records = planted(23, num_nodes=80)
    requests = random_erasures(records, 12, seed=4)
    system = bench.fit(records, overrides)
    partition = system.partition

    for request in requests:
        system.erase(request)

    survivors = records.without(*requests)
    kept = kept_partition(partition, survivors) if partition.guarantee == "frozen" else None
    assert_same(summary(system), summary(bench.fit(survivors, overrides, partition=kept)))
    assert system.verify("all").ok


def test_frozen_thresholds_and_arcs_stay_through_erasures_and_reopening(bench: Workbench) -> None:
    system = bench.fit(planted(21), RANKED)
    before = system.partition.halo
    assert before is not None
    assert before.arcs is not None

    system.erase(Erasure(nodes=system.partition.ids[:6].tolist()))
    system.close()
    halo = bench.open(system.home).partition.halo

    assert halo is not None
    assert halo.arcs is not None
    assert np.array_equal(halo.thresholds, before.thresholds)
    assert np.array_equal(halo.arcs, before.arcs)


# ---- what it tells


def test_status_shows_halo_sizes_and_what_is_retained(bench: Workbench) -> None:
    records = planted(21)
    system, alone = bench.fit(records, RANKED), bench.fit(records)

    status = system.status()

    sizes = {shard: content.num_nodes for shard, content in contents_of(system).items()}
    assert {s["shard"]: s["nodes"] + s["halo"] for s in status["shards"]} == sizes
    assert sum(s["halo"] for s in status["shards"]) > 0
    assert [item["name"] for item in status["retained"]] == [
        "partition",
        "halo thresholds",
        "halo arcs",
    ]
    assert all(s["halo"] == 0 for s in alone.status()["shards"])
    mean = sum(sizes.values()) / len(system.partition.ids)
    assert quality(system.graph, system.partition).readers == pytest.approx(mean)


def test_halos_change_weights_and_no_halo_changes_none(bench: Workbench) -> None:
    records: Records = planted(21)
    plain = bench.fit(records)

    none = bench.fit(records, {"partition.halo.hops": 2})
    some = bench.fit(records, FULL, partition=plain.partition)

    assert_same(summary(none), summary(plain))
    assert moved(weights_of(plain), weights_of(some)) == {0, 1, 2}
