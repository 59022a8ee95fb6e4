"""Graph: immutable columns in canonical order of the external ids, and ``apply(change)``.

Rows are always sorted by external id, so the same surviving records give the same arrays whatever
their history. Internal ids (``node_ids``) follow from the external ids alone and enter no key.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.config import RolesConfig
from cluster.digest import Digest, NodeId, keyed_hash
from cluster.errors import GraphError, UnknownIdError
from cluster.schema import FILL_VALUE, Schema

if TYPE_CHECKING:
    import networkx
    import torch_geometric.data

Array = npt.NDArray[Any]
Edge = tuple[NodeId, NodeId]

TRAIN, VAL, TEST = 0, 1, 2
UNLABELLED = -1


@dataclass(frozen=True)
class Change:
    """Records to forget, by external id; a feature entry of ``None`` means every column."""

    nodes: tuple[NodeId, ...] = ()
    edges: tuple[Edge, ...] = ()
    features: tuple[tuple[NodeId, tuple[str, ...] | None], ...] = ()
    labels: tuple[NodeId, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return not (self.nodes or self.edges or self.features or self.labels)


@dataclass(frozen=True)
class Located:
    """The records of a change by their place in one graph; holds no ids.

    Attributes:
        removed: rows of the nodes.
        cut: positions of the edges.
        cells: rows and columns of the feature cells.
        unlabelled: rows of the labels.
    """

    removed: Array
    cut: Array
    cells: tuple[Array, Array]
    unlabelled: Array


def stable_order(values: Array) -> Array:
    """Stable ascending order of row numbers; a radix sort, 16 bits at a time."""
    order = np.argsort(values.astype(np.uint16), kind="stable")
    for shift in range(16, int(values.max(initial=0)).bit_length(), 16):
        digits = (values[order] >> shift).astype(np.uint16)
        order = order[np.argsort(digits, kind="stable")]
    return order


def in_degree(indptr: Array, weight: Array | None) -> Array:
    """``[n]`` float32 in-degree, summed in float64 and canonical order."""
    if weight is None:
        return np.diff(indptr).astype(np.float32)
    target = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    sums = np.bincount(target, weights=weight, minlength=len(indptr) - 1)
    return sums.astype(np.float32)


@dataclass(frozen=True)
class Adjacency:
    """In-neighbours of each node, rows sorted by (dst, src): the message-passing edges.

    Attributes:
        indptr: ``[N + 1]`` int64.
        indices: ``[M]`` int64 source rows; an undirected edge appears in both directions.
        weight: ``[M]`` float32, or None for an unweighted graph.
    """

    indptr: Array
    indices: Array
    weight: Array | None

    @cached_property
    def degree(self) -> Array:
        """``[N]`` float32 in-degree (sum of weights)."""
        return in_degree(self.indptr, self.weight)

    def matrix(self) -> sp.csr_matrix:
        """Pattern as an ``[N, N]`` CSR matrix of ones, row = target."""
        n = len(self.indptr) - 1
        ones = np.ones(len(self.indices), np.float64)
        return sp.csr_matrix((ones, self.indices, self.indptr), shape=(n, n))


@dataclass(frozen=True, eq=False)
class Graph:
    """An attributed graph; build one with a reader (``from_arrays``, ``from_parquet``, ...).

    Attributes:
        schema: what the columns are.
        ids: ``[N]`` external ids, ascending (int64, or object for str and UUID).
        x: ``[N, F]`` float32 features, dense or canonical CSR as the schema declares.
        y: ``[N]`` int32 class index, -1 where unlabelled.
        src: ``[M]`` int64 rows; an undirected edge is stored once with ``src < dst``.
        dst: ``[M]`` int64 rows, edges sorted by (src, dst).
        weight: ``[M]`` float32 or None.
        node_columns: further columns, name -> ``[N]``.
        edge_columns: further columns, name -> ``[M]``.
    """

    schema: Schema
    ids: Array
    x: Any
    y: Array
    src: Array
    dst: Array
    weight: Array | None = None
    node_columns: Mapping[str, Array] = field(default_factory=dict)
    edge_columns: Mapping[str, Array] = field(default_factory=dict)
    _hashes: dict[tuple[str, int], Array] = field(default_factory=dict, repr=False)
    segment_cache: dict[int, Digest] = field(default_factory=dict, repr=False)

    # ---- what it holds

    @property
    def num_nodes(self) -> int:
        """N, surviving nodes."""
        return len(self.ids)

    @property
    def num_edges(self) -> int:
        """M, surviving edges; an undirected edge counts once."""
        return len(self.src)

    @property
    def classes(self) -> tuple[int | str, ...]:
        """Declared class values."""
        return self.schema.classes

    def __repr__(self) -> str:
        kind = "directed" if self.schema.directed else "undirected"
        return (
            f"Graph({kind}, nodes={self.num_nodes}, edges={self.num_edges}, "
            f"features={self.schema.num_features} {self.schema.layout}, "
            f"classes={self.schema.num_classes})"
        )

    @cached_property
    def adjacency(self) -> Adjacency:
        """Message-passing edges: both directions of an undirected edge, a directed one once."""
        by_target = stable_order(self.dst)  # edges are sorted by (src, dst) already
        into = np.bincount(self.dst, minlength=self.num_nodes)
        if self.schema.directed:
            indptr = np.concatenate([[0], np.cumsum(into)])
            weight = None if self.weight is None else self.weight[by_target]
            return Adjacency(indptr, self.src[by_target], weight)
        # undirected edges have src < dst: sources below a row come first, then those above it
        out = np.bincount(self.src, minlength=self.num_nodes)
        indptr = np.concatenate([[0], np.cumsum(into + out)])
        each, target = np.arange(self.num_edges), self.dst[by_target]
        below = indptr[target] + each - (np.cumsum(into) - into)[target]
        above = (indptr[:-1] + into - (np.cumsum(out) - out))[self.src] + each
        indices = np.empty(2 * self.num_edges, np.int64)
        indices[below], indices[above] = self.src[by_target], self.dst
        weight = None
        if self.weight is not None:
            weight = np.empty(2 * self.num_edges, np.float32)
            weight[below], weight[above] = self.weight[by_target], self.weight
        return Adjacency(indptr, indices, weight)

    @cached_property
    def touching(self) -> Array:
        """``[N]`` int64 number of edges at each node; a loop counts once."""
        ends = np.bincount(self.src, minlength=self.num_nodes)
        ends += np.bincount(self.dst, minlength=self.num_nodes)
        return ends - np.bincount(self.src[self.src == self.dst], minlength=self.num_nodes)

    @cached_property
    def _row_of(self) -> dict[NodeId, int]:
        return {node_id: row for row, node_id in enumerate(self.ids.tolist())}

    def _row(self, node_id: NodeId) -> int:
        """Row of an id, -1 if there is none; 1.0 and True are not the id 1."""
        known = _is_id(node_id, self.schema.id_type)
        return self._row_of.get(node_id, -1) if known else -1

    def rows(self, ids: Iterable[NodeId]) -> Array:
        """``[K]`` int64 row numbers of external ids.

        Raises:
            UnknownIdError: names every id that is not in the graph.
        """
        if isinstance(ids, np.ndarray) and ids.dtype == self.ids.dtype == np.int64:
            return self._rows_of_array(ids)
        ids = list(ids)
        rows = [self._row(node_id) for node_id in ids]
        unknown = [node_id for node_id, row in zip(ids, rows, strict=True) if row < 0]
        if unknown:
            raise UnknownIdError(unknown, "the graph")
        return np.asarray(rows, np.int64)

    def _rows_of_array(self, ids: Array) -> Array:
        at = np.searchsorted(self.ids, ids)
        found = at < self.num_nodes
        found[found] = self.ids[at[found]] == ids[found]
        if not found.all():
            raise UnknownIdError(ids[~found].tolist(), "the graph")
        return at

    def edge_positions(self, edges: Sequence[Edge]) -> Array:
        """``[K]`` int64 positions of edges in ``src``/``dst``.

        Raises:
            UnknownIdError: names every edge that does not exist.
        """
        positions = [
            self._edge_position(u, v) if self.has_node(u) and self.has_node(v) else -1
            for u, v in edges
        ]
        missing = [edge for edge, at in zip(edges, positions, strict=True) if at < 0]
        if missing:
            raise UnknownIdError(missing, "the graph", "edge")
        return np.asarray(positions, np.int64)

    def _edge_position(self, u: NodeId, v: NodeId) -> int:
        """Position of an edge between two known nodes, -1 when there is none."""
        ends = (self._row_of[u], self._row_of[v])
        a, b = ends if self.schema.directed else (min(ends), max(ends))
        low, high = np.searchsorted(self.src, [a, a + 1])
        at = int(low + np.searchsorted(self.dst[low:high], b))
        return at if at < high and self.dst[at] == b else -1

    def has_node(self, node_id: NodeId) -> bool:
        """Whether the graph holds this node; an id of another type is not held."""
        return self._row(node_id) >= 0

    def has_edge(self, u: NodeId, v: NodeId) -> bool:
        """Whether the graph holds this edge, in either direction if it is undirected."""
        return self.has_node(u) and self.has_node(v) and self._edge_position(u, v) >= 0

    def hash(self, domain: str, seed: int = 0) -> Array:
        """``[N]`` uint64 keyed hash of every id alone (cached, and carried along by ``apply``)."""
        key = (domain, seed)
        if key not in self._hashes:
            self._hashes[key] = keyed_hash(domain, seed, self.ids.tolist())
        return self._hashes[key]

    def roles(self, config: RolesConfig) -> Array:
        """``[N]`` int8 role (TRAIN, VAL, TEST) by keyed hash of the id alone."""
        share = self.hash("role", config.seed) / 2.0**64
        role = np.full(self.num_nodes, TEST, np.int8)
        role[share < config.train + config.val] = VAL
        role[share < config.train] = TRAIN
        return role

    @property
    def node_ids(self) -> Array:
        """``[N]`` int64 internal ids: a hash of the external id alone.

        So they are stable, are never reused or renumbered, and tell nothing of other nodes, not
        even that one was there.
        """
        return self.hash("node-id").astype(np.int64)

    @property
    def segments(self) -> Array:
        """``[N]`` uint8 storage segment of every node, by hash of its id alone."""
        return (self.hash("segment") >> np.uint64(56)).astype(np.uint8)

    # ---- change

    def apply(self, change: Change) -> Graph:
        """Return the graph without the records of ``change``.

        A node goes with its edges; an erased feature becomes the fill value; an erased label makes
        the node unlabelled. Nodes and edges may overlap within one change.

        Raises:
            UnknownIdError: a node or edge is not in the graph; nothing is changed.
            GraphError: a feature column is not in the schema.
        """
        return self.without(self.locate(change))

    def locate(self, change: Change) -> Located:
        """Where the records of ``change`` are in this graph.

        Raises:
            UnknownIdError: a node or edge is not in the graph.
            GraphError: a feature column is not in the schema.
        """
        return Located(
            self.rows(change.nodes),
            self.edge_positions(change.edges),
            self._feature_cells(change),
            self.rows(change.labels),
        )

    def without(self, located: Located) -> Graph:
        """The graph less some records; see :meth:`apply`."""
        removed, cells, unlabelled = located.removed, located.cells, located.unlabelled
        keep_node = np.ones(self.num_nodes, bool)
        keep_node[removed] = False
        keep_edge = keep_node[self.src] & keep_node[self.dst]
        keep_edge[located.cut] = False
        gone_edges = np.flatnonzero(~keep_edge)
        touched_rows = np.concatenate(
            [removed, np.minimum(self.src[gone_edges], self.dst[gone_edges]), cells[0], unlabelled]
        ).astype(np.int64)
        touched = set(self.segments[touched_rows].tolist())

        y = self.y.copy()
        y[unlabelled] = UNLABELLED
        new_row = np.cumsum(keep_node) - 1
        return replace(
            self,
            ids=self.ids[keep_node],
            x=_clear(self.x, cells)[keep_node] if len(removed) else _clear(self.x, cells),
            y=y[keep_node],
            src=new_row[self.src[keep_edge]],
            dst=new_row[self.dst[keep_edge]],
            weight=None if self.weight is None else self.weight[keep_edge],
            node_columns={name: col[keep_node] for name, col in self.node_columns.items()},
            edge_columns={name: col[keep_edge] for name, col in self.edge_columns.items()},
            _hashes={key: value[keep_node] for key, value in self._hashes.items()},
            segment_cache={s: key for s, key in self.segment_cache.items() if s not in touched},
        )

    def _feature_cells(self, change: Change) -> tuple[Array, Array]:
        """Rows and columns of the cells that ``change.features`` names."""
        column_of = {name: i for i, name in enumerate(self.schema.features)}
        rows = self.rows([node_id for node_id, _ in change.features])
        cell_rows, cell_columns = [], []
        for row, (node_id, names) in zip(rows.tolist(), change.features, strict=True):
            wanted = self.schema.features if names is None else names
            unknown = [name for name in wanted if name not in column_of]
            if unknown:
                raise GraphError(
                    f"node {node_id!r}: no feature column {unknown[:10]}; the schema has "
                    f"{len(column_of)} columns, the first are {list(column_of)[:5]}"
                )
            cell_rows += [row] * len(wanted)
            cell_columns += [column_of[name] for name in wanted]
        return np.asarray(cell_rows, np.int64), np.asarray(cell_columns, np.int64)

    # ---- readers (each in cluster.readers; named here so that one import is enough)

    @staticmethod
    def from_arrays(edge_index: Any, x: Any, y: Any, **options: Any) -> Graph:
        """See :func:`cluster.readers.arrays.from_arrays`."""
        return _reader("arrays", "from_arrays")(edge_index, x, y, **options)

    @staticmethod
    def from_parquet(path: Any = None, **options: Any) -> Graph:
        """See :func:`cluster.readers.tables.from_parquet`."""
        return _reader("tables", "from_parquet")(path, **options)

    @staticmethod
    def from_csv(path: Any = None, **options: Any) -> Graph:
        """See :func:`cluster.readers.tables.from_csv`."""
        return _reader("tables", "from_csv")(path, **options)

    @staticmethod
    def from_pyg(data: torch_geometric.data.Data, **options: Any) -> Graph:
        """See :func:`cluster.readers.frameworks.from_pyg`."""
        return _reader("frameworks", "from_pyg")(data, **options)

    @staticmethod
    def from_dgl(graph: Any, **options: Any) -> Graph:
        """See :func:`cluster.readers.frameworks.from_dgl`."""
        return _reader("frameworks", "from_dgl")(graph, **options)

    @staticmethod
    def from_networkx(graph: networkx.Graph, **options: Any) -> Graph:
        """See :func:`cluster.readers.frameworks.from_networkx`."""
        return _reader("frameworks", "from_networkx")(graph, **options)

    @staticmethod
    def from_ogb(name: str, **options: Any) -> Graph:
        """See :func:`cluster.readers.frameworks.from_ogb`."""
        return _reader("frameworks", "from_ogb")(name, **options)


def _reader(module: str, name: str) -> Callable[..., Graph]:
    from importlib import import_module

    reader: Callable[..., Graph] = getattr(import_module(f"cluster.readers.{module}"), name)
    return reader


def _is_id(value: object, id_type: str) -> bool:
    if id_type == "int":
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    return isinstance(value, str if id_type == "str" else uuid.UUID)


def _clear(x: Any, cells: tuple[Array, Array]) -> Any:
    """Copy ``x`` with the named cells set to the fill value (explicit zeros are dropped)."""
    rows, columns = cells
    if not len(rows):
        return x
    x = x.copy()
    if not sp.issparse(x):
        x[rows, columns] = FILL_VALUE
        return x
    for row in np.unique(rows).tolist():
        span = slice(x.indptr[row], x.indptr[row + 1])
        hit = np.isin(x.indices[span], columns[rows == row])
        x.data[span][hit] = FILL_VALUE
    x.eliminate_zeros()
    return x
