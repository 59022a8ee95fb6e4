"""Everything about a subject map and its rules that needs a decision, found before an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import SelectorError, shorten
from cluster.graph import Graph
from coordinator.selectors.arcs import OWNED, Problem, Typing, blocking_problems, typing_of
from coordinator.selectors.cascade import Cascade
from coordinator.selectors.rules import SubjectRules
from coordinator.selectors.subjects import SubjectMap

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Findings:
    """All that was found; empty when nothing was."""

    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is nothing to decide."""
        return not self.problems

    def codes(self) -> list[str]:
        """The kinds of problems, in order."""
        return [problem.code for problem in self.problems]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form; messages name up to ten records."""
        found = [
            {"code": item.code, "message": item.message, "count": item.count}
            for item in self.problems
        ]
        return {"ok": self.ok, "findings": found}


def lint(
    graph: Graph, subject_map: SubjectMap, rules: SubjectRules | None, bound: int | None = None
) -> Findings:
    """Check rules and subjects against the graph.

    Args:
        graph: what the rules speak of.
        subject_map: which nodes are whose.
        rules: None for a graph whose owner nodes simply go.
        bound: most nodes that may go with one subject; the rules' ``max_nodes`` when left out.

    Returns:
        Every finding, not the first: types without a rule, rules without a type, cascades over the
        bound, mentions without an owner, owned nodes without a subject.
    """
    cascade = Cascade(graph, subject_map, rules, strict=False)
    cascade.max_nodes = bound or cascade.max_nodes
    found = [] if rules is None else blocking_problems(graph, rules) + _idle_rules(graph, rules)
    found += _map_problems(cascade, rules)
    found += _large_cascades(cascade)
    return Findings(tuple(found))


def _idle_rules(graph: Graph, rules: SubjectRules) -> list[Problem]:
    """Rules for types that no record has."""
    found: list[Problem] = []
    tables: list[tuple[str, Typing | None, Mapping[str, object]]] = [
        ("node", typing_of(graph.node_columns, rules.node_column), rules.node_types),
        ("edge", typing_of(graph.edge_columns, rules.edge_column), rules.edge_types),
    ]
    for what, typing, named in tables:
        if typing is None:
            continue
        found += [
            Problem(
                f"rule-without-{what}-type",
                f"no {what} has the type {name!r} of a rule; the graph has "
                f"{shorten(typing.names)}; mend the name or drop the rule",
            )
            for name in sorted(set(named) - set(typing.names))
        ]
        if what == "node":
            found += [
                Problem(
                    "target-without-node-type",
                    f"edge type {name!r} has the target {rule.target!r}, which no node is; the "
                    f"graph has {shorten(typing.names)}; mend the name",
                )
                for name, rule in sorted(rules.edge_types.items())
                if rule.target is not None and rule.target not in typing.names
            ]
    return found


def _map_problems(cascade: Cascade, rules: SubjectRules | None) -> list[Problem]:
    subjects, rows = cascade.subjects, cascade.rows
    there = rows >= 0
    owners = np.bincount(
        subjects.subject_of[subjects.is_owner & there], minlength=len(subjects.subjects)
    )
    owned = np.zeros(cascade.graph.num_nodes, bool)
    owned[rows[subjects.is_owner & there]] = True
    is_owned_type = cascade.kinds == OWNED
    has_types = rules is not None and bool(rules.node_types) and cascade.types is not None
    ids = cascade.graph.ids
    checks = [
        (
            "node-not-in-graph",
            subjects.nodes[~there],
            "rows of the map name nodes that the graph does not hold",
            "import the subjects again",
        ),
        (
            "mention-without-owner",
            subjects.subjects[owners == 0],
            "subjects have mentions and no owner node, so their erasure removes nothing",
            "give them an owner row",
        ),
        (
            "owned-node-without-subject",
            ids[is_owned_type & ~owned] if has_types else ids[:0],
            "nodes of an owned type have no subject",
            "add owner rows, or make the type shared or never",
        ),
    ]
    return [
        Problem(code, f"{len(which)} {what}: {shorten(which.tolist())}; {fix}", len(which))
        for code, which, what, fix in checks
        if len(which)
    ]


def _large_cascades(cascade: Cascade) -> list[Problem]:
    subjects = cascade.subjects.subjects
    large = [at for at in range(len(subjects)) if _exceeds(cascade, at)]
    if not large:
        return []
    return [
        Problem(
            "cascade-exceeds-bound",
            f"{len(large)} subjects take more than {cascade.max_nodes} nodes along: "
            f"{shorten(subjects[large].tolist())}; make an edge type shallow or a node type "
            "shared, or raise subject_rules.max_nodes",
            len(large),
        )
    ]


def _exceeds(cascade: Cascade, subject: int) -> bool:
    try:
        cascade.run().follow([subject])
    except SelectorError:
        return True
    return False
