"""Bugs that published code of this kind has, each with the test that would have caught it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.digest import keyed_hash
from cluster.errors import GraphError
from cluster.graph import TRAIN
from cluster.partitioners import PARTITIONERS
from coordinator.aggregators import AGGREGATORS
from coordinator.aggregators.fitrows import choose_rows
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from coordinator.system import System
from tests.coordinator.systems import (
    Records,
    WatchedPool,
    Workbench,
    assert_same,
    assert_same_packs,
    erasure_of_every_kind,
    kept_partition,
    planted,
    summary,
    training_ids,
    unowned_ids,
)

OPTIMAL = {"aggregator.kind": "optimal"}


# ---- shards


@pytest.mark.parametrize("method", sorted(PARTITIONERS))
def test_ids_in_shards_partition_the_training_ids(method: str, bench: Workbench) -> None:
    system = bench.fit(planted(8), {"partition.method": method, "partition.num_shards": 4})
    owned = [
        node_id
        for entry in system.generation.shards.values()
        if entry.weights_digest
        for node_id in system.engine.store.get("content", entry.content_digest)
        .tensors["id"]
        .tolist()
    ]

    assert sorted(owned) == training_ids(system)
    assert sorted(system.partition.assignment) == training_ids(system)


def test_shard_models_are_pairwise_distinct(bench: Workbench) -> None:
    system = bench.fit(planted(8), {"partition.num_shards": 4})

    for a, b in combinations(range(4), 2):
        ours, theirs = system.submodel(a), system.submodel(b)
        assert any(not ours[name].equal(theirs[name]) for name in ours)


@dataclass
class ShuffledPool:
    """Runs jobs in another order than asked, on as many actors as it claims to have."""

    inner: Pool
    size: int
    order: random.Random = field(default_factory=lambda: random.Random(0))

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        places = self.order.sample(range(len(jobs)), len(jobs))
        results: list[Any] = [None] * len(jobs)
        for at in places:
            (results[at],) = self.inner.map(method, [jobs[at]])
        return results

    def tell(self, method: str, job: Any) -> list[Any]:
        return self.inner.tell(method, job)

    def cpu_seconds(self) -> float:
        return self.inner.cpu_seconds()

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("kind", ["optimal", "learned"])
@pytest.mark.parametrize("actors", [1, 2, 5])
def test_the_result_is_the_same_on_any_number_of_actors_and_in_any_order(
    actors: int, kind: str, bench: Workbench, pool: Pool
) -> None:
    records, overrides = planted(8), {"aggregator.kind": kind, "partition.num_shards": 4}
    plain = bench.fit(records, overrides)
    shuffled = bench.fit(records, overrides, pool=ShuffledPool(pool, actors))
    ids = plain.graph.ids.tolist()

    assert_same(summary(shuffled), summary(plain))
    assert np.array_equal(shuffled.predict(ids).proba, plain.predict(ids).proba)

    erasure = erasure_of_every_kind(plain, records)["several kinds"]
    plain.erase(erasure)
    shuffled.erase(erasure)
    assert_same(summary(shuffled), summary(plain))


def test_deleting_a_node_that_no_shard_reads_retrains_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(8))
    entries = system.generation.shards

    receipt = system.erase(Erasure(nodes=[unowned_ids(system)[0]]))

    assert receipt.shards_retrained == ()
    assert system.generation.shards == entries


# ---- the aggregator


def _fit_ids(system: System) -> list[int]:
    """Ids that the aggregator is fitted on."""
    ids: list[int] = system.graph.ids[choose_rows(system.graph, system.config, TRAIN)].tolist()
    return ids


def _fresh(bench: Workbench, system: System, records: Records) -> System:
    return bench.fit(records, OPTIMAL, partition=kept_partition(system.partition, records))


def test_the_aggregator_is_refitted_on_the_generation_after_the_deletion(
    bench: Workbench,
) -> None:
    records = planted(8)
    system = bench.fit(records, OPTIMAL)
    before = summary(system)
    gone = Erasure(nodes=[_fit_ids(system)[0]])

    system.erase(gone)

    after = summary(system)
    assert after["aggregator_key"] != before["aggregator_key"]
    assert after["fitted"]["weights"].tobytes() != before["fitted"]["weights"].tobytes()
    assert_same(after, summary(_fresh(bench, system, records.without(gone))))


@pytest.mark.parametrize("kind", ["node", "label"])
def test_a_fit_row_whose_node_or_label_goes_leaves_the_fit(kind: str, bench: Workbench) -> None:
    records = planted(9, num_nodes=250, degree=1)
    system = bench.fit(records, OPTIMAL)
    node_id, *others = _fit_ids(system)
    gone = Erasure(nodes=[node_id]) if kind == "node" else Erasure(labels=[node_id])

    system.erase(gone)

    assert _fit_ids(system) == others
    fresh = _fresh(bench, system, records.without(gone))
    assert_same(summary(system), summary(fresh))
    assert_same_packs(system, fresh)


def test_the_fit_moves_with_the_neighbourhood_of_a_fit_row_and_with_nothing_else(
    bench: Workbench,
) -> None:
    records = planted(8)
    near, lonely, far = _ids_outside_training(3)
    features = {**records.features, **dict.fromkeys((near, lonely, far), (1.0,) * 6)}
    probe = bench.fit(records, OPTIMAL)
    edges = {(_fit_ids(probe)[0], near), (lonely, far)}
    records = replace(records, features=features, edges=records.edges | edges)
    watched = WatchedPool(bench.pool)
    system = bench.fit(records, OPTIMAL, pool=watched)
    first = summary(system)["fitted"]["weights"]
    watched.asked.clear()

    apart = Erasure(edges=[(lonely, far)], features={lonely: None})
    assert system.erase(apart).shards_retrained == ()
    assert watched.rows_computed(system.graph) == {}
    assert np.array_equal(summary(system)["fitted"]["weights"], first)

    beside = Erasure(features={near: ["f0", "f1", "f2"]})
    assert system.erase(beside).shards_retrained == ()
    assert not np.array_equal(summary(system)["fitted"]["weights"], first)
    assert_same(summary(system), summary(_fresh(bench, system, records.without(apart, beside))))


def _ids_outside_training(count: int) -> list[int]:
    """Ids that no shard would own; a role depends on the id alone."""
    share = keyed_hash("role", 0, range(5000, 5100)) / 2.0**64
    return (5000 + np.flatnonzero(share >= 0.6)).tolist()[:count]


# ---- degenerate neighbourhoods, classes and shards


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_answers_stay_finite_without_edges_and_without_a_class(kind: str, bench: Workbench) -> None:
    records = planted(8)
    system = bench.fit(records, {"aggregator.kind": kind, "shards.model": "gat"})
    vanished = [i for i, label in records.labels.items() if label == 2]

    system.erase(Erasure(edges=sorted(records.edges), labels=vanished))

    proba = system.predict(system.graph.ids.tolist()).proba
    assert system.graph.num_edges == 0
    assert proba.shape == (45, 3)
    assert np.isfinite(proba).all()
    assert np.allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
@pytest.mark.parametrize("loss", ["nodes", "labels"])
def test_a_shard_that_loses_its_nodes_or_labels_is_silent_and_leaves_the_ensemble(
    loss: str, kind: str, bench: Workbench
) -> None:
    records = planted(8)
    system = bench.fit(records, {"aggregator.kind": kind})
    members = [i for i, shard in system.partition.assignment.items() if shard == 1]
    gone = Erasure(nodes=members) if loss == "nodes" else Erasure(labels=members)

    receipt = system.erase(gone)

    survivors = records.without(gone)
    kept = kept_partition(system.partition, survivors)
    fresh = bench.fit(survivors, {"aggregator.kind": kind}, partition=kept)
    ids = system.graph.ids.tolist()
    assert receipt.shards_retrained == ()
    assert sorted(system.generation.submodels) == [0, 2]
    assert system.status()["shards"][1]["silent"]
    assert np.array_equal(system.predict(ids).proba, fresh.predict(ids).proba)
    assert_same(summary(system), summary(fresh))
    assert system.verify().ok


def test_a_fit_without_training_labels_is_refused_and_leaves_no_home(
    bench: Workbench, tmp_path: Path
) -> None:
    records = planted(8)
    graph = Records(records.features, {}, records.edges, records.schema).graph()

    with pytest.raises(GraphError, match="no training node has a label"):
        bench.fit(graph, home=tmp_path / "none")

    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        OPTIMAL,
        {"aggregator.kind": "learned"},
        {"aggregator.kind": "merge"},
        {"partition.method": "hash"},
        {"partition.guarantee": "rederived"},
    ],
    ids=["frozen", "optimal", "learned", "merge", "oblivious", "rederived"],
)
@pytest.mark.parametrize("loss", ["every node", "every training node", "every label"])
def test_erasing_all_there_was_to_learn_from_is_done_and_predicting_then_says_so(
    loss: str, overrides: dict[str, Any], bench: Workbench
) -> None:
    records = planted(8)
    system = bench.fit(records, overrides)
    gone = {
        "every node": Erasure(nodes=sorted(records.features)),
        "every training node": Erasure(nodes=training_ids(system)),
        "every label": Erasure(labels=sorted(records.labels)),
    }[loss]

    system.erase(gone)

    assert system.generation.submodels == {}
    with pytest.raises(GraphError, match="every shard is silent"):
        system.predict(system.graph.ids.tolist()[:1])
    system.close()
    reopened = bench.open(system.home)
    assert reopened.generation.key == system.generation.key
    assert reopened.verify().ok


def test_rederived_shards_go_on_with_fewer_training_nodes_than_shards(bench: Workbench) -> None:
    records = planted(8)
    system = bench.fit(records, {"partition.guarantee": "rederived"})
    train = [i for i in training_ids(system) if i in records.labels]
    left = train[:2]
    gone = [i for i in training_ids(system) if i not in left]

    system.erase(Erasure(nodes=gone))

    assert sorted(system.partition.sizes().tolist()) == [0, 1, 1]
    assert len(system.generation.submodels) == 2
    assert np.isfinite(system.predict(left).proba).all()
    assert system.verify().ok


def test_predictions_come_as_tables_with_the_ids_that_were_asked(bench: Workbench) -> None:
    system = bench.fit(planted(3))
    asked = system.graph.ids[:4]

    answers = system.predict(asked)

    assert answers.to_pandas()["id"].tolist() == asked.tolist()
    assert answers.to_arrow().column("id").to_pylist() == asked.tolist()
    assert answers.to_arrow().num_columns == 2 + 3 + 1
    with pytest.raises(GraphError, match="list of ids"):
        system.predict("11")
