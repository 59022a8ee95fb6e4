"""From what a user asks (records, a person, a predicate) to a plan of records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cluster.errors import RequestError, SelectorError, UnknownIdError
from coordinator.ask import SUBJECT, subject_marks
from coordinator.erasing import Erasing
from coordinator.erasure import Erasure
from coordinator.planner import count_purged
from coordinator.results import Plan
from coordinator.selectors.cascade import SubjectErasure
from coordinator.selectors.selector import Selector, Subject, Where, resolve
from coordinator.selectors.subjects import SUBJECTS

Unknown = Literal["raise", "report"]
Asked = Selector | Plan | Iterable[Erasure]


@dataclass(frozen=True)
class Asking:
    """Makes plans in one opened home.

    Attributes:
        erasing: what was asked before.
    """

    erasing: Erasing

    def plan(self, asked: Selector | Iterable[Erasure], unknown: Unknown) -> Plan:
        """The plan of a selector, on the published graph.

        What another request waits to forget counts as here: that one may yet be cancelled.

        Raises:
            UnknownIdError: a record or a person is not here and was not forgotten before.
            SelectorError: the predicate is wrong, nobody is mapped, or the cascade is too large.
        """
        if isinstance(asked, Subject):
            return self._with_purges(self._plan_subject(asked, unknown))
        if isinstance(asked, Where):
            return self._with_purges(self._plan_where(asked))
        return self._with_purges(self.erasing.plan(_one_erasure(asked), unknown=unknown))

    def planned(self, asked: Asked, unknown: Unknown) -> Plan:
        """The plan itself, or one of what may be submitted without a look at it.

        Raises:
            RequestError: a predicate, which must be planned first.
        """
        if isinstance(asked, Plan):
            return asked
        if isinstance(asked, Where):
            raise RequestError(
                "a predicate is only taken with its plan, so that somebody sees what it selects: "
                "plan = system.plan(Where(...)), look at it, then hand over the plan (command "
                "line: `unweave plan --where ... --out plan.json`, then --plan plan.json)"
            )
        return self.plan(asked, unknown)

    def of_parts(
        self, kind: str, parts: Sequence[tuple[str, Erasure, tuple[str, ...]]]
    ) -> list[Plan]:
        """Plans of the parts of a file: (selector, records, people) each."""
        plans = self.erasing.plan_many([erasure for _, erasure, _ in parts], unknown="report")
        return [
            replace(plan, kind=kind, selector=selector, subjects=subjects)
            for plan, (selector, _, subjects) in zip(plans, parts, strict=True)
        ]

    def _plan_where(self, where: Where) -> Plan:
        found = resolve(self.erasing.engine.live.graph, where)
        plan = self.erasing.plan(found.erasure, unknown="report")
        return replace(plan, kind=found.kind, selector=where.predicate)

    def _plan_subject(self, subject: Subject, unknown: Unknown) -> Plan:
        found = self._expand(subject)
        if found is None:
            return self._plan_of_unmapped(subject, unknown)
        plan = self.erasing.plan(found.erasure, unknown="report")
        kept = {why: count for why, count in found.reasons.items() if why.startswith("kept")}
        plan = replace(plan, kept=kept)
        return _of_subject(plan, subject, found.subjects)

    def _expand(self, subject: Subject) -> SubjectErasure | None:
        """What goes with a person; None where the map has no such person."""
        erasing, people = self.erasing, self.erasing.engine.people
        mask, name = erasing.mask, subject.subject_id
        if people.is_mapped and not people.knows([name]):
            return None
        pending = [erasing.record(request_id) for request_id in mask.people]
        return people.expand(mask, pending, name)

    def _plan_of_unmapped(self, subject: Subject, unknown: Unknown) -> Plan:
        ledger, name = self.erasing.engine.ledger, subject.subject_id
        plan = self.erasing.plan(Erasure(), unknown="report")
        marks = list(subject_marks(ledger, (name,)))
        gone = ledger.erased_by(marks, unlearned_only=True)
        if gone:
            return _of_subject(replace(plan, already=dict.fromkeys(gone.values(), 1)), subject)
        if unknown == "raise":
            raise UnknownIdError([name], "the subject map", "subject")
        return _of_subject(replace(plan, unknown=(name,)), subject)

    def _with_purges(self, plan: Plan) -> Plan:
        live = self.erasing.engine.live
        purges = count_purged(live.graph, live.generation, plan.erasure, plan.shards)
        return replace(plan, purges=purges | ({SUBJECTS: 1} if plan.subjects else {}))


def _one_erasure(asked: object) -> Erasure:
    """One erasure, or several as one."""
    if isinstance(asked, Erasure):
        return asked
    is_one = isinstance(asked, str) or not isinstance(asked, Iterable)
    parts: list[Any] = [asked] if is_one else list(asked)  # type: ignore[call-overload]
    wrong = [part for part in parts if not isinstance(part, Erasure)]
    if wrong:
        raise SelectorError(
            f"{type(wrong[0]).__name__} cannot be asked here; give an Erasure, several of them, a "
            "Subject or a Where"
        )
    return Erasure.merge(parts)


def _of_subject(plan: Plan, subject: Subject, subjects: tuple[str, ...] = ()) -> Plan:
    return replace(plan, kind=SUBJECT, selector=subject.subject_id, subjects=subjects)
