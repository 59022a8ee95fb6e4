"""Requests: what is remembered of them, what they leave behind, and what an interruption does."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coordinator.pools.inline
import coordinator.system
import shards.recipe
from cluster.errors import (
    CapacityError,
    ConfigError,
    CorruptArtefactError,
    ErasureError,
    GraphError,
    HomeError,
    StalePlanError,
    UnknownIdError,
)
from cluster.home import load_partition
from cluster.segments import graph_digest
from cluster.store import Blob, LocalStore
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from coordinator.pools.inline import InlinePool
from coordinator.reconcile import Reconciler
from coordinator.results import Receipt
from coordinator.system import System
from shards.recipe import choose_profile
from tests.coordinator.systems import (
    Workbench,
    artefacts_of,
    assert_same,
    erasure_of_every_kind,
    files_of,
    kept_partition,
    planted,
    summary,
    tiny,
    training_ids,
    unowned_ids,
)


def _state(system: System) -> tuple[Any, ...]:
    """Everything that a request which is refused may not move."""
    ledger = system._ledger
    return (
        system.generation,
        ledger.current_generation(),
        ledger.epoch(),
        ledger.request_states(),
        files_of(system.home),
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
    before = _state(system)

    assert system.erase(erasure) == receipt
    assert system.plan(erasure).already == {receipt.request_id: _asked(erasure)}
    assert _state(system) == before


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
    assert Receipt.from_json(system._ledger.receipt(receipt.request_id) or {}) == receipt


# ---- bad input


def test_unknown_ids_are_all_listed_up_to_ten_and_nothing_changes(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records)
    before = _state(system)
    known = sorted(records.features)[0]
    unknown = list(range(100001, 100013))

    with pytest.raises(UnknownIdError) as caught:
        system.erase(Erasure(nodes=[known, *unknown]))

    assert caught.value.ids == tuple(unknown)
    assert all(str(node_id) in str(caught.value) for node_id in unknown[:10])
    assert "+2 more" in str(caught.value)
    assert _state(system) == before
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
    before = _state(system)

    with pytest.raises(GraphError, match=r"\['colour'\]"):
        system.erase(Erasure(features={system.graph.ids[0]: ["f1", "colour"]}))

    assert _state(system) == before


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
    before = _state(system)

    plan = system.plan(erasure_of_every_kind(system, records)["several kinds"])

    assert _state(system) == before
    receipt = system.erase(plan)
    assert receipt.shards_retrained == plan.shards
    assert receipt.records == plan.records
    assert receipt.epoch == plan.epoch + 1


def test_a_plan_of_an_earlier_epoch_is_refused_and_changes_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    a, b = training_ids(system)[:2]
    plan = system.plan(Erasure(nodes=[a]))
    system.erase(Erasure(nodes=[b]))
    before = _state(system)

    with pytest.raises(StalePlanError, match=r"epoch 0 .* at epoch 1"):
        system.erase(plan)

    assert _state(system) == before
    assert system.graph.has_node(a)


def test_an_empty_request_changes_nothing(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    before = _state(system)

    receipt = system.erase([])

    assert receipt.shards_retrained == ()
    assert _state(system) == before


# ---- traces


def test_no_id_stays_in_the_ledger_after_completion(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = planted(10, prefix="zanzibar-")
    system = bench.fit(records)
    node, other = training_ids(system)[:2]
    at_completion = []
    complete = Ledger.complete

    def watch(ledger: Ledger, receipts: Any) -> None:
        at_completion.append(_ledger_bytes(system.home))
        complete(ledger, receipts)

    monkeypatch.setattr(Ledger, "complete", watch)
    everything = Erasure(
        [node], [next(e for e in sorted(records.edges) if other in e)], {other: ["f1"]}, [other]
    )

    system.erase(everything)

    assert b"zanzibar" in at_completion[0]
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


# ---- the lock


def test_a_home_in_use_is_not_opened_again_in_the_same_process(bench: Workbench) -> None:
    system = bench.fit(planted(10))

    with pytest.raises(HomeError, match="in use by process"):
        bench.open(system.home)

    system.close()
    assert bench.open(system.home).generation == system.generation


def test_a_home_in_use_is_not_opened_in_another_process(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    code = f"from coordinator.system import System; System.open({str(system.home)!r})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode != 0
    assert "HomeError" in done.stderr
    assert "in use by process" in done.stderr


# ---- damage


def test_a_corrupted_checkpoint_is_detected_by_its_digest(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    path = system._store.path("submodel", system.generation.submodels[0])
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 255
    path.write_bytes(raw)

    with pytest.raises(CorruptArtefactError, match="verify"):
        system.submodel(0)
    with pytest.raises(CorruptArtefactError, match="verify"):
        system.predict(system.graph.ids.tolist()[:1])


def test_a_corrupted_checkpoint_does_not_stop_an_erasure_of_its_shard(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    node = training_ids(system)[0]
    shard = system.partition.assignment[node]
    system._store.path("submodel", system.generation.submodels[shard]).write_bytes(b"damaged")

    assert system.erase(Erasure(nodes=[node])).shards_retrained == (shard,)
    assert system.verify().ok


def test_a_corrupted_aggregator_is_fitted_again_on_opening(bench: Workbench) -> None:
    system = bench.fit(planted(10), {"aggregator.kind": "optimal"})
    before = summary(system)
    system._store.path("aggregator", system.generation.aggregator_key).write_bytes(b"damaged")
    system.close()

    assert_same(summary(bench.open(system.home)), before)


def test_corrupted_posteriors_are_computed_again_by_an_erasure(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records, {"aggregator.kind": "optimal"})
    gone = Erasure(nodes=[training_ids(system)[0]])
    for kind, key in system.generation.artefacts:
        if kind == "posteriors":
            system._store.path(kind, key).write_bytes(b"damaged")

    system.erase(gone)

    survivors = records.without(gone)
    kept = kept_partition(system.partition, survivors)
    fresh = bench.fit(survivors, {"aggregator.kind": "optimal"}, partition=kept)
    assert_same(summary(system), summary(fresh))


def test_another_environment_is_refused_until_everything_is_rebuilt_in_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10))
    before = _state(system)
    monkeypatch.setattr(shards.recipe, "NUMERICS_VERSION", 10**6)
    gone = Erasure(nodes=[training_ids(system)[0]])

    with pytest.raises(ConfigError, match=r"3 of 3 submodels .* another environment"):
        system.erase(gone)

    assert _state(system) == before
    assert system.rebuild().generation.retrained == (0, 1, 2)
    assert system.erase(gone).shards_retrained


# ---- interruptions


class CrashError(Exception):
    """Stands for the end of the process."""


def _crash_before(
    monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, *, when: Callable[..., bool]
) -> None:
    """Raise instead of running a method; once."""
    original = getattr(owner, method)
    armed = [True]

    def crash(*args: Any, **kwargs: Any) -> Any:
        if armed[0] and when(*args):
            armed[0] = False
            raise CrashError
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, crash)


def _always(*args: Any) -> bool:
    return True


def _of_submodels(*args: Any) -> bool:
    return args[1] == "submodel"


STEPS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "after accept": (System, "_move_to", _always),
    "before store": (Reconciler, "_store_inputs", _always),
    "between registration and bytes": (LocalStore, "stage", _always),
    "between bytes and promotion": (LocalStore, "promote", _always),
    "after store": (Reconciler, "_build", _always),
    "between training and promotion": (LocalStore, "promote", _of_submodels),
    "after train": (Reconciler, "_aggregate", _always),
    "before publish": (Ledger, "publish", _always),
    "after publish, before purge": (coordinator.system, "purge", _always),
    "amid the purge": (LocalStore, "delete", _always),
    "between deletion and the ledger": (Ledger, "unregister", _always),
    "before complete": (Ledger, "complete", _always),
}
PUBLISHED = (
    "after publish, before purge",
    "amid the purge",
    "between deletion and the ledger",
    "before complete",
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("source", [False, True], ids=["home alone", "with its graph"])
def test_an_erasure_that_is_interrupted_anywhere_ends_in_the_same_state_when_opened_again(
    step: str, source: bool, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, overrides = planted(10), {"aggregator.kind": "optimal"}
    whole, system = bench.fit(records, overrides), bench.fit(records, overrides)
    erasure = erasure_of_every_kind(whole, records)["several kinds"]
    receipt = whole.erase(erasure)

    owner, method, when = STEPS[step]
    _crash_before(monkeypatch, owner, method, when=when)
    with pytest.raises(CrashError):
        system.erase(erasure)
    system.close()
    resumed = bench.open(system.home, graph=records.graph() if source else None)

    assert_same(summary(resumed), summary(whole))
    assert files_of(resumed.home).keys() == artefacts_of(resumed)
    assert list((resumed.home / "staging").rglob("*.*")) == []
    assert resumed._ledger.request_states() == {"completed": 1}
    assert resumed.generation.epoch == receipt.epoch
    again = resumed.erase(erasure)
    assert again.request_id
    if step not in PUBLISHED:
        assert again.shards_retrained == receipt.shards_retrained
        assert again.records == receipt.records


@pytest.mark.parametrize(
    "step", ["after accept", "after store", "before publish", "before complete"]
)
def test_a_request_after_one_that_failed_finishes_that_one_first(
    step: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = planted(10)
    system = bench.fit(records)
    failing, later = (Erasure(nodes=[node]) for node in training_ids(system)[:2])
    stale = system.plan(later)
    owner, method, when = STEPS[step]
    _crash_before(monkeypatch, owner, method, when=when)
    with pytest.raises(CrashError):
        system.erase(failing)

    with pytest.raises(StalePlanError):
        system.erase(stale)
    system.erase(later)

    survivors = records.without(failing, later)
    fresh = bench.fit(survivors, partition=kept_partition(system.partition, survivors))
    assert_same(summary(system), summary(fresh))
    assert system._ledger.request_states() == {"completed": 2}
    assert system.erase(failing).request_id


def test_a_plan_made_after_a_request_failed_is_void_once_that_one_is_finished(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10))
    failing, later = (Erasure(nodes=[node]) for node in training_ids(system)[:2])
    owner, method, when = STEPS["after accept"]
    _crash_before(monkeypatch, owner, method, when=when)
    with pytest.raises(CrashError):
        system.erase(failing)

    plan = system.plan(later)

    with pytest.raises(StalePlanError):
        system.erase(plan)
    assert system.erase(system.plan(later)).epoch == 2


def test_a_worker_that_dies_leaves_the_request_to_be_resumed(bench: Workbench) -> None:
    records = planted(10)

    class DyingPool:
        size = 1

        def map(self, method: str, jobs: Any, progress: Any = None) -> Any:
            if method == "build" and system_is_fitted:
                raise ErasureError("the worker ended")
            return bench.pool.map(method, jobs, progress)

        def cpu_seconds(self) -> float:
            return 0.0

        def close(self) -> None:
            raise AssertionError("a shared pool is not closed by a System")

    system_is_fitted = False
    system = bench.fit(records, pool=DyingPool())
    system_is_fitted = True
    node = training_ids(system)[0]

    with pytest.raises(ErasureError):
        system.erase(Erasure(nodes=[node]))
    assert system._ledger.request_states() == {"accepted": 1}
    system.close()

    reopened = bench.open(system.home)
    assert not reopened.graph.has_node(node)
    assert reopened._ledger.request_states() == {"completed": 1}


@pytest.mark.parametrize("step", ["before store", "after store", "after train", "before publish"])
def test_an_interrupted_fit_goes_on_with_the_same_graph_and_refuses_another(
    step: str, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, home = planted(10), tmp_path / "interrupted"
    owner, method, when = STEPS[step]
    _crash_before(monkeypatch, owner, method, when=when)
    with pytest.raises(CrashError):
        bench.fit(records, home=home)

    with pytest.raises(HomeError, match="interrupted"):
        bench.open(home)
    with pytest.raises(HomeError, match="begun with another graph"):
        bench.fit(planted(11), home=home)
    system = bench.fit(records, home=home)

    assert_same(summary(system), summary(bench.fit(records)))
    assert files_of(home).keys() == artefacts_of(system)


def test_a_fit_that_is_refused_leaves_the_home_to_another_graph(
    bench: Workbench, tmp_path: Path
) -> None:
    home = tmp_path / "refused"
    with pytest.raises(CapacityError):
        bench.fit(planted(10), {"partition.num_shards": 40}, home=home)

    system = bench.fit(planted(11), home=home)

    assert system.verify().ok


def test_files_that_the_ledger_does_not_know_are_swept_on_opening(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    stray = Blob({"x": np.zeros(3)})
    system._store.stage("content", "f" * 64, stray, fence=1)
    system._store.promote("content", ["f" * 64], fence=1)
    system._store.stage("submodel", "e" * 64, stray, fence=1)
    system.close()

    reopened = bench.open(system.home)

    assert files_of(reopened.home).keys() == artefacts_of(reopened)
    assert list((reopened.home / "staging").rglob("*.*")) == []


def test_a_home_whose_marker_names_another_home_is_not_swept(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    system.close()
    files = files_of(system.home)
    (system.home / "HOME").write_text("another\n")
    system._ledger.unregister([("submodel", system.generation.submodels[0])])
    system._ledger.close()

    with pytest.raises(HomeError, match="do not belong together"):
        bench.open(system.home)

    assert files_of(system.home) == files


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

    stored = load_partition(system._store, system.generation.partition_key)
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


def test_an_interrupted_call_leaves_no_answer_for_the_next_caller() -> None:
    settings = tiny()
    pool = InlinePool(choose_profile(settings.shards), settings.shards, 1)
    assert pool.map("call", [("builtins:int", ("6",))]) == [6]

    def interrupted(stream: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinator.pools.inline, "read_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.map("call", [("builtins:int", ("7",))])

    assert pool.map("call", [("builtins:int", ("8",))]) == [8]
    pool.close()
