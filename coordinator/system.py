"""System: the Python API. Fit, predict, plan, erase, verify; open again another day."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from cluster.digest import Digest, NodeId
from cluster.errors import (
    ConfigError,
    CorruptArtefactError,
    GraphError,
    HomeError,
    StalePlanError,
    UnknownIdError,
)
from cluster.graph import TEST, TRAIN, UNLABELLED, VAL, Graph
from cluster.halo_choice import retained
from cluster.home import GRAPH, SEGMENT, load_graph, load_partition
from cluster.partition import Partition
from cluster.partitioners import check_room, make_partition
from cluster.segments import graph_digest
from cluster.store import LocalStore
from coordinator.aggregators import find_aggregator
from coordinator.aggregators.base import AGGREGATOR, AggregatorState, FitContext
from coordinator.answering import Answering
from coordinator.config import Config, load_config, retained_choice
from coordinator.erasure import Erasure, present_part
from coordinator.generation import Generation
from coordinator.ledger import Ledger
from coordinator.planner import forecast, make_plan
from coordinator.pools import Pool, open_pool
from coordinator.preflight import check_config, fit_partition, home_path, require_labels
from coordinator.reconcile import Outcome, Progress, Reconciler, Wanted, purge
from coordinator.results import Plan, Predictions, Receipt, Report
from coordinator.stopwatch import Stopwatch
from coordinator.tombstones import marks_of, split_erased, without_erased
from shards.checkpoint import load_weights
from shards.recipe import Recipe, choose_profile
from shards.shard_graph import ReaderIndex, build_index

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
ROLES = {"train": TRAIN, "val": VAL, "test": TEST}


class System:
    """A trained, sharded system in one home; made by :meth:`fit` or :meth:`open`."""

    def __init__(self, home: Path, config: Config, pool: str | Pool, progress: Progress) -> None:
        self.home = home
        self.config = config
        self._progress = progress
        self._pool_choice, self._pool = pool, None if isinstance(pool, str) else pool
        self._store = LocalStore(home)
        self._ledger = Ledger(config.storage.database or "ledger.db", home=home)
        try:
            self._ledger.acquire()
        except BaseException:
            self._ledger.close()
            raise
        self._graph: Graph
        self._partition: Partition
        self._generation: Generation
        self._aggregator: AggregatorState
        self._recipe: Recipe
        self._index: ReaderIndex | None = None
        self._answering: Answering | None = None

    # ---- making one

    @classmethod
    def fit(
        cls,
        graph: Graph,
        config: Any = None,
        home: str | Path | None = None,
        *,
        pool: str | Pool = "ray",
        partition: Partition | None = None,
        progress: Progress | None = None,
    ) -> System:
        """Partition, train every shard, fit the aggregator, publish.

        Args:
            graph: the graph to learn.
            config: path to YAML, preset name, mapping, Config, or None for the defaults.
            home: folder of the system; overrides ``storage.home``.
            pool: ``"ray"``, ``"inline"``, or a running Pool to share.
            partition: an assignment to use instead of making one; it gets the configured halo
                unless it brings its own.
            progress: called with (stage, done, total).

        Raises:
            HomeError: the home holds a system already, or belongs to another graph.
            ConfigError: the configuration does not fit itself, the graph or the partition.
            GraphError: no training node has a label.
        """
        settings = load_config(config)
        check_config(settings, partition)
        require_labels(graph, settings)
        if partition is None:
            check_room(graph, settings.partition, settings.roles)
        else:
            partition = fit_partition(graph, partition, settings)
        path = home_path(home, settings)
        path.mkdir(parents=True, exist_ok=True)
        system = cls(path, settings, pool, progress or _silent)
        try:
            system._begin(graph, partition)
        except BaseException:
            system.close()
            raise
        return system

    @classmethod
    def open(
        cls,
        home: str | Path,
        *,
        graph: Graph | None = None,
        pool: str | Pool = "ray",
        progress: Progress | None = None,
    ) -> System:
        """Open a fitted system; requests that were accepted and not finished are finished first.

        Args:
            home: folder of the system.
            graph: the source again, to check that the home belongs to it, and to restore stored
                records that are damaged; what was erased here is filtered out of it before anything
                else.
            pool: as in :meth:`fit`; actors start when they are first needed.
            progress: called with (stage, done, total).

        Raises:
            HomeError: there is no system in this folder, or it belongs to another graph.
        """
        path = Path(home)
        config_file = path / "config.yaml"
        if not config_file.exists():
            raise HomeError(
                f"no system in {path}; make one with System.fit(graph, home={str(path)!r})"
            )
        system = cls(path, load_config(config_file), pool, progress or _silent)
        try:
            system._load(graph)
            system._sweep()
            system._finish_pending()
            purge(system._ledger, system._store, system._generation)
            if graph is not None:
                system._require_same(graph)
        except BaseException:
            system.close()
            raise
        return system

    def _begin(self, graph: Graph, partition: Partition | None) -> None:
        if self._ledger.current_generation() is not None:
            raise HomeError(
                f"{self.home} holds a fitted system; use System.open({str(self.home)!r}), "
                "or fit into another home"
            )
        home_id = self._ledger.setting("home_id")
        self._store.initialise(home_id)
        self._store.bar(self._ledger.lease.fence)
        graph = without_erased(self._ledger, graph)
        source = self._require_unclaimed(graph)
        self._recipe = Recipe(self.config.shards, choose_profile(self.config.shards))
        watch = Stopwatch()
        with watch.stage("partition"):
            made = partition or self._cut(graph)
        self._graph, self._partition = graph, made
        self._ledger.set_settings({"source_graph": source})
        _write_privately(self.home / "config.yaml", _dump(self.config))
        outcome = self._reconciler().reconcile(Wanted(graph, self._partition, 0), None)
        self._adopt(outcome)
        self.fit_breakdown = watch.to_json() | outcome.stopwatch.to_json()
        self._forget_source()
        purge(self._ledger, self._store, self._generation)

    def _forget_source(self) -> None:
        """Destroy the source's digest once there is a generation: a guess could be tested by it."""
        if self._ledger.setting("source_graph"):
            self._ledger.set_settings({"source_graph": ""})

    def _require_unclaimed(self, graph: Graph) -> str:
        """A home is for one graph: an interrupted fit goes on only with the same one."""
        key, claimed = str(graph_digest(graph)), self._ledger.setting("source_graph")
        if claimed and claimed != key:
            raise HomeError(
                f"{self.home} was begun with another graph; fit into another home, or give the "
                "same graph again to go on"
            )
        return key

    def _load(self, source: Graph | None) -> None:
        """Read the published generation; damaged records are restored from the source."""
        current = self._ledger.current_generation()
        if current is None:
            raise HomeError(
                f"the fit of {self.home} was interrupted; give the same graph to "
                f"System.fit(graph, home={str(self.home)!r}) to go on"
            )
        number, body = current
        self._store.check_marker(self._ledger.setting("home_id"))
        self._store.bar(self._ledger.lease.fence)
        self._forget_source()
        self._generation = Generation.from_json(number, body)
        self._recipe = Recipe(self.config.shards, choose_profile(self.config.shards))
        self._partition = load_partition(self._store, self._generation.partition_key)
        self._aggregator = AggregatorState(Digest(self._generation.aggregator_key))
        try:
            self._graph = load_graph(self._store, self._generation.graph_key)
            self._aggregator = self._load_aggregator(body["aggregator"])
        except CorruptArtefactError as error:
            if source is None and error.path.startswith((GRAPH, SEGMENT)):
                raise
            if source is not None:
                self._graph = self._require_same(source)
            logger.warning("%s", error, extra={"event": "artefact_corrupt"})
            self.rebuild()

    def _load_aggregator(self, meta: Mapping[str, Any]) -> AggregatorState:
        stored = [item for item in self._generation.artefacts if item[0] == AGGREGATOR]
        kinds = (AGGREGATOR, "posteriors")
        artefacts = tuple(item for item in self._generation.artefacts if item[0] in kinds)
        tensors = self._store.get(*stored[0]).tensors if stored else {}
        return AggregatorState(self._generation.aggregator_key, tensors, meta, artefacts)  # type: ignore[arg-type]

    def _require_same(self, source: Graph) -> Graph:
        """The source less what was erased here, which must be the published graph."""
        graph = without_erased(self._ledger, source)
        if graph_digest(graph) != self._generation.graph_key:
            raise HomeError(
                f"{self.home} belongs to another graph: the given one, less what was erased here, "
                "has other records; open the home without graph=, or fit into another home"
            )
        return graph

    def _finish_pending(self) -> None:
        """Finish what was accepted and interrupted, whether it is published yet or not."""
        pending = self._ledger.pending()
        todo = [request for request in pending if request.epoch > self._generation.epoch]
        before = graph = self._graph
        for request in todo:
            change, _ = present_part(graph, Erasure.from_json(request.payload))
            graph = graph.apply(change)
        if todo:
            self._move_to(graph, todo[-1].epoch, readers=None, change=None, before=before)
        receipts = {
            request.request_id: Receipt(
                request.request_id,
                request.epoch,
                self._generation.number,
                self._generation.retrained,
                0.0,
                request.payload["records"],
            )
            for request in pending
        }
        if receipts:
            self._finish(receipts)

    def _sweep(self) -> None:
        """Destroy files that the ledger does not know; under the lease, in a marked home only."""
        registered = self._ledger.registered()
        for item in list(self._store.keys()):
            if item not in registered:
                self._store.delete(*item)
        self._store.clear_staging(self._ledger.lease.fence)

    # ---- what it is

    @property
    def graph(self) -> Graph:
        """The surviving graph."""
        return self._graph

    @property
    def partition(self) -> Partition:
        """Assignment of the surviving training nodes; can be handed to another fit."""
        return self._partition

    @property
    def generation(self) -> Generation:
        """What is published now."""
        return self._generation

    @property
    def recipe(self) -> Recipe:
        """What decides a submodel's bits besides its data."""
        return self._recipe

    @property
    def pool(self) -> Pool:
        """The pool in use; started on first need."""
        if self._pool is None:
            assert isinstance(self._pool_choice, str)
            shards = self.config.partition.num_shards
            profile = self._recipe.profile
            self._pool = open_pool(self._pool_choice, profile, self.config.shards, shards)
        return self._pool

    def submodel(self, shard: int) -> dict[str, torch.Tensor]:
        """Weights of one shard's submodel.

        Raises:
            ConfigError: there is no such shard, or it is silent.
        """
        import torch

        key = self._generation.submodels.get(shard)
        if key is None:
            raise ConfigError(
                f"shard {shard} has no submodel (unknown or silent); "
                f"choose one of {sorted(self._generation.submodels)}"
            )
        weights = load_weights(self._store, key)
        return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}

    def status(self) -> dict[str, Any]:
        """Summary as plain JSON."""
        generation, sizes = self._generation, self._partition.sizes().tolist()
        index = self._reader_index()
        cost = forecast(self._graph, index, self._partition, generation)
        return {
            "home": str(self.home),
            "generation": generation.number,
            "epoch": generation.epoch,
            "generation_key": generation.key,
            "nodes": self._graph.num_nodes,
            "edges": self._graph.num_edges,
            "requests": self._ledger.request_states(),
            "guarantee": self._partition.guarantee,
            "retained": [
                *retained(self._partition, self.config.partition),
                *retained_choice(self.config),
            ],
            "erasure_cost": cost.to_json(),
            "shards": [
                {
                    "shard": shard,
                    "nodes": sizes[shard],
                    "halo": len(index.rows_of(shard)) - sizes[shard],
                    "key": entry.key,
                    "silent": entry.weights_digest is None,
                    "training_s": generation.costs.get(shard),
                }
                for shard, entry in sorted(generation.shards.items())
            ],
        }

    # ---- predict

    def predict(self, ids: Sequence[NodeId] | Array) -> Predictions:
        """Predict nodes of the current graph.

        Raises:
            UnknownIdError: an id is not in the graph (any more).
            GraphError: there is no submodel to ask, or ``ids`` is no list.
        """
        if isinstance(ids, str):
            raise GraphError(f"predict({ids!r}) got one id; give a list of ids")
        asked = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        rows = self._graph.rows(asked)
        proba = self._answers().probabilities(rows, self.config.aggregator.kind)
        classes = np.empty(self._graph.schema.num_classes, object)
        classes[:] = self._graph.classes
        labels = classes[proba.argmax(axis=1)]
        number = self._generation.number
        return Predictions(tuple(asked), labels, proba, self._graph.classes, number)

    def accuracy(self, role: str = "test", aggregator: str | None = None) -> float:
        """Share of labelled nodes of a role that are predicted right.

        Args:
            role: ``train``, ``val`` or ``test``.
            aggregator: another aggregator without parameters, to compare; default the fitted one.

        Raises:
            ConfigError: unknown role, or the aggregator needs a fit.
        """
        if role not in ROLES:
            raise ConfigError(f"role is {role!r}; choose one of {sorted(ROLES)}")
        kind = aggregator or self.config.aggregator.kind
        if kind != self.config.aggregator.kind and find_aggregator(kind).needs_fit:
            raise ConfigError(f"aggregator {kind!r} has to be fitted; set aggregator.kind to it")
        labelled = self._graph.y != UNLABELLED
        rows = np.flatnonzero((self._graph.roles(self.config.roles) == ROLES[role]) & labelled)
        proba = self._answers().probabilities(rows, kind)
        if not len(rows):
            return float("nan")
        return float((proba.argmax(axis=1) == self._graph.y[rows]).mean())

    def validation(self) -> float:
        """Accuracy on validation nodes that a choice may rest on.

        An aggregator that is fitted on validation nodes is judged there by cross-fitting: each half
        of them by what is fitted on the other half. Otherwise it is ``accuracy("val")``.
        """
        context = self._fit_context(self._graph, self._partition, self.pool)
        honest = find_aggregator(self.config.aggregator.kind).validation_answers(context)
        if honest is None:
            return self.accuracy("val")
        rows, answers = honest
        if not len(rows):
            return float("nan")
        return float((answers.argmax(axis=1) == self._graph.y[rows]).mean())

    def _answers(self) -> Answering:
        """What predicts with the current generation."""
        if self._answering is None:
            self._answering = Answering(
                str(self.home),
                self._generation,
                self._graph,
                self._partition,
                self._aggregator,
                self._recipe,
                self.config,
                self.pool,
                self._stage("predicting"),
            )
        return self._answering

    # ---- forget

    def plan(
        self,
        erasure: Erasure | Iterable[Erasure],
        *,
        unknown: Literal["raise", "report"] = "raise",
    ) -> Plan:
        """Say what an erasure would do; changes nothing.

        Args:
            erasure: one, or several to be done as one.
            unknown: whether records that were never here raise or are listed.

        Raises:
            UnknownIdError: a record is not in the graph and was not erased before.
        """
        asked = erasure if isinstance(erasure, Erasure) else Erasure.merge(erasure)
        rest, already = split_erased(self._ledger, asked, self._graph)
        plan = make_plan(self._graph, self._reader_index(), self._partition, self._generation, rest)
        if plan.unknown and unknown == "raise":
            kind = "edge" if all(isinstance(item, tuple) for item in plan.unknown) else "record"
            raise UnknownIdError(plan.unknown, "the graph", kind)
        return replace(plan, already=already)

    def erase(
        self,
        erasure: Erasure | Plan | Iterable[Erasure],
        *,
        unknown: Literal["raise", "report"] = "raise",
    ) -> Receipt:
        """Forget records: accept durably, retrain the readers, publish, purge.

        Asking again for what was erased before returns the receipt of then. A request that failed
        half way is finished first.

        Raises:
            StalePlanError: the plan was made for an earlier graph epoch, or another system.
            UnknownIdError: as in :meth:`plan`.
        """
        self._finish_pending()
        plan = erasure if isinstance(erasure, Plan) else self.plan(erasure, unknown=unknown)
        made_for = (plan.epoch, plan.generation_key)
        if made_for != (self._ledger.epoch(), self._generation.key):
            raise StalePlanError(plan.epoch, self._ledger.epoch())
        if plan.erasure.is_empty:
            return self._nothing_to_do(plan)
        self._require_environment()
        watch = Stopwatch()
        with watch.stage("accept"):
            marks = marks_of(self._ledger, plan.erasure, self._graph)
            request_id = f"req_{time.time_ns():016x}{secrets.token_hex(4)}"
            payload = plan.erasure.to_json() | {"records": dict(plan.records)}
            epoch = self._ledger.accept(request_id, payload, marks)
            change, _ = present_part(self._graph, plan.erasure)
            before, graph = self._graph, self._graph.apply(change)
            readers = self._reader_index().of_change(before, change)
        outcome = self._move_to(graph, epoch, readers=readers, change=change, before=before)
        receipt = Receipt(
            request_id,
            epoch,
            outcome.generation.number,
            outcome.generation.retrained,
            round(watch.seconds + outcome.stopwatch.seconds, 4),
            plan.records,
            watch.to_json() | outcome.stopwatch.to_json(),
            len(plan.unknown),
            plan.already,
        )
        self._finish({request_id: receipt})
        return receipt

    def _nothing_to_do(self, plan: Plan) -> Receipt:
        if len(plan.already) == 1 and not plan.unknown:
            (request_id,) = plan.already
            earlier = self._ledger.receipt(request_id)
            if earlier is not None:
                return Receipt.from_json(earlier)
        number, epoch = self._generation.number, self._generation.epoch
        return Receipt(
            "", epoch, number, (), 0.0, plan.records, {}, len(plan.unknown), plan.already
        )

    def _move_to(
        self, graph: Graph, epoch: int, *, readers: set[int] | None, change: Any, before: Graph
    ) -> Outcome:
        partition = self._partition.restrict(graph)
        if partition.guarantee == "rederived":
            partition = self._cut(graph, allow_empty=True)
            readers = None
        wanted = Wanted(graph, partition, epoch, readers, self._generation, before, change)
        outcome = self._reconciler().reconcile(wanted, self._aggregator)
        self._graph, self._partition = graph, partition
        self._adopt(outcome)
        return outcome

    def _finish(self, receipts: Mapping[str, Receipt]) -> None:
        """Purge what held the records, then close the requests."""
        purge(self._ledger, self._store, self._generation)
        self._ledger.complete({key: receipt.to_json() for key, receipt in receipts.items()})

    def rebuild(self) -> Outcome:
        """Build again whatever is missing, damaged, or made in another environment."""
        self._recipe = Recipe(self.config.shards, choose_profile(self.config.shards))
        wanted = Wanted(
            self._graph, self._partition, self._generation.epoch, None, self._generation
        )
        self._reconciler().drop_damaged(self._generation)
        outcome = self._reconciler().reconcile(wanted, None)
        self._adopt(outcome)
        purge(self._ledger, self._store, self._generation)
        return outcome

    # ---- verify

    def verify(
        self, replay: Literal["all"] | Sequence[int] | None = None, *, repair: bool = False
    ) -> Report:
        """Check that everything stored is what its key says.

        Args:
            replay: shards to train again in a fresh process, from contents rebuilt out of the
                stored graph; ``"all"`` for every one.
            repair: rebuild what is damaged or missing first.
        """
        from coordinator.verify import verify_system

        if repair:
            self.rebuild()
        return verify_system(self, replay)

    def close(self) -> None:
        """Give the home back and end what this System started."""
        if self._pool is not None and isinstance(self._pool_choice, str):
            self._pool.close()
            self._pool = None
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- inside

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            self.config,
            self._recipe,
            self._ledger,
            self._store,
            self.pool,
            self._ledger.lease.fence,
            self._progress,
        )

    def _cut(self, graph: Graph, *, allow_empty: bool = False) -> Partition:
        report = self._stage("partitioning")
        config, roles = self.config.partition, self.config.roles
        return make_partition(graph, config, roles, report, allow_empty=allow_empty)

    def _adopt(self, outcome: Outcome) -> None:
        self._generation, self._aggregator = outcome.generation, outcome.aggregator
        self._index = self._answering = None

    def _fit_context(self, graph: Graph, partition: Partition, pool: Pool) -> FitContext:
        """For a fit of the aggregator from nothing that leaves the home as it is."""
        return FitContext(
            graph,
            self._generation.graph_key,
            partition,
            self._generation.submodels,
            self.config,
            self._recipe,
            pool,
            self._store,
            str(self.home),
            lambda blobs: None,
            None,
            None,
        )

    def _reader_index(self) -> ReaderIndex:
        if self._index is None:
            repair = self.config.shards.repair
            self._index = build_index(self._graph, self._partition, has_phantoms=repair != "none")
        return self._index

    def _require_environment(self) -> None:
        """Refuse to mix submodels of two environments in one generation."""
        from coordinator.verify import environment_changed

        changed = environment_changed(self)
        if changed:
            raise ConfigError(
                f"{len(changed)} of {len(self._generation.submodels)} submodels were trained in "
                "another environment (library versions or CPU level changed); call "
                "System.rebuild() to retrain them here, or restore that environment"
            )

    def _stage(self, name: str) -> Any:
        return lambda done, total: self._progress(name, done, total)


def _silent(stage: str, done: int, total: int) -> None:
    return None


def _write_privately(path: Path, content: str) -> None:
    """Write what may hold a database password: readable by its owner alone."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(content)


def _dump(config: Config) -> str:
    import yaml

    return str(yaml.safe_dump(config.model_dump(), sort_keys=False))
