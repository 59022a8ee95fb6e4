"""A view: one generation under one mask, and the answers that were computed of it.

Answers are computed for the rows that are asked, or taken from the tables that all views of the
generation share. A row has a version: that of the view in which something that its answer reads
last moved. An entry counts while it is not older.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.errors import StaleShardError
from cluster.graph import Graph, Located
from cluster.partition import UNASSIGNED
from coordinator.aggregators import base, find_aggregator
from coordinator.aggregators.merge import training_labels
from coordinator.answering import require_submodels
from coordinator.serving.graph_tables import GraphTables
from coordinator.serving.hidden import Hidden
from coordinator.serving.moved import WALK_HOPS, Moved, moved_rows
from coordinator.serving.published import Published
from coordinator.serving.row_table import RowTable
from shards.ball import Ball, ball, whole
from shards.label_step import apply_step, reach_of
from shards.ridge import RidgeHead, RidgeSpec
from shards.ridge_table import RidgeTable
from shards.submodels.inputs import ModelInput, inference_input, normalise_rows

Array = npt.NDArray[Any]

CHUNK = 1024  # rows that are worked on at once
MOST = 0.5  # share of the graph from which a label step is taken for all of it


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept for each row: tables, or the versions in which its answers last moved."""

    posteriors: Any
    base: Any
    answers: Any


@dataclass(frozen=True, eq=False)
class View:
    """Answers of a generation without what a mask hides; does not change.

    Rows are those of the generation's graph, those of hidden nodes included.

    Attributes:
        published: the generation.
        hidden: the mask.
        graph: the generation's graph without what is hidden.
        owner: ``[N]`` owner of each row, none of a hidden node.
        labels: ``[N]`` training label of each row, negative where there is none.
        inputs: what the submodels read.
        tables: what the aggregator reads of the whole graph, if it does.
        stored: :class:`RowTable` of each kind, shared by the views of the generation.
        since: ``[N]`` version of each kind.
        version: rises with every mask.
    """

    published: Published
    hidden: Hidden
    graph: Graph
    owner: Array
    labels: Array
    inputs: ModelInput
    tables: GraphTables | None
    stored: Kept
    since: Kept
    version: int

    # ---- making one

    @classmethod
    def cold(cls, published: Published, located: Located | None = None) -> View:
        """A view with nothing computed.

        Args:
            published: the generation.
            located: the mask, by place in the generation's graph.
        """
        whole_graph = published.graph
        hidden = Hidden.of(whole_graph, located)
        graph = hidden.applied(whole_graph)
        owner, labels = _roles(published, hidden, graph)
        size, classes = graph.num_nodes, graph.schema.num_classes
        stored = Kept(
            RowTable(size, (len(published.shards), classes), np.float32),
            RowTable(size, (classes,), np.float64),
            RowTable(size, (classes,), np.float64),
        )
        since = Kept(*(np.zeros(size, np.int64) for _ in range(3)))
        tables = None
        if "ridge" in published.aggregator.tensors:
            ridge = RidgeTable.of(graph, *_ridge(published))
            tables = GraphTables(graph, owner, published.shards, labels, ridge)
        inputs = inference_input(graph, "cpu")
        return cls(
            published, hidden, graph, owner, labels, inputs, tables, stored, since, version=0
        )

    def under(self, located: Located) -> View:
        """The same generation under another mask.

        A mask that hides more leaves standing what is out of its reach; one that hands records
        back is put on afresh.

        Args:
            located: all that the mask hides, by place in the generation's graph.
        """
        hidden = Hidden.of(self.published.graph, located)
        if not hidden.covers(self.hidden, self.published.graph):
            return View.cold(self.published, located)
        if self.hidden.covers(hidden, self.published.graph):
            return self
        return self._advanced(hidden)

    def _advanced(self, hidden: Hidden) -> View:
        """The view under a mask that hides more."""
        published, version = self.published, self.version + 1
        graph = hidden.applied(published.graph)
        change = hidden.since(self.hidden, published.graph, self.graph)
        owner, labels = _roles(published, hidden, graph)
        label_lost = bool((labels != self.labels).any())
        moved = moved_rows(change, published.config, label_lost=label_lost)
        tables = None
        if self.tables is not None:
            move = change.as_move(WALK_HOPS)
            ridge = self.tables.ridge.after(graph, move.renewed, move.moved)
            tables = GraphTables(graph, owner, published.shards, labels, ridge)
        inputs = inference_input(graph, "cpu", _features(self.inputs.x, graph, change.renewed))
        since = _renewed(self.since, moved, version)
        return View(
            published, hidden, graph, owner, labels, inputs, tables, self.stored, since, version
        )

    def forget_hidden(self) -> None:
        """Destroy what is kept of hidden nodes, once no older view answers any more."""
        hidden = np.flatnonzero(self.hidden.removed)
        for table in (self.stored.posteriors, self.stored.base, self.stored.answers):
            table.clear(hidden)

    # ---- answering

    def answer(self, rows: Array, excluded: Collection[int] = frozenset()) -> Array:
        """``[n, C]`` float64 probabilities on some rows.

        Args:
            rows: ``[n]`` rows of the generation's graph that are not hidden.
            excluded: shards whose votes are dropped; the others share their weight. An aggregator
                that asks no submodel has no such votes.

        Raises:
            GraphError: there is no submodel.
            StaleShardError: no shard is left to vote.
        """
        require_submodels(self.published.shards)
        wanted, place = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        kept = self._voting(excluded)
        if kept.all():
            table: RowTable = self.stored.answers
            found = table.answers(wanted, self.since.answers, self.version, self._all_voting)
        elif kept.any():
            found = self._stepped(wanted, kept)
        else:
            raise StaleShardError(
                "every shard is being retrained, so no vote is left; ask again later, or with the "
                "policy 'mask'"
            )
        return found[place]

    def warm(self, count: int) -> int:
        """Compute up to ``count`` answers that nobody asked for yet; how many are left after."""
        waiting = self._waiting()
        if len(waiting):
            self.answer(waiting[:count])
        return len(self._waiting())

    def _waiting(self) -> Array:
        missing = self.stored.answers.missing(self.since.answers, self.version)
        return np.flatnonzero(missing & ~self.hidden.removed)

    def _voting(self, excluded: Collection[int]) -> Array:
        """``[s]`` bool, shards whose votes count."""
        asked = find_aggregator(self.published.config.aggregator.kind).reads_submodels
        return np.asarray([not asked or s not in excluded for s in self.published.shards], bool)

    def _all_voting(self, rows: Array) -> Array:
        return self._stepped(rows, self._voting(()))

    def _stepped(self, rows: Array, kept: Array) -> Array:
        """Answers on ascending rows after the label step, by the shards that are kept."""
        settings = self.published.config.aggregator
        if not self._has_step():
            return self._combined(rows, kept)
        hops = reach_of(settings.label_step, settings.label_steps)
        around = ball(self.graph, rows, hops)
        if len(around.rows) > MOST * self.graph.num_nodes:
            return self._everywhere(kept)[rows]
        return self._step(around, kept)[around.targets]

    def _everywhere(self, kept: Array) -> Array:
        """Answers on all rows, which cost little more than those on most."""
        around = whole(self.graph)
        found = self._step(around, kept)
        if kept.all():
            self.stored.answers.write(around.rows, found, self.version)
        return found

    def _step(self, around: Ball, kept: Array) -> Array:
        """``[b, C]`` float64 answers in a ball after the label step; right on its targets."""
        settings, rows = self.published.config.aggregator, around.rows
        if kept.all():
            table: RowTable = self.stored.base
            before = table.answers(
                rows, self.since.base, self.version, lambda some: self._combined(some, kept)
            )
        else:
            before = self._combined(rows, kept)
        step, steps = settings.label_step, settings.label_steps
        return apply_step(step, before, around, self.labels, steps).astype(np.float64)

    def _combined(self, rows: Array, kept: Array) -> Array:
        """Answers of the aggregator, some rows at a time."""
        found = np.empty((len(rows), self.graph.schema.num_classes))
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            found[first : first + CHUNK] = self._combined_chunk(part, kept)
        return found

    def _combined_chunk(self, rows: Array, kept: Array) -> Array:
        published = self.published
        aggregator = find_aggregator(published.config.aggregator.kind)
        state, shards = published.aggregator, published.shards
        if aggregator.reads_submodels:
            state = state if kept.all() else aggregator.leave_out(state, kept)
            shards = tuple(shard for shard, stays in zip(shards, kept, strict=True) if stays)
            posteriors = self.posteriors(rows)[kept]
        else:
            posteriors = np.empty((0, len(rows), self.graph.schema.num_classes), np.float32)
        view = base.View(self.graph, self.owner, shards, rows=rows, tables=self.tables)
        return aggregator.combine(posteriors, view, state, published.config)

    def posteriors(self, rows: Array) -> Array:
        """``[s, n, C]`` float32 answers of the submodels on some rows, each once."""
        table: RowTable = self.stored.posteriors
        found = table.answers(rows, self.since.posteriors, self.version, self._evaluate)
        return found.transpose(1, 0, 2)

    def _evaluate(self, rows: Array) -> Array:
        stack = self.published.stack
        assert stack is not None, "answer() has looked whether there is a submodel"
        return stack.posteriors(self.inputs, rows).transpose(1, 0, 2)

    def _has_step(self) -> bool:
        settings = self.published.config.aggregator
        return settings.label_step != "none" and not find_aggregator(settings.kind).reads_labels


def _roles(published: Published, hidden: Hidden, graph: Graph) -> tuple[Array, Array]:
    """Owner and training label of every row."""
    owner = np.where(hidden.removed, UNASSIGNED, published.owner)
    return owner, training_labels(graph, published.config)


def _ridge(published: Published) -> tuple[RidgeSpec, RidgeHead]:
    tensors, config = published.aggregator.tensors, published.config
    head = RidgeHead(tensors["weights"], float(tensors["ridge"][0]))
    return RidgeSpec(config.aggregator.ridge_width, config.seed), head


def _features(x: Any, graph: Graph, renewed: Array) -> Any:
    """Normalised features of a changed graph; None where they are sooner made than mended."""
    if not len(renewed):
        return x
    if sp.issparse(x):
        return None
    mended = x.copy()
    mended[renewed] = normalise_rows(graph.x[renewed])
    return mended


def _renewed(since: Kept, moved: Moved, version: int) -> Kept:
    def after(before: Array, rows: Array) -> Array:
        return np.where(rows, version, before)

    return Kept(
        after(since.posteriors, moved.posteriors),
        after(since.base, moved.base),
        after(since.answers, moved.answers),
    )
