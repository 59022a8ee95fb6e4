"""Types of a graph's nodes and edges under subject rules, as arrays the cascade can walk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import SelectorError, shorten
from cluster.graph import Graph
from coordinator.selectors.rules import EdgeRule, SubjectRules

Array = npt.NDArray[Any]

OWNED, SHARED, NEVER = 0, 1, 2
_NODE_CODES = {"owned": OWNED, "shared": SHARED, "never": NEVER}


@dataclass(frozen=True)
class Typing:
    """A column of types.

    Attributes:
        names: the types that occur, ascending.
        code: ``[K]`` int64 position of every record's type in ``names``.
    """

    names: list[str]
    code: Array

    def counts(self) -> dict[str, int]:
        """How many records have each type."""
        found = np.bincount(self.code, minlength=len(self.names)).tolist()
        return dict(zip(self.names, found, strict=True))


def typing_of(columns: Mapping[str, Array], name: str) -> Typing | None:
    """The types in a column; None where the graph has no such column."""
    if name not in columns:
        return None
    values = columns[name]
    text = pa.array(values if values.dtype == object else values.astype(str), pa.string())
    encoded = text.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    order = np.asarray(sorted(range(len(names)), key=names.__getitem__), np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    code = rank[encoded.indices.to_numpy(zero_copy_only=False)] if len(names) else rank
    return Typing([names[at] for at in order], code)


def node_kinds(graph: Graph, rules: SubjectRules | None) -> Array:
    """``[N]`` int8 OWNED, SHARED or NEVER; all owned where no rule speaks of node types.

    A type without a rule counts as owned here; :func:`check_rules` refuses it.
    """
    kinds = np.full(graph.num_nodes, OWNED, np.int8)
    typing = typing_of(graph.node_columns, rules.node_column) if rules else None
    if rules is None or typing is None:
        return kinds
    of_type = [_NODE_CODES[rules.node_types.get(name, "owned")] for name in typing.names]
    return np.asarray(of_type, np.int8)[typing.code] if of_type else kinds


@dataclass(frozen=True)
class Arcs:
    """Edges along which a deletion goes on, by source (CSR).

    Attributes:
        start: ``[N + 1]`` int64; arcs ``start[n]:start[n + 1]`` leave row n.
        target: ``[A]`` int64 rows.
        deep: ``[A]`` bool; the others are counted references.
        edge: ``[A]`` int64 positions of the graph's edges.
        counted: ``[A]`` bool, whether an arc keeps its target from going.
        references: ``[N]`` int64 number of counted arcs, deep or not, that point at a row.
        owns: ``[M]`` bool, the edges of the graph that are arcs.
    """

    start: Array
    target: Array
    deep: Array
    edge: Array
    counted: Array
    references: Array
    owns: Array

    def from_row(self, row: int) -> list[tuple[int, bool, bool]]:
        """Targets of a row, whether they follow at once, and whether the arc counted for them."""
        span = slice(self.start[row], self.start[row + 1])
        columns = self.target[span], self.deep[span], self.counted[span]
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def discounted(self, rows: Array, edges: Array) -> Arcs:
        """The same where no arc from some rows, and none that is one of some edges, counts."""
        source = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        counted = ~(np.isin(source, rows) | np.isin(self.edge, edges))
        references = np.bincount(self.target[counted], minlength=len(self.references))
        return replace(self, counted=counted, references=references)


def owning_arcs(graph: Graph, rules: SubjectRules | None) -> Arcs:
    """The arcs of deep and refcount edges; shallow ones carry nothing on."""
    types = typing_of(graph.edge_columns, rules.edge_column) if rules else None
    parts = [np.empty((4, 0), np.int64)]
    if rules is not None and types is not None:
        nodes = typing_of(graph.node_columns, rules.node_column)
        for at, name in enumerate(types.names):
            rule = rules.edge_types.get(name)
            if rule is not None and rule.rule != "shallow":
                parts += _arcs_of(graph, np.flatnonzero(types.code == at), rule, nodes)
    source, target, deep, edge = np.concatenate(parts, axis=1)
    by_source = np.lexsort((target, source))
    leaving = np.bincount(source, minlength=graph.num_nodes)
    return Arcs(
        np.concatenate([[0], np.cumsum(leaving)]).astype(np.int64),
        target[by_source],
        deep[by_source].astype(bool),
        edge[by_source],
        np.ones(len(edge), bool),
        np.bincount(target, minlength=graph.num_nodes),
        np.bincount(edge, minlength=graph.num_edges) > 0,
    )


def _arcs_of(graph: Graph, edges: Array, rule: EdgeRule, nodes: Typing | None) -> list[Array]:
    """``[4, A]`` blocks (source, target, deep, edge) of the edges of one type."""
    src, dst = graph.src[edges], graph.dst[edges]
    deep = np.full(len(edges), rule.rule == "deep")
    if rule.target is None:
        return [np.stack([src, dst, deep, edges])] if graph.schema.directed else []
    if nodes is None or rule.target not in nodes.names:
        return []
    wanted = nodes.code == nodes.names.index(rule.target)
    forward, back = wanted[dst], wanted[src]
    return [
        np.stack([src, dst, deep, edges])[:, forward],
        np.stack([dst, src, deep, edges])[:, back],
    ]


@dataclass(frozen=True)
class Problem:
    """Something about rules and graph that does not fit.

    Attributes:
        code: stable name of the kind of problem.
        message: what, where, and how to fix it.
        count: how many records it is about.
    """

    code: str
    message: str
    count: int = 0


def check_rules(graph: Graph, rules: SubjectRules | None) -> None:
    """Refuse rules under which a cascade could not be decided, as DELF's static check does.

    Raises:
        SelectorError: names every such problem.
    """
    found = [] if rules is None else blocking_problems(graph, rules)
    if found:
        raise SelectorError("subject rules: " + "; ".join(item.message for item in found))


def blocking_problems(graph: Graph, rules: SubjectRules) -> list[Problem]:
    """Problems without whose solution no cascade is run."""
    nodes = typing_of(graph.node_columns, rules.node_column)
    edges = typing_of(graph.edge_columns, rules.edge_column)
    found = _absent_columns(graph, rules, nodes, edges)
    if nodes is not None and rules.node_types:
        found += _without_rule("node", nodes, rules.node_types, "owned, shared or never")
    if edges is not None and rules.unknown_edge_type == "error":
        found += _without_rule("edge", edges, rules.edge_types, "deep, shallow or refcount")
    if edges is not None and not graph.schema.directed:
        found += [
            Problem(
                "edge-type-without-target",
                f"edges of type {name!r} are undirected, so {rules.edge_types[name].rule!r} "
                f"has no target; write {name}: {{rule: {rules.edge_types[name].rule}, "
                "target: NODE TYPE}",
                count,
            )
            for name, count in edges.counts().items()
            if name in rules.edge_types
            and rules.edge_types[name].rule != "shallow"
            and rules.edge_types[name].target is None
        ]
    return found


def _absent_columns(
    graph: Graph, rules: SubjectRules, nodes: Typing | None, edges: Typing | None
) -> list[Problem]:
    needs_nodes = rules.node_types or any(rule.target for rule in rules.edge_types.values())
    checks = [
        ("node", nodes, needs_nodes, rules.node_column, graph.node_columns),
        ("edge", edges, rules.edge_types, rules.edge_column, graph.edge_columns),
    ]
    return [
        Problem(
            f"no-{what}-types",
            f"the rules speak of {what} types and the graph has no {what} column {column!r}; "
            f"it has {shorten(sorted(columns)) or 'none'}; set {what}_column, or read the graph "
            f"with {what}_columns=[...]",
        )
        for what, typing, needed, column, columns in checks
        if needed and typing is None
    ]


def _without_rule(
    what: str, typing: Typing, rules: Mapping[str, object], choices: str
) -> list[Problem]:
    return [
        Problem(
            f"{what}-type-without-rule",
            f"{count} {what}s of type {name!r} have no rule; add {name!r} to {what}_types as "
            f"{choices}",
            count,
        )
        for name, count in typing.counts().items()
        if name not in rules
    ]
