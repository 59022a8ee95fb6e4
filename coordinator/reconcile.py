"""The reconciler: wanted keys -> what is missing -> build -> publish -> purge.

There is no second path: a first fit, an erasure and a resume after a crash all come here. Run it
again after any interruption and it ends in the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from cluster.digest import tensors_digest
from cluster.errors import CorruptArtefactError
from cluster.graph import Change, Graph
from cluster.home import GRAPH, PARTITION, SEGMENT, graph_blobs, partition_blob
from cluster.partition import Partition
from cluster.segments import graph_digest, segment_digests
from cluster.store import Blob, LocalStore, note_damage
from coordinator.aggregators import find_aggregator
from coordinator.aggregators.base import AggregatorState, FitContext
from coordinator.config import Config
from coordinator.disturbance import disturbance
from coordinator.generation import Generation, ShardEntry
from coordinator.ledger import Ledger
from coordinator.pools import Pool
from coordinator.pools.base import Progress as JobProgress
from coordinator.stopwatch import Stopwatch
from shards.checkpoint import CONTENT, SLICE, SUBMODEL, load_weights
from shards.content import ShardContent, build_content
from shards.jobs import BuildJob, BuildReport
from shards.recipe import Recipe, submodel_key, submodel_seed
from shards.shard_graph import build_index
from shards.slices import slice_keys

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """The state that should be published.

    Attributes:
        graph: surviving graph.
        partition: its partition.
        epoch: graph epoch, for the record only.
        readers: shards whose content may have moved since ``previous``; None for all of them.
        previous: generation published now.
        previous_graph: graph of ``previous``.
        change: what leads from ``previous_graph`` to ``graph``.
    """

    graph: Graph
    partition: Partition
    epoch: int
    readers: set[int] | None = None
    previous: Generation | None = None
    previous_graph: Graph | None = None
    change: Change | None = None


@dataclass(frozen=True, eq=False)
class Built:
    """A generation whose every artefact is stored and that nobody sees yet.

    Attributes:
        wanted: the state it is of.
        generation: what would be published.
        aggregator: its aggregator.
        contents: shard -> what its training reads now, for the shards that were looked at.
        stopwatch: where the time went.
    """

    wanted: Wanted
    generation: Generation
    aggregator: AggregatorState
    contents: Mapping[int, ShardContent]
    stopwatch: Stopwatch


@dataclass
class Reconciler:
    """Brings a home to the wanted state.

    Attributes:
        config: root configuration.
        recipe: recipe of the submodels.
        ledger: the home's ledger.
        store: the home's store.
        pool: where training runs.
        fence: staging area of this coordinator.
        progress: called with (stage, done, total).
        trained: called with every shard whose submodel is trained.
    """

    config: Config
    recipe: Recipe
    ledger: Ledger
    store: LocalStore
    pool: Pool
    fence: int
    progress: Progress
    trained: Callable[[int], None]
    _epoch: int = field(default=0, init=False)

    def build(self, wanted: Wanted, state: AggregatorState | None) -> Built:
        """Build what a state is missing; nothing is published.

        Args:
            wanted: the wanted state.
            state: aggregator of the generation published now.
        """
        watch, self._epoch = Stopwatch(), wanted.epoch
        with watch.stage("contents"):
            contents, entries = self._contents(wanted)
        with watch.stage("store"):
            graph_key, stored = self._store_inputs(wanted, contents)
        with watch.stage("train"):
            entries, reports = self._build(contents, entries, wanted.previous)
        watch.add_cpu("train", sum(report.cpu_seconds for report in reports))
        with watch.stage("aggregator"):
            aggregator = self._aggregate(wanted, graph_key, entries, state)
        generation = _generation(wanted, graph_key, stored, entries, aggregator, reports)
        return Built(wanted, generation, aggregator, contents, watch)

    def publish(self, built: Built, also: Callable[[Connection], None] | None = None) -> None:
        """Make a built generation current, in one transaction.

        Args:
            built: what to publish.
            also: what else belongs into that transaction.

        Raises:
            HomeError: somebody else published meanwhile, or the lease is lost.
        """
        body = built.generation.to_json() | {"aggregator": dict(built.aggregator.meta)}
        with built.stopwatch.stage("publish"), self.ledger.write() as tx:
            self.ledger.publish(built.generation.number, body, tx)
            if also is not None:
                also(tx)

    # ---- keys

    def _contents(self, wanted: Wanted) -> tuple[dict[int, ShardContent], dict[int, ShardEntry]]:
        """Contents that may have moved, and the entries of all shards as far as they are known."""
        repaired = self.config.shards.repair != "none"
        index = build_index(wanted.graph, wanted.partition, has_phantoms=repaired)
        contents, entries = {}, {}
        for shard in range(wanted.partition.num_shards):
            if wanted.readers is not None and shard not in wanted.readers and wanted.previous:
                entries[shard] = wanted.previous.shards[shard]
                continue
            content = build_content(wanted.graph, index, shard)
            seed = self.seed(wanted.partition, shard)
            key = submodel_key(content.digest, self.recipe, seed)
            contents[shard] = content
            slices = tuple(map(str, slice_keys(content, self.recipe, seed).values()))
            entries[shard] = ShardEntry(key, content.digest, None, slices)
        self._seeds = {s: self.seed(wanted.partition, s) for s in contents}
        return contents, entries

    def seed(self, partition: Partition, shard: int) -> int:
        """Seed of a shard's training."""
        return submodel_seed(self.config.seed, partition.names[shard])

    # ---- bytes

    def write_all(self, blobs: Mapping[tuple[str, str], Blob]) -> None:
        """Register, stage and promote blobs: intent before bytes."""
        write_blobs(self.ledger, self.store, blobs, self._epoch)

    def _store_inputs(
        self, wanted: Wanted, contents: Mapping[int, ShardContent]
    ) -> tuple[str, set[tuple[str, str]]]:
        """Write graph segments, partition and contents that are not there yet."""
        graph_key = str(graph_digest(wanted.graph))
        present = {item for item in self.ledger.registered() if self.store.has(*item)}
        blobs = graph_blobs(wanted.graph, {key for kind, key in present if kind == SEGMENT})
        blobs[PARTITION, str(wanted.partition.key)] = partition_blob(wanted.partition)
        for content in contents.values():
            if not content.is_silent:
                blobs[CONTENT, str(content.digest)] = content.to_blob()
        self.write_all({item: blob for item, blob in blobs.items() if item not in present})
        digests = segment_digests(wanted.graph)
        segments = {(SEGMENT, str(digests[s])) for s in set(wanted.graph.segments.tolist())}
        stored = segments | {(GRAPH, graph_key), (PARTITION, str(wanted.partition.key))}
        return graph_key, stored

    def _build(
        self,
        contents: Mapping[int, ShardContent],
        entries: dict[int, ShardEntry],
        previous: Generation | None,
    ) -> tuple[dict[int, ShardEntry], list[BuildReport]]:
        """Train the submodels whose keys are missing."""
        entries = dict(entries)
        shards = previous.shards.values() if previous else ()
        published = {entry.key: entry.weights_digest for entry in shards}
        jobs = []
        for shard, content in contents.items():
            if content.is_silent:
                continue
            key = entries[shard].key
            weights = self._whole_weights(key, published.get(key))
            if weights is not None:
                entries[shard] = entries[shard]._replace(weights_digest=weights)
                continue
            jobs.append(
                BuildJob(
                    str(self.store.home),
                    self.fence,
                    shard,
                    str(content.digest),
                    key,
                    self.recipe,
                    self._seeds[shard],
                    self._numbered(entries[shard].slice_keys),
                )
            )
        self.ledger.register([(SUBMODEL, job.submodel_key) for job in jobs], self._epoch)
        slices = [(SLICE, name) for job in jobs for name in job.slice_keys.values()]
        self.ledger.register(slices, self._epoch)
        reports: list[BuildReport] = self.pool.map("build", jobs, self._training(jobs))
        staged = [name for report in reports for name in report.staged_slices]
        if staged:
            self.store.promote(SLICE, staged, fence=self.fence)
        self.store.promote(SUBMODEL, [r.submodel_key for r in reports], fence=self.fence)
        for report in reports:
            entries[report.shard] = entries[report.shard]._replace(
                weights_digest=report.weights_digest
            )
        return entries, reports

    def _numbered(self, keys: Sequence[str]) -> dict[int, str]:
        """Slice number -> key; only the slices before the first label have none."""
        last = self.recipe.config.slices
        return dict(zip(range(last - len(keys), last), keys, strict=True))

    def _whole_weights(self, key: str, published: str | None) -> str | None:
        """Weights digest of a submodel that is there and whole; a damaged one is destroyed.

        Args:
            key: the submodel.
            published: the digest that the current generation names for it, if it does.
        """
        if not self.store.has(SUBMODEL, key):
            return None
        try:
            found = tensors_digest(load_weights(self.store, key))
            if published not in (None, found):
                raise CorruptArtefactError(f"{SUBMODEL}/{key}", "differs from what was published")
        except CorruptArtefactError as error:
            self._drop(SUBMODEL, key, error)
            return None
        return str(found)

    def drop_damaged(self, generation: Generation) -> None:
        """Destroy artefacts that are not what was stored, so that they are made again."""
        for kind, key in generation.artefacts:
            try:
                self.store.get(kind, key)
            except CorruptArtefactError as error:
                self._drop(kind, key, error)

    def _drop(self, kind: str, key: str, error: CorruptArtefactError) -> None:
        note_damage(error)
        self.store.delete(kind, key, fence=self.fence)

    def take_over(self, wanted: Wanted, source: LocalStore) -> None:
        """Copy finished submodels and slices of the wanted state from another store.

        Only what the filtered graph asks for by its key, so nothing that read an erased record.
        """
        _, entries = self._contents(wanted)
        names = [(SUBMODEL, entry.key) for entry in entries.values()]
        names += [(SLICE, key) for entry in entries.values() for key in entry.slice_keys]
        for item in names:
            if source.has(*item) and not self.store.has(*item):
                try:
                    self.write_all({item: source.get(*item)})
                except CorruptArtefactError as error:
                    note_damage(error)

    def _training(self, jobs: Sequence[BuildJob]) -> JobProgress:
        def note(done: int, total: int, at: int) -> None:
            self.trained(jobs[at].shard)
            self.progress("training", done, total)

        return note

    # ---- aggregator

    def _aggregate(
        self,
        wanted: Wanted,
        graph_key: str,
        entries: Mapping[int, ShardEntry],
        state: AggregatorState | None,
    ) -> AggregatorState:
        submodels = {s: e.key for s, e in sorted(entries.items()) if e.weights_digest}
        change = None
        if wanted.previous_graph is not None and wanted.change and wanted.previous:
            before_key = wanted.previous.graph_key
            change = disturbance(wanted.previous_graph, before_key, wanted.change)
        context = FitContext(
            wanted.graph,
            graph_key,
            wanted.partition,
            submodels,
            self.config,
            self.recipe,
            self.pool,
            self.store,
            str(self.store.home),
            self.write_all,
            state,
            change,
        )
        return find_aggregator(self.config.aggregator.kind).fit(context)


def _generation(
    wanted: Wanted,
    graph_key: str,
    stored: set[tuple[str, str]],
    entries: Mapping[int, ShardEntry],
    aggregator: AggregatorState,
    reports: Sequence[BuildReport],
) -> Generation:
    for entry in entries.values():
        if entry.weights_digest:
            stored |= {(SUBMODEL, entry.key), (CONTENT, entry.content_digest)}
            stored |= {(SLICE, key) for key in entry.slice_keys}
    costs = dict(wanted.previous.costs) if wanted.previous else {}
    costs |= {r.shard: round(r.seconds, 4) for r in reports if not r.slices_reused}
    return Generation(
        wanted.previous.number + 1 if wanted.previous else 1,
        wanted.epoch,
        graph_key,
        str(wanted.partition.key),
        str(aggregator.key),
        entries,
        tuple(sorted(stored | set(aggregator.artefacts))),
        costs,
        _retrained(wanted.previous, entries, reports),
    )


def _retrained(
    previous: Generation | None, entries: Mapping[int, ShardEntry], reports: Sequence[BuildReport]
) -> tuple[int, ...]:
    """Shards with a new submodel, trained now or before an interruption of the same work."""
    old = set(previous.submodels.values()) if previous else set()
    new = {shard for shard, e in entries.items() if e.weights_digest and e.key not in old}
    return tuple(sorted(new | {report.shard for report in reports}))


def write_blobs(
    ledger: Ledger, store: LocalStore, blobs: Mapping[tuple[str, str], Blob], epoch: int
) -> None:
    """Register, stage and promote blobs: intent before bytes.

    Args:
        ledger: where they are registered; its lease names the staging area.
        store: where they go.
        blobs: (kind, key) -> blob.
        epoch: graph epoch they are of, for the record only.
    """
    ledger.register(blobs, epoch)
    fence, by_kind = ledger.lease.fence, dict[str, list[str]]()
    for (kind, key), blob in blobs.items():
        store.stage(kind, key, blob, fence=fence)
        by_kind.setdefault(kind, []).append(key)
    for kind, keys in by_kind.items():
        store.promote(kind, keys, fence=fence)


def purge(
    ledger: Ledger, store: LocalStore, kept: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Destroy every artefact that is not among the ``kept`` ones; returns those destroyed."""
    ledger.lease.require()
    gone = [item for item in ledger.registered() if item not in kept]
    for kind, key in gone:
        store.delete(kind, key, fence=ledger.lease.fence)
    store.clear_staging(ledger.lease.fence)
    ledger.unregister(gone)
    return gone
