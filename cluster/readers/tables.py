"""Parquet and CSV to Graph: a folder, or a node file and an edge file with named columns."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import scipy.sparse as sp

from cluster.errors import GraphError, shorten
from cluster.graph import Graph
from cluster.readers.arrays import Policy, edge_rows, from_arrays
from cluster.readers.columns import Columns
from cluster.schema import Schema

Array = npt.NDArray[Any]
Ids = Array | list[uuid.UUID] | list[str]
PathLike = str | os.PathLike[str]
Types = Mapping[str, str]  # column -> int, float, str or bool; columns left out are inferred

_ARROW_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}


@dataclass(frozen=True)
class TableOptions:
    """Which files and columns hold the graph.

    Attributes:
        nodes: node file; left out, ``nodes.parquet`` or ``nodes.csv`` in the folder.
        edges: edge file; left out, ``edges.parquet`` or ``edges.csv`` in the folder.
        id: node column with the external ids (int, str or UUID).
        src: edge column with the source's id.
        dst: edge column with the target's id.
        label: node column with the labels, empty where unlabelled; None for a graph without.
        features: ``.npz`` (SciPy CSR) or ``.npy`` file, one row a node in the node file's order;
            left out, ``features.npz`` or ``features.npy`` in the folder.
        feature_columns: numeric node columns to take as features instead.
        weight: edge column with the weights; ``weight`` if the schema declares weights.
        node_columns: further node columns to keep.
        edge_columns: further edge columns to keep.
        directed: whether edges have a direction (only without a schema).
        schema: declared schema; it says which columns are read, and their types in a CSV file.
        policy: what to do with self loops and duplicate edges.
    """

    nodes: PathLike | None = None
    edges: PathLike | None = None
    id: str = "id"
    src: str = "src"
    dst: str = "dst"
    label: str | None = "label"
    features: PathLike | None = None
    feature_columns: Sequence[str] | None = None
    weight: str | None = None
    node_columns: Sequence[str] = ()
    edge_columns: Sequence[str] = ()
    directed: bool = False
    schema: Schema | None = None
    policy: Policy | None = None


def from_parquet(path: PathLike | None = None, **options: Any) -> Graph:
    """Read a folder with ``nodes.parquet`` and ``edges.parquet``, or files named by options.

    Args:
        path: the folder; not needed when ``nodes`` and ``edges`` are given.
        **options: see :class:`TableOptions`.

    Raises:
        GraphError: a file or column is missing, or the data breaks a rule.
    """
    return _read(_PARQUET, path, TableOptions(**options))


def from_csv(path: PathLike | None = None, **options: Any) -> Graph:
    """Read a folder with ``nodes.csv`` and ``edges.csv``, or files named by options.

    An empty cell is a null. Types are inferred, except for those that the schema declares.

    Args:
        path: the folder; not needed when ``nodes`` and ``edges`` are given.
        **options: see :class:`TableOptions`.

    Raises:
        GraphError: a file or column is missing, or the data breaks a rule.
    """
    return _read(_CSV, path, TableOptions(**options))


@dataclass(frozen=True)
class _Form:
    """A file format: how to list a file's columns, and how to read some of them."""

    suffix: str
    names: Callable[[Path], list[str]]
    read: Callable[[Path, list[str], Types], pa.Table]


@dataclass(frozen=True)
class _Nodes:
    ids: Ids
    x: Any
    feature_names: Sequence[str] | None
    labels: list[Any] | None
    columns: dict[str, Array]


@dataclass(frozen=True)
class _Edges:
    edge_index: Array
    weight: Array | None
    columns: dict[str, Array]


def _read(form: _Form, path: PathLike | None, options: TableOptions) -> Graph:
    nodes = _read_nodes(form, path, options)
    edges = _read_edges(form, path, options, nodes)
    return from_arrays(
        edges.edge_index,
        nodes.x,
        nodes.labels,
        ids=nodes.ids,
        schema=options.schema,
        directed=options.directed,
        feature_names=nodes.feature_names,
        columns=Columns(edges.weight, nodes.columns, edges.columns),
        policy=options.policy,
    )


def _read_nodes(form: _Form, path: PathLike | None, options: TableOptions) -> _Nodes:
    schema = options.schema
    file = _find(form, options.nodes, path, "nodes")
    feature_file, feature_columns = _feature_source(options, path, form.names(file))
    extra = _extra_types(
        options.node_columns, schema.node_columns if schema else None, "node_columns"
    )
    types = {**dict.fromkeys(feature_columns, "float"), **extra}
    if schema is not None:
        types[options.id] = "int" if schema.id_type == "int" else "str"
    if schema is not None and options.label and schema.classes:
        whole = all(isinstance(name, int) for name in schema.classes)
        types[options.label] = "int" if whole else "str"
    label = [options.label] if options.label else []
    table = _table(form, file, [options.id, *label, *feature_columns, *extra], types)
    return _Nodes(
        ids=_ids(table, options.id, file, schema),
        x=_load_features(feature_file) if feature_file else _stack(table, feature_columns, file),
        feature_names=None if feature_file else feature_columns,
        labels=table[options.label].to_pylist() if options.label else None,
        columns={name: _values(table, name, file) for name in extra},
    )


def _read_edges(form: _Form, path: PathLike | None, options: TableOptions, nodes: _Nodes) -> _Edges:
    schema = options.schema
    file = _find(form, options.edges, path, "edges")
    declared = schema is not None and schema.edge_weight
    weight = options.weight or ("weight" if declared else None)
    extra = _extra_types(
        options.edge_columns, schema.edge_columns if schema else None, "edge_columns"
    )
    id_type = "int" if isinstance(nodes.ids, np.ndarray) else "str"
    types = {options.src: id_type, options.dst: id_type, **extra}
    names = [options.src, options.dst, *([weight] if weight else []), *extra]
    table = _table(form, file, names, types | ({weight: "float"} if weight else {}))
    src, dst = (_ids(table, name, file, schema) for name in (options.src, options.dst))
    return _Edges(
        edge_index=edge_rows(nodes.ids, src, dst),
        weight=_numbers(table, weight, file) if weight else None,
        columns={name: _values(table, name, file) for name in extra},
    )


# ---- files


def _find(form: _Form, given: PathLike | None, folder: PathLike | None, what: str) -> Path:
    if given is None and folder is None:
        raise GraphError(f"no {what} table; give a folder, or {what}=FILE")
    file = Path(given) if given is not None else Path(str(folder)) / f"{what}{form.suffix}"
    if file.is_file():
        return file
    there = sorted(item.name for item in file.parent.iterdir()) if file.parent.is_dir() else []
    raise GraphError(
        f"{what} table {str(file)!r} does not exist; the folder holds "
        f"{shorten(there) or 'nothing'}; check the path, or give {what}=FILE"
    )


def _table(form: _Form, file: Path, names: Sequence[str], types: Types) -> pa.Table:
    columns = list(dict.fromkeys(names))
    present = form.names(file)
    missing = [name for name in columns if name not in present]
    if missing:
        raise GraphError(
            f"{file}: no column {shorten(missing)}; it has {shorten(present)}; "
            "name the right columns in the reader's options or the schema"
        )
    try:
        return form.read(file, columns, types)
    except (pa.ArrowInvalid, OSError) as error:
        raise GraphError(
            f"{file} cannot be read: {error}; mend or export the file again"
        ) from error


def _parquet_names(file: Path) -> list[str]:
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise GraphError(f"{file} is no Parquet file: {error}; use from_csv for CSV") from error


def _read_parquet(file: Path, columns: list[str], types: Types) -> pa.Table:
    return pq.read_table(file, columns=columns)


def _csv_names(file: Path) -> list[str]:
    try:
        with pa_csv.open_csv(file) as reader:
            return list(reader.schema.names)
    except pa.ArrowInvalid as error:
        raise GraphError(f"{file} is no CSV file: {error}; write a header line first") from error


def _read_csv(file: Path, columns: list[str], types: Types) -> pa.Table:
    convert = pa_csv.ConvertOptions(
        include_columns=columns,
        column_types={name: _ARROW_TYPES[kind] for name, kind in types.items() if kind},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    return pa_csv.read_csv(file, convert_options=convert)


_PARQUET = _Form(".parquet", _parquet_names, _read_parquet)
_CSV = _Form(".csv", _csv_names, _read_csv)


# ---- what to read


def _feature_source(
    options: TableOptions, folder: PathLike | None, present: Sequence[str]
) -> tuple[Path | None, list[str]]:
    """Either a feature file or the node columns that are features."""
    declared = list(options.schema.features) if options.schema else None
    if options.features is not None and options.feature_columns is not None:
        raise GraphError("both features and feature_columns are given; keep one of them")
    if options.features is not None:
        return Path(options.features), []
    if options.feature_columns is not None:
        given = list(options.feature_columns)
        if declared is not None and sorted(given) != sorted(declared):
            raise GraphError(
                f"feature_columns are {shorten(given)}, the schema declares "
                f"{shorten(declared)}; leave feature_columns out to read the declared ones"
            )
        return None, declared or given
    for name in ("features.npz", "features.npy") if folder is not None else ():
        file = Path(str(folder)) / name
        if file.is_file():
            return file, []
    if declared is not None and set(declared) & {*present}:
        return None, declared
    raise GraphError(
        "no features: give feature_columns=[...] (numeric node columns; of a folder, in its "
        "graph.yaml), features=FILE (.npz or .npy), or put features.npz into the folder; the node "
        f"columns are {shorten(present)}"
    )


def _extra_types(
    given: Sequence[str], declared: Sequence[tuple[str, str]] | None, option: str
) -> dict[str, str]:
    """Extra columns to read, with their declared types; the schema decides when there is one."""
    if declared is None:
        return dict.fromkeys(given, "")
    if given and set(given) != {name for name, _ in declared}:
        raise GraphError(
            f"{option} are {shorten(given)}, the schema declares "
            f"{shorten([name for name, _ in declared]) or 'none'}; leave {option} out"
        )
    return dict(declared)


# ---- columns


def _ids(table: pa.Table, name: str, file: Path, schema: Schema | None) -> Ids:
    """External ids: an int64 array, or a list of str or UUID."""
    column = table[name]
    if column.null_count:
        rows = np.flatnonzero(column.is_null().to_numpy()).tolist()
        raise GraphError(
            f"{file}: column {name!r} is empty in {len(rows)} rows: {shorten(rows)} "
            "(counted from 0); every record needs its ids, fill or drop these rows"
        )
    if pa.types.is_integer(column.type):
        numbers: Array = column.to_numpy()
        return numbers
    values: list[Any] = column.to_pylist()
    if schema is not None and schema.id_type == "uuid":
        return [_as_uuid(value, name, file) for value in values]
    return values


def _as_uuid(value: Any, name: str, file: Path) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(bytes=value) if isinstance(value, bytes) else uuid.UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise GraphError(
            f"{file}: column {name!r} holds {value!r}, which is no UUID; mend it, or declare "
            "another id_type"
        ) from error


def _numbers(table: pa.Table, name: str, file: Path) -> Array:
    """``[R]`` float32, NaN where empty."""
    kind = table[name].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise GraphError(f"{file}: column {name!r} is {kind}; a number is needed, convert it")
    numbers: Array = table[name].cast(pa.float32(), safe=False).to_numpy()
    return numbers


def _stack(table: pa.Table, names: Sequence[str], file: Path) -> Array:
    columns = [_numbers(table, name, file) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), np.float32)


def _values(table: pa.Table, name: str, file: Path) -> Array:
    """A further column; only numbers with a fraction (NaN) and strings may have empty cells."""
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    whole = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if whole and column.null_count:
        raise GraphError(
            f"{file}: column {name!r} ({column.type}) has {column.null_count} empty cells; "
            "fill them, or convert it to float"
        )
    values: Array = column.to_numpy()
    return values


def _load_features(file: Path) -> Any:
    """SciPy CSR from ``.npz``, a dense matrix from ``.npy``; nothing is unpickled."""
    if not file.is_file():
        raise GraphError(f"feature file {str(file)!r} does not exist; check the path")
    try:
        return sp.load_npz(file) if file.suffix == ".npz" else np.load(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise GraphError(
            f"{file} cannot be read: {error}; write it with scipy.sparse.save_npz or numpy.save"
        ) from error
