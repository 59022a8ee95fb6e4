"""Tombstones: keyed HMACs of what was erased, so that it is recognised and never comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import scipy.sparse as sp

from cluster.digest import NodeId, encode_id
from cluster.graph import UNLABELLED, Change, Edge, Graph
from cluster.schema import FILL_VALUE
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger

NODE, EDGE, LABEL = "node", "edge", "label"
Marks = Mapping[tuple[str, object], list[bytes]]
FEATURE, FEATURE_ROW = "feature", "feature-row"  # one cell; any cell of a node


def edge_mark(ledger: Ledger, edge: Edge, graph: Graph) -> bytes:
    """Tombstone of an edge; without direction where the graph has none."""
    u, v = encode_id(edge[0]), encode_id(edge[1])
    ends = (u, v) if graph.schema.directed else (min(u, v), max(u, v))
    return ledger.mark(EDGE, *ends)


def marks_of(ledger: Ledger, erasure: Erasure, graph: Graph) -> dict[bytes, str]:
    """Tombstone -> kind for every record that ``erasure`` names."""
    marks: dict[bytes, str] = {}
    for node_id in erasure.nodes:
        marks[ledger.mark(NODE, encode_id(node_id))] = NODE
    for edge in erasure.edges:
        marks[edge_mark(ledger, edge, graph)] = EDGE
    for node_id in erasure.labels:
        marks[ledger.mark(LABEL, encode_id(node_id))] = LABEL
    for node_id, names in erasure.features.items():
        marks[ledger.mark(FEATURE_ROW, encode_id(node_id))] = FEATURE_ROW
        for name in graph.schema.features if names is None else names:
            marks[ledger.mark(FEATURE, encode_id(node_id), name)] = FEATURE
    return marks


def split_erased(
    erasure: Erasure, graph: Graph, marks: Marks, found: Mapping[bytes, str]
) -> tuple[Erasure, dict[str, int]]:
    """Take out of ``erasure`` what was forgotten before.

    Args:
        erasure: what is asked.
        graph: the graph it is asked of.
        marks: its tombstones, by :func:`asked_marks`.
        found: tombstone -> request, for those that exist.

    Returns:
        The rest, and the earlier requests: request id -> number of these records it had named.
    """
    earlier: dict[str, int] = {}
    gone = set()
    for (kind, item), group in marks.items():
        request = next((found[mark] for mark in group if mark in found), None)
        if request is not None:
            gone.add((kind, item))
            earlier[request] = earlier.get(request, 0) + 1
    if not gone:
        return erasure, {}
    features: dict[NodeId, tuple[str, ...]] = {}
    for node_id, names in erasure.features.items():
        wanted = graph.schema.features if names is None else tuple(names)
        left = tuple(name for name in wanted if (FEATURE, (node_id, name)) not in gone)
        if left:
            features[node_id] = left
    rest = Erasure(
        [i for i in erasure.nodes if (NODE, i) not in gone],
        [e for e in erasure.edges if (EDGE, e) not in gone],
        features,
        [i for i in erasure.labels if (LABEL, i) not in gone],
    )
    return rest, earlier


def asked_marks(ledger: Ledger, erasure: Erasure, graph: Graph) -> Marks:
    """Every asked record -> its own tombstone first, then those of the nodes it hangs on."""
    return dict(_items(ledger, erasure, graph))


def _items(
    ledger: Ledger, erasure: Erasure, graph: Graph
) -> Iterator[tuple[tuple[str, object], list[bytes]]]:

    def node_mark(node_id: NodeId) -> bytes:
        return ledger.mark(NODE, encode_id(node_id))

    for node_id in erasure.nodes:
        yield (NODE, node_id), [node_mark(node_id)]
    for edge in erasure.edges:
        own = edge_mark(ledger, edge, graph)
        yield (EDGE, edge), [own, node_mark(edge[0]), node_mark(edge[1])]
    for node_id in erasure.labels:
        yield (LABEL, node_id), [ledger.mark(LABEL, encode_id(node_id)), node_mark(node_id)]
    for node_id, names in erasure.features.items():
        for name in graph.schema.features if names is None else names:
            own = ledger.mark(FEATURE, encode_id(node_id), name)
            yield (FEATURE, (node_id, name)), [own, node_mark(node_id)]


@dataclass(frozen=True)
class Standing:
    """Which tombstones count.

    Attributes:
        unlearned_only: only those of requests whose records live models are without.
        but: requests whose tombstones do not count.
        since: graph epoch of the records that are looked at; None for the present one.
    """

    unlearned_only: bool = True
    but: tuple[str, ...] = ()
    since: int | None = None


UNLEARNED = Standing()


def without_erased(ledger: Ledger, graph: Graph, standing: Standing = UNLEARNED) -> Graph:
    """Filter a graph that was given to a home by the home's tombstones, before any key is made.

    What was accepted and is not unlearned yet stays: it is in the published graph as well.
    """
    change = erased_part(ledger, graph, standing)
    return graph if change.is_empty else graph.apply(change)


def erased_part(ledger: Ledger, graph: Graph, standing: Standing = UNLEARNED) -> Change:
    """The records in a graph that were erased in this home; what it lost already is not named."""
    kinds = ledger.tombstone_kinds()
    ids = graph.ids.tolist()

    def erased(kind: str, items: Iterable[Any], marks: Callable[[Any], bytes]) -> tuple[Any, ...]:
        if kind not in kinds:
            return ()
        records = {marks(item): item for item in items}
        return tuple(records[mark] for mark in ledger.erased_by(list(records), **vars(standing)))

    def by_id(kind: str) -> tuple[Any, ...]:
        return erased(kind, ids, lambda node_id: ledger.mark(kind, encode_id(node_id)))

    def cells(node_id: NodeId) -> tuple[str, ...]:
        own = encode_id(node_id)
        names = _filled(graph, node_id)
        return erased(FEATURE, names, lambda name: ledger.mark(FEATURE, own, name))

    edges: tuple[Edge, ...] = ()
    if EDGE in kinds:
        ends = zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True)
        edges = erased(EDGE, ends, lambda edge: edge_mark(ledger, edge, graph))
    found = ((node_id, cells(node_id)) for node_id in by_id(FEATURE_ROW))
    features = tuple((node_id, names) for node_id, names in found if names)
    labels = by_id(LABEL)
    known = graph.y[graph.rows(labels)] != UNLABELLED
    return Change(by_id(NODE), edges, features, tuple(compress(labels, known.tolist())))


def _filled(graph: Graph, node_id: NodeId) -> list[str]:
    """Names of the feature columns in which a node has a value."""
    row = graph.x[graph.rows([node_id])]
    values = row.toarray() if sp.issparse(row) else row
    return [graph.schema.features[i] for i in np.flatnonzero(values[0] != FILL_VALUE)]
