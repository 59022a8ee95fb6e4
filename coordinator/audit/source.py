"""The auditor's copy: the graph as it would be had the records not been erased, and without them.

A home does not hold what it forgot, so whoever audits it brings the records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import NodeId
from cluster.errors import ConfigError, HomeError, UnknownIdError, shorten
from cluster.graph import UNLABELLED, Edge, Graph
from cluster.schema import FILL_VALUE
from coordinator.erasure import Erasure, present_part

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Twins:
    """Two graphs that differ in the audited records alone.

    Attributes:
        within: the surviving graph and the audited records.
        without: the surviving graph without them.
        erased: the audited records.
    """

    within: Graph
    without: Graph
    erased: Erasure


def make_twins(graph: Graph, source: Graph, erased: Erasure | None) -> Twins:
    """Both graphs, from the auditor's copy and the home's graph.

    What other requests erased is in neither. A home that still holds the records, because it did
    not forget them, is audited like any other.

    Args:
        graph: the home's graph.
        source: the auditor's copy, which holds the records.
        erased: the records; None for all that the home does not hold of the source.

    Raises:
        ConfigError: the home holds all of the source, and no records are named.
        HomeError: the home's graph is not the source less some records.
        UnknownIdError: the source does not hold a record.
    """
    gone = missing(source, graph)
    asked = gone if erased is None else erased
    if asked.is_empty:
        raise ConfigError(
            "nothing to audit: the home holds every record of the auditor's copy; name the erased "
            "records, and give a copy from before they were erased"
        )
    absent = present_part(source, asked)[1]
    if not absent.is_empty:
        ids = (*absent.nodes, *absent.edges, *absent.features, *absent.labels)
        raise UnknownIdError(ids, "the auditor's copy", "record")
    within = source.apply(present_part(source, _less(gone, asked))[0])
    return Twins(within, within.apply(present_part(within, asked)[0]), asked)


def missing(source: Graph, graph: Graph) -> Erasure:
    """The records of ``source`` that ``graph`` does not hold.

    Raises:
        HomeError: ``graph`` holds something else, too.
    """
    alive = np.isin(source.ids.astype(str), graph.ids.astype(str))
    if alive.sum() != graph.num_nodes or (source.ids[alive] != graph.ids).any():
        unknown = [i for i in graph.ids.tolist() if not source.has_node(i)]
        raise _other(f"the home holds nodes {shorten(unknown)} that the auditor's copy does not")
    return Erasure(
        source.ids[~alive].tolist(),
        _missing_edges(source, graph, alive),
        _missing_features(source, graph, alive),
        _missing_labels(source, graph, alive),
    )


def _other(what: str) -> HomeError:
    return HomeError(f"{what}; give the graph that the system was fitted on")


def _missing_edges(source: Graph, graph: Graph, alive: Array) -> list[Edge]:
    row = np.cumsum(alive) - 1
    kept = np.flatnonzero(alive[source.src] & alive[source.dst])
    size = graph.num_nodes
    theirs = row[source.src[kept]] * size + row[source.dst[kept]]
    ours = graph.src * size + graph.dst
    if not np.isin(ours, theirs).all():
        raise _other("the home holds edges that the auditor's copy does not")
    gone = kept[~np.isin(theirs, ours)]
    return list(
        zip(
            source.ids[source.src[gone]].tolist(),
            source.ids[source.dst[gone]].tolist(),
            strict=True,
        )
    )


def _missing_labels(source: Graph, graph: Graph, alive: Array) -> list[NodeId]:
    differ = source.y[alive] != graph.y
    if (graph.y[differ] != UNLABELLED).any():
        raise _other("the home holds labels that the auditor's copy does not")
    found: list[NodeId] = graph.ids[differ].tolist()
    return found


def _missing_features(source: Graph, graph: Graph, alive: Array) -> dict[NodeId, list[str]]:
    before, names = source.x[alive], graph.schema.features
    if before.shape != graph.x.shape or sp.issparse(before) != sp.issparse(graph.x):
        raise _other("the features of the home and of the auditor's copy have other shapes")
    rows, columns = (before != graph.x).nonzero()
    if len(rows) and (np.asarray(graph.x[rows, columns]) != FILL_VALUE).any():
        raise _other("the home holds features that the auditor's copy does not")
    found: dict[NodeId, list[str]] = {}
    for node_id, column in zip(graph.ids[rows].tolist(), columns.tolist(), strict=True):
        found.setdefault(node_id, []).append(names[column])
    return found


def _less(gone: Erasure, asked: Erasure) -> Erasure:
    """What is gone besides the asked records.

    An edge of an asked node is part of it, as long as its other end is there.
    """
    nodes, labels = set(asked.nodes), set(asked.labels) | set(asked.nodes)
    edges = {frozenset(edge) for edge in asked.edges}
    features: dict[NodeId, list[str]] = {}
    for node_id, columns in gone.features.items():
        own = asked.features.get(node_id, ())
        left = [] if own is None else [c for c in columns or () if c not in own]
        if left and node_id not in nodes:
            features[node_id] = left
    return Erasure(
        [i for i in gone.nodes if i not in nodes],
        [e for e in gone.edges if frozenset(e) not in edges and not nodes & set(e)],
        features,
        [i for i in gone.labels if i not in labels],
    )


def part(erased: Erasure, nodes: set[NodeId]) -> Erasure:
    """The records of an erasure that are of some nodes; an edge is of both its ends."""
    return replace(
        erased,
        nodes=[i for i in erased.nodes if i in nodes],
        edges=[e for e in erased.edges if nodes & set(e)],
        features={i: names for i, names in erased.features.items() if i in nodes},
        labels=[i for i in erased.labels if i in nodes],
    )


def nodes_of(erased: Erasure) -> set[NodeId]:
    """Nodes whose own records an erasure names; the ends of its edges where it names no node."""
    own = {*erased.nodes, *erased.labels, *erased.features}
    return own or {end for edge in erased.edges for end in edge}
