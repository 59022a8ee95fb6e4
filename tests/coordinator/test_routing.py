"""Routing is complete and keys cover everything: nothing moves a bit unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coordinator.aggregators import AGGREGATORS
from coordinator.config import Config
from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from shards.config import ShardsConfig
from shards.recipe import Recipe, choose_profile
from tests.coordinator.systems import (
    Records,
    Workbench,
    assert_same,
    kept_partition,
    keys_of,
    moved,
    planted,
    summary,
    tiny,
    training_ids,
    unowned_ids,
    weights_of,
)

KINDS = ("node", "edge", "feature", "label")


def _altered(records: Records, erasure: Erasure) -> Records:
    """The records that ``erasure`` names given another value instead of going."""
    features, labels = dict(records.features), dict(records.labels)
    for node_id in erasure.features:
        first, *others = features[node_id]
        features[node_id] = (first + 1, *others)
    for node_id in erasure.labels:
        labels[node_id] = (labels[node_id] + 1) % 3
    return replace(records, features=features, labels=labels).without(
        Erasure(erasure.nodes, erasure.edges)
    )


def _one_record(kind: str, records: Records, draw: st.DrawFn) -> Erasure:
    ids, edges = sorted(records.features), sorted(records.edges)
    if kind == "node":
        return Erasure(nodes=[draw(st.sampled_from(ids))])
    if kind == "edge":
        return Erasure(edges=[draw(st.sampled_from(edges))])
    if kind == "feature":
        return Erasure(features={draw(st.sampled_from(ids)): ["f0"]})
    return Erasure(labels=[draw(st.sampled_from(sorted(records.labels)))])


@st.composite
def changes(draw: st.DrawFn) -> tuple[Records, Erasure, Records]:
    """Random records, one of them, and the records with that one gone or changed."""
    records = planted(draw(st.integers(0, 10**6)), draw(st.integers(20, 40)))
    erasure = _one_record(draw(st.sampled_from(KINDS)), records, draw)
    gone = draw(st.booleans())
    return records, erasure, records.without(erasure) if gone else _altered(records, erasure)


@settings(max_examples=20, deadline=None)
@given(
    change=changes(),
    model=st.sampled_from(["gcn", "gin", "sign"]),
    method=st.sampled_from(["hash", "louvain"]),
    repair=st.sampled_from(["none", "mirror"]),
)
def test_weights_that_differ_after_any_change_are_those_of_planned_shards_with_new_keys(
    change: tuple[Records, Erasure, Records], model: str, method: str, repair: str, pool: InlinePool
) -> None:
    records, erasure, changed = change
    overrides: dict[str, Any] = {"partition.method": method, "shards.model": model}
    overrides |= {"shards.training_epochs": 2, "shards.repair": repair}
    with TemporaryDirectory() as folder:
        bench = Workbench(pool, Path(folder))
        system = bench.fit(records, overrides)
        kept = kept_partition(system.partition, changed)

        planned = set(system.plan(erasure).shards)
        retrained = bench.fit(changed, overrides, partition=kept)

        differing = moved(weights_of(system), weights_of(retrained))
        new_keys = moved(keys_of(system), keys_of(retrained))
        bench.close()
    assert differing <= new_keys <= planned


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_a_training_node_does_move_the_weights_of_its_owner(
    kind: str, bench: Workbench
) -> None:
    records = planted(6)
    system = bench.fit(records)
    shard = system.partition.assignment
    owned = [i for i in shard if i in records.labels]
    inner = next(e for e in sorted(records.edges) if shard.get(e[0], -1) == shard.get(e[1], -2))
    erasure = {
        "node": Erasure(nodes=owned[:1]),
        "edge": Erasure(edges=[inner]),
        "feature": Erasure(features={owned[0]: None}),
        "label": Erasure(labels=owned[:1]),
    }[kind]
    before = weights_of(system)

    system.erase(erasure)

    owner = shard[inner[0]] if kind == "edge" else shard[owned[0]]
    assert moved(before, weights_of(system)) == {owner}


def test_erasing_validation_and_test_nodes_retrains_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(6))
    before, gone = system.generation, unowned_ids(system)[:4]

    plan = system.plan(Erasure(nodes=gone))
    receipt = system.erase(plan)

    assert plan.shards == receipt.shards_retrained == ()
    assert system.generation.shards == before.shards
    assert system.generation.graph_key != before.graph_key


# ---- configuration

HASH, BLPA = {"partition.method": "hash"}, {"partition.method": "blpa"}
BILEVEL = {"partition.method": "bilevel", "partition.num_shards": 4}
OPTIMAL = {"aggregator.kind": "optimal", "aggregator.fit_rows": 10}
LEARNED = {"aggregator.kind": "learned"}
LABELS = {"aggregator.label_step": "propagate"}

HALO: dict[str, Any] = {"partition.halo.hops": 1, "partition.halo.budget": None}
CLIQUE = {**HALO, "partition.halo.arcs": "clique"}
RANKED = {**HALO, "partition.halo.arcs": "ranked", "partition.halo.max_cost": 1.3}

# field -> (base, change) that a generation's key must tell apart
MOVING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "partition.method": ({}, HASH),
    "partition.num_shards": ({}, {"partition.num_shards": 4}),
    "partition.max_imbalance": (BLPA, {"partition.max_imbalance": 2.0}),
    "partition.capacity": (BLPA, {"partition.capacity": 20}),
    "partition.guarantee": ({}, {"partition.guarantee": "rederived"}),
    "partition.fine": (BILEVEL, {"partition.fine": 4}),
    "partition.seed": (HASH, {"partition.seed": 1}),
    "partition.halo.hops": (HALO, {"partition.halo.hops": 2}),
    "partition.halo.budget": (HALO, {"partition.halo.budget": 0.2}),
    "partition.halo.arcs": (HALO, {"partition.halo.arcs": "clique"}),
    "partition.halo.max_cost": (RANKED, {"partition.halo.max_cost": 2.0}),
    "partition.halo.labels": (
        CLIQUE,
        {"partition.halo.labels": True, "partition.halo.hops": 0},
    ),
    "shards.model": ({}, {"shards.model": "sage"}),
    "shards.backend": ({}, {"shards.backend": "dgl"}),
    "shards.hidden": ({}, {"shards.hidden": 9}),
    "shards.layers": ({}, {"shards.layers": 1}),
    "shards.training_epochs": ({}, {"shards.training_epochs": 6}),
    "shards.lr": ({}, {"shards.lr": 0.02}),
    "shards.weight_decay": ({}, {"shards.weight_decay": 0.0}),
    "shards.dropout": ({}, {"shards.dropout": 0.25}),
    "shards.repair": ({}, {"shards.repair": "mirror"}),
    "shards.slices": ({}, {"shards.slices": 2}),
    "aggregator.kind": ({}, {"aggregator.kind": "mean"}),
    "aggregator.mix": ({}, {"aggregator.mix": 0.5}),
    "aggregator.fit_rows": (OPTIMAL, {"aggregator.fit_rows": 20}),
    "aggregator.ridge_width": (LEARNED, {"aggregator.ridge_width": 64}),
    "aggregator.label_step": (LABELS, {"aggregator.label_step": "correct_and_smooth"}),
    "aggregator.label_steps": (LABELS, {"aggregator.label_steps": 4}),
    "roles.train": (HASH, {"roles.train": 0.5, "roles.val": 0.3}),
    "roles.val": (OPTIMAL, {"roles.val": 0.3, "roles.test": 0.1}),
    "roles.test": (OPTIMAL, {"roles.val": 0.1, "roles.test": 0.3}),
    "roles.seed": (HASH, {"roles.seed": 1}),
    "seed": ({}, {"seed": 1}),
}

# field -> change that may not move a key nor a bit
NEUTRAL: dict[str, dict[str, Any]] = {
    "shards.per_actor": {"shards.per_actor": 2},
    "storage.home": {"storage.home": "elsewhere"},
    "erasure.regulation": {"erasure.regulation": "ccpa"},
    "erasure.contract_days": {"erasure.contract_days": 7},
    "erasure.issuer": {"erasure.issuer": "privacy office"},
    "erasure.timezone": {"erasure.timezone": "Europe/Berlin"},
    "erasure.internal_target_days": {"erasure.internal_target_days": 3},
    "erasure.cancel_window": {"erasure.cancel_window": "1h"},
    "erasure.batch_window": {"erasure.batch_window": "1h"},
    "erasure.max_batch": {"erasure.max_batch": 2},
    "erasure.early_flush_slack": {"erasure.early_flush_slack": 5},
    "erasure.all_shards_share": {"erasure.all_shards_share": 0.5},
    "erasure.approve_above": {"erasure.approve_above": 5},
    "erasure.max_attempts": {"erasure.max_attempts": 2},
    "erasure.backoff": {"erasure.backoff": "1m"},
    "erasure.backoff_cap": {"erasure.backoff_cap": "2h"},
    "erasure.rearrival": {"erasure.rearrival": "block"},
    "erasure.lease": {"erasure.lease": "30s"},
    "storage.database": {"storage.database": "ledger.db"},
    "tuned_on": {"tuned_on": {"graph": "0" * 64, "data": "cora"}},
}

NEEDS_A_GPU = {"shards.device"}


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_field_of_the_configuration_is_shown_to_move_the_key_or_to_be_neutral() -> None:
    listed = [*MOVING, *NEUTRAL, *NEEDS_A_GPU]

    assert sorted(listed) == sorted(_fields(Config))


@pytest.fixture(scope="module")
def fitted(shared_bench: Workbench) -> dict[str, System]:
    """Systems of each base configuration, made once."""
    made: dict[str, System] = {}
    for base, _ in [*MOVING.values(), ({}, {})]:
        if str(base) not in made:
            made[str(base)] = shared_bench.fit(planted(7), base)
    return made


@pytest.mark.parametrize("field", MOVING)
def test_changing_a_field_moves_the_generation_key(
    field: str, fitted: dict[str, System], bench: Workbench
) -> None:
    base, change = MOVING[field]

    changed = bench.fit(planted(7), {**base, **change})

    assert _value(changed.config, field) != _value(fitted[str(base)].config, field)
    assert changed.generation.key != fitted[str(base)].generation.key


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_every_setting_of_the_aggregator_moves_the_key_of_every_aggregator(
    kind: str, bench: Workbench
) -> None:
    base = {"aggregator.kind": kind, "shards.training_epochs": 1}
    changes = [change for field, (_, change) in MOVING.items() if field.startswith("aggregator.")]
    wanted = {str({**base, **change}): {**base, **change} for change in [{}, *changes]}

    made = [bench.fit(planted(7), overrides) for overrides in wanted.values()]

    assert len({system.generation.aggregator_key for system in made}) == len(made) > 5
    assert len({tuple(keys_of(system).values()) for system in made}) == 1


@pytest.mark.parametrize("field", NEUTRAL)
def test_changing_a_neutral_field_moves_no_key_and_no_bit(
    field: str, fitted: dict[str, System], bench: Workbench, tmp_path: Path
) -> None:
    change = dict(NEUTRAL[field])
    if field == "storage.database":
        change[field] = str(tmp_path / "elsewhere.db")

    changed = bench.fit(planted(7), change)

    assert _value(changed.config, field) != _value(fitted["{}"].config, field)
    assert_same(summary(changed), summary(fitted["{}"]))


def _value(config: Config, field: str) -> Any:
    value: Any = config
    for name in field.split("."):
        value = getattr(value, name)
    return value


def test_the_device_moves_the_recipe() -> None:
    keys = set()
    for device in ("cpu", "cuda"):
        config = ShardsConfig(device=device)
        keys.add(Recipe(config, choose_profile(config)).key)

    assert len(keys) == 2


@pytest.mark.parametrize("kind", sorted(AGGREGATORS.keys() - {"gate"}))
def test_the_gate_s_mix_changes_no_answer_of_another_aggregator(
    kind: str, bench: Workbench
) -> None:
    records = planted(7)
    a = bench.fit(records, {"aggregator.kind": kind})
    b = bench.fit(records, {"aggregator.kind": kind, "aggregator.mix": 0.1})

    ids = a.graph.ids.tolist()
    assert np.array_equal(a.predict(ids).proba, b.predict(ids).proba)
    assert weights_of(a) == weights_of(b)


def test_ids_of_the_training_role_stay_when_other_nodes_go(bench: Workbench) -> None:
    system = bench.fit(planted(7))
    train = training_ids(system)

    system.erase(Erasure(nodes=[train[3], *unowned_ids(system)[:5]]))

    assert training_ids(system) == train[:3] + train[4:]
    assert tiny() == system.config
