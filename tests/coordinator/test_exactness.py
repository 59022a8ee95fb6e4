"""Forgetting equals never having known: keys and bits, against an independent process."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from cluster.digest import tensors_digest
from cluster.errors import CorruptArtefactError
from cluster.home import graph_blobs
from cluster.store import Blob
from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.results import Receipt
from coordinator.system import System
from shards.submodels.table import SUBMODELS
from tests.coordinator.reference import Case, fit_elsewhere
from tests.coordinator.systems import (
    Workbench,
    artefacts_of,
    assert_same,
    erasure_of_every_kind,
    files_of,
    forge,
    kept_partition,
    keys_of,
    moved,
    overwrite,
    planted,
    random_erasures,
    summary,
    training_ids,
)

KINDS = (
    "node",
    "edge inside a shard",
    "edge across shards",
    "one feature",
    "all features",
    "label",
    "several kinds",
)
LOUVAIN, HASH = {"partition.method": "louvain"}, {"partition.method": "hash"}
REDERIVED = {**LOUVAIN, "partition.guarantee": "rederived"}
OPTIMAL = {"aggregator.kind": "optimal"}
SIMILARITY = {"aggregator.kind": "similarity"}


def _halo(**fields: Any) -> dict[str, Any]:
    return {f"partition.halo.{name}": value for name, value in fields.items()}


SETTINGS: dict[str, dict[str, Any]] = {
    f"frozen {backend} {model}": {**LOUVAIN, "shards.backend": backend, "shards.model": model}
    for backend, model in sorted(SUBMODELS)
} | {
    "frozen sliced gcn": {**LOUVAIN, "shards.slices": 3},
    "frozen sliced gin": {**LOUVAIN, "shards.slices": 3, "shards.model": "gin"},
    "frozen optimal": {**LOUVAIN, **OPTIMAL},
    "frozen similarity": {**LOUVAIN, **SIMILARITY},
    "oblivious gate": HASH,
    "oblivious similarity": {**HASH, **SIMILARITY},
    "oblivious optimal": {**HASH, **OPTIMAL},
    "rederived gate": REDERIVED,
    "rederived optimal": {**REDERIVED, **OPTIMAL},
    "frozen halo": {**LOUVAIN, **_halo(hops=1, budget=None)},
    "frozen halo ranked": {
        **LOUVAIN,
        **_halo(hops=2, budget=0.5, arcs="ranked", max_cost=2.0),
        **OPTIMAL,
    },
    "frozen halo with labels": {**LOUVAIN, **_halo(arcs="clique", budget=None, labels=True)},
    "oblivious halo": {**HASH, **_halo(hops=2, budget=0.5)},
    "rederived halo": {**REDERIVED, **_halo(hops=1, budget=0.5, arcs="clique")},
}
OWNERS_ONLY = [n for n in SETTINGS if not n.startswith("rederived") and "halo" not in n]


class Erased(NamedTuple):
    """One system after one erasure."""

    receipt: Receipt
    keys_before: dict[int, str]
    owners: set[int]
    summary: dict[str, Any]


class Comparison(NamedTuple):
    """What erasing gave here, and what never having had the records gave elsewhere."""

    here: dict[tuple[str, str], Erased]
    elsewhere: dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def comparison(pool: InlinePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    folder, records = tmp_path_factory.mktemp("exactness"), planted(0)
    bench = Workbench(pool, folder)
    here, cases = {}, {}
    for name, overrides in SETTINGS.items():
        fitted = bench.fit(records, overrides)
        fitted.close()
        for kind, erasure in erasure_of_every_kind(fitted, records).items():
            copy = folder / f"{name} {kind}"
            shutil.copytree(fitted.home, copy)
            survivors = records.without(erasure)
            here[name, kind] = _erase(bench.open(copy), erasure)
            frozen = fitted.partition.guarantee == "frozen"
            kept = kept_partition(fitted.partition, survivors) if frozen else None
            cases[name, kind] = Case(survivors, overrides, kept)
    yield Comparison(here, fit_elsewhere(cases, folder))
    bench.close()


def _erase(system: System, erasure: Erasure) -> Erased:
    before, shard = keys_of(system), system.partition.assignment
    named = {*erasure.nodes, *erasure.features, *erasure.labels}
    owners = {shard[i] for i in named if i in shard}
    owners |= {shard[u] for u, v in erasure.edges if shard[u] == shard[v]}
    receipt = system.erase(erasure)
    erased = Erased(receipt, before, owners, summary(system))
    system.close()
    return erased


# ---- against an independent process


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_weights_after_an_erasure_equal_those_of_a_system_that_never_had_the_data(
    name: str, kind: str, comparison: Comparison
) -> None:
    assert_same(comparison.here[name, kind].summary, comparison.elsewhere[name, kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OWNERS_ONLY)
def test_the_shards_that_own_the_erased_records_and_no_others_are_retrained(
    name: str, kind: str, comparison: Comparison
) -> None:
    erased = comparison.here[name, kind]
    after = {shard: entry[0] for shard, entry in erased.summary["shards"].items()}

    assert set(erased.receipt.shards_retrained) == erased.owners
    assert moved(erased.keys_before, after) == erased.owners


@pytest.mark.slow
def test_every_erasure_kind_moves_the_generation_to_a_key_of_its_own(
    comparison: Comparison,
) -> None:
    for name in SETTINGS:
        assert len({comparison.here[name, kind].summary["key"] for kind in KINDS}) == len(KINDS)


# ---- untouched shards


def test_untouched_shards_keep_their_keys_and_files_and_old_files_go(bench: Workbench) -> None:
    records = planted(1)
    system = bench.fit(records)
    entries, files = dict(system.generation.shards), files_of(system.home)

    receipt = system.erase(Erasure(nodes=[training_ids(system)[0]]))

    after = files_of(system.home)
    (touched,) = receipt.shards_retrained
    for shard, entry in entries.items():
        own = {f"submodel/{entry.key}", f"content/{entry.content_digest}"}
        if shard == touched:
            assert not own & after.keys()
        else:
            assert system.generation.shards[shard] == entry
            assert {path: after[path] for path in own} == {path: files[path] for path in own}
    assert after.keys() == artefacts_of(system)


# ---- many requests


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [{**LOUVAIN, **OPTIMAL}, HASH, REDERIVED],
    ids=["frozen optimal", "oblivious", "rederived"],
)
def test_many_requests_in_any_order_and_grouping_end_in_the_keys_of_the_surviving_graph(
    overrides: dict[str, Any], bench: Workbench
) -> None:
    overrides = {**overrides, "partition.num_shards": 4, "shards.training_epochs": 3}
    records = planted(2, num_nodes=120)
    requests = random_erasures(records, 50, seed=3)
    one_by_one, batched = bench.fit(records, overrides), bench.fit(records, overrides)
    partition = one_by_one.partition

    for request in requests:
        one_by_one.erase(request)
    for group in _random_groups(requests):
        batched.erase(group)

    survivors = records.without(*requests)
    kept = kept_partition(partition, survivors) if partition.guarantee == "frozen" else None
    direct = bench.fit(survivors, overrides, partition=kept)
    assert one_by_one.generation.key == batched.generation.key == direct.generation.key
    assert_same(summary(one_by_one), summary(direct))
    assert_same(summary(batched), summary(direct))
    assert one_by_one.verify().ok


def _random_groups(requests: list[Erasure]) -> list[list[Erasure]]:
    order = random.Random(4)
    shuffled = order.sample(requests, len(requests))
    groups = []
    while shuffled:
        size = order.randint(1, 9)
        groups.append(shuffled[:size])
        shuffled = shuffled[size:]
    return groups


# ---- verification


def _failed(system: System, **options: Any) -> set[str]:
    return {check.name for check in system.verify(**options).checks if not check.ok}


@pytest.mark.parametrize("kind", ["gate", "optimal", "similarity"])
def test_replay_of_every_shard_confirms_what_is_published(kind: str, bench: Workbench) -> None:
    records = planted(5)
    system = bench.fit(records, {"aggregator.kind": kind})
    system.erase(erasure_of_every_kind(system, records)["several kinds"])

    report = system.verify(replay="all")

    assert report.ok
    assert report.replayed == (0, 1, 2)
    assert {check.name for check in report.checks} > {"weights", "replay", "aggregator"}


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_replay_reads_the_graph_and_never_a_stored_content(damage: str, bench: Workbench) -> None:
    system = bench.fit(planted(5))
    for entry in system.generation.shards.values():
        path = system.engine.store.path("content", entry.content_digest)
        path.unlink() if damage == "deleted" else path.write_bytes(b"no content")

    report = system.verify(replay="all")

    assert report.ok


def _flip_a_byte(system: System, key: str) -> None:
    path = system.engine.store.path("submodel", key)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def _delete(system: System, key: str) -> None:
    system.engine.store.path("submodel", key).unlink()


def _other_weights(system: System, key: str) -> Blob:
    blob = system.engine.store.get("submodel", key)
    return Blob({name: array + 1 for name, array in blob.tensors.items()}, blob.meta)


def _rewrite(system: System, key: str) -> None:
    overwrite(system, "submodel", key, _other_weights(system, key))


def _forge(system: System, key: str) -> None:
    """Other weights under a manifest that names them."""
    blob = _other_weights(system, key)
    meta = {**blob.meta, "weights_digest": tensors_digest(blob.tensors)}
    overwrite(system, "submodel", key, Blob(blob.tensors, meta))


@pytest.mark.parametrize("tamper", [_flip_a_byte, _delete, _rewrite, _forge])
def test_changed_weights_are_found_and_repaired(
    tamper: Callable[[System, str], None], bench: Workbench
) -> None:
    system = bench.fit(planted(5))
    before = summary(system)
    tamper(system, system.generation.submodels[1])

    assert _failed(system) == {"weights"}
    assert system.verify(repair=True).ok
    assert_same(summary(system), before)


@pytest.mark.parametrize("kind", ["content", "segment", "aggregator", "posteriors", "partition"])
def test_repair_makes_any_damaged_artefact_of_an_open_system_again(
    kind: str, bench: Workbench
) -> None:
    system = bench.fit(planted(5), OPTIMAL)
    before = summary(system)
    key = next(key for k, key in system.generation.artefacts if k == kind)
    system.engine.store.path(kind, key).write_bytes(b"damaged")
    _delete(system, system.generation.submodels[0])

    assert system.verify(repair=True).ok
    assert_same(summary(system), before)
    system.engine.store.get(kind, key)


def test_a_changed_segment_fails_verification_and_opening_by_name(bench: Workbench) -> None:
    system = bench.fit(planted(5))
    key = next(key for kind, key in system.generation.artefacts if kind == "segment")
    blob = system.engine.store.get("segment", key)
    system.engine.store.path("segment", key).write_bytes(b"damaged")

    report = system.verify(replay="all")

    failed = {check.name: check.detail for check in report.checks if not check.ok}
    assert {"graph", "contents and keys", "replay"} <= failed.keys()
    assert key in failed["graph"]
    system.close()
    with pytest.raises(CorruptArtefactError, match=key):
        bench.open(system.home)
    system.engine.store.stage("segment", key, blob, fence=0)
    system.engine.store.promote("segment", [key], fence=0)
    assert bench.open(system.home).verify().ok


def test_the_source_graph_restores_a_damaged_segment_without_what_was_erased(
    bench: Workbench,
) -> None:
    source = planted(5).graph()
    system = bench.fit(source)
    system.erase(Erasure(nodes=[system.partition.ids.tolist()[0]]))
    before = system.generation.key
    for kind, key in system.generation.artefacts:
        if kind == "segment":
            system.engine.store.path("segment", key).write_bytes(b"damaged")
    system.close()

    again = bench.open(system.home, graph=source)

    assert again.generation.key == before
    assert again.graph.num_nodes == source.num_nodes - 1
    assert again.verify("all").ok


def test_a_segment_with_other_records_under_its_key_fails_verification(bench: Workbench) -> None:
    system = bench.fit(planted(5))
    key = next(key for kind, key in system.generation.artefacts if kind == "segment")
    blob = system.engine.store.get("segment", key)
    overwrite(system, "segment", key, Blob({**blob.tensors, "x": blob.tensors["x"] + 1}))

    assert {"graph", "contents and keys"} <= _failed(system)


@pytest.mark.parametrize(
    "kind", ["node", "edge across shards", "one feature", "all features", "label"]
)
def test_an_erased_record_that_is_rolled_back_into_the_stored_graph_is_found(
    kind: str, bench: Workbench
) -> None:
    records = planted(5)
    system = bench.fit(records)
    original, old_key = system.graph, system.generation.graph_key
    system.erase(erasure_of_every_kind(system, records)[kind])
    assert _failed(system) == set()

    for (name, key), blob in graph_blobs(original, set()).items():
        overwrite(system, name, key, blob)
    forge(system, generation=replace(system.generation, graph_key=old_key))

    assert "erased records absent" in _failed(system)
    assert "graph" not in _failed(system)


def test_replay_finds_weights_that_their_content_and_recipe_do_not_give(
    bench: Workbench,
) -> None:
    system = bench.fit(planted(5))
    entry = system.generation.shards[2]
    _forge(system, entry.key)
    forged = system.engine.store.get("submodel", entry.key).meta["weights_digest"]
    shards = {**system.generation.shards, 2: entry._replace(weights_digest=forged)}
    forge(system, generation=replace(system.generation, shards=shards))

    assert _failed(system) == set()
    assert _failed(system, replay=[2]) == {"replay"}


def test_aggregator_parameters_that_its_inputs_do_not_give_are_found(bench: Workbench) -> None:
    system = bench.fit(planted(5), OPTIMAL)
    forged = {"weights": np.asarray([1.0, 0.0, 0.0])}
    forge(system, aggregator=replace(system.engine.live.aggregator, tensors=forged))

    assert _failed(system, replay=[]) == {"aggregator"}
