"""Slices in a home: what an erasure reuses, what is purged, and what damage costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cluster.store import Blob, LocalStore
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.reconcile import Reconciler
from coordinator.system import System
from shards.content import build_content
from shards.jobs import BuildReport
from tests.coordinator.systems import (
    Records,
    Workbench,
    artefacts_of,
    assert_same,
    files_of,
    kept_partition,
    overwrite,
    planted,
    summary,
    training_ids,
)

SLICES = 3
SLICED = {"shards.slices": SLICES, "shards.training_epochs": 6}


class RecordingPool:
    """A pool that keeps the reports of builds."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self.builds = pool, list[BuildReport]()
        self.size = pool.size

    def map(self, method: str, jobs: Sequence[Any], progress: Any = None) -> list[Any]:
        results = self._pool.map(method, jobs, progress)
        if method == "build":
            self.builds = results
        return results

    def tell(self, method: str, job: Any) -> list[Any]:
        return self._pool.tell(method, job)

    def cpu_seconds(self) -> float:
        return self._pool.cpu_seconds()

    def close(self) -> None:
        raise AssertionError("a shared pool is not closed by a System")


@pytest.fixture
def records() -> Records:
    return planted(20, num_nodes=90)


def slices_of(system: System) -> dict[int, int]:
    """Training id -> its slice."""
    owner, found = system.partition.owners(system.graph), {}
    for shard in range(system.partition.num_shards):
        content = build_content(system.graph, owner, shard)
        numbers = content.slice_numbers(SLICES).tolist()
        found |= dict(zip(content.ids.tolist(), numbers, strict=True))
    return found


def node_of_slice(system: System, number: int) -> int:
    return next(i for i, s in slices_of(system).items() if s == number)


def scratch(bench: Workbench, system: System, records: Records, *gone: Erasure) -> dict[str, Any]:
    survivors = records.without(*gone)
    return summary(
        bench.fit(survivors, SLICED, partition=kept_partition(system.partition, survivors))
    )


def _slice_files(system: System) -> set[str]:
    return {path for path in files_of(system.home) if path.startswith("slice/")}


@pytest.mark.parametrize("number", range(1, SLICES + 1))
def test_an_erasure_restarts_at_the_slice_it_hits_and_ends_in_the_bits_of_a_fit_without_it(
    number: int, bench: Workbench, records: Records
) -> None:
    pool = RecordingPool(bench.pool)
    system = bench.fit(records, SLICED, pool=pool)
    assert [report.slices_reused for report in pool.builds] == [0, 0, 0]
    erasure = Erasure(nodes=[node_of_slice(system, number)])

    system.erase(erasure)

    (report,) = pool.builds
    assert report.slices_reused == number - 1
    assert report.training_epochs == 3 * (SLICES - number + 1)  # 2 * 6 / (3 + 1) a slice
    assert_same(summary(system), scratch(bench, system, records, erasure))
    assert system.verify(replay="all").ok


def test_a_batch_restarts_at_the_earliest_slice_it_hits(bench: Workbench, records: Records) -> None:
    pool = RecordingPool(bench.pool)
    system = bench.fit(records, SLICED, pool=pool)
    shard = system.partition.assignment
    late = [i for i, s in slices_of(system).items() if s > 1 and shard[i] == 0]
    earliest = min(slices_of(system)[i] for i in late)
    assert {slices_of(system)[i] for i in late} == {2, 3}

    system.erase(Erasure(nodes=late[:4], labels=late[4:]))

    assert [report.slices_reused for report in pool.builds] == [earliest - 1]


def test_the_home_holds_the_slices_of_the_published_generation_and_no_others(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records, SLICED)
    before = _slice_files(system)
    assert len(before) == 3 * (SLICES - 1)
    node = node_of_slice(system, 1)
    shard = system.partition.assignment[node]
    superseded = {f"slice/{key}" for key in system.generation.shards[shard].slice_keys}

    system.erase(Erasure(nodes=[node]))

    after = _slice_files(system)
    assert before - after == superseded
    assert len(after) == len(before)
    assert files_of(system.home).keys() == artefacts_of(system)
    assert system.engine.ledger.registered() == set(system.generation.artefacts)


def test_slices_survive_a_restart(bench: Workbench, records: Records) -> None:
    system = bench.fit(records, SLICED)
    node, before = node_of_slice(system, 3), system.generation
    system.close()

    pool = RecordingPool(bench.pool)
    again = System.open(system.home, pool=pool)
    assert again.generation == before
    again.erase(Erasure(nodes=[node]))
    again.close()

    assert [report.slices_reused for report in pool.builds] == [2]


def _delete(system: System, key: str) -> None:
    system.engine.store.delete("slice", key, fence=system.engine.ledger.lease.fence)


def _damage(system: System, key: str) -> None:
    system.engine.store.path("slice", key).write_bytes(b"damaged")


@pytest.mark.parametrize("harm", [_delete, _damage])
def test_a_lost_slice_costs_time_and_no_bit(
    harm: Callable[[System, str], None], bench: Workbench, records: Records
) -> None:
    pool = RecordingPool(bench.pool)
    system = bench.fit(records, SLICED, pool=pool)
    for entry in system.generation.shards.values():
        harm(system, entry.slice_keys[1])
    erasure = Erasure(nodes=[node_of_slice(system, 3)])

    system.erase(erasure)

    assert [report.slices_reused for report in pool.builds] == [1]
    assert_same(summary(system), scratch(bench, system, records, erasure))


def test_a_damaged_slice_is_named_by_verification_and_removed_by_repair(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records, SLICED)
    before, key = summary(system), system.generation.shards[1].slice_keys[0]
    _damage(system, key)

    failed = {check.name: check.detail for check in system.verify().checks if not check.ok}

    assert set(failed) == {"slices"}
    assert "shard 1" in failed["slices"]
    assert system.verify(replay="all", repair=True).ok
    assert not system.engine.store.has("slice", key)
    assert_same(summary(system), before)


def test_replay_finds_a_slice_that_its_content_does_not_give(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records, SLICED)
    key = system.generation.shards[1].slice_keys[0]
    blob = system.engine.store.get("slice", key)
    forged = {name: array + 1 for name, array in blob.tensors.items()}
    overwrite(system, "slice", key, Blob(forged, blob.meta))

    report = system.verify(replay="all")

    assert [check.name for check in report.checks if not check.ok] == ["replay"]


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("owner", "method", "at", "reused"),
    [
        (LocalStore, "promote", "slice", [1]),
        (LocalStore, "promote", "submodel", [2]),  # slice 2 is promoted, slice 3 is left to train
        (Reconciler, "_aggregate", None, []),
    ],
    ids=["before the slices are promoted", "before the submodels are", "after both"],
)
def test_an_erasure_that_is_killed_goes_on_from_the_slices_that_are_there(
    owner: Any,
    method: str,
    at: str | None,
    reused: list[int],
    bench: Workbench,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = bench.fit(records, SLICED)
    erasure = Erasure(nodes=[node_of_slice(system, 2)])
    original = getattr(owner, method)

    def kill(self: Any, *args: Any, **options: Any) -> Any:
        if at is None or args[0] == at:
            raise KilledError
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, kill)
        with pytest.raises(KilledError):
            system.erase(erasure)
    system.close()
    pool = RecordingPool(bench.pool)
    resumed = System.open(system.home, pool=pool)

    assert [report.slices_reused for report in pool.builds] == reused
    assert files_of(resumed.home).keys() == artefacts_of(resumed)
    found = summary(resumed)
    resumed.close()
    assert_same(found, scratch(bench, system, records, erasure))


def test_the_estimate_of_a_plan_stays_that_of_a_training_from_fresh_weights(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records, SLICED)
    before = dict(system.generation.costs)

    system.erase(Erasure(nodes=[node_of_slice(system, 3)]))

    assert system.generation.costs == before


def test_a_silent_shard_has_no_slices(bench: Workbench, records: Records) -> None:
    system = bench.fit(records, SLICED)
    shard = system.partition.assignment
    labels = [i for i in training_ids(system) if shard[i] == 0 and i in records.labels]

    system.erase(Erasure(labels=labels))

    entry = system.generation.shards[0]
    assert (entry.weights_digest, entry.slice_keys) == (None, ())
    assert system.verify(replay="all").ok
    assert files_of(system.home).keys() == artefacts_of(system)
