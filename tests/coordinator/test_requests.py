"""Requests: what is remembered of them, what they leave behind, and what an interruption does."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import (
    CapacityError,
    ConfigError,
    GraphError,
    HomeError,
    StalePlanError,
    UnknownIdError,
)
from cluster.home import load_partition
from cluster.segments import graph_digest
from coordinator.batch import Batch
from coordinator.erasure import Erasure
from coordinator.results import Receipt
from coordinator.system import System
from tests.coordinator.systems import (
    Workbench,
    erasure_of_every_kind,
    files_of,
    planted,
    state_of,
    tiny,
    training_ids,
    unowned_ids,
)

# ---- homes and tombstones


def test_fit_on_a_fitted_home_is_refused_and_names_open(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    system.close()

    with pytest.raises(HomeError, match=r"System\.open"):
        bench.fit(planted(10), home=system.home)


@pytest.mark.parametrize("prefix", ["", "person-"])
def test_the_unchanged_source_opens_a_home_after_erasures_of_every_kind(
    prefix: str, bench: Workbench
) -> None:
    records = planted(10, num_nodes=70, prefix=prefix)
    system = bench.fit(records)
    erasures = erasure_of_every_kind(system, records)
    for erasure in erasures.values():
        system.erase(erasure)
    system.close()

    reopened = bench.open(system.home, graph=records.graph())

    assert reopened.generation == system.generation
    assert reopened.graph.num_nodes == len(records.without(*erasures.values()).features)


def test_another_graph_does_not_open_a_home(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    system.erase(Erasure(nodes=[sorted(records.features)[0]]))
    system.close()
    other = records.without(Erasure(edges=[sorted(records.edges)[-1]]))

    with pytest.raises(HomeError, match="belongs to another graph"):
        bench.open(system.home, graph=other.graph())


def test_a_folder_without_a_system_is_not_opened_nor_made(bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"System\.fit"):
        bench.open(tmp_path / "nothing")

    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_is_another_home_is_not_taken_over(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    files = files_of(system.home)
    system.close()
    (system.home / "ledger.db").unlink()

    with pytest.raises(HomeError, match="do not belong together"):
        bench.fit(planted(11), home=system.home)

    assert files_of(system.home) == files


@pytest.mark.parametrize(
    "kind", ["node", "edge across shards", "one feature", "all features", "label"]
)
def test_asking_again_returns_the_receipt_of_then_and_changes_nothing(
    kind: str, bench: Workbench
) -> None:
    records = planted(10)
    system = bench.fit(records)
    erasure = erasure_of_every_kind(system, records)[kind]
    receipt = system.erase(erasure)
    before = state_of(system)

    assert system.erase(erasure) == receipt
    assert system.plan(erasure).already == {receipt.request_id: _asked(erasure)}
    assert state_of(system) == before


def _asked(erasure: Erasure) -> int:
    cells = sum(6 if names is None else len(names) for names in erasure.features.values())
    return len(erasure.nodes) + len(erasure.edges) + len(erasure.labels) + cells


def test_records_of_an_erased_node_were_erased_with_it(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    edge = sorted(records.edges)[0]
    receipt = system.erase(Erasure(nodes=[edge[0]]))

    with_it = Erasure(edges=[edge], features={edge[0]: ["f1"]}, labels=[edge[0]])

    assert system.erase(with_it) == receipt


def test_an_edge_is_the_same_record_from_either_end(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    u, v = sorted(records.edges)[0]

    receipt = system.erase(Erasure(edges=[(v, u)]))

    assert system.erase(Erasure(edges=[(u, v)])) == receipt
    system.close()
    assert bench.open(system.home, graph=records.graph()).generation == system.generation


def test_a_request_says_what_of_it_was_gone_already_and_does_the_rest(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    a, b = sorted(records.features)[:2]
    first = system.erase(Erasure(nodes=[a]))

    second = system.erase(Erasure(nodes=[a, b]))

    assert second.already == {first.request_id: 1}
    assert second.records["nodes"] == 1
    assert not system.graph.has_node(b)


def test_a_receipt_counts_the_records_that_went(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    node = sorted(records.features)[0]
    degree = sum(node in edge for edge in records.edges)
    other = next(e for e in sorted(records.edges) if node not in e)

    receipt = system.erase(
        Erasure([node], [other, other[::-1]], {other[0]: None, other[1]: ["f1", "f1"]}, [other[0]])
    )

    assert receipt.records == {"nodes": 1, "edges": degree + 1, "features": 7, "labels": 1}
    assert Receipt.from_json(system.request(receipt.request_id).record.receipt or {}) == receipt


# ---- bad input


def test_unknown_ids_are_all_listed_up_to_ten_and_nothing_changes(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    before = state_of(system)
    known = sorted(records.features)[0]
    unknown = list(range(100001, 100013))

    with pytest.raises(UnknownIdError) as caught:
        system.erase(Erasure(nodes=[known, *unknown]))

    assert caught.value.ids == tuple(unknown)
    assert all(str(node_id) in str(caught.value) for node_id in unknown[:10])
    assert "+2 more" in str(caught.value)
    assert state_of(system) == before
    assert system.graph.has_node(known)


def test_an_edge_that_does_not_exist_is_named(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    ids = sorted(records.features)
    missing = next((ids[0], v) for v in ids[1:] if (ids[0], v) not in records.edges)

    with pytest.raises(UnknownIdError, match="1 edge") as caught:
        system.plan(Erasure(edges=[missing]))

    assert caught.value.ids == (missing,)


def test_unknown_records_are_skipped_and_listed_on_demand(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    known = sorted(records.features)[0]
    erasure = Erasure([known, 100001], [(100002, known)], {100003: None}, ["11"])

    plan = system.plan(erasure, unknown="report")
    receipt = system.erase(erasure, unknown="report")

    assert plan.unknown == (100001, (100002, known), 100003, "11")
    assert receipt.unknown == 4
    assert not system.graph.has_node(known)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nodes": [1.0]},
        {"nodes": [True]},
        {"nodes": [None]},
        {"nodes": [2**63]},
        {"nodes": "11"},
        {"labels": [b"11"]},
        {"edges": [(11, 14, 17)]},
        {"edges": [11]},
        {"edges": [(11, None)]},
        {"features": {11: "f1"}},
        {"features": [11]},
        {"features": {None: ["f1"]}},
    ],
    ids=str,
)
def test_an_erasure_that_names_no_records_is_refused_where_it_is_made(
    arguments: dict[str, Any],
) -> None:
    with pytest.raises(GraphError, match=r"give|is not an id"):
        Erasure(**arguments)


def test_an_unknown_feature_column_is_named(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    before = state_of(system)

    with pytest.raises(GraphError, match=r"\['colour'\]"):
        system.erase(Erasure(features={system.graph.ids[0]: ["f1", "colour"]}))

    assert state_of(system) == before


def test_ids_of_numpy_and_of_json_are_the_ids_they_say() -> None:
    key = uuid.uuid4()
    erasure = Erasure([np.int64(1), "1", key], [(np.int64(1), "1")], {np.int64(1): None}, [key])

    assert erasure.nodes == (1, "1", key)
    assert Erasure.from_json(erasure.to_json()) == erasure


def test_requests_merged_ask_for_all_of_them() -> None:
    merged = Erasure.merge(
        [
            Erasure([1], features={7: ["a"], 8: ["a"]}),
            Erasure([1, 2], [(3, 4)], {7: ["b"], 8: None}, [5]),
        ]
    )

    assert merged == Erasure([1, 2], [(3, 4)], {7: ["a", "b"], 8: None}, [5])


# ---- plans


def test_a_plan_has_no_side_effect_and_its_erasure_does_what_it_says(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    before = state_of(system)

    plan = system.plan(erasure_of_every_kind(system, records)["several kinds"])

    assert state_of(system) == before
    receipt = system.erase(plan)
    assert receipt.shards_retrained == plan.shards
    assert receipt.records == plan.records
    assert receipt.epoch == plan.epoch + 1


def test_a_plan_of_an_earlier_epoch_is_refused_and_changes_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    a, b = training_ids(system)[:2]
    plan = system.plan(Erasure(nodes=[a]))
    system.erase(Erasure(nodes=[b]))
    before = state_of(system)

    with pytest.raises(StalePlanError, match=r"epoch 0 .* at epoch 1"):
        system.erase(plan)

    assert state_of(system) == before
    assert system.graph.has_node(a)


def test_an_empty_request_changes_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    before = state_of(system)

    receipt = system.erase([])

    assert receipt.shards_retrained == ()
    assert state_of(system) == before


# ---- traces


def test_no_id_stands_in_clear_in_the_ledger_and_its_key_goes_at_completion(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = planted(10, prefix="zanzibar-")
    system = bench.fit(records)
    node, other = training_ids(system)[:2]
    at_completion: list[Any] = []
    complete = Batch._complete

    def watch(batch: Batch) -> None:
        ledger = system.engine.ledger
        (request,) = system.requests()
        payload = ledger.requests.payload(request.request_id)
        at_completion.append((_ledger_bytes(system.home), payload, ledger.vault.names()))
        complete(batch)

    monkeypatch.setattr(Batch, "_complete", watch)
    everything = Erasure(
        [node], [next(e for e in sorted(records.edges) if other in e)], {other: ["f1"]}, [other]
    )

    system.erase(everything)

    raw, payload, keys = at_completion[0]
    assert b"zanzibar" not in raw
    assert Erasure.from_json(payload) == everything
    assert len(keys) == 2  # of the payload, and of the evidence for the certificate
    assert system.engine.ledger.vault.names() == set()
    assert b"zanzibar" not in _ledger_bytes(system.home)
    system.close()
    assert b"zanzibar" not in _ledger_bytes(system.home)


def _ledger_bytes(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(home.glob("ledger.db*")))


def test_no_file_of_the_home_holds_an_erased_id(bench: Workbench) -> None:
    system = bench.fit(planted(10, prefix="zanzibar-"))
    node = training_ids(system)[0]

    def holders() -> list[Path]:
        files = [path for path in system.home.rglob("*") if path.is_file()]
        return [path for path in files if str(node).encode() in path.read_bytes()]

    assert holders()
    system.erase(Erasure(nodes=[node]))
    assert holders() == []


# ---- what it tells


def test_status_is_plain_and_counts_requests(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    system.erase(Erasure(nodes=[unowned_ids(system)[0]]))

    status = system.status()

    assert status["requests"] == {"completed": 1}
    assert (status["generation"], status["epoch"], status["nodes"]) == (2, 1, 44)
    assert [entry["shard"] for entry in status["shards"]] == [0, 1, 2]


def test_an_erased_node_is_no_longer_predicted_and_the_others_are(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    node, other = training_ids(system)[:2]
    system.erase(Erasure(nodes=[node]))

    with pytest.raises(UnknownIdError):
        system.predict([other, node])
    answer = system.predict([other])
    assert answer.generation == 2
    assert answer.labels[0] == answer.classes[answer.proba[0].argmax()]


def test_a_progress_callback_sees_every_stage_to_its_end(bench: Workbench, tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen[stage] = done, total

    with System.fit(
        planted(10).graph(),
        tiny(),
        tmp_path / "watched",
        pool=bench.pool,
        progress=note,
    ) as system:
        system.predict(system.graph.ids.tolist())

    assert seen["training"] == (3, 3)
    assert seen["predicting"] == (1, 1)
    assert seen["partitioning"][0] == seen["partitioning"][1]


def test_a_plan_made_for_another_home_is_refused_and_changes_nothing(bench: Workbench) -> None:
    one, other = bench.fit(planted(6)), bench.fit(planted(6), {"partition.seed": 5})
    plan = one.plan(Erasure(nodes=[one.partition.ids.tolist()[0]]))
    before = other.generation

    with pytest.raises(StalePlanError, match="make a new plan"):
        other.erase(plan)

    assert other.generation == before
    assert one.erase(plan).shards_retrained == plan.shards


def test_a_folder_with_foreign_files_is_not_made_a_home(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "notes.txt").write_text("mine")

    with pytest.raises(HomeError, match="choose another home"):
        bench.fit(planted(6), home=tmp_path)

    assert (tmp_path / "staging" / "notes.txt").read_text() == "mine"


def test_no_figure_or_digest_of_the_graph_that_was_outlives_an_erasure(bench: Workbench) -> None:
    records = planted(6)
    system = bench.fit(records)
    source = str(graph_digest(records.graph()))

    system.erase(Erasure(nodes=[system.partition.ids.tolist()[0]]))

    stored = load_partition(system.engine.store, system.generation.partition_key)
    assert dict(stored.info) == {"method": "louvain", "seed": 0}
    held = [path.read_bytes() for path in system.home.rglob("*") if path.is_file()]
    assert not any(source.encode() in raw for raw in held)


def test_a_partition_that_is_not_what_its_guarantee_claims_is_refused(bench: Workbench) -> None:
    hashed = bench.fit(planted(6), {"partition.method": "hash"})
    other_seed = {"partition.method": "hash", "partition.seed": 9}

    with pytest.raises(ConfigError, match="leave partition= out"):
        bench.fit(planted(6), other_seed, partition=hashed.partition)
    again = bench.fit(planted(6), {"partition.method": "hash"}, partition=hashed.partition)

    assert again.generation.key == hashed.generation.key


def test_a_fit_whose_shards_would_be_empty_makes_no_folder(
    bench: Workbench, tmp_path: Path
) -> None:
    with pytest.raises(CapacityError, match="fewer shards"):
        bench.fit(planted(6), {"partition.num_shards": 500}, home=tmp_path / "home")

    assert not (tmp_path / "home").exists()
