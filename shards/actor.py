"""ShardActor: builds and evaluates submodels for one or many shards.

An ordinary class; pools apply ``ray.remote`` to it or run it in a child process. Its state is a
cache: every method reloads what it needs from the store and may be run twice.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cluster.errors import CorruptArtefactError
from cluster.graph import Graph
from cluster.home import load_graph, load_partition
from cluster.segments import graph_digest
from cluster.store import LocalStore, note_damage
from shards.aggregation import Aggregation
from shards.ball import Ball, ball
from shards.checkpoint import CONTENT, SLICE, SUBMODEL, load_weights, submodel_blob
from shards.confidence import log_odds
from shards.content import ShardContent, build_content
from shards.jobs import (
    AnswerJob,
    AuditJob,
    BuildJob,
    BuildReport,
    EvaluateJob,
    GraphMove,
    LearnJob,
    ReleaseJob,
    ReplayJob,
    ReplayReport,
    RidgeJob,
    RowsJob,
)
from shards.recipe import Recipe, require_profile, submodel_key
from shards.shard_graph import build_index
from shards.slices import slice_keys
from shards.submodels.inputs import ModelInput, ball_input, inference_input
from shards.submodels.layers import Submodel
from shards.submodels.registry import restore_submodel
from shards.submodels.rowwise import row_posteriors
from shards.training import SliceState, posteriors, train, train_slices

Array = npt.NDArray[Any]


MAX_HOMES = 2  # whose graph, submodels and statistics an actor keeps


class ShardActor:
    """Hosts shards: trains, replays and evaluates their submodels."""

    def __init__(self) -> None:
        self._graphs: dict[str, tuple[str, Graph]] = {}  # home -> key and graph
        self._models: dict[str, dict[str, Submodel]] = {}  # home -> key -> hosted submodel
        self._aggregation = Aggregation(self._load)

    def ping(self, job: None = None) -> bool:
        """Answer once the process can train; torch loads its optimisers at the first step."""
        weight = torch.zeros(1, requires_grad=True)
        (weight * weight).sum().backward()  # type: ignore[no-untyped-call]
        torch.optim.Adam([weight], fused=True).step()
        if not self._graphs and not self._models:
            gc.collect()
            gc.freeze()  # modules stay: no later collection looks through them
        return True

    def cpu_seconds(self, job: None = None) -> float:
        """CPU seconds this process has spent so far."""
        return time.process_time()

    def build(self, job: BuildJob) -> BuildReport:
        """Train one shard and stage its checkpoints under the keys the coordinator asked for.

        Training goes on from the last slice whose checkpoint is there; that moves no bit.
        """
        started, cpu_started = time.perf_counter(), time.process_time()
        store = LocalStore(job.home)
        content = ShardContent.from_blob(store.get(CONTENT, job.content_key))
        key = submodel_key(content.digest, job.recipe, job.seed)
        if key != job.submodel_key:
            raise CorruptArtefactError(f"{CONTENT}/{job.content_key}", "is not what its key says")
        reached, state = _last_slice(store, job.slice_keys)
        staged = []

        def keep(number: int, state: SliceState) -> None:
            staged.append(job.slice_keys[number])
            store.stage(SLICE, staged[-1], state.to_blob(), fence=job.fence)

        trained = train_slices(content, job.recipe, job.seed, (reached, state), keep)
        blob = submodel_blob(trained, content, job.recipe, job.seed)
        store.stage(SUBMODEL, key, blob, fence=job.fence)
        return BuildReport(
            job.shard,
            key,
            trained.digest,
            time.perf_counter() - started,
            time.process_time() - cpu_started,
            len(trained.losses) - len(state.losses if state else ()),
            reached,
            tuple(staged),
        )

    def replay(self, job: ReplayJob) -> ReplayReport:
        """Rebuild a content from the graph (never from the stored content) and train it."""
        graph = self._load(job.home, job.graph_key)
        partition = load_partition(LocalStore(job.home), job.partition_key)
        repaired = job.recipe.config.repair != "none"
        index = build_index(graph, partition, has_phantoms=repaired)
        content = build_content(graph, index, job.shard)
        key = submodel_key(content.digest, job.recipe, job.seed)
        if content.is_silent:
            return ReplayReport(job.shard, content.digest, key, None)
        keys, found = slice_keys(content, job.recipe, job.seed), {}

        def keep(number: int, state: SliceState) -> None:
            found[str(keys[number])] = str(state.digest)

        trained = train_slices(content, job.recipe, job.seed, keep=keep)
        return ReplayReport(job.shard, content.digest, key, trained.digest, found)

    def evaluate(self, job: EvaluateJob) -> Array:
        """``[s, N, C]`` float32 posteriors of the submodels on the full current graph."""
        require_profile(job.recipe.profile)
        graph = self._load(job.home, job.graph_key)
        inputs = inference_input(graph, job.recipe.config.device)
        models = self._host(job.home, job.submodel_keys, job.recipe, graph)
        return np.stack([posteriors(model, inputs) for model in models])

    def rows(self, job: RowsJob) -> list[Array]:
        """Per submodel ``[r, C]`` float32 posteriors of the rows wanted of it."""
        require_profile(job.recipe.profile)
        graph, store = self._load(job.home, job.graph_key, job.move), LocalStore(job.home)
        balls: dict[bytes, tuple[Ball, ModelInput]] = {}
        answers = []
        for key, rows in zip(job.submodel_keys, job.wanted, strict=True):
            name = rows.tobytes()
            if name not in balls:
                around = ball(graph, rows, job.hops)
                balls[name] = around, ball_input(around, "cpu")
            around, inputs = balls[name]
            weights = load_weights(store, key)
            answers.append(row_posteriors(weights, job.recipe.config, inputs)[around.targets])
        return answers

    def audit(self, job: AuditJob) -> Array:
        """``[q]`` float64 log odds of the true labels; a submodel trained for it is let go."""
        require_profile(job.recipe.profile)
        weights = job.weights
        if weights is None:
            assert job.content is not None  # a job brings either
            weights = train(job.content, job.recipe, job.seed).weights
        return log_odds(weights, job.recipe.config, job.questions)

    def fit_ridge(self, job: RidgeJob) -> dict[str, Array]:
        """See :meth:`shards.aggregation.Aggregation.fit_ridge`."""
        require_profile(job.recipe.profile)
        return self._aggregation.fit_ridge(job)

    def learn(self, job: LearnJob) -> dict[str, Array]:
        """See :meth:`shards.aggregation.Aggregation.learn`."""
        require_profile(job.ridge.recipe.profile)
        return self._aggregation.learn(job)

    def cross_fit(self, job: LearnJob) -> Array:
        """See :meth:`shards.aggregation.Aggregation.cross_fit`."""
        require_profile(job.ridge.recipe.profile)
        return self._aggregation.cross_fit(job)

    def answer(self, job: AnswerJob) -> Array:
        """See :meth:`shards.aggregation.Aggregation.answer`."""
        require_profile(job.learn.ridge.recipe.profile)
        return self._aggregation.answer(job)

    def release(self, job: ReleaseJob) -> bool:
        """Let go of superseded rows and weights; answering is the acknowledgement.

        Files are read whole and never mapped, so nothing of a superseded file stays open.
        """
        if job.home is None:
            for home in {*self._graphs, *self._models}:
                self._forget(home)
            gc.collect()
            return True
        held = self._graphs.get(job.home)
        if held is None or held[0] != job.graph_key:
            self._forget(job.home)
        self._aggregation.keep(job.home, job.graph_key)
        models = self._models.pop(job.home, {})
        kept = {k: m for k, m in models.items() if k in job.submodel_keys}
        if kept:
            self._models[job.home] = kept
        if len(kept) < len(models) or held is not None:
            gc.collect()  # rows may hang in a cycle
        return True

    def call(self, job: tuple[str, tuple[Any, ...]]) -> Any:
        """Run a pure function, named as ``module:function``, under this process's numerics."""
        name, arguments = job
        module, _, function = name.partition(":")
        target: Callable[..., Any] = getattr(import_module(module), function)
        return target(*arguments)

    def _load(self, home: str, graph_key: str, move: GraphMove | None = None) -> Graph:
        """The graph; only the latest of a home is kept, so erased rows leave with the next.

        Args:
            home: folder of the system.
            graph_key: the graph wanted.
            move: how it came from another; if that one is held, nothing is read. What comes out is
                used only under its own digest.
        """
        held = self._graphs.pop(home, None)
        for other in list(self._graphs)[: 1 - MAX_HOMES]:  # the ones not used for longest
            self._forget(other)
        if held is None or held[0] != graph_key:
            graph = None
            if held is not None and move is not None and held[0] == move.previous_key:
                graph = held[1].without(move.located)
            if graph is None or graph_digest(graph) != graph_key:
                graph = load_graph(LocalStore(home), graph_key)
            held = graph_key, graph
        self._graphs[home] = held
        return held[1]

    def _forget(self, home: str) -> None:
        """Let go of everything that was read from a home."""
        self._graphs.pop(home, None)
        self._models.pop(home, None)
        self._aggregation.forget(home)

    def _host(
        self, home: str, keys: tuple[str, ...], recipe: Recipe, graph: Graph
    ) -> list[Submodel]:
        """The submodels of a job; those of the last job that are not in this one leave."""
        held, store = self._models.get(home, {}), LocalStore(home)
        self._models[home] = {
            key: held.get(key)
            or restore_submodel(recipe.config, graph.schema, load_weights(store, key))
            for key in keys
        }
        return [self._models[home][key] for key in keys]


def _last_slice(store: LocalStore, keys: Mapping[int, str]) -> tuple[int, SliceState | None]:
    """Number and state of the last slice whose checkpoint is there and whole."""
    for number in sorted(keys, reverse=True):
        if not store.has(SLICE, keys[number]):
            continue
        try:
            return number, SliceState.from_blob(store.get(SLICE, keys[number]))
        except CorruptArtefactError as error:
            note_damage(error)
    return 0, None
