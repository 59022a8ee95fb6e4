"""Tombstones: keyed HMACs of what was erased, so that it is recognised and never comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.digest import NodeId, encode_id
from cluster.graph import Change, Edge, Graph
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger

NODE, EDGE, LABEL = "node", "edge", "label"
Marks = Mapping[tuple[str, object], list[bytes]]
FEATURE, FEATURE_ROW = "feature", "feature-row"  # one cell; any cell of a node


def _edge_record(edge: Edge, *, directed: bool) -> tuple[bytes, bytes]:
    u, v = encode_id(edge[0]), encode_id(edge[1])
    return (u, v) if directed else (min(u, v), max(u, v))


def marks_of(ledger: Ledger, erasure: Erasure, graph: Graph) -> dict[bytes, str]:
    """Tombstone -> kind for every record that ``erasure`` names."""
    marks: dict[bytes, str] = {}
    for node_id in erasure.nodes:
        marks[ledger.mark(NODE, encode_id(node_id))] = NODE
    for edge in erasure.edges:
        marks[ledger.mark(EDGE, *_edge_record(edge, directed=graph.schema.directed))] = EDGE
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
    """Take out of ``erasure`` what was asked before.

    Args:
        erasure: what is asked.
        graph: the graph it is asked of.
        marks: its tombstones, by :func:`asked_marks`.
        found: tombstone -> request, for those that exist.

    Returns:
        The rest, and the earlier requests: request id -> number of records it had named already.
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
        own = ledger.mark(EDGE, *_edge_record(edge, directed=graph.schema.directed))
        yield (EDGE, edge), [own, node_mark(edge[0]), node_mark(edge[1])]
    for node_id in erasure.labels:
        yield (LABEL, node_id), [ledger.mark(LABEL, encode_id(node_id)), node_mark(node_id)]
    for node_id, names in erasure.features.items():
        for name in graph.schema.features if names is None else names:
            own = ledger.mark(FEATURE, encode_id(node_id), name)
            yield (FEATURE, (node_id, name)), [own, node_mark(node_id)]


def without_erased(ledger: Ledger, graph: Graph) -> Graph:
    """Filter a graph that was given to a home by the home's tombstones, before any key is made.

    What was accepted and is not unlearned yet stays: it is in the published graph as well.
    """
    kinds = ledger.tombstone_kinds()
    ids = graph.ids.tolist()

    def erased(kind: str, records: dict[bytes, object]) -> list[object]:
        if kind not in kinds:
            return []
        found = ledger.erased_by(list(records), unlearned_only=True)
        return [records[mark] for mark in found]

    nodes = erased(NODE, {ledger.mark(NODE, encode_id(i)): i for i in ids} if NODE in kinds else {})
    edges = _erased_edges(ledger, graph) if EDGE in kinds else []
    labels = erased(
        LABEL, {ledger.mark(LABEL, encode_id(i)): i for i in ids} if LABEL in kinds else {}
    )
    rows = erased(
        FEATURE_ROW,
        {ledger.mark(FEATURE_ROW, encode_id(i)): i for i in ids} if FEATURE_ROW in kinds else {},
    )
    features = []
    for node_id in rows:
        cells: dict[bytes, object] = {
            ledger.mark(FEATURE, encode_id(node_id), name): name  # type: ignore[arg-type]
            for name in graph.schema.features
        }
        features.append((node_id, tuple(erased(FEATURE, cells))))
    change = Change(tuple(nodes), tuple(edges), tuple(features), tuple(labels))  # type: ignore[arg-type]
    return graph if change.is_empty else graph.apply(change)


def _erased_edges(ledger: Ledger, graph: Graph) -> list[Edge]:
    pairs = zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True)
    records = {
        ledger.mark(EDGE, *_edge_record(edge, directed=graph.schema.directed)): edge
        for edge in pairs
    }
    return [records[mark] for mark in ledger.erased_by(list(records), unlearned_only=True)]
