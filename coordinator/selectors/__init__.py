"""Selectors: ways to name records other than one by one (subject, predicate, file of ids)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.selectors.cascade import Cascade as Cascade
    from coordinator.selectors.cascade import SubjectErasure as SubjectErasure
    from coordinator.selectors.cascade import expand as expand
    from coordinator.selectors.idfile import IdFile as IdFile
    from coordinator.selectors.idfile import Survey as Survey
    from coordinator.selectors.idfile import iter_erasures as iter_erasures
    from coordinator.selectors.idfile import iter_resolved as iter_resolved
    from coordinator.selectors.idfile import survey as survey
    from coordinator.selectors.rules import SubjectRules as SubjectRules
    from coordinator.selectors.rules import load_rules as load_rules
    from coordinator.selectors.selector import Resolved as Resolved
    from coordinator.selectors.selector import Subject as Subject
    from coordinator.selectors.selector import Where as Where
    from coordinator.selectors.selector import resolve as resolve
    from coordinator.selectors.subjects import SubjectMap as SubjectMap
    from coordinator.selectors.subjects import read_subjects as read_subjects

_HOMES = {
    "Cascade": "cascade",
    "IdFile": "idfile",
    "Resolved": "selector",
    "Subject": "selector",
    "SubjectErasure": "cascade",
    "SubjectMap": "subjects",
    "SubjectRules": "rules",
    "Survey": "idfile",
    "Where": "selector",
    "expand": "cascade",
    "iter_erasures": "idfile",
    "iter_resolved": "idfile",
    "load_rules": "rules",
    "read_subjects": "subjects",
    "resolve": "selector",
    "survey": "idfile",
}
__all__ = [
    "Cascade",
    "IdFile",
    "Resolved",
    "Subject",
    "SubjectErasure",
    "SubjectMap",
    "SubjectRules",
    "Survey",
    "Where",
    "expand",
    "iter_erasures",
    "iter_resolved",
    "load_rules",
    "read_subjects",
    "resolve",
    "survey",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordinator.selectors' has no attribute {name!r}")
    return getattr(import_module(f"coordinator.selectors.{_HOMES[name]}"), name)
