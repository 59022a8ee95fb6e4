"""Engine: what a home holds, and how it moves from one generation to the next.

It knows nothing of requests: :mod:`coordinator.erasing` decides what is to go and calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from sqlalchemy import Connection

from cluster.digest import Digest
from cluster.errors import CorruptArtefactError, HomeError, UnweaveError
from cluster.files import CONFIG_FILE
from cluster.graph import Change, Graph
from cluster.home import GRAPH, SEGMENT, load_graph, load_partition
from cluster.partition import Partition
from cluster.partitioners import make_partition
from cluster.segments import graph_digest
from cluster.store import LocalStore, note_damage
from coordinator.aggregators.base import AggregatorState, FitContext, load_state
from coordinator.backups import expire_backups
from coordinator.config import Config, StorageConfig, load_config
from coordinator.generation import Generation
from coordinator.guard import require_forgotten
from coordinator.ledger import Ledger
from coordinator.locking import Locks
from coordinator.people import People, kept_map
from coordinator.pools import Pool, open_pool
from coordinator.rearrival import refuse_if_blocked
from coordinator.reconcile import Built, Progress, Reconciler, Wanted, purge
from coordinator.stopwatch import Stopwatch
from coordinator.tombstones import without_erased
from shards.jobs import ReleaseJob
from shards.recipe import Recipe, choose_profile
from shards.shard_graph import ReaderIndex, build_index

if TYPE_CHECKING:
    from coordinator.answering import Answering


PENDING_CONFIG = "pending_config"  # setting: published, and not in its file yet


def utc_now() -> datetime:
    """The time, aware of its zone."""
    return datetime.now(UTC)


def _nothing() -> None:
    """Nobody listens."""


@dataclass(frozen=True, eq=False)
class Live:
    """What is published, replaced as a whole so that nobody sees two generations mixed.

    Attributes:
        graph: its graph; requests that were accepted later still stand in it.
        partition: its partition.
        generation: its keys.
        aggregator: its aggregator.
    """

    graph: Graph
    partition: Partition
    generation: Generation
    aggregator: AggregatorState


class Engine:
    """The parts of one opened home and the moves between its generations."""

    live: Live
    recipe: Recipe

    def __init__(
        self,
        home: Path,
        config: Config,
        pool: str | Pool,
        progress: Progress,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.home, self.progress, self.clock = home, progress, clock
        self.answering: Answering | None = None  # what predicts, until something moves
        self.mask_moved: Callable[[], None] = _nothing  # called when other records are masked
        self.superseding: Callable[[], None] = _nothing  # called before old files are purged
        self._pool_choice, self._pool = pool, None if isinstance(pool, str) else pool
        self._index: ReaderIndex | None = None
        self.trained: frozenset[int] = frozenset()  # shards that the build at work is done with
        self.locks = Locks()
        self.store = LocalStore(home)
        self.people = People(self)
        patience = config.erasure.lease.total_seconds()
        database = config.storage.database or "ledger.db"
        self.ledger = Ledger(database, home=home, ttl_s=patience)
        try:
            self.ledger.acquire()
            self.config = self._settled(config)
        except BaseException:
            self.ledger.close()
            raise

    # ---- making one, reading one

    def begin(
        self, graph: Graph, partition: Partition | None, finished: LocalStore | None = None
    ) -> Stopwatch:
        """Fit a home from nothing, or go on with a fit of the same graph.

        Args:
            graph: the graph; what was erased here is filtered out of it.
            partition: an assignment to use; made when None.
            finished: where finished submodels may lie.

        Raises:
            HomeError: the home holds a system already, or belongs to another graph.
        """
        if self.ledger.current_generation() is not None:
            raise HomeError(
                f"{self.home} holds a fitted system; use System.open({str(self.home)!r}), or "
                "any command but train, or fit into another home"
            )
        self.store.initialise(self.ledger.setting("home_id"))
        self.store.bar(self.ledger.lease.fence)
        graph = without_erased(self.ledger, graph)
        source = self._require_unclaimed(graph)
        self.recipe = self.current_recipe()
        watch = Stopwatch()
        with watch.stage("partition"):
            made = partition or self.cut(graph)
        self.ledger.set_settings({"source_graph": source})
        self.store.write_file(CONFIG_FILE, _dump(self.config), fence=self.ledger.lease.fence)
        wanted = Wanted(graph, made, 0)
        if finished is not None:
            self.reconciler().take_over(wanted, finished)
        built = self.reconciler().build(wanted, None)
        self.publish(built)
        self._forget_source()
        self.purge()
        return watch.plus(built.stopwatch)

    def _forget_source(self) -> None:
        """Destroy the source's digest once there is a generation: a guess could be tested by it."""
        if self.ledger.setting("source_graph"):
            self.ledger.set_settings({"source_graph": ""})

    def _require_unclaimed(self, graph: Graph) -> str:
        """A home is for one graph: an interrupted fit goes on only with the same one."""
        key, claimed = str(graph_digest(graph)), self.ledger.setting("source_graph")
        if claimed and claimed != key:
            raise HomeError(
                f"{self.home} was begun with another graph; fit into another home, or give the "
                "same graph again to go on"
            )
        return key

    def load(self, source: Graph | None) -> None:
        """Read the published generation; damaged records are restored from the source.

        Raises:
            HomeError: the fit was interrupted, or the source is another graph.
            CorruptArtefactError: the stored graph is damaged and there is no source.
        """
        current = self.ledger.current_generation()
        if current is None:
            raise HomeError(
                f"the fit of {self.home} was interrupted; give the same graph to "
                f"System.fit(graph, home={str(self.home)!r}) to go on"
            )
        number, body = current
        self.store.check_marker(self.ledger.setting("home_id"))
        self.store.bar(self.ledger.lease.fence)
        self._forget_source()
        generation = Generation.from_json(number, body)
        self.recipe = self.current_recipe()
        partition = load_partition(self.store, generation.partition_key)
        aggregator = AggregatorState(Digest(generation.aggregator_key))
        graph = None
        try:
            graph = load_graph(self.store, generation.graph_key)
            aggregator = load_state(self.store, generation, body["aggregator"])
            self.live = Live(graph, partition, generation, aggregator)
        except CorruptArtefactError as error:
            if source is None and error.path.startswith((GRAPH, SEGMENT)):
                raise
            if source is not None:
                graph = self.require_same(source, generation)
            assert graph is not None
            note_damage(error)
            self.live = Live(graph, partition, generation, aggregator)
            self.rebuild()

    def require_same(self, source: Graph, generation: Generation) -> Graph:
        """The source less what was erased here, which must be the published graph.

        Raises:
            HomeError: it is another graph.
            RearrivalError: it holds what was erased, and ``erasure.rearrival`` is ``block``.
        """
        graph = refuse_if_blocked(self.ledger, source, self.config.erasure.rearrival)
        if graph_digest(graph) != generation.graph_key:
            raise HomeError(
                f"{self.home} belongs to another graph: the given one, less what was erased here, "
                "has other records; open the home without graph=, or fit into another home"
            )
        return graph

    def sweep(self) -> None:
        """Destroy files that the ledger does not know; under the lease, in a marked home only."""
        registered = self.ledger.registered()
        for item in list(self.store.keys()):
            if item not in registered:
                self.store.delete(*item, fence=self.ledger.lease.fence)
        self.store.clear_staging(self.ledger.lease.fence)

    # ---- moving on

    def wanted(self, change: Change | None, graph: Graph, epoch: int) -> Wanted:
        """The state after a change of the published graph.

        Args:
            change: what leads there; None when it is not known, so that everything is looked at.
            graph: the graph wanted.
            epoch: graph epoch, for the record only.
        """
        live = self.live
        partition = live.partition.restrict(graph)
        readers = None if change is None else self.index().of_change(live.graph, change)
        if partition.guarantee == "rederived":
            partition, readers = self.cut(graph, allow_empty=True), None
        return Wanted(graph, partition, epoch, readers, live.generation, live.graph, change)

    def build(self, wanted: Wanted) -> Built:
        """Build what is missing for a state, and publish nothing."""
        self.trained = frozenset()
        return self.reconciler().build(wanted, self.live.aggregator)

    def _note_trained(self, shard: int) -> None:
        self.trained |= {shard}

    def publish(self, built: Built, also: Callable[[Connection], None] | None = None) -> None:
        """Make a built generation the live one, in one step.

        Args:
            built: what was built.
            also: what else belongs into the same transaction.
        """
        wanted, live = built.wanted, getattr(self, "live", None)
        require_forgotten(self.ledger, live.graph if live else None, wanted)
        self.reconciler().publish(built, also)
        self.live = Live(wanted.graph, wanted.partition, built.generation, built.aggregator)
        self._index = None

    def rebuild(self) -> Generation:
        """Build again whatever is missing, damaged, or made in another environment."""
        self.recipe = self.current_recipe()
        live, reconciler = self.live, self.reconciler()
        generation = live.generation
        reconciler.drop_damaged(generation)
        wanted = Wanted(live.graph, live.partition, generation.epoch, None, generation)
        built = reconciler.build(wanted, None)
        self.publish(built)
        return built.generation

    def release(self) -> None:
        """Let go of superseded rows, here and in every actor; returns when all have answered."""
        self.answering = None
        self.superseding()
        self.people = People(self)  # it may hold the map of before
        if self._pool is not None:
            generation = self.live.generation
            keys = tuple(generation.submodels.values())
            self._pool.tell("release", ReleaseJob(str(self.home), generation.graph_key, keys))

    def catch_up(self) -> bool:
        """Turn to the published generation where this process missed that it was published.

        A commit may succeed and its answer be lost; what is purged must go by the ledger.

        Returns:
            Whether it was missed.
        """
        current = self.ledger.current_generation()
        if current is None or current[0] == self.live.generation.number:
            return False
        self.load(None)
        self._index = self.answering = None
        return True

    def superseded(self) -> list[tuple[str, str]]:
        """Artefacts that the published generation does not refer to, nor the subjects."""
        self.catch_up()
        kept = set(self.live.generation.artefacts) | kept_map(self.ledger)
        return sorted(item for item in self.ledger.registered() if item not in kept)

    def purge(self) -> list[tuple[str, str]]:
        """Destroy every artefact but what the published generation refers to and the subjects.

        Backups whose time is over go as well.
        """
        self.catch_up()
        expire_backups(self.ledger, self.home, self.clock())
        kept = set(self.live.generation.artefacts) | kept_map(self.ledger)
        gone = purge(self.ledger, self.store, kept)
        self.ledger.drop_dead_rows()
        return gone

    def destroy(self, items: Collection[tuple[str, str]]) -> None:
        """Destroy some artefacts that are no longer needed."""
        for kind, key in items:
            self.store.delete(kind, key, fence=self.ledger.lease.fence)
        self.ledger.unregister(items)

    # ---- parts

    @property
    def pool(self) -> Pool:
        """The pool in use; started on first need."""
        if self._pool is None:
            assert isinstance(self._pool_choice, str)
            shards = self.config.partition.num_shards
            self._pool = open_pool(
                self._pool_choice, self.recipe.profile, self.config.shards, shards
            )
        return self._pool

    def warm_up(self) -> None:
        """Start the pool, where it was not needed yet."""
        _ = self.pool.size

    def current_recipe(self) -> Recipe:
        """The recipe that this environment gives."""
        return Recipe(self.config.shards, choose_profile(self.config.shards))

    @property
    def issuer(self) -> str:
        """Who signs the certificates: as configured, or the home by its id."""
        return self.config.erasure.issuer or f"home {self.ledger.setting('home_id')}"

    def index(self) -> ReaderIndex:
        """Who reads which record of the published graph."""
        if self._index is None:
            phantoms = self.config.shards.repair != "none"
            live = self.live
            self._index = build_index(live.graph, live.partition, has_phantoms=phantoms)
        return self._index

    def reconciler(self) -> Reconciler:
        """A reconciler over this home."""
        return Reconciler(
            self.config,
            self.recipe,
            self.ledger,
            self.store,
            self.pool,
            self.ledger.lease.fence,
            self.progress,
            self._note_trained,
        )

    def fit_context(self, graph: Graph, partition: Partition, pool: Pool) -> FitContext:
        """For a fit of the aggregator from nothing that leaves the home as it is."""
        generation = self.live.generation
        return FitContext(
            graph,
            generation.graph_key,
            partition,
            generation.submodels,
            self.config,
            self.recipe,
            pool,
            self.store,
            str(self.home),
            lambda blobs: None,
            None,
            None,
        )

    def stage(self, name: str) -> Callable[..., None]:
        """Progress of one stage, by (done, total); what else it is told does not matter."""
        return lambda done, total, *_: self.progress(name, done, total)

    def close(self) -> None:
        """Give the home back, have actors let go of it, end what was started for it."""
        self.answering, pool, self._pool = None, self._pool, None
        if pool is not None:
            with suppress(UnweaveError):  # an actor that died holds nothing
                pool.tell("release", ReleaseJob(str(self.home)))
        if pool is not None and isinstance(self._pool_choice, str):
            pool.close()
        self.ledger.close()

    # ---- its configuration

    def adopt(
        self,
        config: Config,
        wanted: Wanted,
        source: LocalStore,
        also: Callable[[Connection], None],
    ) -> None:
        """Move to another configuration and to the graph of a backup, filtered, in one step.

        Args:
            config: the configuration; its ``storage`` is that of this home.
            wanted: the state to publish, after the published generation.
            source: where finished submodels of it may lie.
            also: what else belongs into the step.
        """
        self.config = config
        self.recipe = self.current_recipe()
        reconciler = self.reconciler()
        if wanted.previous is not None:
            reconciler.drop_damaged(wanted.previous)
        reconciler.take_over(wanted, source)
        built = reconciler.build(wanted, None)
        text = _dump(config.model_copy(update={"storage": StorageConfig()}))

        def close(tx: Connection) -> None:
            self.ledger.set_settings({PENDING_CONFIG: text}, tx)
            also(tx)

        self.publish(built, close)
        self._settled(config)
        self.purge()

    def _settled(self, config: Config) -> Config:
        """The configuration that was published last; its file is written when that was not done.

        A generation and its configuration change together in the ledger; the file follows.
        """
        text = self.ledger.setting(PENDING_CONFIG)
        if not text:
            return config
        settled = load_config(yaml.safe_load(text)).model_copy(update={"storage": config.storage})
        self.store.write_file(CONFIG_FILE, _dump(settled), fence=self.ledger.lease.fence)
        self.ledger.set_settings({PENDING_CONFIG: ""})
        return settled

    def cut(self, graph: Graph, *, allow_empty: bool = False) -> Partition:
        """A partition of a graph, as the configuration says."""
        report = self.stage("partitioning")
        config, roles = self.config.partition, self.config.roles
        return make_partition(graph, config, roles, report, allow_empty=allow_empty)


def _dump(config: Config) -> str:
    return str(yaml.safe_dump(config.model_dump(), sort_keys=False))
