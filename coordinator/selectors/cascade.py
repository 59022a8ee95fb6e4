"""What goes with a subject: from the nodes a person owns, along the edges that carry deletion on.

``deep``, ``shallow`` and ``refcount`` are the annotations of DELF (Cohn-Gordon et al., USENIX
Security 2020). The result is the least fixpoint of monotone rules, so no order of rows, subjects or
visits enters it. Deviations from DELF: nodes are typed too (owned, shared, never); an edge never
deletes a node that a remaining subject owns; references of every deep and refcount type count
together; a cycle of counted references keeps itself, as reference counting does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from cluster.errors import SelectorError
from cluster.graph import Graph
from coordinator.erasure import Erasure, present_part
from coordinator.selectors.arcs import (
    NEVER,
    OWNED,
    check_rules,
    node_kinds,
    owning_arcs,
    typing_of,
)
from coordinator.selectors.lookup import find_rows
from coordinator.selectors.rules import MAX_NODES, SubjectRules
from coordinator.selectors.subjects import SubjectMap

Array = npt.NDArray[Any]
NOTHING: Final = Erasure()


@dataclass(frozen=True)
class SubjectErasure:
    """What the erasure of some subjects is.

    Attributes:
        erasure: the records that go, ascending by id.
        subjects: whose.
        deleted_nodes: nodes that go with all their edges.
        kept_shared: nodes the cascade met and left, since others own them or a rule protects them.
        reasons: how many nodes and edges by why they go or stay (``owner``, ``deep``,
            ``refcount``, ``mention edge``, ``kept: ...``).
        types: how many deleted nodes of each type; empty without a node column of types.
    """

    erasure: Erasure
    subjects: tuple[str, ...]
    deleted_nodes: tuple[NodeId, ...]
    kept_shared: tuple[NodeId, ...]
    reasons: Mapping[str, int]
    types: Mapping[str, int]


def expand(
    graph: Graph,
    subject_map: SubjectMap,
    rules: SubjectRules | None,
    subject_ids: Collection[str],
) -> SubjectErasure:
    """The erasure of some subjects at once.

    Raises:
        UnknownIdError: names every subject that the map does not hold.
        SelectorError: a type has no rule, or more nodes than ``max_nodes`` a subject would go.
    """
    return Cascade(graph, subject_map, rules).run().expand(subject_ids)


class Cascade:
    """A graph, its subjects and the rules, made ready for many expansions."""

    def __init__(
        self,
        graph: Graph,
        subject_map: SubjectMap,
        rules: SubjectRules | None,
        *,
        strict: bool = True,
        bounded: bool = True,
    ) -> None:
        """Index the graph once.

        Args:
            graph: what is to be erased from.
            subject_map: rows of nodes that the graph holds no more are passed over.
            rules: None: owned nodes go, and nothing follows.
            strict: refuse types without a rule; else they are owned and shallow.
            bounded: refuse more than ``max_nodes`` nodes a subject.

        Raises:
            SelectorError: see :func:`~coordinator.selectors.arcs.check_rules`.
        """
        if strict:
            check_rules(graph, rules)
        self.graph, self.subjects = graph, subject_map
        most = rules.max_nodes if rules else MAX_NODES
        self.max_nodes = most if bounded else graph.num_nodes
        self.kinds = node_kinds(graph, rules)
        self.arcs = owning_arcs(graph, rules)
        self.types = typing_of(graph.node_columns, rules.node_column) if rules else None
        self.rows = find_rows(graph, subject_map.nodes)
        self._owners = self._subjects_by_row()

    def _subjects_by_row(self) -> tuple[Array, Array]:
        """Owning subjects of every row (CSR)."""
        at = np.flatnonzero(self.subjects.is_owner & (self.rows >= 0))
        order = at[np.argsort(self.rows[at], kind="stable")]
        counts = np.bincount(self.rows[order], minlength=self.graph.num_nodes)
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return start, self.subjects.subject_of[order]

    def subjects_owning(self, row: int) -> list[int]:
        """Positions of the subjects that own a row."""
        start, subjects = self._owners
        found: list[int] = subjects[start[row] : start[row + 1]].tolist()
        return found

    def rows_of(self, subject: int, *, owner: bool) -> list[int]:
        """Rows of one subject that the graph holds."""
        span = slice(self.subjects.start[subject], self.subjects.start[subject + 1])
        wanted = (self.subjects.is_owner[span] == owner) & (self.rows[span] >= 0)
        rows: list[int] = self.rows[span][wanted].tolist()
        return rows

    def run(self, besides: Erasure = NOTHING) -> CascadeRun:
        """A run in which subjects go one after the other.

        Args:
            besides: records that go whoever goes, so that what they own is not kept by them.
        """
        return CascadeRun(self, besides)


@dataclass(frozen=True)
class _Step:
    """What one expansion did, as rows.

    Attributes:
        own: owner nodes of the subjects asked for.
        new: rows deleted.
        met: rows looked at.
        deep: rows that a deleted one owns by a deep edge.
    """

    own: set[int]
    new: set[int]
    met: set[int]
    deep: set[int]


class CascadeRun:
    """Subjects that went so far; each expansion gives what goes in addition.

    The parts of a run leave the same graph as all its subjects at once.
    """

    def __init__(self, cascade: Cascade, besides: Erasure = NOTHING) -> None:
        self.cascade, self.arcs = cascade, cascade.arcs
        if not besides.is_empty:
            graph, (change, _) = cascade.graph, present_part(cascade.graph, besides)
            rows, edges = graph.rows(change.nodes), graph.edge_positions(change.edges)
            self.arcs = cascade.arcs.discounted(rows, edges)
        self.gone: set[int] = set()  # subjects
        self.deleted: set[int] = set()  # rows
        self._references: dict[int, int] = {}  # left, of rows that lost some
        self._limit = 0

    def expand(
        self, subject_ids: Collection[str], named: Collection[NodeId] = ()
    ) -> SubjectErasure:
        """What goes with these subjects, beside what went before.

        Args:
            subject_ids: who goes.
            named: nodes that were found to go with them before; they go though what led to them
                is gone from the graph, unless somebody or something owns them still.

        Raises:
            UnknownIdError: names every subject that the map does not hold.
            SelectorError: more than ``max_nodes`` nodes a subject would go.
        """
        cascade = self.cascade
        asked = sorted(set(cascade.subjects.positions(subject_ids).tolist()))
        graph = cascade.graph
        step = self.follow(asked, graph.rows([i for i in named if graph.has_node(i)]).tolist())
        kept = sorted(step.met - self.deleted)
        edges = self._mention_edges(asked)
        ids = graph.ids
        reasons = Counter(self._why_deleted(row, step) for row in step.new)
        reasons.update(self._why_kept(row) for row in kept)
        reasons["mention edge"] += len(edges)
        deleted = tuple(ids[sorted(step.new)].tolist())
        return SubjectErasure(
            Erasure(deleted, [(ids[graph.src[e]], ids[graph.dst[e]]) for e in edges]),
            tuple(cascade.subjects.subjects[asked].tolist()),
            deleted,
            tuple(ids[kept].tolist()),
            {name: reasons[name] for name in sorted(reasons) if reasons[name]},
            self._count_types(step.new),
        )

    def follow(self, subjects: Collection[int], named: Iterable[int] = ()) -> _Step:
        """Let subjects, by position, go with all that follows, and rows that nothing owns.

        Raises:
            SelectorError: more than ``max_nodes`` nodes a subject would go.
        """
        cascade = self.cascade
        self.gone.update(subjects)
        self._limit = len(self.deleted) + cascade.max_nodes * len(subjects)
        own = {row for subject in subjects for row in cascade.rows_of(subject, owner=True)}
        step = _Step(own, set(), set(own), set())
        front = [row for row in own if self._goes(row, outright=cascade.kinds[row] == OWNED)]
        self._delete(front, step)
        for row in named:
            if self._goes(row, outright=False):
                self._delete([row], step)
                front.append(row)
        while front:
            for target, deep, counted in self.arcs.from_row(front.pop()):
                step.met.add(target)
                self._references[target] = self._left(target) - counted
                if deep:
                    step.deep.add(target)
                if self._goes(target, outright=deep and self._may_follow(target)):
                    self._delete([target], step)
                    front.append(target)
        return step

    def _delete(self, rows: Collection[int], step: _Step) -> None:
        self.deleted.update(rows)
        step.new.update(rows)
        if len(self.deleted) > self._limit:
            raise SelectorError(
                f"the cascade would delete more than {self.cascade.max_nodes} nodes a subject; "
                "make an edge type shallow or a node type shared, or raise "
                "subject_rules.max_nodes; `unweave subjects lint` lists the subjects"
            )

    def _goes(self, row: int, *, outright: bool) -> bool:
        """Whether a row that is still there goes now."""
        if row in self.deleted or self.cascade.kinds[row] == NEVER:
            return False
        return outright or (self._left(row) == 0 and not self._remaining_subjects(row))

    def _left(self, row: int) -> int:
        """References that a row has left."""
        return self._references.get(row, int(self.arcs.references[row]))

    def _may_follow(self, row: int) -> bool:
        """Whether a deep edge deletes a row: it is owned, and by no remaining subject."""
        return self.cascade.kinds[row] == OWNED and not self._remaining_subjects(row)

    def _remaining_subjects(self, row: int) -> bool:
        return any(subject not in self.gone for subject in self.cascade.subjects_owning(row))

    def _why_deleted(self, row: int, step: _Step) -> str:
        if row in step.own:
            return "owner"
        return "deep" if row in step.deep and self._may_follow(row) else "refcount"

    def _why_kept(self, row: int) -> str:
        if self.cascade.kinds[row] == NEVER:
            return "kept: never"
        if self._remaining_subjects(row):
            return "kept: another subject owns it"
        return "kept: another node refers to it"

    def _mention_edges(self, subjects: Iterable[int]) -> list[int]:
        """Positions of edges between a mention and the same subject's own nodes that stay.

        A deep or refcount edge is left: it says whose the node is that stays.
        """
        found: set[int] = set()
        for subject in subjects:
            own, mentions = (
                [r for r in self.cascade.rows_of(subject, owner=owner) if r not in self.deleted]
                for owner in (True, False)
            )
            if own and mentions:
                found.update(_edges_between(self.cascade.graph, own, mentions))
        return sorted(edge for edge in found if not self.arcs.owns[edge])

    def _count_types(self, rows: Collection[int]) -> dict[str, int]:
        types = self.cascade.types
        if types is None:
            return {}
        found = Counter(types.names[types.code[row]] for row in rows)
        return {name: found[name] for name in sorted(found)}


def _edges_between(graph: Graph, some: list[int], others: list[int]) -> Iterator[int]:
    """Positions of the edges that join one of some rows to one of others, in either direction."""
    for starts, ends in ((some, others), (others, some)):
        for row in starts:
            first, last = np.searchsorted(graph.src, [row, row + 1]).tolist()
            yield from (first + np.flatnonzero(np.isin(graph.dst[first:last], ends))).tolist()
