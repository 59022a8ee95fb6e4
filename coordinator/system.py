"""System: the Python API. Fit, predict, plan, erase, submit, verify; open again another day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from cluster.errors import ConfigError, GoneError, GraphError, HomeError, UnknownIdError
from cluster.graph import TEST, TRAIN, UNLABELLED, VAL, Graph
from cluster.halo_choice import retained
from cluster.partition import Partition
from cluster.partitioners import check_room
from coordinator.aggregators import find_aggregator
from coordinator.answering import Answering, store_view
from coordinator.backups import make_backup, remove_backup
from coordinator.batch import OPEN
from coordinator.config import Config, load_config, retained_choice
from coordinator.engine import Engine, utc_now
from coordinator.erasing import Erasing
from coordinator.forgetting import Forgetting
from coordinator.generation import Generation
from coordinator.ledger.backup_table import Backup
from coordinator.planner import forecast
from coordinator.pools import Pool
from coordinator.preflight import check_config, fit_partition, home_path, require_labels
from coordinator.reconcile import Progress
from coordinator.results import Predictions, Report
from shards.checkpoint import load_weights
from shards.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from coordinator.audit import AuditReport, AuditSettings
    from coordinator.erasure import Erasure

Array = npt.NDArray[Any]
ROLES = {"train": TRAIN, "val": VAL, "test": TEST}


class System(Forgetting):
    """A trained, sharded system in one home; made by :meth:`fit` or :meth:`open`.

    Attributes:
        engine: what the home holds; for the package's own use.
        erasing: what was asked and where it stands; for the package's own use.
    """

    def __init__(
        self,
        home: Path,
        config: Config,
        pool: str | Pool,
        progress: Progress,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.engine = Engine(home, config, pool, progress, clock)
        self.erasing = Erasing(self.engine, clock)
        self.fit_breakdown: Mapping[str, Mapping[str, float]] = {}

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
        clock: Callable[[], datetime] = utc_now,
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
            clock: what requests are timed by.

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
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeError(
                f"{path} cannot be made a home ({error.strerror}); choose a folder that can be "
                "written"
            ) from None
        system = cls(path, settings, pool, progress or _silent, clock)
        try:
            watch = system.engine.begin(graph, partition)
            system.fit_breakdown = watch.to_json()
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
        clock: Callable[[], datetime] = utc_now,
        settle: bool = True,
    ) -> System:
        """Open a fitted system; what was begun and not finished is finished first.

        Requests that wait for their window go on waiting; :meth:`run` does what is due.

        Args:
            home: folder of the system.
            graph: the source again, to check that the home belongs to it, and to restore stored
                records that are damaged; what was erased here is filtered out of it before anything
                else.
            pool: as in :meth:`fit`; actors start when they are first needed.
            progress: called with (stage, done, total).
            clock: what requests are timed by.
            settle: whether to train what was begun before this returns; else :meth:`run` does, and
                only what was published already is finished.

        Raises:
            HomeError: there is no system in this folder, or it belongs to another graph.
        """
        path = Path(home)
        config_file = path / "config.yaml"
        if not config_file.exists():
            raise HomeError(
                f"no system in {path}; make one with System.fit(graph, home={str(path)!r}) or "
                f"`unweave train --home {path}`"
            )
        system = cls(path, load_config(config_file), pool, progress or _silent, clock)
        engine = system.engine
        try:
            engine.load(graph)
            engine.sweep()
            system.erasing.load()
            if settle:
                system.erasing.settle()
            else:
                system.erasing.finish_published()
            if settle or not engine.ledger.batches.list(state=OPEN):  # one begun uses what it built
                engine.purge()
            if graph is not None:
                engine.require_same(graph, engine.live.generation)
        except BaseException:
            system.close()
            raise
        return system

    # ---- what it is

    @property
    def home(self) -> Path:
        """Folder of the system."""
        return self.engine.home

    @property
    def config(self) -> Config:
        """Root configuration."""
        return self.engine.config

    @property
    def graph(self) -> Graph:
        """The surviving graph: without what was accepted to be forgotten."""
        return self.erasing.masked_graph()

    @property
    def partition(self) -> Partition:
        """Assignment of the published training nodes; can be handed to another fit."""
        return self.engine.live.partition

    @property
    def generation(self) -> Generation:
        """What is published now."""
        return self.engine.live.generation

    @property
    def recipe(self) -> Recipe:
        """What decides a submodel's bits besides its data."""
        return self.engine.recipe

    @property
    def pool(self) -> Pool:
        """The pool in use; started on first need."""
        return self.engine.pool

    def submodel(self, shard: int) -> dict[str, torch.Tensor]:
        """Weights of one shard's submodel.

        Raises:
            ConfigError: there is no such shard, or it is silent.
        """
        import torch

        key = self.generation.submodels.get(shard)
        if key is None:
            raise ConfigError(
                f"shard {shard} has no submodel (unknown or silent); "
                f"choose one of {sorted(self.generation.submodels)}"
            )
        weights = load_weights(self.engine.store, key)
        return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}

    def status(self) -> dict[str, Any]:
        """Summary as plain JSON."""
        live, index = self.engine.live, self.engine.index()
        generation, sizes = live.generation, live.partition.sizes().tolist()
        cost = forecast(live.graph, index, live.partition, generation)
        return {
            "home": str(self.home),
            "generation": generation.number,
            "epoch": generation.epoch,
            "generation_key": generation.key,
            "nodes": live.graph.num_nodes,
            "edges": live.graph.num_edges,
            "requests": self.engine.ledger.requests.counts(),
            "guarantee": live.partition.guarantee,
            "retained": [
                *retained(live.partition, self.config.partition),
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

        What was accepted to be forgotten is read by no answer from then on.

        Raises:
            GoneError: an id was forgotten, or is to be.
            UnknownIdError: an id was never in the graph.
            GraphError: there is no submodel to ask, or ``ids`` is no list.
        """
        if isinstance(ids, str):
            raise GraphError(f"predict({ids!r}) got one id; give a list of ids")
        asked = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        rows = self._rows(asked)
        proba = self._answers().probabilities(rows, self.config.aggregator.kind)
        graph = self.graph
        classes = np.empty(graph.schema.num_classes, object)
        classes[:] = graph.classes
        labels = classes[proba.argmax(axis=1)]
        return Predictions(tuple(asked), labels, proba, graph.classes, self.generation.number)

    def _rows(self, ids: list[NodeId]) -> Array:
        try:
            return self.graph.rows(ids)
        except UnknownIdError as error:
            gone = self.erasing.forgotten(error.ids)
            raise (GoneError(gone, "the graph") if gone else error) from None

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
        graph = self.graph
        labelled = graph.y != UNLABELLED
        rows = np.flatnonzero((graph.roles(self.config.roles) == ROLES[role]) & labelled)
        proba = self._answers().probabilities(rows, kind)
        if not len(rows):
            return float("nan")
        return float((proba.argmax(axis=1) == graph.y[rows]).mean())

    def validation(self) -> float:
        """Accuracy on validation nodes that a choice may rest on.

        An aggregator that is fitted on validation nodes is judged there by cross-fitting: each half
        of them by what is fitted on the other half. Otherwise it is ``accuracy("val")``.
        """
        live = self.engine.live
        context = self.engine.fit_context(live.graph, live.partition, self.pool)
        honest = find_aggregator(self.config.aggregator.kind).validation_answers(context)
        if honest is None:
            return self.accuracy("val")
        rows, answers = honest
        if not len(rows):
            return float("nan")
        return float((answers.argmax(axis=1) == live.graph.y[rows]).mean())

    def _answers(self) -> Answering:
        """What predicts with the current generation on the surviving graph."""
        engine, graph = self.engine, self.graph
        held = engine.answering
        if held is None or held.graph is not graph or held.live is not engine.live:
            live = engine.live
            view = live.generation if graph is live.graph else store_view(engine, graph)
            held = engine.answering = Answering(
                str(self.home),
                view,
                graph,
                live.partition.restrict(graph),
                live,
                self.recipe,
                self.config,
                self.pool,
                engine.stage("predicting"),
            )
        return held

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
        from coordinator.verification import verify_home

        if repair:
            self.rebuild()
        return verify_home(self.engine, replay)

    def rebuild(self) -> Generation:
        """Build again whatever is missing, damaged, or made in another environment."""
        self.erasing.finish_published()
        generation = self.engine.rebuild()
        self.engine.purge()
        return generation

    # ---- copies

    def backup(self, name: str | None = None) -> Backup:
        """Copy what is published under ``backups/<name>`` for ``retention.backup_days``.

        Certificates list the copy as residual until it is destroyed; :func:`coordinator.restore`
        brings it back without what was erased meanwhile.

        Args:
            name: its name; the time by default.

        Raises:
            ConfigError: the name cannot be that of a folder.
            HomeError: the name is taken, or there is no room.
        """
        return make_backup(self.engine, name)

    def backups(self) -> Sequence[Backup]:
        """The copies that are kept, oldest first."""
        return self.engine.ledger.backups.list()

    def remove_backup(self, name: str) -> None:
        """Destroy a copy before its time.

        Raises:
            HomeError: there is none of that name.
        """
        remove_backup(self.engine, name)

    def audit(
        self,
        source: Graph,
        erased: Erasure | None = None,
        *,
        shards: Sequence[int] | None = None,
        settings: AuditSettings | None = None,
    ) -> AuditReport:
        """Ask statistically whether submodels still hold erased records; see docs/audit.md.

        Args:
            source: the auditor's copy of the graph, which still holds them.
            erased: the records; default all that ``source`` holds and this system does not.
            shards: the shards to audit; default those the records are attributed to.
            settings: how many honest retrains and shadows, at which level.
        """
        from coordinator.audit import AuditSettings, audit_system

        chosen = settings or AuditSettings()
        return audit_system(self, source, erased, shards=shards, settings=chosen)

    def close(self) -> None:
        """Give the home back and end what this System started."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _silent(stage: str, done: int, total: int) -> None:
    return None
