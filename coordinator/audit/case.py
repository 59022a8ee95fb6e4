"""One shard's audit as inputs: what its submodels are trained on, and what they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.config import RolesConfig
from cluster.digest import NodeId, derive_seed, keyed_hash
from cluster.errors import ConfigError
from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.partition import Partition
from coordinator.audit.settings import AuditSettings
from coordinator.audit.source import Twins, nodes_of, part
from coordinator.erasure import present_part
from shards.ball import ball
from shards.content import ShardContent, build_content
from shards.jobs import Questions
from shards.recipe import Recipe
from shards.shard_graph import build_index
from shards.submodels.table import receptive_field

Array = npt.NDArray[Any]

MAX_CONTROLS = 2000  # held-out nodes that the confidence is compared with
MIN_NEAR = 5  # held-out nodes of a class beside the shard; with fewer, all of the class count


@dataclass(frozen=True)
class Case:
    """One shard, and the records that it may still hold.

    Attributes:
        shard: its number.
        twins: the graph with and without the records.
        partition: of the graph with the records.
        recipe: of the submodels.
        roles: who is a training node.
    """

    shard: int
    twins: Twins
    partition: Partition
    recipe: Recipe
    roles: RolesConfig

    @cached_property
    def within(self) -> ShardContent:
        """What the shard would be trained on with the records."""
        return self._content(self.twins.within)

    @cached_property
    def without(self) -> ShardContent:
        """What it has to be trained on now."""
        return self._content(self.twins.without)

    @cached_property
    def asked(self) -> Array:
        """``[f]`` ids, ascending: erased nodes whose labels the shard would be trained on."""
        content, wanted = self.within, nodes_of(self.twins.erased)
        rows = np.flatnonzero(content.owned & (content.y != UNLABELLED))
        return np.asarray([i for i in content.ids[rows].tolist() if i in wanted], content.ids.dtype)

    def shadow(self, members: Array) -> ShardContent:
        """What it would be trained on with some of the records (``[f]`` bool of ``asked``)."""
        left_out = nodes_of(self.twins.erased) - set(self.asked[members].tolist())
        graph = self.twins.within
        change, _ = present_part(graph, part(self.twins.erased, left_out))
        return self._content(graph.apply(change))

    def _content(self, graph: Graph) -> ShardContent:
        repair = self.recipe.config.repair
        partition = self.partition.restrict(graph)
        index = build_index(graph, partition, has_phantoms=repair != "none")
        return build_content(graph, index, self.shard)

    @cached_property
    def controls(self) -> Array:
        """``[c]`` rows of ``twins.within``, ascending: labelled nodes that no shard trains on.

        They have the classes of the erased ones, and hash of the id picks among too many. Where
        shards are communities, those beside the shard are taken.
        """
        graph = self.twins.within
        classes = np.unique(graph.y[graph.rows(self.asked)])
        held_out = (graph.roles(self.roles) != TRAIN) & np.isin(graph.y, classes)
        named = [i for i in nodes_of(self.twins.erased) if graph.has_node(i)]
        held_out[graph.rows(named)] = False
        if self.partition.guarantee != "oblivious":
            held_out = self._near(graph, held_out, classes)
        rows = np.flatnonzero(held_out)
        order = np.argsort(graph.hash("audit-control")[rows], kind="stable")
        return np.sort(rows[order[:MAX_CONTROLS]])

    def _near(self, graph: Graph, held_out: Array, classes: Array) -> Array:
        owned = (self.partition.owners(graph) == self.shard).astype(np.float64)
        near = held_out & (graph.adjacency.matrix() @ owned > 0)
        for number in classes.tolist():
            of_class = graph.y == number
            if (near & of_class).sum() < MIN_NEAR:
                near |= held_out & of_class
        return np.asarray(near)

    @cached_property
    def weights(self) -> Array:
        """``[c]`` weight of each control, so that classes weigh as among the erased nodes."""
        graph = self.twins.within
        asked, controls = graph.y[graph.rows(self.asked)], graph.y[self.controls]
        share = np.bincount(asked, minlength=graph.schema.num_classes) / max(len(asked), 1)
        count = np.bincount(controls, minlength=graph.schema.num_classes)
        weights: Array = np.asarray((share / np.maximum(count, 1))[controls])
        return np.asarray(weights / weights.sum()) if len(weights) else weights

    def questions(self, settings: AuditSettings) -> Questions:
        """The erased nodes and after them the controls, with their features and maybe edges."""
        graph = self.twins.within
        rows = np.concatenate([graph.rows(self.asked), self.controls])
        labels = graph.y[rows].astype(np.int64)
        if settings.query == "0hop":
            edges = np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int64), None
            degree = np.zeros(len(rows), np.float32)
            return Questions(graph.x[rows], edges, degree, True, np.arange(len(rows)), labels)
        around = ball(graph, np.sort(rows), receptive_field(self.recipe.config))
        targets = around.targets[np.argsort(np.argsort(rows))]
        symmetric = not graph.schema.directed
        x = graph.x[around.rows]
        return Questions(x, around.edges, around.degree, symmetric, targets, labels)

    def members(self, settings: AuditSettings) -> Array:
        """``[N, f]`` bool: which shadow is trained with which node; every node in half of them."""
        ids: list[NodeId] = self.asked.tolist()
        seeds = [derive_seed(settings.seed, "member", j) for j in range(settings.shadows)]
        drawn = [keyed_hash("audit-shadow", seed, ids) for seed in seeds]
        rank = np.argsort(
            np.argsort(
                np.stack(drawn) if drawn else np.empty((0, len(ids))), axis=0, kind="stable"
            ),
            axis=0,
        )
        return np.asarray(rank < settings.shadows // 2)


def check_case(case: Case) -> None:
    """Refuse what no submodel can be trained or asked for.

    Raises:
        ConfigError: the shard never trained on the records, or would be silent without them.
    """
    if not len(case.asked):
        raise ConfigError(
            f"shard {case.shard} would train on none of the records: they are held-out or "
            "unlabelled nodes, or belong to another shard; audit the shards that own them"
        )
    if case.without.is_silent:
        raise ConfigError(
            f"shard {case.shard} has no labelled node without the records, so there is no "
            "submodel to compare with; `unweave verify` says whether it still serves one"
        )
