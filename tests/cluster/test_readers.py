"""Every reader gives the same graph, and every bad input a message that says what to do."""

from __future__ import annotations

import csv
import gzip
import math
import platform
import subprocess
import sys
import types
import uuid
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import Data, HeteroData

from cluster.errors import ConfigError, GraphError
from cluster.graph import Graph
from cluster.readers.arrays import GraphWarning, Policy, edge_rows, from_arrays
from cluster.readers.columns import Columns
from cluster.readers.frameworks import from_dgl, from_networkx, from_ogb, from_pyg
from cluster.readers.tables import from_csv, from_parquet
from cluster.schema import Schema
from cluster.segments import graph_digest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared/data folder is not there")

# dgl 1.1.3 has wheels here: its tests fail where it is missing, and are skipped elsewhere
PLATFORM = f"{sys.platform}-{platform.machine()}-{sys.version_info[0]}.{sys.version_info[1]}"
DGL_EXPECTED = PLATFORM == "linux-x86_64-3.11"

IDS = [30, 10, 20, 40]
X = np.asarray([[0.1, 0], [-2, 0.5], [0, 0], [1e-3, 7]], np.float32)
LABELS = ["b", "a", None, "a"]
EDGES = [(30, 10), (20, 10), (40, 30)]
WEIGHTS = [0.5, 1.25, 2.0]
AGES = [3, 1, 2, 4]
SINCE = ["may", "", "june"]
SCHEMA = Schema(
    id_type="int",
    features=("left", "right"),
    classes=("a", "b"),
    edge_weight=True,
    node_columns=(("age", "int"),),
    edge_columns=(("since", "str"),),
    nominal_nodes=4,
)
PLAIN = replace(SCHEMA, edge_weight=False, node_columns=(), edge_columns=())


def rows(edges=EDGES):
    return edge_rows(IDS, [u for u, _ in edges], [v for _, v in edges])


def node_table(ids=IDS, labels=LABELS, **more):
    return pa.table({"id": ids, "label": labels, "left": X[:, 0], "right": X[:, 1], **more})


def edge_table(edges=EDGES, **more):
    return pa.table({"src": [u for u, _ in edges], "dst": [v for _, v in edges], **more})


def write_parquet(folder, nodes=None, edges=None):
    pq.write_table(node_table() if nodes is None else nodes, folder / "nodes.parquet")
    pq.write_table(edge_table() if edges is None else edges, folder / "edges.parquet")
    return folder


def write_csv(folder, nodes=None, edges=None):
    tables = {
        "nodes": node_table() if nodes is None else nodes,
        "edges": edge_table() if edges is None else edges,
    }
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table.column_names)
            writer.writerows(
                ["" if cell is None else cell for cell in row.values()] for row in table.to_pylist()
            )
    return folder


def full_tables():
    return node_table(age=AGES, other=[0, 0, 0, 0]), edge_table(weight=WEIGHTS, since=SINCE)


def read_arrays(folder):
    columns = Columns(np.asarray(WEIGHTS), {"age": AGES}, {"since": SINCE})
    return from_arrays(rows(), X, LABELS, ids=IDS, schema=SCHEMA, columns=columns)


def read_parquet(folder):
    return from_parquet(write_parquet(folder, *full_tables()), schema=SCHEMA)


def read_csv(folder):
    return from_csv(write_csv(folder, *full_tables()), schema=SCHEMA)


def coded(schema):
    """PyG and DGL hold labels as numbers: the same classes as 0 and 1."""
    return replace(schema, classes=(0, 1))


def pyg_data(**more):
    y = torch.tensor([1, 0, -1, 0])
    return Data(x=torch.from_numpy(X), y=y, edge_index=torch.from_numpy(rows()), **more)


def dgl_graph(both_ways=False):
    dgl = import_module("dgl") if DGL_EXPECTED else pytest.importorskip("dgl")
    src, dst = map(torch.from_numpy, rows())
    if both_ways:
        src, dst = torch.cat([src, dst]), torch.cat([dst, src])
    graph = dgl.graph((src, dst), num_nodes=4)
    graph.ndata["feat"], graph.ndata["label"] = torch.from_numpy(X), torch.tensor([1, 0, -1, 0])
    graph.edata["weight"] = torch.tensor(WEIGHTS * (2 if both_ways else 1))
    return graph


def nx_graph(kind=nx.Graph):
    graph = kind()
    for node_id, x, label, age in zip(IDS, X, LABELS, AGES, strict=True):
        graph.add_node(node_id, x=x, y=label, left=x[0], right=float(x[1]), age=age)
    for (u, v), weight, since in zip(EDGES, WEIGHTS, SINCE, strict=True):
        graph.add_edge(u, v, weight=weight, since=since)
    return graph


# ---- one graph, many sources


@pytest.mark.parametrize("read", [read_parquet, read_csv])
def test_tables_give_the_key_of_the_arrays(tmp_path, read):
    assert graph_digest(read(tmp_path)) == graph_digest(read_arrays(tmp_path))


def test_networkx_gives_the_key_of_the_arrays(tmp_path):
    vectors = from_networkx(nx_graph(), schema=SCHEMA)
    attributes = from_networkx(nx_graph(), feature=["left", "right"], schema=SCHEMA)

    assert graph_digest(vectors) == graph_digest(read_arrays(tmp_path))
    assert graph_digest(attributes) == graph_digest(vectors)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_all_sources_of_one_graph_give_one_key(tmp_path, layout):
    schema = replace(coded(PLAIN), layout=layout)
    labels = [1, 0, None, 0]
    nodes = node_table(labels=labels)
    by_number = nx_graph()
    nx.set_node_attributes(by_number, dict(zip(IDS, labels, strict=True)), "y")
    sparse_data = pyg_data()
    sparse_data.x = sparse_data.x.to_sparse()
    csr_data = pyg_data()
    csr_data.x = csr_data.x.to_sparse_csr()
    np.save(tmp_path / "x.npy", X)

    graphs = {
        "arrays": from_arrays(rows(), X, labels, ids=IDS, schema=schema),
        "scipy": from_arrays(rows(), sp.coo_matrix(X), labels, ids=IDS, schema=schema),
        "parquet": from_parquet(write_parquet(tmp_path, nodes), schema=schema),
        "npy": from_parquet(tmp_path, features=tmp_path / "x.npy", schema=schema),
        "csv": from_csv(write_csv(tmp_path, nodes), schema=schema),
        "pyg": from_pyg(pyg_data(), ids=IDS, schema=schema),
        "pyg sparse": from_pyg(sparse_data, ids=IDS, schema=schema),
        "pyg csr": from_pyg(csr_data, ids=IDS, schema=schema),
        "dgl": from_dgl(dgl_graph(), ids=IDS, schema=schema),
        "dgl both ways": from_dgl(dgl_graph(both_ways=True), ids=IDS, schema=schema),
        "networkx": from_networkx(by_number, schema=schema),
    }

    keys = {name: graph_digest(graph) for name, graph in graphs.items()}
    assert len(set(keys.values())) == 1, keys


def test_the_graph_class_names_every_reader(tmp_path):
    write_parquet(tmp_path)
    write_csv(tmp_path)
    options = {"feature_columns": ["left", "right"]}

    graphs = [
        Graph.from_arrays(rows(), X, LABELS, ids=IDS, feature_names=("left", "right")),
        Graph.from_parquet(tmp_path, **options),
        Graph.from_csv(tmp_path, **options),
        Graph.from_networkx(nx_graph(), feature=["left", "right"]),
    ]

    assert len({graph_digest(graph) for graph in graphs}) == 1
    assert graphs[1].schema == replace(PLAIN, nominal_nodes=4)
    assert Graph.from_pyg(pyg_data(), directed=False).num_edges == 3
    assert Graph.from_dgl(dgl_graph()).num_edges == 3


def test_a_schema_can_be_handed_from_one_reader_to_another(tmp_path):
    first = from_parquet(write_parquet(tmp_path), feature_columns=["left", "right"])

    second = from_csv(write_csv(tmp_path), schema=first.schema)

    assert graph_digest(first) == graph_digest(second)


@needs_data
def test_a_folder_in_the_shared_format_is_read():
    graph = from_parquet(DATA / "citeseer")

    assert (graph.num_nodes, graph.num_edges) == (3327, 4552)
    assert graph.schema.layout == "sparse"
    assert (graph.schema.num_features, graph.classes) == (3703, tuple(range(6)))
    assert int((graph.y < 0).sum()) == 15


# ---- what only tables have


def test_explicit_files_and_column_names(tmp_path):
    nodes = pa.table({"user": ["x", "y"], "team": [None, "t"], "score": [1, 2]})
    pq.write_table(nodes, tmp_path / "users.parquet")
    pq.write_table(pa.table({"from": ["x"], "to": ["y"], "w": [3]}), tmp_path / "follows.parquet")

    graph = from_parquet(
        nodes=tmp_path / "users.parquet",
        edges=tmp_path / "follows.parquet",
        id="user",
        src="from",
        dst="to",
        label="team",
        feature_columns=["score"],
        weight="w",
        directed=True,
    )

    assert graph.ids.tolist() == ["x", "y"]
    assert graph.schema.directed
    assert graph.schema.features == ("score",)
    assert (graph.y.tolist(), graph.classes) == ([-1, 0], ("t",))
    assert graph.weight.tolist() == [3.0]


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_a_feature_file_is_aligned_with_the_node_table_and_decides_the_layout(tmp_path, suffix):
    write_parquet(tmp_path)
    if suffix == "npz":
        sp.save_npz(tmp_path / "features.npz", sp.csr_matrix(X))
    else:
        np.save(tmp_path / "features.npy", X)

    graph = from_parquet(tmp_path)

    assert graph.schema.layout == ("sparse" if suffix == "npz" else "dense")
    assert graph.schema.features == ("f0", "f1")
    x = graph.x.toarray() if suffix == "npz" else graph.x
    assert x[graph.rows([30])[0]].tolist() == X[0].tolist()


def test_further_columns_are_read_only_when_named(tmp_path):
    nodes, edges = full_tables()
    write_parquet(tmp_path, nodes, edges)
    options = {"feature_columns": ["left", "right"]}

    bare = from_parquet(tmp_path, **options)
    named = from_parquet(tmp_path, node_columns=["age"], edge_columns=["since"], **options)

    assert (bare.node_columns, bare.edge_columns, bare.weight) == ({}, {}, None)
    assert named.schema.node_columns == (("age", "int"),)
    assert named.node_columns["age"].tolist() == [1, 2, 3, 4]
    assert named.edge_columns["since"].tolist() == ["", "may", "june"]


def test_a_graph_without_labels_says_so(tmp_path):
    write_parquet(tmp_path, node_table().drop_columns(["label"]))

    graph = from_parquet(tmp_path, label=None, feature_columns=["left"])

    assert (graph.classes, graph.y.tolist()) == ((), [-1] * 4)


@pytest.mark.parametrize("stored", ["uuid", "text", "upper text", "bytes"])
def test_uuids_are_read_from_every_form(tmp_path, stored):
    ids = [uuid.UUID(int=i) for i in (7, 5, 6, 8)]
    column = {
        "uuid": pa.array(ids, pa.uuid()),
        "text": pa.array([str(i) for i in ids]),
        "upper text": pa.array([str(i).upper() for i in ids]),
        "bytes": pa.array([i.bytes for i in ids], pa.binary(16)),
    }[stored]
    ends = pa.array([str(i) for i in ids[:2]])
    edges = pa.table({"src": ends, "dst": ends.take(pa.array([1, 0]))}).slice(0, 1)
    if stored == "uuid":
        edges = pa.table({"src": column.slice(0, 1), "dst": column.slice(1, 1)})
    write_parquet(tmp_path, node_table(ids=column), edges)

    graph = from_parquet(tmp_path, schema=replace(PLAIN, id_type="uuid"))

    assert graph.ids.tolist() == sorted(ids)
    assert (graph.src.tolist(), graph.dst.tolist()) == ([0], [2])


def test_a_uuid_column_needs_no_schema(tmp_path):
    ids = pa.array([uuid.UUID(int=i) for i in range(4)], pa.uuid())
    edges = pa.table({"src": ids.slice(0, 1), "dst": ids.slice(1, 1)})

    graph = from_parquet(write_parquet(tmp_path, node_table(ids=ids), edges), feature_columns=[])

    assert graph.schema.id_type == "uuid"


def test_a_schema_forces_the_types_of_a_csv_file(tmp_path):
    write_csv(tmp_path, node_table(ids=[1, 2, 3, 4], labels=[7, 8, None, 7]), edge_table([(1, 2)]))

    guessed = from_csv(tmp_path, feature_columns=["left", "right"])
    forced = from_csv(tmp_path, schema=replace(PLAIN, id_type="str", classes=("7", "8")))

    assert guessed.ids.tolist() == [1, 2, 3, 4]
    assert guessed.classes == tuple(range(9))
    assert forced.ids.tolist() == ["1", "2", "3", "4"]
    assert forced.y.tolist() == [0, 1, -1, 0]


def test_csv_edge_ends_take_the_type_of_the_ids(tmp_path):
    write_csv(tmp_path, node_table(ids=["1", "2", "x", "NA"]), edge_table([("1", "2")]))

    graph = from_csv(tmp_path, feature_columns=["left"])

    assert graph.ids.tolist() == ["1", "2", "NA", "x"]
    assert graph.num_edges == 1


# ---- bad tables


def test_a_missing_folder_file_or_argument_is_named(tmp_path):
    with pytest.raises(GraphError, match=r"no nodes table; give a folder, or nodes=FILE"):
        from_parquet()
    with pytest.raises(GraphError, match=r"nowhere.*does not exist; the folder holds nothing"):
        from_parquet(tmp_path / "nowhere")
    write_csv(tmp_path)
    with pytest.raises(GraphError, match=r"nodes\.parquet' does not exist.*'nodes\.csv'"):
        from_parquet(tmp_path)
    with pytest.raises(GraphError, match=r"feature file .*x\.npz' does not exist"):
        from_csv(tmp_path, features=tmp_path / "x.npz")


@pytest.mark.parametrize("write, read", [(write_parquet, from_parquet), (write_csv, from_csv)])
def test_a_missing_column_is_named_with_the_ones_that_exist(tmp_path, write, read):
    write(tmp_path)
    options = {"feature_columns": ["left"]}

    with pytest.raises(GraphError, match=r"nodes\.\w+: no column 'user'; it has 'id', 'label'"):
        read(tmp_path, id="user", **options)
    with pytest.raises(GraphError, match=r"no column 'up'; it has .*'left'"):
        read(tmp_path, feature_columns=["up"])
    with pytest.raises(GraphError, match=r"edges\.\w+: no column 'w'; it has 'src', 'dst'"):
        read(tmp_path, weight="w", **options)
    with pytest.raises(GraphError, match=r"no column 'age'"):
        read(tmp_path, schema=SCHEMA)


@pytest.mark.parametrize("write, read", [(write_parquet, from_parquet), (write_csv, from_csv)])
def test_empty_ids_are_refused_with_their_rows(tmp_path, write, read):
    write(tmp_path, node_table(ids=[30, None, 20, None]))

    with pytest.raises(GraphError, match=r"column 'id' is empty in 2 rows: 1, 3"):
        read(tmp_path, feature_columns=["left"])

    write(tmp_path, None, edge_table([(30, 10), (None, 10)]))
    with pytest.raises(GraphError, match=r"edges\.\w+: column 'src' is empty in 1 rows: 1"):
        read(tmp_path, feature_columns=["left"])


def test_features_must_be_given(tmp_path):
    write_parquet(tmp_path)

    with pytest.raises(GraphError, match=r"no features: give feature_columns.*'left', 'right'"):
        from_parquet(tmp_path)
    with pytest.raises(GraphError, match=r"both features and feature_columns"):
        from_parquet(tmp_path, features="x.npy", feature_columns=["left"])
    with pytest.raises(GraphError, match=r"feature_columns are 'left', the schema declares"):
        from_parquet(tmp_path, feature_columns=["left"], schema=PLAIN)
    with pytest.raises(GraphError, match=r"column 'label' is string; a number is needed"):
        from_parquet(tmp_path, feature_columns=["label"])


def test_broken_files_are_named(tmp_path):
    write_csv(tmp_path, node_table(bad=["1", "2", "x", "4"]))

    with pytest.raises(GraphError, match=r"nodes\.csv cannot be read.*'x'"):
        from_csv(tmp_path, feature_columns=["bad"])

    (tmp_path / "nodes.parquet").write_text("id,label")
    with pytest.raises(GraphError, match=r"nodes\.parquet is no Parquet file.*from_csv"):
        from_parquet(tmp_path)
    (tmp_path / "nodes.csv").write_text("")
    with pytest.raises(GraphError, match=r"nodes\.csv is no CSV file"):
        from_csv(tmp_path)
    write_parquet(tmp_path)
    (tmp_path / "features.npz").write_text("no zip")
    with pytest.raises(GraphError, match=r"features\.npz cannot be read"):
        from_parquet(tmp_path)


def test_a_pickled_feature_file_is_refused(tmp_path):
    write_parquet(tmp_path)
    np.save(tmp_path / "features.npy", np.asarray([{}], object), allow_pickle=True)

    with pytest.raises(GraphError, match=r"features\.npy cannot be read"):
        from_parquet(tmp_path)


def test_text_that_is_no_uuid_is_refused(tmp_path):
    write_parquet(tmp_path, node_table(ids=["a", "b", "c", "d"]))

    with pytest.raises(GraphError, match=r"nodes\.parquet: column 'id' holds 'a'.*no UUID"):
        from_parquet(tmp_path, schema=replace(PLAIN, id_type="uuid"))


def test_empty_cells_of_a_whole_number_column_are_refused(tmp_path):
    write_parquet(tmp_path, node_table(age=[1, None, 3, 4]))

    with pytest.raises(GraphError, match=r"column 'age' \(int64\) has 1 empty cells"):
        from_parquet(tmp_path, feature_columns=["left"], node_columns=["age"])


def test_columns_other_than_the_declared_ones_are_refused(tmp_path):
    write_parquet(tmp_path, *full_tables())

    with pytest.raises(GraphError, match=r"node_columns are 'other', the schema declares 'age'"):
        from_parquet(tmp_path, schema=SCHEMA, node_columns=["other"])
    with pytest.raises(GraphError, match=r"edge weights: the schema declares none"):
        from_parquet(tmp_path, schema=PLAIN, weight="weight")


# ---- bad records, whatever the source


def test_unknown_edge_ends_are_listed_up_to_ten(tmp_path):
    edges = edge_table([(10, 1000 + i) for i in range(12)])

    with pytest.raises(
        GraphError, match=r"12 edge ends .*1000, .*1009 \(\+2 more\); add the nodes"
    ):
        from_parquet(write_parquet(tmp_path, None, edges), feature_columns=["left"])
    with pytest.raises(GraphError, match=r"1 edge ends are not among the node ids: '10'"):
        edge_rows(IDS, ["10"], [10])
    with pytest.raises(GraphError, match=r"1 edges have an end .*\(0 to 3\): \(0, 4\)"):
        from_arrays([[0], [4]], X)


def test_duplicate_ids_are_refused(tmp_path):
    write_parquet(tmp_path, node_table(ids=[10, 30, 10, 30]), edge_table([(10, 30)]))

    with pytest.raises(GraphError, match=r"2 node ids occur more than once: 10, 30; keep one row"):
        from_parquet(tmp_path, feature_columns=["left"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("pack", [np.asarray, sp.csr_matrix])
@pytest.mark.filterwarnings("ignore:overflow")
def test_features_that_are_not_finite_name_their_nodes(bad, pack):
    x = X.astype(np.float64)
    x[2, 1] = bad

    with pytest.raises(GraphError, match=r"1 nodes have NaN or infinite features: 20; impute"):
        from_arrays(rows(), pack(x), ids=IDS)


def test_an_empty_feature_cell_names_its_node(tmp_path):
    write_csv(tmp_path, node_table(up=[1.5, None, 2.5, 3.5]))

    with pytest.raises(GraphError, match=r"NaN or infinite features: 10;"):
        from_csv(tmp_path, feature_columns=["up"])


def test_labels_out_of_range_are_listed_with_their_nodes():
    with pytest.raises(GraphError, match=r"1 labels are not among .*\(40, 'c'\)"):
        from_arrays(rows(), X, ["a", "b", None, "c"], ids=IDS, schema=PLAIN)
    with pytest.raises(GraphError, match=r"2 labels .*\(10, 2\), \(40, 9\)"):
        from_arrays(rows(), X, [0, 2, -1, 9], ids=IDS, schema=coded(PLAIN))


def test_labels_of_every_number_type_are_the_same():
    written = [
        [1, 0, -1, 0],
        [1.0, 0.0, math.nan, 0.0],
        [np.int32(1), np.int64(0), None, np.float32(0)],
        np.asarray([1, 0, -7, 0], np.int8),
    ]

    graphs = [from_arrays(rows(), X, y, ids=IDS) for y in written]

    assert len({graph_digest(graph) for graph in graphs}) == 1


def test_an_empty_graph_is_refused(tmp_path):
    write_parquet(tmp_path, node_table().slice(0, 0), edge_table().slice(0, 0))

    with pytest.raises(GraphError, match=r"the graph has no nodes; check the path"):
        from_parquet(tmp_path, feature_columns=["left"])
    with pytest.raises(GraphError, match=r"the graph has no nodes"):
        from_arrays([[], []], np.empty((0, 2)))


def test_a_graph_without_edges_is_fine(tmp_path):
    graph = from_csv(write_csv(tmp_path, None, edge_table().slice(0, 0)), feature_columns=["left"])

    assert (graph.num_nodes, graph.num_edges) == (4, 0)


def test_self_loops_are_dropped_with_a_warning_or_refused():
    edges = [(30, 10), (20, 20)]

    with pytest.warns(GraphWarning, match=r"1 self loops: 20; dropped"):
        graph = from_arrays(rows(edges), X, ids=IDS)
    with pytest.raises(GraphError, match=r"1 self loops: 20; drop them, or allow"):
        from_arrays(rows(edges), X, ids=IDS, policy=Policy(self_loops="error"))

    assert graph.num_edges == 1


def test_duplicate_edges_are_merged_with_a_warning_or_refused():
    edges = [(30, 10), (20, 10), (30, 10)]

    with pytest.warns(GraphWarning, match=r"1 duplicate edges: \(30, 10\); merged"):
        graph = from_arrays(rows(edges), X, ids=IDS)
    with pytest.raises(GraphError, match=r"1 duplicate edges: \(30, 10\)"):
        from_arrays(rows(edges), X, ids=IDS, policy=Policy(duplicate_edges="error"))

    assert graph.num_edges == 2


@pytest.mark.filterwarnings("ignore::cluster.readers.arrays.GraphWarning")
def test_copies_of_an_edge_that_disagree_are_refused():
    edges = rows([(30, 10), (10, 30), (20, 10)])

    def weighted(weight, **options):
        return from_arrays(edges, X, ids=IDS, columns=Columns(np.asarray(weight)), **options)

    assert weighted([1, 1, 2]).weight.tolist() == [2, 1]
    assert weighted([1, 3, 2], directed=True).num_edges == 3
    with pytest.raises(
        GraphError, match=r"1 repeated edges disagree in column 'weight': .*directed"
    ):
        weighted([1, 3, 2])
    with pytest.raises(GraphError, match=r"column 'since'"):
        from_arrays(edges, X, ids=IDS, columns=Columns(edge={"since": np.asarray([1, 2, 3])}))
    same = Columns(edge={"since": np.asarray([math.nan, math.nan, 3])})
    assert from_arrays(edges, X, ids=IDS, columns=same).num_edges == 2


@pytest.mark.parametrize("weight", [[math.nan, 1, 1], [math.inf, 1, 1], [-1, 1, 1]])
def test_edge_weights_must_be_finite_and_not_negative(weight):
    with pytest.raises(GraphError, match="edge weights must be finite and not negative"):
        from_arrays(rows(), X, columns=Columns(np.asarray(weight)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ids": [1, 2, 3]}, r"3 ids for 4 feature rows"),
        ({"ids": [1, "2", 3, 4]}, r"ids have types \['int', 'str'\]"),
        ({"ids": [1.0, 2.0, 3.0, 4.0]}, r"ids have types \['float'\]"),
        ({"ids": [True, False, True, False]}, r"ids have types \['bool'\]"),
        ({"ids": [1, 2, 3, 2**63]}, r"does not fit 64 bits"),
        ({"ids": ["a", "b", "c", "d"], "schema": PLAIN}, r"ids are str, the schema says int"),
        ({"y": [0, 1]}, r"2 labels for 4 nodes"),
        ({"y": [[0], [1], [0], [1]]}, r"labels must be one value a node"),
        ({"x": X[:, 0]}, r"features must be a matrix"),
        ({"x": X[:, :1], "schema": PLAIN}, r"1 feature columns, the schema declares 2"),
        ({"edge_index": rows().T}, r"edge_index has shape \(3, 2\)"),
        ({"edge_index": rows() + 0.5}, r"edge_index has shape .* float64"),
        ({"columns": Columns(np.ones(2))}, r"edge column 'weight' has 2 rows for 3 edges"),
        ({"columns": Columns(node={"age": np.ones(2)})}, r"node column 'age' has 2 rows for 4"),
        (
            {"columns": Columns(node={"age": np.full(4, 0.5)}), "schema": SCHEMA},
            r"edge weights: the schema declares some, the data has none",
        ),
        (
            {
                "columns": Columns(node={"age": np.full(4, 0.5)}),
                "schema": replace(PLAIN, node_columns=(("age", "int"),)),
            },
            r"column 'age' is declared int and has empty cells or other values",
        ),
        (
            {
                "columns": Columns(node={"age": np.asarray(["a"] * 4)}),
                "schema": replace(PLAIN, node_columns=(("age", "int"),)),
            },
            r"column 'age' is declared int: .*'a'",
        ),
        (
            {"columns": Columns(node={"day": np.zeros(4, "datetime64[D]")})},
            r"column 'day' has type 'M'",
        ),
        ({"feature_names": ["a", "a"]}, r"a column name twice"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(options, message):
    given = {"edge_index": rows(), "x": X, **options}

    with pytest.raises(GraphError, match=message):
        from_arrays(**given)


# ---- frameworks


def test_pyg_says_itself_whether_it_is_directed():
    both = torch.cat([torch.from_numpy(rows()), torch.from_numpy(rows()[::-1].copy())], 1)
    data = pyg_data()
    one_way, undirected = from_pyg(data), from_pyg(data, directed=False)
    data.edge_index = both

    assert one_way.schema.directed
    assert not undirected.schema.directed
    assert not from_pyg(data).schema.directed
    assert from_pyg(data, directed=True).num_edges == 6


def test_pyg_weights_come_from_edge_weight_or_a_declared_edge_attr():
    weights = torch.tensor(WEIGHTS)
    schema = replace(coded(PLAIN), edge_weight=True)

    guessed = from_pyg(pyg_data(edge_weight=weights), ids=IDS, directed=False)
    attr = from_pyg(pyg_data(edge_attr=weights[:, None]), ids=IDS, schema=schema)

    assert guessed.weight.tolist() == attr.weight.tolist() == [1.25, 0.5, 2.0]
    assert from_pyg(pyg_data(edge_attr=weights)).weight is None
    assert from_pyg(pyg_data(edge_weight=weights), schema=coded(PLAIN)).weight is None
    with pytest.raises(GraphError, match=r"data has no 'edge_weight'; it has 'edge_index', 'x'"):
        from_pyg(pyg_data(), schema=schema)


def test_pyg_columns_are_those_the_schema_declares():
    schema = replace(coded(PLAIN), node_columns=(("age", "int"),), edge_columns=(("t", "float"),))
    data = pyg_data(age=torch.tensor(AGES), t=torch.tensor([[1.0], [2.0], [3.0]]))

    graph = from_pyg(data, ids=IDS, schema=schema)

    assert graph.node_columns["age"].tolist() == [1, 2, 3, 4]
    assert graph.edge_columns["t"].tolist() == [2.0, 1.0, 3.0]


def test_pyg_data_without_features_or_of_another_kind_is_refused():
    data = pyg_data()
    data.x = None

    with pytest.raises(GraphError, match=r"data has no 'x'; it has 'edge_index', 'y'"):
        from_pyg(data)
    with pytest.raises(GraphError, match=r"given a HeteroData; .*to_homogeneous"):
        from_pyg(HeteroData())
    with pytest.raises(GraphError, match="given a dict"):
        from_pyg({})


def test_dgl_is_undirected_when_every_edge_has_its_reverse():
    assert from_dgl(dgl_graph()).schema.directed
    assert not from_dgl(dgl_graph(both_ways=True)).schema.directed
    assert from_dgl(dgl_graph(both_ways=True)).num_edges == 3
    assert not from_dgl(dgl_graph(), directed=False).schema.directed


def test_dgl_keys_are_options():
    graph = dgl_graph()
    graph.ndata["h"] = graph.ndata.pop("feat")

    read = from_dgl(graph, feature="h", label=None, weight="weight", ids=IDS, directed=False)

    assert (read.weight.tolist(), read.classes) == ([1.25, 0.5, 2.0], ())
    with pytest.raises(GraphError, match=r"graph\.ndata has no 'feat'; it has 'h', 'label'"):
        from_dgl(graph)
    with pytest.raises(GraphError, match="given a str that is not a homogeneous DGLGraph"):
        from_dgl("graph")


def test_a_missing_dgl_names_the_extra_and_the_versions(monkeypatch):
    monkeypatch.setitem(sys.modules, "dgl", None)

    with pytest.raises(ConfigError, match=r"unweave\[dgl\].*dgl 1\.1\.3.*Python 3\.11"):
        from_dgl(object())


def test_networkx_directions_and_multigraphs():
    assert from_networkx(nx_graph(nx.DiGraph)).schema.directed
    assert not from_networkx(nx_graph()).schema.directed
    with pytest.raises(GraphError, match=r"the schema is undirected.*to_undirected\(\)"):
        from_networkx(nx_graph(nx.DiGraph), schema=SCHEMA)
    multi = nx_graph(nx.MultiGraph)
    multi.add_edge(30, 10)
    with pytest.warns(GraphWarning, match="1 duplicate edges"):
        assert from_networkx(multi).num_edges == 3


def test_networkx_attributes_that_are_missing_name_their_nodes():
    graph = nx_graph()
    del graph.nodes[20]["x"]
    del graph.nodes[30]["y"]

    with pytest.raises(GraphError, match=r"1 of 4 nodes have no attribute 'x': 20; set it"):
        from_networkx(graph)
    with pytest.raises(GraphError, match=r"no node has the label 'team'"):
        from_networkx(graph, feature=["left"], label="team")
    with pytest.raises(GraphError, match=r"3 of 3 edges have no attribute 'w': \(30, 10\)"):
        from_networkx(graph, feature=["left"], weight="w")
    graph.nodes[20]["x"] = [1, 2, 3]
    with pytest.raises(GraphError, match=r"1 nodes have a feature vector of another shape.*: 20"):
        from_networkx(graph)
    assert from_networkx(graph, feature=["left"]).y.tolist() == [0, -1, -1, 0]


def write_ogb(root):
    """A tiny ogbn-arxiv in OGB's raw format, so that nothing is downloaded."""
    raw = root / "ogbn_arxiv" / "raw"
    raw.mkdir(parents=True)
    (root / "ogbn_arxiv" / "processed").mkdir()
    (root / "ogbn_arxiv" / "RELEASE_v1.txt").touch()
    files = {
        "edge": rows().T,
        "num-node-list": [[4]],
        "num-edge-list": [[3]],
        "node-feat": X,
        "node_year": [[2001], [2002], [2003], [2004]],
        "node-label": [[1], [0], [-1], [0]],
    }
    for name, table in files.items():
        with gzip.open(raw / f"{name}.csv.gz", "wt") as file:
            csv.writer(file).writerows(table)


def test_an_ogb_set_is_read_again_and_again(tmp_path):
    pytest.importorskip("ogb")
    write_ogb(tmp_path)
    schema = replace(coded(PLAIN), directed=True, node_columns=(("node_year", "int"),))

    graphs = [from_ogb("ogbn-arxiv", root=tmp_path, ids=IDS, schema=schema) for _ in range(2)]

    assert graphs[0].node_columns["node_year"].tolist() == [2002, 2003, 2001, 2004]
    assert graph_digest(graphs[0]) == graph_digest(graphs[1])
    assert from_ogb("ogbn-arxiv", root=tmp_path).schema.directed


def test_an_unknown_ogb_set_is_refused(tmp_path):
    pytest.importorskip("ogb")

    with pytest.raises(ConfigError, match="OGB has no node data set 'ogbn-nothing'"):
        from_ogb("ogbn-nothing", root=tmp_path)


def test_ogb_sets_of_another_shape_are_refused(tmp_path, monkeypatch):
    held = {"edge_index_dict": {}}
    fake = types.SimpleNamespace(NodePropPredDataset=lambda name, root: [(held, np.zeros((4, 2)))])
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", fake)
    monkeypatch.setitem(sys.modules, "ogb", types.SimpleNamespace(nodeproppred=fake))

    with pytest.raises(GraphError, match="heterogeneous"):
        from_ogb("ogbn-mag", root=tmp_path)
    held["edge_index"] = rows()
    with pytest.raises(GraphError, match="ogbn-proteins has no 'node_feat'"):
        from_ogb("ogbn-proteins", root=tmp_path)
    held["node_feat"] = X
    with pytest.raises(GraphError, match="labels must be one value a node"):
        from_ogb("ogbn-proteins", root=tmp_path)


def test_a_missing_ogb_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ogb", None)
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", None)

    with pytest.raises(ConfigError, match=r'pip install "unweave\[ogb\]"'):
        from_ogb("ogbn-arxiv", root=tmp_path)


def test_the_readers_import_no_framework():
    code = (
        "import sys, cluster.readers.frameworks, cluster.readers.catalog\n"
        "heavy = {'torch', 'torch_geometric', 'dgl', 'ogb', 'networkx', 'ray'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_clean_graph_gives_no_warning(tmp_path):
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        read_parquet(tmp_path)

    assert [str(warning.message) for warning in raised] == []
