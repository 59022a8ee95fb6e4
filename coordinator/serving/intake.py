"""The office's intake: plans, submissions, actions, look-ups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from cluster.errors import (
    LineError,
    NotFoundError,
    RequestError,
    SelectorError,
    StalePlanError,
)
from coordinator.ask import SUBJECT, Ask
from coordinator.asking import Asking
from coordinator.planfile import plan_id as id_of
from coordinator.requests.record import RequestRecord
from coordinator.requests.regulations import clock_of
from coordinator.requests.states import Action
from coordinator.requests.times import as_utc, parse_time
from coordinator.results import Plan
from coordinator.selectors.idfile import IdFile
from coordinator.serving.asked import selector_of, typed_ids
from coordinator.serving.callbacks import Callbacks
from coordinator.serving.views import PEOPLES, plan_view

TRIES: Final = 20  # a request without a plan is planned again when the graph moved meanwhile
FORMS: Final = ("csv", "txt")
MEMORY: Final = Path("/dev/shm")  # where files lie in memory
_OPTIONS: Final = (
    "regulation",
    "priority",
    "requested_by",
    "approved_by",
    "reason",
    "external_request_id",
    "idempotency_key",
    "serving_policy",
)


@dataclass(frozen=True)
class KeptPlan:
    """A plan that somebody may still submit.

    Attributes:
        plan: the plan.
        view: what its maker saw.
        until: when it is forgotten.
    """

    plan: Plan
    view: Mapping[str, Any]
    until: datetime

    @property
    def size(self) -> int:
        """Number of records that it names, which memory is held for."""
        named = (self.plan.asked, self.plan.erasure)
        return sum(len(part) for e in named for part in (e.nodes, e.edges, e.features, e.labels))


class Intake(Callbacks):
    """Takes in what is asked.

    Attributes:
        plans: plan id -> a plan kept for submission, oldest first.
    """

    plans: OrderedDict[str, KeptPlan]

    # ---- plans

    def plan(
        self,
        asked: Mapping[str, Any],
        unknown: Literal["raise", "report"] = "raise",
        regulation: str | None = None,
    ) -> dict[str, Any]:
        """Say what an erasure would do, and keep the plan for ``plan_minutes``.

        Raises:
            UnknownIdError: a record is not here and was not erased before.
            SelectorError: the selector is none, or nobody is mapped.
        """
        made = self._made(asked, unknown)
        now, policy = self.clock(), self.system.config.erasure
        name = id_of(made, self.ledger)
        until = now + timedelta(minutes=self.settings.plan_minutes)
        profile = regulation or policy.regulation
        due = clock_of(now, now, policy, regulation=profile).due_at
        view = plan_view(made, name, profile, due, until)
        with self.lock:
            self.plans[name] = KeptPlan(made, view, until)
            self.plans.move_to_end(name)
            self.let_go_of_plans(now)
        return view

    def let_go_of_plans(self, now: datetime) -> None:
        """Forget plans whose time is over, and the oldest of too many; the newest one stays."""
        for old in [key for key, kept in self.plans.items() if kept.until < now]:
            del self.plans[old]
        named = sum(kept.size for kept in self.plans.values())
        most, limit = self.settings.max_planned, self.settings.max_plans
        while len(self.plans) > 1 and (named > most or len(self.plans) > limit):
            named -= self.plans.popitem(last=False)[1].size

    def kept_plan(self, plan_id: str) -> dict[str, Any]:
        """A plan that was made before.

        Raises:
            NotFoundError: there is none, or its time is over.
        """
        return dict(self._kept(plan_id).view)

    def _kept(self, plan_id: str) -> KeptPlan:
        with self.lock:
            found = self.plans.get(plan_id)
        if found is None or found.until < self.clock():
            raise NotFoundError("plan", f"plans are kept {self.settings.plan_minutes} minutes")
        return found

    def _made(self, asked: Mapping[str, Any], unknown: Literal["raise", "report"]) -> Plan:
        selector = selector_of(asked, self.schema)
        return self.system.plan(selector, unknown=unknown)

    # ---- requests

    def submit(
        self,
        asked: Mapping[str, Any] | None,
        plan_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Accept a request; when this returns, no answer reads its records.

        What is not here is reported, not refused: such a request completes with nothing held.

        Args:
            asked: kind and selector; None where a plan is given.
            plan_id: a plan of this office; a predicate is taken only with its plan.
            options: regulation, priority, requested_by, approved_by, reason, external_request_id,
                idempotency_key, serving_policy, received_at, callbacks.

        Raises:
            NotFoundError: there is no such plan.
            StalePlanError: the plan was made for another state.
            DuplicateError: the id or key was used for something else.
            RequestError: a predicate without its plan, or an option is wrong.
        """
        given = dict(options or {})
        told = self.check_callbacks(given.get("callbacks") or ())
        record = self._accepted(asked, plan_id, given)
        self.add_callbacks(record.request_id, told)
        self.moved()
        return self.view(record)

    def submit_file(
        self,
        content: bytes,
        form: str = "csv",
        kind: str = "nodes",
        hashed: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Accept every line of a file as a request of its own, under one parent.

        Args:
            content: the file.
            form: ``csv`` with a header, or ``txt`` with one id a line.
            kind: what the lines name: nodes, edges, features, labels or subjects.
            hashed: whether ids stand as SHA-256 in hexadecimal.
            options: as in :meth:`submit`; callbacks are those of the parent.

        Raises:
            SelectorError: the file is bad; nothing was accepted.
            DuplicateError: the id or key was used for something else.
        """
        given = dict(options or {})
        told = self.check_callbacks(given.get("callbacks") or ())
        with _lying(content, form) as path:
            file = IdFile(path, kind, hashed)  # type: ignore[arg-type]  # it checks the kind
            request = self.system.submit_file(
                file,
                unknown="report",
                received_at=self._time(given.get("received_at")),
                **_named(given),
            )
        self.add_callbacks(request.request_id, told)
        self.moved()
        return self.view(request.record)

    def _accepted(
        self, asked: Mapping[str, Any] | None, plan_id: str | None, options: Mapping[str, Any]
    ) -> RequestRecord:
        erasing = self.system.erasing
        if plan_id is not None:
            (record,) = erasing.submit([self._ask(self._kept(plan_id).plan, options)])
            return record
        if asked is None:
            raise RequestError("nothing is asked; give a kind and a selector, or a plan_id")
        selector = selector_of(asked, self.schema)
        for last in range(TRIES, -1, -1):
            made = Asking(erasing).planned(selector, "report")
            try:
                (record,) = erasing.submit([self._ask(made, options)])
                return record
            except StalePlanError:
                if not last:
                    raise
        raise AssertionError("the loop returns or raises")

    def _ask(self, plan: Plan, options: Mapping[str, Any]) -> Ask:
        received_at = self._time(options.get("received_at"))
        return Ask(plan, **_named(options), received_at=received_at)

    def _time(self, value: str | datetime | None) -> datetime | None:
        if value is None or isinstance(value, datetime):
            return None if value is None else as_utc(value, "received_at")
        return parse_time(value, "received_at", ZoneInfo(self.system.config.erasure.timezone))

    def act(self, request_id: str, action: str, by: str, reason: str = "") -> dict[str, Any]:
        """Approve, reject, hold, release, extend, retry, expedite or cancel a request.

        Raises:
            NotFoundError: there is no such request, or no such action.
            TransitionError: its state does not allow that, or no longer.
            ApprovalError: the requester approves.
        """
        self.record(request_id)
        if action not in PEOPLES:
            raise NotFoundError("action", f"choose one of {list(PEOPLES)}")
        record = self.system.erasing.act(request_id, Action(action), by=by, reason=reason)
        self.moved()
        return self.view(record)

    # ---- look-ups

    def lookup(self, asked: Mapping[str, Any], by: str = "") -> dict[str, Any]:
        """How much of what is asked is here; noted in the audit log, by counts alone.

        Returns:
            ``found``, ``unknown`` and ``gone`` of what is named, ``kind``, and ``records`` of each
            kind that an erasure would take.
        """
        made = self._made(asked, "report")
        found = self._count(made)
        with self.ledger.write() as tx:
            detail = {"kind": made.kind, **found}
            self.ledger.audit.append(tx, "lookup", by, None, detail, at=self.clock())
        records = {kind: int(n) for kind, n in made.records.items()}
        return found | {"kind": made.kind, "records": records}

    def _count(self, plan: Plan) -> dict[str, int]:
        """Of what a plan was asked for: what is here, was never here, was forgotten or is to be.

        A person counts as one, whatever is theirs.
        """
        asked, graph = plan.asked, self.system.graph
        if plan.kind == SUBJECT:
            here = len(plan.subjects)
            gone = 0 if here else min(len(plan.already), 1)
            return {"found": here, "unknown": 1 - here - gone, "gone": gone}
        ids = [*asked.nodes, *asked.labels, *asked.features]
        if ids:
            missing = [i for i in ids if not graph.has_node(i)]
            gone, unknown = len(self.system.erasing.forgotten(missing)), len(missing)
            return {"found": len(ids) - unknown, "unknown": unknown - gone, "gone": gone}
        unknown, gone = len(plan.unknown), sum(plan.already.values())
        named = len(asked.edges)
        return {"found": named - unknown - gone, "unknown": unknown, "gone": gone}

    def gone(self, ids: Sequence[Any]) -> list[bool]:
        """Whether each of some ids was forgotten here, or is to be."""
        typed = typed_ids(ids, self.schema)
        forgotten = set(self.system.erasing.forgotten(typed))
        return [node_id in forgotten for node_id in typed]


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _OPTIONS if options.get(name) is not None}


@contextmanager
def _lying(content: bytes, form: str) -> Iterator[Path]:
    """A file as long as it is read: in memory where that is possible, and overwritten after."""
    if form not in FORMS:
        raise SelectorError(f"a file is {form!r}; choose one of {list(FORMS)}")
    has_room = MEMORY.is_dir() and disk_usage(MEMORY).free > 2 * len(content)
    with TemporaryDirectory(dir=MEMORY if has_room else None) as folder:
        path = Path(folder) / f"ids.{form}"
        path.write_bytes(content)
        try:
            yield path
        except SelectorError as error:  # neither where it lay nor what it named is repeated
            text = error.without_value if isinstance(error, LineError) else str(error)
            raise SelectorError(text.replace(str(path), "the file")) from None
        finally:
            with path.open("r+b") as file:
                file.write(bytes(len(content)))
