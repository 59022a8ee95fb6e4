"""Files of ids, of any length: surveyed first, then read again in chunks; never held as a whole.

What is kept between batches is a number for each known record met so far, to tell repeats.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import SelectorError, shorten
from cluster.graph import Graph
from coordinator.erasure import Erasure
from coordinator.selectors.cascade import Cascade
from coordinator.selectors.lookup import (
    UNKNOWN,
    HashedIds,
    edge_keys,
    find_edges,
    find_rows,
    find_sorted,
)
from coordinator.selectors.selector import Resolved
from coordinator.selectors.table_file import Batch, TableFile, as_objects

Array = npt.NDArray[Any]
FileKind = Literal["nodes", "edges", "features", "labels", "subjects"]

CHUNK = 10_000  # records of one Erasure
MAX_EXAMPLES = 10
FILE_COLUMNS: dict[FileKind, tuple[str, ...]] = {
    "nodes": ("id",),
    "edges": ("src", "dst"),
    "features": ("id", "column"),
    "labels": ("id",),
    "subjects": ("subject_id",),
}


@dataclass(frozen=True)
class IdFile:
    """A file and what its lines mean.

    Attributes:
        path: CSV with a header, Parquet, or plain text (``.txt``, ``.ids``) with one id a line;
            text may be gzipped.
        kind: what is to be erased; decides the columns (``FILE_COLUMNS``). An empty ``column`` of
            a features file means all columns.
        sha256: whether ids stand as SHA-256, in hexadecimal, of their text in UTF-8.
    """

    path: str | Path
    kind: FileKind
    sha256: bool = False

    def __post_init__(self) -> None:
        if self.kind not in FILE_COLUMNS:
            raise SelectorError(f"file kind {self.kind!r}; choose one of {list(FILE_COLUMNS)}")


@dataclass(frozen=True)
class Survey:
    """What a file asks for; counts, and examples for an error message, never for a log.

    Attributes:
        lines: records of the file.
        known: lines that name a record of the graph (or a subject of the map).
        unknown: lines that do not.
        duplicates: known lines whose record an earlier line names.
        examples: up to ten unknown ids, as they stand in the file.
        fingerprint: size and time of the file, so that a change before the second pass is seen.
    """

    lines: int
    known: int
    unknown: int
    duplicates: int
    examples: tuple[str, ...] = field(repr=False)
    fingerprint: tuple[int, int, int] = field(repr=False)

    @property
    def records(self) -> int:
        """Distinct records that an erasure of this file names."""
        return self.known - self.duplicates

    def require_known(self, path: str | Path) -> None:
        """Refuse a file with unknown ids.

        Raises:
            SelectorError: some are unknown; names up to ten.
        """
        if self.unknown:
            raise SelectorError(
                f"{path}: {self.unknown} of {self.lines} lines name nothing that is here, as "
                f"{shorten(self.examples)}; check ids and type, or pass unknown='report' to skip "
                "them; nothing was accepted"
            )


def survey(file: IdFile, graph: Graph, cascade: Cascade | None = None) -> Survey:
    """Read a file once and say what it asks for; a bad line anywhere refuses the whole file.

    Args:
        file: what to read.
        graph: the surviving graph.
        cascade: subjects and their rules, for a file of subjects.

    Raises:
        SelectorError: a column is missing, a line cannot be read (names the first), or there is no
            record at all.
    """
    table, records = TableFile(file.path), _records(file, graph, cascade)
    mark, seen = _fingerprint(table.path), _Seen()
    lines = known = duplicates = 0
    examples: list[str] = []
    for batch in table.batches(FILE_COLUMNS[file.kind]):
        keys = records.keys(table, batch)
        lines += len(keys)
        found = keys[keys >= 0]
        known += len(found)
        duplicates += len(found) - len(seen.add(found))
        missing = np.flatnonzero(keys < 0)[: MAX_EXAMPLES - len(examples)].tolist()
        examples += [_shown(batch, at) for at in missing]
    if not lines:
        raise SelectorError(f"{table.path} has a header and no lines; there is nothing to erase")
    return Survey(lines, known, lines - known, duplicates, tuple(examples), mark)


def iter_resolved(
    file: IdFile,
    graph: Graph,
    cascade: Cascade | None = None,
    *,
    surveyed: Survey | None = None,
    chunk: int = CHUNK,
) -> Iterator[Resolved]:
    """The known records of a file, each once, in the order of the file.

    Args:
        file: what to read.
        graph: the graph of the survey.
        cascade: subjects and their rules, for a file of subjects; the chunks together leave the
            graph that all subjects at once would leave.
        surveyed: the survey; a file that changed since is refused.
        chunk: records (subjects, for a file of subjects) of one Erasure.

    Raises:
        SelectorError: as :func:`survey`, or the file changed.
    """
    table, records = TableFile(file.path), _records(file, graph, cascade)
    if surveyed is not None and _fingerprint(table.path) != surveyed.fingerprint:
        raise SelectorError(f"{table.path} changed since it was surveyed; ask again")
    seen, waiting = _Seen(), np.empty(0, np.int64)
    for batch in table.batches(FILE_COLUMNS[file.kind]):
        keys = records.keys(table, batch)
        waiting = np.concatenate([waiting, seen.add(keys[keys >= 0])])
        while len(waiting) >= chunk:
            yield records.resolve(waiting[:chunk])
            waiting = waiting[chunk:]
    if len(waiting):
        yield records.resolve(waiting)


def iter_erasures(
    file: IdFile,
    graph: Graph,
    cascade: Cascade | None = None,
    *,
    surveyed: Survey | None = None,
    chunk: int = CHUNK,
) -> Iterator[Erasure]:
    """As :func:`iter_resolved`, the erasures alone, without empty ones."""
    for resolved in iter_resolved(file, graph, cascade, surveyed=surveyed, chunk=chunk):
        if not resolved.erasure.is_empty:
            yield resolved.erasure


def _fingerprint(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _shown(batch: Batch, at: int) -> str:
    cells = [column[at].as_py() for column in batch.columns.values()]
    return ",".join(
        cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell) for cell in cells
    )


class _Seen:
    """Numbers met so far: sorted arrays that are merged when they grow alike."""

    def __init__(self) -> None:
        self._runs: list[Array] = []

    def add(self, keys: Array) -> Array:
        """Remember keys; returns those that are new, in their order."""
        distinct, first = np.unique(keys, return_index=True)
        new = np.ones(len(distinct), bool)
        for run in self._runs:
            new &= find_sorted(run, distinct) == UNKNOWN
        self._runs.append(distinct[new])
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")
        fresh: Array = keys[np.sort(first[new])]
        return fresh


# ---- kinds of files


class _Records(Protocol):
    """One kind of file: its lines as numbers, and numbers as an erasure."""

    def keys(self, table: TableFile, batch: Batch) -> Array:
        """``[R]`` int64, one number a record, -1 for an unknown one."""

    def resolve(self, keys: Array) -> Resolved:
        """The erasure of some records."""


def _records(file: IdFile, graph: Graph, cascade: Cascade | None) -> _Records:
    if file.kind == "subjects":
        if cascade is None:
            raise SelectorError(
                f"{file.path} holds subjects and none are mapped; import them with "
                "`unweave subjects import FILE`"
            )
        return _SubjectRecords(cascade, hashed=file.sha256)
    rows = _Rows(graph, hashed=file.sha256)
    if file.kind == "edges":
        return _EdgeRecords(graph, rows)
    if file.kind == "features":
        return _FeatureRecords(graph, rows)
    return _NodeRecords(graph, rows, file.kind)


class _Rows:
    """A column of node ids, plain or hashed, as rows."""

    def __init__(self, graph: Graph, *, hashed: bool) -> None:
        self.graph = graph
        self.hashed = HashedIds.of(graph.ids.tolist()) if hashed else None

    def of(self, table: TableFile, batch: Batch, name: str) -> Array:
        if self.hashed is not None:
            return self.hashed.find(table.digests(batch, name))
        return find_rows(self.graph, table.ids(batch, name, self.graph.schema.id_type))


class _NodeRecords:
    def __init__(self, graph: Graph, rows: _Rows, kind: Literal["nodes", "labels"]) -> None:
        self.graph, self.rows, self.kind = graph, rows, kind

    def keys(self, table: TableFile, batch: Batch) -> Array:
        return self.rows.of(table, batch, "id")

    def resolve(self, keys: Array) -> Resolved:
        ids = self.graph.ids[keys].tolist()
        return Resolved(self.kind, Erasure(**{self.kind: ids}))


class _EdgeRecords:
    def __init__(self, graph: Graph, rows: _Rows) -> None:
        self.graph, self.rows, self.edges = graph, rows, edge_keys(graph)

    def keys(self, table: TableFile, batch: Batch) -> Array:
        ends = np.stack([self.rows.of(table, batch, name) for name in FILE_COLUMNS["edges"]])
        return find_edges(self.edges, self.graph, ends)

    def resolve(self, keys: Array) -> Resolved:
        ids, src, dst = self.graph.ids, self.graph.src[keys], self.graph.dst[keys]
        pairs = list(zip(ids[src].tolist(), ids[dst].tolist(), strict=True))
        return Resolved("edges", Erasure(edges=pairs))


class _FeatureRecords:
    """A cell is ``row * (F + 1) + column``; the column F stands for all of them."""

    def __init__(self, graph: Graph, rows: _Rows) -> None:
        self.graph, self.rows = graph, rows
        self.names = pa.array(graph.schema.features, pa.string())

    def keys(self, table: TableFile, batch: Batch) -> Array:
        rows = self.rows.of(table, batch, "id")
        named = pc.fill_null(table.text(batch, "column"), "")
        at = pc.fill_null(pc.index_in(named, self.names), UNKNOWN).to_numpy().astype(np.int64)
        every = pc.equal(named, "").to_numpy(zero_copy_only=False)
        at = np.where(every & (at < 0), len(self.names), at)
        if (at < 0).any():
            self._refuse(table, batch, named, int(np.argmax(at < 0)))
        return np.where(rows < 0, UNKNOWN, rows * (len(self.names) + 1) + at)

    def _refuse(self, table: TableFile, batch: Batch, named: Any, at: int) -> None:
        name = named[at].as_py()
        known = self.graph.schema.features
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {shorten(known)}"
        raise SelectorError(f"{table.place(batch.first + at)}: no feature column {name!r}; {hint}")

    def resolve(self, keys: Array) -> Resolved:
        rows, columns = np.divmod(keys, len(self.names) + 1)
        names = (*self.graph.schema.features, None)
        cells: dict[Any, list[str] | None] = {}
        for node, column in zip(self.graph.ids[rows].tolist(), columns.tolist(), strict=True):
            name, before = names[column], cells.get(node, [])
            cells[node] = None if name is None or before is None else [*before, name]
        return Resolved("features", Erasure(features=cells))


class _SubjectRecords:
    def __init__(self, cascade: Cascade, *, hashed: bool) -> None:
        self.cascade, self.run = cascade, cascade.run()
        self.hashed = HashedIds.of(cascade.subjects.subjects.tolist()) if hashed else None

    def keys(self, table: TableFile, batch: Batch) -> Array:
        (name,) = batch.columns
        if self.hashed is not None:
            return self.hashed.find(table.digests(batch, name))
        text = as_objects(table.filled_text(batch, name))
        return find_sorted(self.cascade.subjects.subjects, text)

    def resolve(self, keys: Array) -> Resolved:
        found = self.run.expand(self.cascade.subjects.subjects[keys].tolist())
        return Resolved("subject", found.erasure, found.subjects, found)
