"""Graphs of PyG, DGL, networkx and OGB; those packages are imported only when asked for.

Without a schema the source says what there is. With one, the schema decides which weights and
further columns are read, and whether edges have a direction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import NodeId
from cluster.errors import ConfigError, GraphError, shorten
from cluster.graph import Graph
from cluster.readers.arrays import Policy, edge_rows, from_arrays
from cluster.readers.columns import Columns
from cluster.schema import Schema

Array = npt.NDArray[Any]
Ids = Sequence[NodeId] | Array


def from_pyg(
    data: Any,
    *,
    ids: Ids | None = None,
    schema: Schema | None = None,
    directed: bool | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Read a homogeneous PyG ``Data``.

    ``x`` may be dense or sparse. Weights are ``data.edge_weight``; where a schema declares weights,
    a ``data.edge_attr`` with one value an edge will do. Further columns come from the attributes
    of the names that the schema declares.

    Args:
        data: with ``x``, ``edge_index`` and, if there are labels, ``y`` (negative: unlabelled).
        ids: external ids; row numbers when left out.
        schema: declared schema.
        directed: whether edges have a direction (only without a schema); left out, a graph is
            undirected when ``data.is_undirected()`` says so.
        policy: what to do with self loops and duplicate edges.

    Raises:
        GraphError: an attribute is missing, or the data breaks a rule.
    """
    if not hasattr(data, "edge_index") or not hasattr(data, "to_dict"):
        raise GraphError(
            f"from_pyg was given a {type(data).__name__}; give a homogeneous "
            "torch_geometric.data.Data (convert with HeteroData.to_homogeneous())"
        )
    held = {name: value for name, value in data.to_dict().items() if value is not None}
    weight = held.get("edge_weight")
    if schema is not None:
        named = {"edge_weight", "edge_attr"} & set(held) or {"edge_weight"}
        weight = _pick(held, max(named), "data") if schema.edge_weight else None
    return from_arrays(
        to_numpy(_pick(held, "edge_index", "data")),
        _matrix(_pick(held, "x", "data")),
        _flat(held.get("y")),
        ids=ids,
        schema=schema,
        directed=not data.is_undirected() if directed is None else directed,
        columns=_columns(schema, weight, held, held, "data"),
        policy=policy,
    )


def from_dgl(
    graph: Any,
    *,
    feature: str = "feat",
    label: str | None = "label",
    weight: str | None = None,
    ids: Ids | None = None,
    schema: Schema | None = None,
    directed: bool | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Read a homogeneous DGL graph.

    Args:
        graph: a ``dgl.DGLGraph``.
        feature: key of the features in ``graph.ndata``.
        label: key of the labels in ``graph.ndata``; None for a graph without.
        weight: key of the edge weights in ``graph.edata``; ``weight`` if the schema declares them.
        ids: external ids; row numbers when left out.
        schema: declared schema.
        directed: whether edges have a direction (only without a schema); left out, a graph is
            undirected when every edge has its reverse.
        policy: what to do with self loops and duplicate edges.

    Raises:
        ConfigError: DGL is not installed, or does not work with the installed torch.
        GraphError: a key is missing, or the data breaks a rule.
    """
    dgl = _import_dgl()
    if not isinstance(graph, dgl.DGLGraph) or not graph.is_homogeneous:
        raise GraphError(
            f"from_dgl was given a {type(graph).__name__} that is not a homogeneous DGLGraph; "
            "convert it with dgl.to_homogeneous"
        )
    edge_index = np.stack([to_numpy(end) for end in graph.edges(order="eid")])
    weight = weight or ("weight" if schema is not None and schema.edge_weight else None)
    return from_arrays(
        edge_index,
        _matrix(_pick(graph.ndata, feature, "graph.ndata")),
        _flat(_pick(graph.ndata, label, "graph.ndata")) if label else None,
        ids=ids,
        schema=schema,
        directed=not _is_symmetric(edge_index) if directed is None else directed,
        columns=_columns(
            schema,
            _pick(graph.edata, weight, "graph.edata") if weight else None,
            graph.ndata,
            graph.edata,
            "graph",
        ),
        policy=policy,
    )


def from_networkx(
    graph: Any,
    *,
    feature: str | Sequence[str] = "x",
    label: str | None = "y",
    weight: str | None = None,
    schema: Schema | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Read a networkx graph; node keys are the external ids, a ``DiGraph`` is directed.

    Args:
        graph: any networkx graph.
        feature: node attribute with the feature vector, or the attributes that are one feature
            each (their names become the schema's).
        label: node attribute with the label, absent or None where unlabelled; None for a graph
            without labels.
        weight: edge attribute with the weight; ``weight`` if the schema declares weights.
        schema: declared schema.
        policy: what to do with self loops and duplicate edges.

    Raises:
        GraphError: an attribute is missing, or the data breaks a rule.
    """
    if schema is not None and schema.directed != graph.is_directed():
        wanted = "directed" if schema.directed else "undirected"
        raise GraphError(
            f"the schema is {wanted}, the networkx graph is not; convert it with "
            f"graph.to_{wanted}()"
        )
    ids, nodes = list(graph.nodes), [held for _, held in graph.nodes(data=True)]
    ends, edges = list(graph.edges()), [held for _, _, held in graph.edges(data=True)]
    weight = weight or ("weight" if schema is not None and schema.edge_weight else None)
    if label is not None and nodes and not any(label in held for held in nodes):
        raise GraphError(f"no node has the label {label!r}; name another, or give label=None")
    single = isinstance(feature, str)
    names = (feature,) if isinstance(feature, str) else tuple(feature)
    features = [_attribute(name, nodes, ids, "node") for name in names]
    node_columns = [name for name, _ in schema.node_columns] if schema else []
    edge_columns = [name for name, _ in schema.edge_columns] if schema else []
    return from_arrays(
        edge_rows(ids, [u for u, _ in ends], [v for _, v in ends]),
        _vectors(features[0], ids) if single else np.asarray(features, np.float32).T,
        [held.get(label) for held in nodes] if label is not None else None,
        ids=ids,
        schema=schema,
        directed=graph.is_directed(),
        feature_names=None if single else names,
        columns=Columns(
            np.asarray(_attribute(weight, edges, ends, "edge"), np.float32) if weight else None,
            {name: np.asarray(_attribute(name, nodes, ids, "node")) for name in node_columns},
            {name: np.asarray(_attribute(name, edges, ends, "edge")) for name in edge_columns},
        ),
        policy=policy,
    )


def from_ogb(
    name: str,
    *,
    root: str | os.PathLike[str],
    ids: Ids | None = None,
    schema: Schema | None = None,
    directed: bool | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Read a node property prediction set of OGB, downloaded into ``root`` if need be.

    Args:
        name: such as ``ogbn-arxiv``.
        root: folder of the OGB data sets.
        ids: external ids; row numbers when left out.
        schema: declared schema; further columns (``node_year``) are read if it declares them.
        directed: whether edges have a direction (only without a schema); left out, a graph is
            undirected when every edge has its reverse.
        policy: what to do with self loops and duplicate edges.

    Raises:
        ConfigError: OGB is not installed or has no set of that name.
        GraphError: the set is heterogeneous, has no features, or more than one task.
    """
    ogb = _import("ogb.nodeproppred", 'from_ogb needs OGB; pip install "unweave[ogb]"')
    # OGB caches its parse as a pickle that torch >= 2.6 refuses to load; it parses again without.
    pickled = Path(root) / name.replace("-", "_") / "processed" / "data_processed"
    pickled.unlink(missing_ok=True)
    try:
        held, labels = ogb.NodePropPredDataset(name, root=os.fspath(root))[0]
    except ValueError as error:
        raise ConfigError(f"OGB has no node data set {name!r}: {error}") from error
    if "edge_index" not in held:
        raise GraphError(f"{name} is heterogeneous; unweave reads graphs with one kind of node")
    edge_index = to_numpy(held["edge_index"])
    weight = _pick(held, "edge_feat", name) if schema is not None and schema.edge_weight else None
    return from_arrays(
        edge_index,
        _matrix(_pick(held, "node_feat", name)),
        _flat(labels),
        ids=ids,
        schema=schema,
        directed=not _is_symmetric(edge_index) if directed is None else directed,
        columns=_columns(schema, weight, held, held, name),
        policy=policy,
    )


# ---- what is installed


def _import(module: str, remedy: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{remedy} ({error})") from error


def _import_dgl() -> Any:
    return _import(
        "dgl",
        'from_dgl needs DGL; pip install "unweave[dgl]" '
        "(dgl 1.1.3 with packaging works, on Python 3.11; dgl 2.x does not)",
    )


# ---- tensors and attributes


def to_numpy(value: Any) -> Array:
    """Array of a tensor on any device, or of anything NumPy takes."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _matrix(x: Any) -> Any:
    """Features as a SciPy CSR matrix if they are sparse, else as an array."""
    if hasattr(x, "to_scipy"):
        return sp.csr_matrix(x.to_scipy(layout="csr"))
    if sp.issparse(x):
        return x
    if str(getattr(x, "layout", "torch.strided")) == "torch.strided":
        return to_numpy(x)
    coo = x.to_sparse_coo().coalesce()
    return sp.csr_matrix((to_numpy(coo.values()), to_numpy(coo.indices())), shape=tuple(x.shape))


def _flat(values: Any) -> Any:
    """``[K]`` values; ``[K, 1]`` is flattened, lists and None stay."""
    if values is None or isinstance(values, list):
        return values
    array = to_numpy(values)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _pick(held: Mapping[str, Any], name: str, where: str) -> Any:
    value = held[name] if name in held else None  # noqa: SIM401 (DGL's views have no get)
    if value is None:
        raise GraphError(
            f"{where} has no {name!r}; it has {shorten(sorted(held.keys()))}; add it, or name "
            "another in the reader's options or the schema"
        )
    return value


def _columns(
    schema: Schema | None,
    weight: Any,
    nodes: Mapping[str, Any],
    edges: Mapping[str, Any],
    where: str,
) -> Columns:
    node = schema.node_columns if schema else ()
    edge = schema.edge_columns if schema else ()
    return Columns(
        _flat(weight),
        {name: _flat(_pick(nodes, name, where)) for name, _ in node},
        {name: _flat(_pick(edges, name, where)) for name, _ in edge},
    )


def _is_symmetric(edge_index: Array) -> bool:
    """Whether every edge has its reverse."""
    forth = np.unique(edge_index, axis=1)
    return np.array_equal(forth, np.unique(edge_index[::-1], axis=1))


def _attribute(
    name: str, held: Sequence[Mapping[str, Any]], owners: Sequence[Any], kind: str
) -> list[Any]:
    """One networkx attribute of every node or edge."""
    without = [owner for owner, item in zip(owners, held, strict=True) if name not in item]
    if without:
        raise GraphError(
            f"{len(without)} of {len(owners)} {kind}s have no attribute {name!r}: "
            f"{shorten(without)}; set it on every {kind}, or name another"
        )
    return [item[name] for item in held]


def _vectors(values: Sequence[Any], ids: Sequence[Any]) -> Array:
    rows = [np.atleast_1d(to_numpy(value)).astype(np.float32) for value in values]
    widths = [row.shape for row in rows]
    odd = [node_id for node_id, width in zip(ids, widths, strict=True) if width != widths[0]]
    if odd:
        raise GraphError(
            f"{len(odd)} nodes have a feature vector of another shape than {widths[0]}: "
            f"{shorten(odd)}; give all nodes the same features"
        )
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
