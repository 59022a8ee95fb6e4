"""Name and row digests of a shard's content, computed once and kept from content to content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId, canonical_array
from coordinator.evidence.errors import RecordError
from coordinator.evidence.records import (
    EDGE_BYTES,
    NO_LOST,
    RowOpening,
    edges_digest,
    features_digest,
    label_digest,
    name_digest,
    row_digest,
)
from shards.content import ShardContent

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Leaves:
    """Digests of every row of a content.

    Attributes:
        content: the content they are of; held to see what the next one changes.
        names: ``[n]`` name digests, in row order.
        rows: name digest -> row digest, what a :class:`~coordinator.evidence.merkle.KeyedTree`
            is made of.
    """

    content: ShardContent
    names: tuple[bytes, ...]
    rows: dict[bytes, bytes]


def leaves_of(content: ShardContent, before: Leaves | None = None) -> Leaves:
    """Digest a content's rows; with ``before``, only those that it does not hold as they are.

    Args:
        content: what a shard's training reads.
        before: digests of an earlier content of the same graph, of any shard.
    """
    if before is None:
        names = tuple(map(name_digest, content.ids.tolist()))
        fresh = np.arange(content.num_nodes)
        return Leaves(
            content, names, dict(zip(names, _digest_rows(content, names, fresh), strict=True))
        )
    old_rows = _rows_in(before.content, content)
    names = tuple(
        before.names[old] if old >= 0 else name_digest(node_id)
        for old, node_id in zip(old_rows.tolist(), content.ids.tolist(), strict=True)
    )
    same = _unchanged(before.content, content, old_rows)
    changed = np.flatnonzero(~same)
    rows = {name: before.rows[name] for name in _take(names, np.flatnonzero(same))}
    rows |= dict(zip(_take(names, changed), _digest_rows(content, names, changed), strict=True))
    return Leaves(content, names, rows)


def open_row(content: ShardContent, node_id: NodeId, *, show: Iterable[str] = ()) -> RowOpening:
    """Open one row of a content, with the parts named by ``show`` (label, features, edges).

    Raises:
        RecordError: the content has no such row.
    """
    row = {item: row for row, item in enumerate(content.ids.tolist())}.get(node_id)
    if row is None:
        raise RecordError("the shard's content has no such node")
    parts = _Parts(content, np.asarray([row]), tuple(map(name_digest, content.ids.tolist())))
    label, features, edges = int(content.y[row]), parts.features(0), parts.edges(0)
    shown = set(show)
    return RowOpening(
        bool(content.owned[row]),
        None if content.lost is None else int(content.lost[row]),
        label_digest(label),
        features_digest(*features),
        edges_digest(edges),
        label if "label" in shown else None,
        features if "features" in shown else None,
        edges if "edges" in shown else None,
    )


def _take(names: tuple[bytes, ...], rows: Array) -> list[bytes]:
    return [names[row] for row in rows.tolist()]


class _Parts:
    """Bytes of the parts of some rows."""

    def __init__(self, content: ShardContent, rows: Array, names: tuple[bytes, ...]) -> None:
        self._sparse = content.schema.layout == "sparse"
        chosen = content.x[rows]
        if self._sparse:
            chosen.eliminate_zeros()
            chosen.sort_indices()
            self._starts = chosen.indptr.tolist()
            self._columns = canonical_array(chosen.indices.astype(np.uint32)).tobytes()
            values = chosen.data
        else:
            width = content.schema.num_features
            self._starts = [row * width for row in range(len(rows) + 1)]
            self._columns, values = b"", chosen
        self._values = canonical_array(values.astype(np.float32, copy=False)).tobytes()
        self._entries, self._ends = _edge_entries(content, rows, names)

    def features(self, i: int) -> tuple[bytes, bytes]:
        """Columns and values of the i-th row."""
        span = slice(4 * self._starts[i], 4 * self._starts[i + 1])
        return (self._columns[span] if self._sparse else b""), self._values[span]

    def edges(self, i: int) -> bytes:
        """Entries of the in-neighbours of the i-th row."""
        return self._entries[self._ends[i] : self._ends[i + 1]]


def _edge_entries(
    content: ShardContent, rows: Array, names: tuple[bytes, ...]
) -> tuple[bytes, list[int]]:
    """36 bytes an in-edge of ``rows``, and where each row's entries begin and end, in bytes."""
    positions, starts = _positions(content.indptr, rows)
    sources = content.indices[positions]
    table = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32)
    weight = np.ones(len(sources), "<f4")
    if content.weight is not None:
        weight = canonical_array(content.weight[positions].astype(np.float32, copy=False))
    entries = np.concatenate([table[sources], weight.view(np.uint8).reshape(-1, 4)], axis=1)
    return entries.tobytes(), (EDGE_BYTES * starts).tolist()


def _positions(indptr: Array, rows: Array) -> tuple[Array, Array]:
    """Positions of the entries of ``rows`` in a CSR, and the ``[k + 1]`` bounds of each row's."""
    counts = indptr[rows + 1] - indptr[rows]
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(bounds[-1]) + np.repeat(indptr[rows] - bounds[:-1], counts), bounds


def _digest_rows(content: ShardContent, names: tuple[bytes, ...], rows: Array) -> list[bytes]:
    """Row digests of ``rows``."""
    parts = _Parts(content, rows, names)
    labels = {label: label_digest(label) for label in np.unique(content.y[rows]).tolist()}
    lost = [NO_LOST] * len(rows) if content.lost is None else content.lost[rows].tolist()
    y, owners = content.y[rows].tolist(), content.owned[rows].tolist()
    digests = []
    for i, (row, label, owned, missing) in enumerate(
        zip(rows.tolist(), y, owners, lost, strict=True)
    ):
        own = (labels[label], features_digest(*parts.features(i)), edges_digest(parts.edges(i)))
        digests.append(row_digest(names[row], owned, missing, own))
    return digests


# ---- what a content changed


def _rows_in(old: ShardContent, new: ShardContent) -> Array:
    """``[n]`` row in ``old`` of every row of ``new``, -1 where it is not there."""
    if new.ids.dtype != object:
        if not old.num_nodes:
            return np.full(new.num_nodes, -1)
        found = np.minimum(np.searchsorted(old.ids, new.ids), old.num_nodes - 1)
        return np.where(old.ids[found] == new.ids, found, -1)
    row_of = {node_id: row for row, node_id in enumerate(old.ids.tolist())}
    return np.asarray([row_of.get(node_id, -1) for node_id in new.ids.tolist()], np.int64)


def _unchanged(old: ShardContent, new: ShardContent, old_rows: Array) -> Array:
    """``[n]`` bool, rows of ``new`` that ``old`` holds with the same values."""
    same = old_rows >= 0
    rows, before = np.flatnonzero(same), old_rows[same]
    equal = (old.owned[before] == new.owned[rows]) & (old.y[before] == new.y[rows])
    if (old.lost is None) != (new.lost is None):
        equal[:] = False
    elif old.lost is not None and new.lost is not None:
        equal &= old.lost[before] == new.lost[rows]
    equal &= _equal_features(old.x, new.x, before, rows)
    equal &= _equal_edges(old, new, old_rows, before, rows)
    same[rows] = equal
    return np.asarray(same)


def _equal_features(old: Any, new: Any, before: Array, rows: Array) -> Array:
    if isinstance(old, np.ndarray):
        return _equal_dense(old, new, before, rows)
    values = ((old.indices, new.indices), (old.data, new.data))
    return _equal_ragged(old.indptr, new.indptr, before, rows, values)


def _equal_dense(old: Array, new: Array, before: Array, rows: Array) -> Array:
    """Runs of rows that follow each other in both are compared in place, without a copy."""
    equal = np.ones(len(rows), bool)
    breaks = np.flatnonzero((np.diff(before) != 1) | (np.diff(rows) != 1)) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    for start, stop in pairwise(bounds):
        if stop > start:
            a, b, length = before[start], rows[start], stop - start
            equal[start:stop] = (old[a : a + length] == new[b : b + length]).all(axis=1)
    return equal


def _equal_edges(
    old: ShardContent, new: ShardContent, old_rows: Array, before: Array, rows: Array
) -> Array:
    """Sources are compared as rows of ``old``."""
    values = [(old.indices, old_rows[new.indices])]
    if old.weight is not None and new.weight is not None:
        values.append((old.weight, new.weight))
    return _equal_ragged(old.indptr, new.indptr, before, rows, values)


def _equal_ragged(
    old_indptr: Array, new_indptr: Array, before: Array, rows: Array, values: Any
) -> Array:
    """``[k]`` bool, whether row ``before[i]`` of one CSR has the entries of ``rows[i]``."""
    counts = (old_indptr[before + 1] - old_indptr[before], new_indptr[rows + 1] - new_indptr[rows])
    equal = counts[0] == counts[1]
    candidates = np.flatnonzero(equal)
    old_at, _ = _positions(old_indptr, before[candidates])
    new_at, _ = _positions(new_indptr, rows[candidates])
    owner = np.repeat(candidates, counts[1][candidates])
    for old_values, new_values in values:
        equal[owner[old_values[old_at] != new_values[new_at]]] = False
    return np.asarray(equal)
