"""Verification: re-derive every key from what is stored; replay shards in a fresh process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from cluster.digest import tensors_digest
from cluster.errors import ConfigError, CorruptArtefactError, UnweaveError
from cluster.graph import Graph
from cluster.home import load_graph, load_partition
from cluster.partition import Partition
from cluster.segments import graph_digest
from coordinator.aggregators import find_aggregator
from coordinator.aggregators.base import AggregatorState
from coordinator.pools.inline import FreshPool
from coordinator.results import Check, Report
from coordinator.tombstones import without_erased
from shards.checkpoint import SLICE, load_weights
from shards.content import build_content
from shards.jobs import ReplayJob
from shards.recipe import Recipe, choose_profile, submodel_key, submodel_seed
from shards.shard_graph import build_index
from shards.slices import slice_keys

if TYPE_CHECKING:
    from coordinator.engine import Engine


def verify_home(engine: Engine, replay: Literal["all"] | Sequence[int] | None) -> Report:
    """See :meth:`coordinator.engine.System.verify`."""
    checks: list[Check] = []

    def check(name: str, test: Callable[[], str]) -> None:
        """Run one test; it returns what is wrong, or nothing."""
        try:
            problem = test()
        except UnweaveError as error:
            problem = str(error)
        checks.append(Check(name, not problem, problem))

    check("graph", lambda: _graph(engine))
    check("partition", lambda: _partition(engine))
    check("erased records absent", lambda: _absent(engine))
    check("contents and keys", lambda: _contents(engine))
    check("weights", lambda: _weights(engine))
    check("slices", lambda: _slices(engine))
    shards = _shards(engine, replay)
    if replay is not None:
        pool = FreshPool(engine.recipe.profile)
        try:
            check("replay", lambda: _replay(engine, pool, shards))
            check("aggregator", lambda: _aggregator(engine, pool))
        finally:
            pool.close()
    return Report(tuple(checks), shards)


def _shards(engine: Engine, replay: Literal["all"] | Sequence[int] | None) -> tuple[int, ...]:
    if replay is None:
        return ()
    known = sorted(engine.live.generation.shards)
    if replay == "all":
        return tuple(known)
    unknown = [shard for shard in replay if shard not in known]
    if unknown:
        raise ConfigError(f"no shards {unknown}; this system has 0 to {known[-1]}")
    return tuple(int(shard) for shard in replay)


def _stored(engine: Engine) -> tuple[Graph, Partition]:
    store, generation = engine.store, engine.live.generation
    return load_graph(store, generation.graph_key), load_partition(store, generation.partition_key)


def _graph(engine: Engine) -> str:
    graph, _ = _stored(engine)
    return (
        ""
        if graph_digest(graph) == engine.live.generation.graph_key
        else "records do not match key"
    )


def _partition(engine: Engine) -> str:
    _, partition = _stored(engine)
    same = partition.key == engine.live.generation.partition_key
    return "" if same else "assignment does not match key"


def _absent(engine: Engine) -> str:
    graph, _ = _stored(engine)
    filtered = without_erased(engine.ledger, graph)
    return "" if graph_digest(filtered) == graph_digest(graph) else "an erased record is back"


def _contents(engine: Engine) -> str:
    """Rebuild every content from the stored graph and derive its key again."""
    graph, partition = _stored(engine)
    repaired = engine.config.shards.repair != "none"
    index = build_index(graph, partition, has_phantoms=repaired)
    wrong = []
    for shard, entry in engine.live.generation.shards.items():
        content = build_content(graph, index, shard)
        seed = submodel_seed(engine.config.seed, partition.names[shard])
        key = submodel_key(content.digest, engine.recipe, seed)
        slices = tuple(slice_keys(content, engine.recipe, seed).values())
        silent = entry.weights_digest is None
        found = (content.digest, key, slices, content.is_silent)
        if found != (entry.content_digest, entry.key, entry.slice_keys, silent):
            wrong.append(shard)
    return f"shards {wrong} do not match their keys" if wrong else ""


def _weights(engine: Engine) -> str:
    wrong = []
    for shard, entry in engine.live.generation.shards.items():
        if entry.weights_digest is None:
            continue
        try:
            weights = load_weights(engine.store, entry.key)
        except CorruptArtefactError as error:
            wrong.append(f"shard {shard}: {error.reason}")
            continue
        if tensors_digest(weights) != entry.weights_digest:
            wrong.append(f"shard {shard}: weights differ from the published digest")
    return "; ".join(wrong) + "; run with repair to rebuild them" if wrong else ""


def _slices(engine: Engine) -> str:
    """A slice checkpoint may be missing, which costs time only; a damaged one is named."""
    wrong = []
    for shard, entry in engine.live.generation.shards.items():
        try:
            for key in entry.slice_keys:
                if engine.store.has(SLICE, key):
                    engine.store.get(SLICE, key)
        except CorruptArtefactError as error:
            wrong.append(f"shard {shard}: {error.reason}")
    return "; ".join(wrong) + "; run with repair to remove them" if wrong else ""


def _replay(engine: Engine, pool: FreshPool, shards: Sequence[int]) -> str:
    generation = engine.live.generation
    jobs = [
        ReplayJob(
            str(engine.home),
            generation.graph_key,
            generation.partition_key,
            shard,
            engine.recipe,
            submodel_seed(engine.config.seed, engine.live.partition.names[shard]),
        )
        for shard in shards
    ]
    wrong = []
    for report in pool.map("replay", jobs, engine.stage("replaying")):
        entry = generation.shards[report.shard]
        found = (report.submodel_key, report.content_digest, report.weights_digest)
        if found != (entry.key, entry.content_digest, entry.weights_digest):
            wrong.append(report.shard)
            continue
        wrong += [report.shard] if _other_slices(engine, report.slice_digests) else []
    return f"shards {wrong} came out differently" if wrong else ""


def _other_slices(engine: Engine, digests: Mapping[str, str]) -> bool:
    """Whether a stored slice checkpoint is not the state that the replay reached there."""
    stored = [key for key in digests if engine.store.has(SLICE, key)]
    return any(
        tensors_digest(engine.store.get(SLICE, key).tensors) != digests[key] for key in stored
    )


def _aggregator(engine: Engine, pool: FreshPool) -> str:
    """Fit the aggregator again from nothing, in the fresh process."""
    graph, partition = _stored(engine)
    context = engine.fit_context(graph, partition, pool)
    state: AggregatorState = find_aggregator(engine.config.aggregator.kind).fit(context)
    if state.key != engine.live.generation.aggregator_key:
        return "its inputs do not match its key"
    same = tensors_digest(state.tensors) == tensors_digest(engine.live.aggregator.tensors)
    return "" if same else "its parameters came out differently"


def environment_changed(engine: Engine) -> list[int]:
    """Shards whose published submodel has another recipe than this environment gives."""
    recipe = Recipe(engine.config.shards, choose_profile(engine.config.shards))
    changed = []
    for shard, key in engine.live.generation.submodels.items():
        content_digest = engine.live.generation.shards[shard].content_digest
        seed = submodel_seed(engine.config.seed, engine.live.partition.names[shard])
        if key != submodel_key(content_digest, recipe, seed):
            changed.append(shard)
    return changed
