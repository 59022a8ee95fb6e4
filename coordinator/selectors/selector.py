"""What may stand where an erasure is asked: an Erasure, a Subject, or a Where; all become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.errors import SelectorError
from cluster.graph import Graph
from coordinator.erasure import Erasure
from coordinator.selectors.cascade import SubjectErasure, expand
from coordinator.selectors.predicate import select_nodes
from coordinator.selectors.rules import SubjectRules
from coordinator.selectors.subjects import SubjectMap, subject_text


@dataclass(frozen=True)
class Subject:
    """A person by the id that the subject map uses; an int or a UUID is taken as its text."""

    subject_id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject_id", subject_text(self.subject_id))


@dataclass(frozen=True)
class Where:
    """The nodes that a predicate over node columns holds for; ``docs/selectors.md`` has it all."""

    predicate: str

    def __post_init__(self) -> None:
        if not isinstance(self.predicate, str) or not self.predicate.strip():
            raise SelectorError(
                f"Where({self.predicate!r}) holds no predicate; write one as \"type = 'account'\""
            )


Selector = Erasure | Subject | Where
Kind = Literal["nodes", "edges", "features", "labels", "mixed", "subject", "predicate"]


@dataclass(frozen=True)
class Resolved:
    """A selector with the graph it was resolved against.

    Attributes:
        kind: kind of the request.
        erasure: the records; empty when the selector matches none.
        subjects: subjects that the erasure takes out of the subject map.
        cascade: why records go or stay, for a subject.
    """

    kind: Kind
    erasure: Erasure
    subjects: tuple[str, ...] = ()
    cascade: SubjectErasure | None = None


def resolve(
    graph: Graph,
    selector: Selector,
    subject_map: SubjectMap | None = None,
    rules: SubjectRules | None = None,
) -> Resolved:
    """Turn a selector into records of a graph.

    Args:
        graph: the surviving graph, so without what was asked before.
        selector: what is asked; an Erasure is taken as it is.
        subject_map: the map without subjects asked before.
        rules: cascade rules, or None.

    Raises:
        SelectorError: the predicate is wrong, no subjects are mapped, a type has no rule, or the
            cascade is too large.
        UnknownIdError: the map does not hold the subject.
    """
    if isinstance(selector, Erasure):
        return Resolved(kind_of(selector), selector)
    if isinstance(selector, Where):
        return Resolved("predicate", Erasure(nodes=select_nodes(graph, selector.predicate)))
    if not isinstance(selector, Subject):
        raise SelectorError(f"{selector!r} is no selector; give an Erasure, a Subject or a Where")
    if subject_map is None:
        raise SelectorError(
            "no subjects are mapped, so no person can be erased; import them with "
            "`unweave subjects import FILE` or System.set_subjects"
        )
    found = expand(graph, subject_map, rules, [selector.subject_id])
    return Resolved("subject", found.erasure, found.subjects, found)


def kind_of(erasure: Erasure) -> Kind:
    """``nodes``, ``edges``, ``features`` or ``labels``; ``mixed`` for more than one of them."""
    kinds: tuple[Kind, ...] = ("nodes", "edges", "features", "labels")
    there = [kind for kind in kinds if getattr(erasure, kind)]
    return there[0] if len(there) == 1 else "mixed"
