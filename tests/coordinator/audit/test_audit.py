"""The audit of whole systems: a toy block model that its submodels learn by heart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.config import RolesConfig
from cluster.errors import ConfigError, HomeError, UnknownIdError
from cluster.graph import TEST, TRAIN, Change, Graph
from cluster.readers.sbm import BlockModel, block_model
from coordinator.audit import AuditReport, AuditSettings, Verdict, audit_shard, audit_system
from coordinator.audit.judge import Subject, judge
from coordinator.audit.run import gather, make_cases, served
from coordinator.audit.source import make_twins, missing
from coordinator.erasure import Erasure
from coordinator.system import System
from shards.checkpoint import SUBMODEL
from shards.jobs import AuditJob
from tests.coordinator.systems import Workbench, overwrite, state_of
from tests.graphs import random_graph

SETTINGS = AuditSettings(references=10, shadows=16, controls=5, resamples=50)
PERCEPTRONS = {
    "partition.method": "hash",
    "shards.model": "mlp",
    "shards.hidden": 32,
    "shards.training_epochs": 40,
    "shards.lr": 0.1,
    "shards.weight_decay": 0.0,
    "aggregator.kind": "mean",
}
COMMUNITIES = PERCEPTRONS | {"partition.method": "louvain", "shards.model": "gcn"}
HALO = COMMUNITIES | {"partition.halo.hops": 1, "partition.halo.budget": 0.5}
SHARD = 1


@pytest.fixture(scope="module")
def graph() -> Graph:
    return block_model(BlockModel(num_nodes=400, num_classes=4, num_features=64, noise=3.0, seed=3))


@pytest.fixture(scope="module")
def kept(shared_bench: Workbench, graph: Graph) -> System:
    """A system that erased nothing; tests only read it."""
    return shared_bench.fit(graph, PERCEPTRONS)


def some_nodes(system: System, count: int = 10, shard: int = SHARD) -> Erasure:
    """Labelled nodes that the shard owns."""
    owned = system.partition.ids[system.partition.shards == shard]
    return Erasure(nodes=owned[:count].tolist())


def audit(system: System, graph: Graph, erased: Erasure | None, **options: Any) -> AuditReport:
    settings = options.pop("settings", SETTINGS)
    pool = system.pool
    return audit_system(system, graph, erased, settings=settings, pool=pool, **options)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(PERCEPTRONS, id="mlp", marks=pytest.mark.slow),
        pytest.param(COMMUNITIES, id="gcn"),
        pytest.param(HALO, id="halo", marks=pytest.mark.slow),
    ],
)
def test_a_system_that_keeps_its_weights_fails_and_one_that_retrains_passes(
    bench: Workbench, graph: Graph, overrides: Mapping[str, Any]
) -> None:
    system = bench.fit(graph, overrides)
    erased = some_nodes(system)
    shard = dict.fromkeys(erased.nodes, SHARD)

    kept = audit(system, graph, erased, shards=[SHARD])  # no-op: receipts, and nothing else
    system.erase(erased)
    retrained = audit(system, graph, erased, shards=[SHARD], placement=shard)

    assert kept.verdict == Verdict.FAIL and not kept.ok
    assert retrained.verdict == Verdict.PASS, retrained
    for check in (*kept.shards[0].checks, *retrained.shards[0].checks):
        assert check.power == 1 and check.calibrated


def test_a_stale_submodel_under_the_new_key_fails(bench: Workbench, graph: Graph) -> None:
    system = bench.fit(graph, PERCEPTRONS)
    erased = some_nodes(system)
    stale = system.engine.store.get(SUBMODEL, system.generation.submodels[SHARD])
    system.erase(erased)

    overwrite(system, SUBMODEL, system.generation.submodels[SHARD], stale)

    assert audit(system, graph, erased).verdict == Verdict.FAIL


def test_a_system_that_never_knew_the_records_passes(bench: Workbench, graph: Graph) -> None:
    train = graph.ids[graph.roles(RolesConfig()) == TRAIN]
    never = Change(nodes=tuple(train[:30].tolist()))

    system = bench.fit(graph.apply(never), PERCEPTRONS)
    report = audit(system, graph, None)  # all that the home does not hold

    assert [shard.shard for shard in report.shards] == [0, 1, 2]
    assert sum(shard.nodes for shard in report.shards) == 30
    assert report.verdict == Verdict.PASS


def test_forgetting_too_much_fails_two_sided(kept: System, graph: Graph) -> None:
    twins = make_twins(kept.graph, graph, some_nodes(kept))
    (case,) = make_cases(kept, twins, [SHARD])
    content, asked = case.within, np.isin(case.within.ids, case.asked)
    wrong = np.where(asked, (content.y + 1) % 4, content.y).astype(content.y.dtype)

    job = AuditJob(case.recipe, case.questions(SETTINGS), replace(content, y=wrong), 5)
    subject = Subject(gather(case, SETTINGS, kept.pool), kept.pool.map("audit", [job])[0])
    (found,) = judge([subject], SETTINGS)

    assert found.verdict == Verdict.FAIL
    assert found.checks[0].statistic < found.checks[0].interval[0]


def test_submodels_that_learn_nothing_give_no_power(bench: Workbench, graph: Graph) -> None:
    system = bench.fit(graph, PERCEPTRONS | {"shards.training_epochs": 1, "shards.lr": 1e-9})

    report = audit(system, graph, some_nodes(system))

    assert report.verdict == Verdict.NO_POWER
    assert report.ok


def test_erased_labels_are_audited_too(bench: Workbench, graph: Graph) -> None:
    system = bench.fit(graph, PERCEPTRONS)
    erased = Erasure(labels=some_nodes(system).nodes)

    kept = audit(system, graph, erased)
    system.erase(erased)

    assert kept.verdict == Verdict.FAIL
    assert audit(system, graph, None).verdict == Verdict.PASS


def test_one_seed_gives_one_report_and_the_home_is_left_as_it_was(
    kept: System, graph: Graph
) -> None:
    erased, before = some_nodes(kept), state_of(kept)

    def body(settings: AuditSettings) -> dict[str, Any]:
        text = json.dumps(audit(kept, graph, erased, settings=settings).to_json())
        return without_seconds(json.loads(text))

    first, second = body(SETTINGS), body(SETTINGS)

    assert first == second
    assert body(replace(SETTINGS, seed=1)) != first
    assert state_of(kept) == before


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def test_the_asked_records_order_does_not_matter(kept: System, graph: Graph) -> None:
    nodes = some_nodes(kept).nodes

    (one,) = make_cases(kept, make_twins(kept.graph, graph, Erasure(nodes=nodes)))
    (other,) = make_cases(kept, make_twins(kept.graph, graph, Erasure(nodes=nodes[::-1])))

    assert one.asked.tolist() == other.asked.tolist()
    assert (one.members(SETTINGS) == other.members(SETTINGS)).all()
    assert one.without.digest == other.without.digest


def test_a_case_trains_on_what_the_product_trains_on(bench: Workbench, graph: Graph) -> None:
    system = bench.fit(graph, PERCEPTRONS)
    erased = some_nodes(system)
    before = system.generation.shards[SHARD].content_digest

    system.erase(erased)
    (case,) = make_cases(system, make_twins(system.graph, graph, erased))

    assert case.within.digest == before
    assert case.without.digest == system.generation.shards[SHARD].content_digest
    member = case.members(SETTINGS)
    assert (member.sum(axis=0) == SETTINGS.shadows // 2).all()
    gone = set(case.within.ids.tolist()) - set(case.shadow(member[0]).ids.tolist())
    assert gone == set(case.asked[~member[0]].tolist())


def test_the_controls_are_held_out_and_have_the_classes_of_the_erased(
    bench: Workbench, graph: Graph
) -> None:
    system = bench.fit(graph, COMMUNITIES)
    (case,) = make_cases(system, make_twins(system.graph, graph, some_nodes(system)), [SHARD])

    asked, controls = graph.y[graph.rows(case.asked)], graph.y[case.controls]
    shares = [case.weights[controls == c].sum() for c in range(4)]
    roles = graph.roles(system.config.roles)[case.controls]
    assert (roles != TRAIN).all() and (roles == TEST).any()
    assert np.allclose(shares, np.bincount(asked, minlength=4) / len(asked))


def test_questions_with_edges_coincide_for_a_perceptron_alone(
    bench: Workbench, graph: Graph
) -> None:
    with_edges = replace(SETTINGS, query="ind")
    answers = {}
    for name, overrides in (("mlp", PERCEPTRONS), ("gcn", COMMUNITIES)):
        system = bench.fit(graph, overrides)
        (case,) = make_cases(system, make_twins(system.graph, graph, some_nodes(system)), [SHARD])
        weights = served(system, SHARD)
        jobs = [
            AuditJob(case.recipe, case.questions(s), weights=weights)
            for s in (SETTINGS, with_edges)
        ]
        answers[name] = system.pool.map("audit", jobs)

    assert np.array_equal(*answers["mlp"])
    assert not np.allclose(*answers["gcn"])


def as_dense(graph: Graph) -> Any:
    return graph.x.toarray() if hasattr(graph.x, "toarray") else graph.x


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_what_other_requests_erased_is_in_neither_graph(layout: Any) -> None:
    source = random_graph(4, 40, layout=layout)
    ids = source.ids.tolist()
    edges = list(zip(source.ids[source.src].tolist(), source.ids[source.dst].tolist(), strict=True))
    lone = next(e for e in edges if not {ids[0], ids[1]} & set(e))
    column = source.schema.features[int(as_dense(source)[5].argmax())]
    labelled = source.ids[source.y >= 0].tolist()[-1]
    others = Change((ids[0],), (lone,), ((ids[5], (column,)),), (labelled,))
    home = source.apply(others).apply(Change(nodes=(ids[1],)))

    found, twins = missing(source, home), make_twins(home, source, Erasure(nodes=[ids[1]]))

    assert set(found.nodes) == {ids[0], ids[1]} and lone in found.edges
    assert found.features == {ids[5]: (column,)} and found.labels == (labelled,)
    assert not twins.within.has_node(ids[0]) and twins.within.has_node(ids[1])
    assert not twins.within.has_edge(*lone)
    assert twins.without.num_edges == home.num_edges
    assert np.array_equal(as_dense(twins.without), as_dense(home))
    assert np.array_equal(twins.without.y, home.y)


def test_what_cannot_be_audited_is_refused_with_the_reason(kept: System, graph: Graph) -> None:
    held_out = graph.ids[graph.roles(kept.config.roles) == TEST]
    of_shard = some_nodes(kept)

    with pytest.raises(ConfigError, match="nothing to audit"):
        audit(kept, graph, None)
    with pytest.raises(UnknownIdError, match="auditor's copy"):
        audit(kept, graph, Erasure(nodes=[10**6]))
    with pytest.raises(ConfigError, match="no shard ever trained"):
        audit(kept, graph, Erasure(nodes=held_out[:3].tolist()))
    with pytest.raises(ConfigError, match="would train on none"):
        audit(kept, graph, of_shard, shards=[0])
    with pytest.raises(ConfigError, match=r"no shards \[9\]"):
        audit(kept, graph, of_shard, shards=[9, 1])
    with pytest.raises(HomeError, match="auditor's copy does not"):
        audit(kept, random_graph(1), of_shard)


def test_a_single_submodel_is_audited_by_its_weights(kept: System, graph: Graph) -> None:
    (case,) = make_cases(kept, make_twins(kept.graph, graph, some_nodes(kept)))

    found = audit_shard(case, served(kept, SHARD), SETTINGS, kept.pool)

    assert found.verdict == Verdict.FAIL
    assert found.models == SETTINGS.models == 10 + 16 + 2 * 5
