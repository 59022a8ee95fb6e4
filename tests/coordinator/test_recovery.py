"""What is left of a home, a call or a request after damage, interruption and restart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coordinator.pools.inline
import shards.recipe
from cluster.errors import (
    CapacityError,
    ConfigError,
    CorruptArtefactError,
    ErasureError,
    GoneError,
    HomeError,
    StalePlanError,
)
from cluster.store import Blob, LocalStore
from coordinator.batch import Batch
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from coordinator.pools.inline import InlinePool
from coordinator.reconcile import Reconciler
from coordinator.requests.states import State
from coordinator.system import System
from shards.recipe import choose_profile
from tests.coordinator.clock import Clock
from tests.coordinator.systems import (
    Workbench,
    artefacts_of,
    assert_same,
    erasure_of_every_kind,
    files_of,
    kept_partition,
    planted,
    state_of,
    summary,
    tiny,
    training_ids,
)

NO_WINDOWS = {"erasure.cancel_window": "0", "erasure.batch_window": "0"}

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
    path = system.engine.store.path("submodel", system.generation.submodels[0])
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
    system.engine.store.path("submodel", system.generation.submodels[shard]).write_bytes(b"damaged")

    assert system.erase(Erasure(nodes=[node])).shards_retrained == (shard,)
    assert system.verify().ok


def test_a_corrupted_aggregator_is_fitted_again_on_opening(bench: Workbench) -> None:
    system = bench.fit(planted(10), {"aggregator.kind": "optimal"})
    before = summary(system)
    system.engine.store.path("aggregator", system.generation.aggregator_key).write_bytes(b"damaged")
    system.close()

    assert_same(summary(bench.open(system.home)), before)


def test_corrupted_posteriors_are_computed_again_by_an_erasure(bench: Workbench) -> None:
    records = planted(10)
    system = bench.fit(records, {"aggregator.kind": "optimal"})
    gone = Erasure(nodes=[training_ids(system)[0]])
    for kind, key in system.generation.artefacts:
        if kind == "posteriors":
            system.engine.store.path(kind, key).write_bytes(b"damaged")

    system.erase(gone)

    survivors = records.without(gone)
    kept = kept_partition(system.partition, survivors)
    fresh = bench.fit(survivors, {"aggregator.kind": "optimal"}, partition=kept)
    assert_same(summary(system), summary(fresh))


def test_another_environment_is_refused_until_everything_is_rebuilt_in_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10))
    before = state_of(system)
    monkeypatch.setattr(shards.recipe, "NUMERICS_VERSION", 10**6)
    gone = Erasure(nodes=[training_ids(system)[0]])

    with pytest.raises(ConfigError, match=r"3 of 3 submodels .* another environment"):
        system.erase(gone)

    assert state_of(system) == before
    assert system.rebuild().retrained == (0, 1, 2)
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
    "after accept": (Batch, "schedule", _always),
    "after schedule": (Batch, "carry_out", _always),
    "before build": (Engine, "build", _always),
    "before store": (Reconciler, "_store_inputs", _always),
    "between registration and bytes": (LocalStore, "stage", _always),
    "between bytes and promotion": (LocalStore, "promote", _always),
    "after store": (Reconciler, "_build", _always),
    "between training and promotion": (LocalStore, "promote", _of_submodels),
    "after train": (Reconciler, "_aggregate", _always),
    "before publish": (Ledger, "publish", _always),
    "after publish, before purge": (Batch, "_purge", _always),
    "after purging began": (Engine, "purge", _always),
    "amid the purge": (LocalStore, "delete", _always),
    "between deletion and the ledger": (Ledger, "unregister", _always),
    "before complete": (Batch, "_complete", _always),
}
PUBLISHED = (
    "after publish, before purge",
    "after purging began",
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
    assert resumed.engine.ledger.requests.counts() == {"completed": 1}
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
    assert system.engine.ledger.requests.counts() == {"completed": 2}
    assert system.erase(failing).request_id


def _interrupted_build(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin what is due, and end while it is built."""
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "build", _raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            system.run()


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def test_a_begun_batch_that_cannot_be_built_again_leaves_the_home_to_be_opened(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, clock = planted(10), Clock()
    system = bench.fit(records, NO_WINDOWS, clock=clock)
    node, other = training_ids(system)[:2]
    request = system.submit(Erasure(nodes=[node]))
    _interrupted_build(system, monkeypatch)
    assert request.state == State.RUNNING
    before = summary(system)
    system.close()

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "build", _raising(ErasureError("no memory")))
        reopened = bench.open(system.home, clock=clock)

    waiting = reopened.request(request.request_id)
    assert (waiting.state, waiting.record.attempts) == (State.ACCEPTED, 1)
    assert waiting.record.not_before is not None and waiting.record.not_before > clock.now
    assert_same(summary(reopened), before)
    assert reopened.predict([other]).generation == 1
    with pytest.raises(GoneError):
        reopened.predict([node])
    assert reopened.run() == []
    clock.forward(hours=1)
    assert len(reopened.run()) == 1
    assert waiting.state == State.COMPLETED
    survivors = records.without(Erasure(nodes=[node]))
    fresh = bench.fit(survivors, partition=kept_partition(reopened.partition, survivors))
    assert_same(summary(reopened), summary(fresh))


def test_a_begun_batch_that_cannot_be_built_again_does_not_keep_others_from_being_done(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    system = bench.fit(planted(10), NO_WINDOWS, clock=clock)
    node, other = training_ids(system)[:2]
    request = system.submit(Erasure(nodes=[node]))
    _interrupted_build(system, monkeypatch)
    check = Batch._check

    def failing(self: Batch, built: Any) -> None:
        if not built.wanted.graph.has_node(node):
            raise ErasureError("no memory")
        check(self, built)

    monkeypatch.setattr(Batch, "_check", failing)

    receipt = system.erase(Erasure(nodes=[other]))

    assert receipt.shards_retrained
    assert (request.state, request.record.attempts) == (State.ACCEPTED, 1)
    assert not system.graph.has_node(node)
    assert system.engine.live.graph.has_node(node)


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

        def tell(self, method: str, job: Any) -> list[Any]:
            return bench.pool.tell(method, job)

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
    assert system.engine.ledger.requests.counts() == {"accepted": 1}
    system.close()

    reopened = bench.open(system.home)
    assert not reopened.graph.has_node(node)
    assert reopened.engine.ledger.requests.counts() == {"completed": 1}


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
    system.engine.store.stage("content", "f" * 64, stray, fence=1)
    system.engine.store.promote("content", ["f" * 64], fence=1)
    system.engine.store.stage("submodel", "e" * 64, stray, fence=1)
    system.close()

    reopened = bench.open(system.home)

    assert files_of(reopened.home).keys() == artefacts_of(reopened)
    assert list((reopened.home / "staging").rglob("*.*")) == []


def test_a_home_whose_marker_names_another_home_is_not_swept(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    system.engine.ledger.unregister([("submodel", system.generation.submodels[0])])
    system.close()
    files = files_of(system.home)
    (system.home / "HOME").write_text("another\n")

    with pytest.raises(HomeError, match="do not belong together"):
        bench.open(system.home)

    assert files_of(system.home) == files


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
