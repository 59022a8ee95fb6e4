"""The learned aggregator and the mergeable ridge: fitted anew, bit for bit, after every change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.digest import NodeId, keyed_hash
from cluster.graph import TEST, TRAIN, VAL
from coordinator.aggregators import find_aggregator
from coordinator.aggregators.fitrows import choose_rows
from coordinator.erasure import Erasure
from coordinator.pools.inline import FreshPool
from coordinator.system import System
from shards.config import ShardsConfig
from shards.recipe import choose_profile
from shards.stacking import EXPERTS, FEW_ROWS, GATE_PRIOR
from tests.coordinator.systems import (
    Records,
    WatchedPool,
    Workbench,
    assert_same,
    assert_same_packs,
    erasure_of_every_kind,
    forge,
    kept_partition,
    keys_of,
    planted,
    random_erasures,
    summary,
)

pytestmark = pytest.mark.slow

LEARNED, MERGE = {"aggregator.kind": "learned"}, {"aggregator.kind": "merge"}
PRODUCT = {"partition.method": "hash", "shards.model": "linear"}
DESIGNS = {
    "learned on louvain": LEARNED,
    "learned on hash": {**LEARNED, **PRODUCT},
    "merge": {**MERGE, **PRODUCT, "aggregator.ridge_width": 16},
}
KINDS = (
    "node",
    "edge inside a shard",
    "edge across shards",
    "one feature",
    "all features",
    "label",
    "several kinds",
    "validation node",
    "validation label",
    "validation feature",
    "test node",
    "test label",
    "edge of a validation node",
)


def ids_of(system: System, role: int) -> list[NodeId]:
    """Labelled ids of a role, ascending."""
    graph = system.graph
    found: list[NodeId] = graph.ids[
        (graph.roles(system.config.roles) == role) & (graph.y >= 0)
    ].tolist()
    return found


def erasures(system: System, records: Records) -> dict[str, Erasure]:
    """One of each kind."""
    val, test = ids_of(system, VAL), ids_of(system, TEST)
    beside = next(edge for edge in sorted(records.edges) if set(edge) & set(val))
    return {
        **erasure_of_every_kind(system, records),
        "validation node": Erasure(nodes=val[:1]),
        "validation label": Erasure(labels=val[1:2]),
        "validation feature": Erasure(features={val[2]: None}),
        "test node": Erasure(nodes=test[:1]),
        "test label": Erasure(labels=test[1:2]),
        "edge of a validation node": Erasure(edges=[beside]),
    }


def from_scratch(
    bench: Workbench, system: System, records: Records, overrides: dict[str, Any], *gone: Erasure
) -> System:
    """A system that never had the records; a frozen partition is kept."""
    survivors = records.without(*gone)
    frozen = system.partition.guarantee == "frozen"
    kept = kept_partition(system.partition, survivors) if frozen else None
    return bench.fit(survivors, overrides, partition=kept)


@pytest.fixture
def fresh_pool() -> Iterator[FreshPool]:
    """A worker that has seen nothing."""
    pool = FreshPool(choose_profile(ShardsConfig()))
    yield pool
    pool.close()


# ---- exactness


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("design", DESIGNS)
def test_the_fit_after_an_erasure_is_that_of_a_system_that_never_had_the_record(
    design: str, kind: str, bench: Workbench
) -> None:
    records, overrides = planted(30), DESIGNS[design]
    system = bench.fit(records, overrides)
    before, gone = summary(system), erasures(system, records)[kind]

    system.erase(gone)

    after, fresh = summary(system), from_scratch(bench, system, records, overrides, gone)
    assert after["aggregator_key"] != before["aggregator_key"]
    assert_same(after, summary(fresh))
    assert_same_packs(system, fresh)
    ids = system.graph.ids.tolist()
    assert np.array_equal(system.predict(ids).proba, fresh.predict(ids).proba)


@pytest.mark.parametrize("design", DESIGNS)
def test_many_requests_on_many_validation_rows_end_in_the_fit_of_the_survivors(
    design: str, bench: Workbench
) -> None:
    """Enough rows for a gate of its own and weights that depend on the node."""
    overrides = {**DESIGNS[design], "shards.training_epochs": 2}
    records = planted(31, num_nodes=1500)
    requests = random_erasures(records, 12, seed=32)
    system = bench.fit(records, overrides)
    assert len(ids_of(system, VAL)) > FEW_ROWS + 20

    for request in requests:
        system.erase(request)

    fresh = from_scratch(bench, system, records, overrides, *requests)
    assert_same(summary(system), summary(fresh))
    assert_same_packs(system, fresh)
    if "learned" in design:
        assert not np.allclose(summary(system)["fitted"]["gate"], GATE_PRIOR)
        assert summary(system)["fitted"]["stack"][:, 1:].any()


@pytest.mark.parametrize("design", DESIGNS)
def test_a_process_that_starts_cold_goes_on_in_the_same_bits(
    design: str, bench: Workbench, fresh_pool: FreshPool
) -> None:
    records = planted(30)
    warm, cold = (bench.fit(records, DESIGNS[design]) for _ in range(2))
    ids, first, second = warm.graph.ids.tolist(), *random_erasures(records, 2, seed=33)
    answers = warm.predict(ids).proba
    cold.close()

    with System.open(cold.home, pool=fresh_pool) as reopened:
        assert np.array_equal(reopened.predict(ids).proba, answers)
        for request in (first, second):
            warm.erase(request)
            reopened.erase(request)
            assert_same(summary(reopened), summary(warm))
        left = warm.graph.ids.tolist()
        assert np.array_equal(reopened.predict(left).proba, warm.predict(left).proba)


@pytest.mark.parametrize("design", DESIGNS)
def test_replay_confirms_the_fit_of_a_system_that_was_opened_again(
    design: str, bench: Workbench
) -> None:
    records = planted(30)
    system = bench.fit(records, DESIGNS[design])
    system.erase(erasures(system, records)["several kinds"])
    system.close()

    assert bench.open(system.home).verify(replay="all").ok


def test_replay_finds_parameters_that_the_fit_does_not_give(bench: Workbench) -> None:
    system = bench.fit(planted(30), LEARNED)
    tensors = {name: array + 1e-6 for name, array in system.engine.live.aggregator.tensors.items()}
    forge(system, aggregator=replace(system.engine.live.aggregator, tensors=tensors))

    report = system.verify(replay=[])

    assert [check.name for check in report.checks if not check.ok] == ["aggregator"]


# ---- what the fit reads


@pytest.mark.parametrize("part", ["node", "label"])
def test_an_erased_validation_record_leaves_the_fit_and_retrains_no_shard(
    part: str, bench: Workbench
) -> None:
    records = planted(30)
    system = bench.fit(records, LEARNED)
    rows = system.graph.ids[choose_rows(system.graph, system.config, VAL)].tolist()
    gone = Erasure(nodes=rows[:1]) if part == "node" else Erasure(labels=rows[:1])
    before = summary(system)

    receipt = system.erase(gone)

    left = system.graph.ids[choose_rows(system.graph, system.config, VAL)].tolist()
    assert rows == ids_of(bench.fit(records, LEARNED), VAL)
    assert left == rows[1:]
    assert receipt.shards_retrained == ()
    assert summary(system)["shards"] == before["shards"]
    assert not np.array_equal(summary(system)["fitted"]["stack"], before["fitted"]["stack"])


def test_a_test_label_has_no_part_in_any_answer(bench: Workbench) -> None:
    records = planted(30)
    system = bench.fit(records, LEARNED)
    before, ids = summary(system)["fitted"], system.graph.ids.tolist()
    answers = system.predict(ids).proba

    system.erase(Erasure(labels=ids_of(system, TEST)))

    after = summary(system)["fitted"]
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert np.array_equal(system.predict(ids).proba, answers)


def test_without_validation_labels_every_expert_has_the_same_say(bench: Workbench) -> None:
    records = planted(30)
    system = bench.fit(records, LEARNED)
    gone = Erasure(labels=ids_of(system, VAL))

    system.erase(gone)

    fitted, ids = summary(system)["fitted"], system.graph.ids.tolist()
    assert np.allclose(fitted["stack"][:, 0], 1 / len(EXPERTS))
    assert np.allclose(system.predict(ids).proba.sum(axis=1), 1)
    assert np.isnan(system.validation())
    assert_same(summary(system), summary(from_scratch(bench, system, records, LEARNED, gone)))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_class_that_no_training_node_has_any_more_is_forgotten_exactly(
    design: str, bench: Workbench
) -> None:
    records, overrides = planted(30), DESIGNS[design]
    system = bench.fit(records, overrides)
    train = set(ids_of(system, TRAIN))
    gone = Erasure(labels=[i for i, label in records.labels.items() if label == 1 and i in train])

    system.erase(gone)

    fresh = from_scratch(bench, system, records, overrides, gone)
    assert_same(summary(system), summary(fresh))
    proba = system.predict(system.graph.ids.tolist()).proba
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == 1).mean() < 0.1


@pytest.mark.parametrize("design", DESIGNS)
def test_a_shard_without_labels_leaves_the_fit(design: str, bench: Workbench) -> None:
    records, overrides = planted(30), DESIGNS[design]
    system = bench.fit(records, overrides)
    members = [i for i, shard in system.partition.assignment.items() if shard == 0]
    gone = Erasure(labels=members)

    system.erase(gone)

    assert sorted(system.generation.submodels) == [1, 2]
    fresh = from_scratch(bench, system, records, overrides, gone)
    assert_same(summary(system), summary(fresh))
    assert_same_packs(system, fresh)


# ---- answers


@pytest.mark.parametrize("design", DESIGNS)
def test_answers_are_the_same_probabilities_each_time(design: str, bench: Workbench) -> None:
    records = planted(30)
    one, other = (bench.fit(records, DESIGNS[design]) for _ in range(2))
    ids = one.graph.ids.tolist()

    proba = one.predict(ids).proba

    assert proba.dtype == np.float64
    assert (proba >= 0).all()
    assert np.allclose(proba.sum(axis=1), 1)
    assert np.array_equal(other.predict(ids).proba, proba)
    assert_same(summary(one), summary(other))


def test_the_mergeable_ridge_answers_without_asking_a_submodel(bench: Workbench) -> None:
    pool = WatchedPool(bench.pool)
    system = bench.fit(planted(30), MERGE, pool=pool)

    system.predict(system.graph.ids.tolist())

    assert {"evaluate", "rows"} & {method for method, _ in pool.asked} == set()
    assert system.accuracy("test") > 0.5


def test_how_the_graph_is_cut_changes_no_answer_of_the_mergeable_ridge(bench: Workbench) -> None:
    records = planted(30)
    made = [
        bench.fit(records, {**MERGE, "partition.num_shards": k, "partition.method": method})
        for k, method in ((1, "hash"), (5, "hash"), (4, "louvain"))
    ]

    answers = [system.predict(system.graph.ids.tolist()).proba for system in made]

    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_the_learned_aggregator_beats_the_mean_of_its_shards(bench: Workbench) -> None:
    system = bench.fit(planted(34, num_nodes=600), {**LEARNED, "partition.num_shards": 8})

    assert system.accuracy("test") > system.accuracy("test", "mean")


# ---- honest validation


def validation_folds(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the cross-fit, its answers, and which half each row is in."""
    context = system.engine.fit_context(system.graph, system.partition, system.pool)
    honest = find_aggregator("learned").validation_answers(context)
    assert honest is not None
    rows, answers = honest
    fold = keyed_hash("fold", system.config.seed, system.graph.ids[rows].tolist()) % np.uint64(2)
    return rows, answers, fold == 0


def test_an_answer_that_is_judged_does_not_depend_on_the_labels_it_is_judged_with(
    bench: Workbench,
) -> None:
    """Other labels for one half move the answers on the other half alone."""
    records = planted(35, num_nodes=300)
    system = bench.fit(records, LEARNED)
    rows, answers, fold = validation_folds(system)
    ids = system.graph.ids[rows[fold]].tolist()
    labels = {**records.labels, **{i: (records.labels[i] + 1) % 3 for i in ids}}

    changed = bench.fit(replace(records, labels=labels), LEARNED)
    same_rows, others, _ = validation_folds(changed)

    assert keys_of(changed) == keys_of(system)
    assert np.array_equal(same_rows, rows)
    assert others[fold].tobytes() == answers[fold].tobytes()
    assert not np.array_equal(others[~fold], answers[~fold])


def test_validation_is_at_chance_where_labels_are_dealt_at_random(bench: Workbench) -> None:
    records = planted(36, num_nodes=600)
    rng = np.random.default_rng(37)
    labels = {i: int(rng.integers(3)) for i in records.labels}

    system = bench.fit(replace(records, labels=labels), LEARNED)

    count = len(ids_of(system, VAL))
    assert abs(system.validation() - 1 / 3) < 4 * np.sqrt(2 / 9 / count)


def test_validation_tells_what_was_learned(bench: Workbench) -> None:
    system = bench.fit(planted(35, num_nodes=300), LEARNED)

    assert system.validation() > 0.6
    assert bench.fit(planted(30), MERGE).validation() > 0.4
