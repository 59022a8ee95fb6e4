"""SubjectMap: which nodes are whose, as sorted arrays; it names people, so it is an artefact."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.digest import Digest, NodeId
from cluster.errors import SelectorError, UnknownIdError, shorten
from cluster.graph import Graph
from cluster.schema import IdType
from cluster.segments import pack_column, unpack_column
from cluster.store import Blob
from coordinator.selectors.lookup import find_rows, find_sorted
from coordinator.selectors.table_file import TableFile, as_objects

Array = npt.NDArray[Any]
Role = Literal["owner", "mention"]

SUBJECTS = "subjects"  # kind of the artefact
COLUMNS = ("subject_id", "node_id", "role")
ROLES: tuple[Role, ...] = ("owner", "mention")


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """Which nodes a person owns, and which only mention them.

    Attributes:
        subjects: ``[S]`` subject ids as text, ascending, without repeats.
        start: ``[S + 1]`` int64; rows ``start[s]:start[s + 1]`` are of subject s.
        nodes: ``[R]`` node ids of the graph's type, ascending within a subject.
        is_owner: ``[R]`` bool; the others are mentions.
        id_type: type of the node ids.
    """

    subjects: Array
    start: Array
    nodes: Array
    is_owner: Array
    id_type: IdType

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, NodeId, Role]], graph: Graph) -> SubjectMap:
        """Build a map from ``(subject, node, role)``, in any order.

        Raises:
            SelectorError: a role is unknown, or a pair occurs twice.
            UnknownIdError: names every node that is not in the graph.
        """
        listed = list(rows)
        nodes = graph.rows([node for _, node, _ in listed])
        wrong = [role for _, _, role in listed if role not in ROLES]
        if wrong:
            raise SelectorError(f"unknown role {shorten(wrong)}; use owner or mention")
        names = [subject_text(subject) for subject, _, _ in listed]
        owner = np.asarray([role == "owner" for _, _, role in listed], bool)
        return _from_columns(pa.array(names, pa.string()), nodes, owner, graph, "row {}".format)

    def __repr__(self) -> str:
        return f"SubjectMap(subjects={len(self.subjects)}, rows={self.num_rows})"

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.nodes)

    @cached_property
    def subject_of(self) -> Array:
        """``[R]`` int64 position of every row's subject in ``subjects``."""
        return np.repeat(np.arange(len(self.subjects)), np.diff(self.start))

    def find(self, subjects: Collection[str]) -> Array:
        """``[K]`` int64 positions of subjects, -1 where the map has no such subject."""
        return find_sorted(self.subjects, _objects([subject_text(s) for s in subjects]))

    def positions(self, subjects: Collection[str]) -> Array:
        """As :meth:`find`, of subjects that must be there.

        Raises:
            UnknownIdError: names every subject that the map does not hold.
        """
        found = self.find(subjects)
        unknown = [name for name, at in zip(subjects, found.tolist(), strict=True) if at < 0]
        if unknown:
            raise UnknownIdError(unknown, "the subject map", "subject")
        return found

    def nodes_of(self, subject: str, role: Role) -> list[NodeId]:
        """A subject's nodes of one role, ascending; none for an unknown subject."""
        at = int(self.find([subject])[0])
        if at < 0:
            return []
        span = slice(self.start[at], self.start[at + 1])
        wanted = self.is_owner[span] == (role == "owner")
        nodes: list[NodeId] = self.nodes[span][wanted].tolist()
        return nodes

    def without(self, subjects: Collection[str] = (), nodes: Collection[NodeId] = ()) -> SubjectMap:
        """The map after an erasure: no row of these subjects, none of these nodes.

        A subject without a row left is gone too. Unknown ones change nothing.
        """
        gone = np.zeros(len(self.subjects), bool)
        found = self.find(subjects)
        gone[found[found >= 0]] = True
        keep = ~gone[self.subject_of]
        if self.id_type == "int":
            keep &= ~np.isin(self.nodes, np.asarray(list(nodes), np.int64))
        else:
            erased = set(nodes)
            keep &= np.fromiter((n not in erased for n in self.nodes.tolist()), bool, self.num_rows)
        counts = np.bincount(self.subject_of[keep], minlength=len(self.subjects))
        left = counts > 0
        return SubjectMap(
            self.subjects[left],
            np.concatenate([[0], np.cumsum(counts[left])]).astype(np.int64),
            self.nodes[keep],
            self.is_owner[keep],
            self.id_type,
        )

    @cached_property
    def key(self) -> Digest:
        """Content address: equal maps have equal keys, whatever file they came from."""
        return self.to_blob().digest()

    def to_blob(self) -> Blob:
        """The map as an artefact of kind ``SUBJECTS`` under :attr:`key`."""
        tensors = pack_column("subject", self.subjects, "str")
        tensors |= pack_column("node", self.nodes, self.id_type)
        tensors |= {"start": self.start, "is_owner": self.is_owner}
        return Blob(tensors, {"id_type": self.id_type})

    @classmethod
    def from_blob(cls, blob: Blob) -> SubjectMap:
        """Inverse of :meth:`to_blob`."""
        id_type: IdType = blob.meta["id_type"]
        return cls(
            unpack_column("subject", blob.tensors, "str"),
            np.asarray(blob.tensors["start"], np.int64),
            unpack_column("node", blob.tensors, id_type),
            np.asarray(blob.tensors["is_owner"], bool),
            id_type,
        )


def subject_text(subject: object) -> str:
    """A subject id as text; ``17`` and ``"17"`` are the same person.

    Raises:
        SelectorError: it is empty, or no id at all.
    """
    if isinstance(subject, bool) or not isinstance(subject, str | int | uuid.UUID):
        raise SelectorError(f"{subject!r} is no subject id; give text, an int or a UUID")
    if subject == "":
        raise SelectorError("a subject id is empty; give the id that the subject map uses")
    return str(subject)


@dataclass(frozen=True)
class SubjectFile:
    """A subject map and how many rows of its file were left out."""

    subjects: SubjectMap
    skipped: int


def read_subjects(
    path: str | Path, graph: Graph, *, unknown: Literal["raise", "skip"] = "raise"
) -> SubjectFile:
    """Read ``subject_id, node_id, role`` from CSV (also ``.gz``) or Parquet.

    Args:
        path: the file.
        graph: whose nodes it speaks of; decides the type of ``node_id``.
        unknown: ``skip`` leaves out rows of nodes that the graph does not hold, and counts them.

    Raises:
        SelectorError: a column is missing or mistyped, a cell is empty, a role is unknown, a pair
            occurs twice; names the line.
        UnknownIdError: names every node that is not in the graph.
    """
    file = TableFile(path)
    names, rows, owner = [], [], []
    absent: list[NodeId] = []
    for batch in file.batches(COLUMNS):
        names.append(file.filled_text(batch, "subject_id"))
        ids = file.ids(batch, "node_id", graph.schema.id_type)
        rows.append(find_rows(graph, ids))
        absent += ids[rows[-1] < 0].tolist() if unknown == "raise" else []
        role = as_objects(file.filled_text(batch, "role"))
        owner.append(role == "owner")
        wrong = np.flatnonzero(~owner[-1] & (role != "mention"))
        if len(wrong):
            at = int(wrong[0])
            raise SelectorError(
                f"{file.place(batch.first + at)}: unknown role {role[at]!r}; use owner or mention"
            )
    if not names:
        raise SelectorError(f"{file.path} has no rows; write subject_id,node_id,role for each")
    if absent:
        raise UnknownIdError(list(dict.fromkeys(absent)), "the graph")
    first = 1 if file.form == "parquet" else 2
    subjects = _from_columns(
        pa.concat_arrays(names),
        np.concatenate(rows),
        np.concatenate(owner),
        graph,
        lambda at: file.place(first + at),
    )
    return SubjectFile(subjects, int((np.concatenate(rows) < 0).sum()))


def _from_columns(names: Any, rows: Array, owner: Array, graph: Graph, place: Any) -> SubjectMap:
    """Sort the columns of a map; rows of unknown nodes (-1) are left out.

    Args:
        names: ``[R]`` Arrow strings.
        rows: ``[R]`` graph rows; their order is the order of the node ids.
        owner: ``[R]`` bool.
        graph: whose rows.
        place: position in the columns -> how a message names that record.
    """
    encoded = names.dictionary_encode()
    distinct = _objects(encoded.dictionary.to_pylist())
    order = np.argsort(distinct, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    code = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    by_pair = np.lexsort((rows, code))
    by_pair = by_pair[rows[by_pair] >= 0]
    code, rows, owner = code[by_pair], rows[by_pair], owner[by_pair]
    _refuse_repeats(code, rows, owner, by_pair, place)
    counts = np.bincount(code, minlength=len(distinct))
    left = counts > 0
    return SubjectMap(
        distinct[order][left],
        np.concatenate([[0], np.cumsum(counts[left])]).astype(np.int64),
        graph.ids[rows],
        owner,
        graph.schema.id_type,
    )


def _refuse_repeats(code: Array, rows: Array, owner: Array, by_pair: Array, place: Any) -> None:
    again = np.flatnonzero((code[1:] == code[:-1]) & (rows[1:] == rows[:-1]))
    if not len(again):
        return
    pairs = [sorted(by_pair[at : at + 2].tolist()) for at in again[:10].tolist()]
    both = bool((owner[again] != owner[again + 1]).any())
    shown = "; ".join(f"{place(a)} and {place(b)}" for a, b in pairs)
    raise SelectorError(
        f"{len(again)} pairs of subject and node occur more than once"
        f"{', as owner and as mention' if both else ''}: {shown}; keep one row for each"
    )


def _objects(values: Sequence[Any]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array
