"""What was asked and where it stands: intake, mask, batches, resumption.

Decisions are pure functions in :mod:`coordinator.requests`; this module carries them out. A batch
goes one way, each step one transaction, so that an interruption anywhere is finished by doing the
step again: scheduled, running (submodels are built), verifying (keys are derived again),
unlearned (published), purging (files are destroyed), completed (certificates).
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from cluster.digest import NodeId, encode_id
from cluster.errors import (
    ApprovalError,
    ConfigError,
    DuplicateError,
    HoldError,
    LeaseError,
    RequestError,
    StalePlanError,
    UnknownIdError,
)
from cluster.graph import Graph
from coordinator.batch import OPEN as OPEN_BATCH
from coordinator.batch import Batch
from coordinator.certify import Gathering
from coordinator.engine import Engine
from coordinator.erasure import Erasure, present_part
from coordinator.holds import meets
from coordinator.planner import make_plan
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.regulations import clock_of
from coordinator.requests.scheduler import Decision, next_batch
from coordinator.requests.states import CLOSED, MASKED, OPEN, Action, State, decide, needs_approval
from coordinator.results import Plan, Receipt
from coordinator.tombstones import NODE, asked_marks, marks_of, split_erased

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """A request before it is accepted.

    Attributes:
        plan: what is to be forgotten, planned on the graph as it is.
        kind: nodes, edges, features, labels, mixed, subject, predicate or file.
        regulation: profile of its deadlines; None for the configured one.
        priority: normal, urgent or regulator.
        requested_by: who asks.
        approved_by: who approved it already, for calls that do not wait.
        reason: why, for the log.
        external_request_id: the caller's own id, at most one request each.
        idempotency_key: key of this call; the same key with another body is refused.
        received_at: when the controller got it, where that was earlier; its clock starts then.
        parent_id: the request it is a part of.
        subjects: people whose records these are.
    """

    plan: Plan
    kind: str = "mixed"
    regulation: str | None = None
    priority: str = "normal"
    requested_by: str = ""
    approved_by: str = ""
    reason: str = ""
    external_request_id: str | None = None
    idempotency_key: str | None = None
    received_at: datetime | None = None
    parent_id: str | None = None
    subjects: tuple[NodeId, ...] = ()


class Erasing:
    """Takes requests in and carries them out, for one opened home."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self.engine, self.clock = engine, clock
        self._masked: dict[str, Erasure] = {}
        self._held: set[str] = set()
        self._gathering = Gathering(engine)
        self._view: tuple[Graph, Graph] | None = None  # published graph, the same masked

    def load(self) -> None:
        """Read back what was accepted and is not forgotten yet."""
        requests = self.engine.ledger.requests
        waiting = requests.find(state=MASKED)
        payloads = requests.payloads([record.request_id for record in waiting])
        self._held = {r.request_id for r in waiting if r.state == State.ON_HOLD}
        self._masked = {key: Erasure.from_json(data) for key, data in payloads.items()}
        self._view = None

    # ---- the mask

    def masked_graph(self) -> Graph:
        """The published graph less everything that was accepted to be forgotten."""
        live = self.engine.live.graph
        if not self._masked:
            return live
        if self._view is None or self._view[0] is not live:
            change, _ = present_part(live, Erasure.merge(self._masked.values()))
            self._view = live, live.apply(change)
        return self._view[1]

    def forgotten(self, ids: Iterable[NodeId]) -> list[NodeId]:
        """Those of some ids that were erased here, or are to be."""
        ledger = self.engine.ledger
        known = [i for i in ids if isinstance(i, int | str | uuid.UUID)]
        marks = {ledger.mark(NODE, encode_id(node_id)): node_id for node_id in known}
        return [marks[mark] for mark in ledger.erased_by(list(marks))]

    def record(self, request_id: str) -> RequestRecord:
        """A request as the ledger has it.

        Raises:
            RequestError: there is none of that id.
        """
        found = self.engine.ledger.requests.get(request_id)
        if found is None:
            raise RequestError(
                f"no request {request_id!r} in {self.engine.home}; list them with "
                "`unweave requests ls` or System.requests()"
            )
        return found

    # ---- intake

    def plan(self, asked: Erasure, *, unknown: Literal["raise", "report"]) -> Plan:
        """See :meth:`coordinator.system.System.plan`."""
        return self.plan_many([asked], unknown=unknown)[0]

    def plan_many(
        self, asked: Sequence[Erasure], *, unknown: Literal["raise", "report"]
    ) -> list[Plan]:
        """Plans of several requests, each on the graph as it is, with one look at the ledger.

        Raises:
            UnknownIdError: a record is not in the graph and was not asked for before.
        """
        engine, live = self.engine, self.engine.live
        marks = [asked_marks(engine.ledger, item, live.graph) for item in asked]
        wanted = {mark for named in marks for group in named.values() for mark in group}
        found = engine.ledger.erased_by(list(wanted))
        epoch, plans = engine.ledger.epoch(), []
        for item, named in zip(asked, marks, strict=True):
            rest, already = split_erased(item, live.graph, named, found)
            plan = make_plan(live.graph, engine.index(), live.partition, live.generation, rest)
            if plan.unknown and unknown == "raise":
                kind = "edge" if all(isinstance(i, tuple) for i in plan.unknown) else "record"
                raise UnknownIdError(plan.unknown, "the graph", kind)
            plans.append(replace(plan, asked=item, epoch=epoch, already=already))
        return plans

    def submit(self, asks: Sequence[Ask]) -> list[RequestRecord]:
        """Make requests durable, all in one transaction; from then on their records are masked.

        A request whose external id or idempotency key is known with the same body is that request;
        one whose records were all asked for before is a duplicate of the first that named them.

        Raises:
            DuplicateError: the key is known with another body.
            StalePlanError: a plan was made for another state of the graph.
        """
        known = [self._known(ask) for ask in asks]
        fresh = [ask for ask, record in zip(asks, known, strict=True) if record is None]
        self._require_current([ask.plan for ask in fresh])
        accepted = iter(self._accept(fresh) if fresh else ())
        return [record or next(accepted) for record in known]

    def _known(self, ask: Ask) -> RequestRecord | None:
        find = self.engine.ledger.requests.find
        found: list[RequestRecord] = []
        if ask.external_request_id:
            found += find(external_request_id=ask.external_request_id, limit=1)
        if ask.idempotency_key:
            found += find(idempotency_key=ask.idempotency_key, limit=1)
        for record in found:
            if record.body_digest != self._body(ask):
                raise DuplicateError(
                    f"the id or key {ask.external_request_id or ask.idempotency_key!r} was used "
                    f"by request {record.request_id} for other records or options; use a new one, "
                    "or ask for the same again"
                )
        return found[0] if found else None

    def _body(self, ask: Ask) -> str:
        """Keyed digest of what is asked, whatever has become of it since."""
        options = [ask.kind, ask.regulation or "", ask.priority]
        body = json.dumps(ask.plan.asked.to_json(), sort_keys=True)
        return self.engine.ledger.mark("request", *options, body).hex()

    def _require_current(self, plans: Sequence[Plan]) -> None:
        epoch, live = self.engine.ledger.epoch(), self.engine.live
        for plan in plans:
            if (plan.epoch, plan.generation_key) != (epoch, live.generation.key):
                raise StalePlanError(plan.epoch, epoch)

    def _accept(self, asks: Sequence[Ask]) -> list[RequestRecord]:
        ledger, now = self.engine.ledger, self.clock()
        graph = self.engine.live.graph
        records, marks, payloads = [], {}, {}
        named: dict[bytes, str] = {}  # what earlier requests of this call have named
        with ledger.write() as tx:
            epoch = ledger.next_epoch(tx, 0)
            for ask in asks:
                own = marks_of(ledger, ask.plan.erasure, graph)
                first = next((named[mark] for mark in own if mark in named), "")
                record = self._record(ask, now, first if own.keys() <= named.keys() else "")
                if record.state in MASKED:
                    epoch += 1
                    record = replace(record, epoch=epoch)
                    marks[record.request_id] = own
                    named.update(dict.fromkeys(own.keys() - named.keys(), record.request_id))
                if record.state in OPEN:
                    payloads[record.request_id] = _payload(ask)
                records.append(record)
            ledger.next_epoch(tx, len(marks))
            ledger.requests.add(tx, records, payloads, marks)
            ledger.audit.append_many(tx, "submit", [_submitted(record) for record in records])
        for record, ask in zip(records, asks, strict=True):
            if record.state in MASKED:
                self._mask(record, ask.plan.erasure)
        return records

    def _record(self, ask: Ask, now: datetime, duplicate_of: str) -> RequestRecord:
        """The record of a new request, in the state that intake decides."""
        plan, policy = ask.plan, self.engine.config.erasure
        regulation = ask.regulation or policy.regulation
        if plan.erasure.is_empty and plan.already and not plan.unknown:
            duplicate_of = next(iter(plan.already))
        clock = clock_of(
            ask.received_at or now, now, policy, regulation=regulation, priority=ask.priority
        )
        record = RequestRecord(
            request_id=new_request_id(now),
            kind=ask.kind,
            state=State.RECEIVED,
            regulation=regulation,
            priority=ask.priority,
            received_at=clock.received_at,
            submitted_at=now,
            due_at=clock.due_at,
            cancel_until=clock.cancel_until,
            requested_by=ask.requested_by,
            reason=ask.reason,
            external_request_id=ask.external_request_id,
            idempotency_key=ask.idempotency_key,
            body_digest=self._body(ask),
            parent_id=ask.parent_id,
            subject_ref=self.engine.ledger.mark("selector", json.dumps(_payload(ask))).hex(),
            records=plan.records,
            shards=plan.shards,
            estimated_seconds=plan.seconds,
            unknown=len(plan.unknown),
        )
        if duplicate_of:
            marked = decide(record, Action.MARK_DUPLICATE, now, policy=policy)
            return replace(marked, duplicate_of=duplicate_of)
        if self._needs_approval(ask):
            return decide(record, Action.NEED_APPROVAL, now, policy=policy)
        return replace(
            decide(record, Action.ACCEPT, now, policy=policy), approved_by=ask.approved_by
        )

    def _mask(self, record: RequestRecord, erasure: Erasure) -> None:
        if record.request_id not in self._masked:
            self._masked[record.request_id] = erasure
            self._view = None
        holds = self._held.add if record.state == State.ON_HOLD else self._held.discard
        holds(record.request_id)

    def _unmask(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._masked.pop(request_id, None)
            self._held.discard(request_id)
        self._view = None

    # ---- what people do to a request

    def act(self, request_id: str, action: Action, *, by: str, reason: str = "") -> RequestRecord:
        """Approve, reject, cancel, hold, release, extend, retry or expedite a request.

        Raises:
            TransitionError: its state does not allow that, or no longer.
            ApprovalError: the requester approves.
        """
        ledger, now = self.engine.ledger, self.clock()
        before = self.record(request_id)
        after = decide(before, action, now, by=by, reason=reason, policy=self.engine.config.erasure)
        enters = after.state in MASKED and before.state not in MASKED and before.epoch is None
        leaves = after.state in CLOSED
        erasure = Erasure.from_json(ledger.requests.payloads([request_id])[request_id])
        with ledger.write() as tx:
            if enters or (leaves and before.epoch is not None):
                after = replace(after, epoch=ledger.next_epoch(tx))
            if enters:
                marks = marks_of(ledger, erasure, self.engine.live.graph)
                ledger.requests.add_marks(tx, request_id, marks)
            if leaves:
                ledger.requests.remove_marks(tx, [request_id])
                ledger.requests.destroy_payloads(tx, [request_id])
            pairs = [(before, after)]
            ledger.requests.change_many(tx, pairs, str(action), reason, by=by, at=now)
            ledger.audit.append(tx, str(action), by, request_id, {"state": str(after.state)})
        if leaves:
            self._unmask([request_id])
            ledger.truncate_log()
        elif after.state in MASKED:
            self._mask(after, erasure)
        return after

    # ---- batches

    def erase(self, plan: Plan, *, requested_by: str = "", approved_by: str = "") -> Receipt:
        """See :meth:`coordinator.system.System.erase`."""
        self._require_current([plan])
        if plan.erasure.is_empty:
            return self._nothing_to_do(plan)
        self._require_environment()
        held = self._held_by(plan.erasure)
        if held:
            raise HoldError(
                f"request {held} holds these records for a legal claim; release it first, or "
                "submit() the request, which then waits"
            )
        ask = Ask(plan, priority="urgent", requested_by=requested_by, approved_by=approved_by)
        if self._needs_approval(ask):
            raise ApprovalError(
                "the request names more nodes and edges than erasure.approve_above = "
                f"{self.engine.config.erasure.approve_above}; pass approved_by=, or submit() it "
                "and let somebody else approve it"
            )
        (record,) = self._accept([ask])
        self._run_batch([record], "urgent")
        done = self.record(record.request_id)
        assert done.receipt is not None
        return Receipt.from_json(done.receipt)

    def _nothing_to_do(self, plan: Plan) -> Receipt:
        if len(plan.already) == 1 and not plan.unknown:
            (request_id,) = plan.already
            earlier = self.record(request_id).receipt
            if earlier is not None:
                return Receipt.from_json(earlier)
        generation = self.engine.live.generation
        return Receipt(
            "",
            generation.epoch,
            generation.number,
            (),
            0.0,
            plan.records,
            {},
            len(plan.unknown),
            plan.already,
        )

    def settle(self) -> None:
        """Finish what was begun, and do what waits for no window or failed before."""
        requests, now = self.engine.ledger.requests, self.clock()
        self._finish_begun()
        accepted = requests.find(state=State.ACCEPTED)
        stuck = [r for r in accepted if r.attempts or r.priority != "normal"]
        ready = self._decide([replace(r, not_before=None) for r in stuck], now)
        if ready.batch:
            chosen = [r for r in stuck if r.request_id in set(ready.batch)]
            self._run_batch(chosen, "retry")

    def next_batch(self) -> Decision:
        """What would run now, and when to look again."""
        return self._decide(self.engine.ledger.requests.find(state=State.ACCEPTED), self.clock())

    def run(self) -> list[str]:
        """Carry out every batch that is due.

        A batch that fails leaves its requests to be tried again later, and what is published as it
        was.

        Returns:
            The batches that were completed.
        """
        done = self._finish_begun()
        while True:
            decision = self.next_batch()
            if not decision.batch:
                return done
            self._require_environment()
            records = [self.record(key) for key in decision.batch]
            try:
                done.append(self._run_batch(records, decision.text))
            except LeaseError:
                raise
            except Exception:
                logger.exception("a batch failed", extra={"event": "batch_failed"})

    def _decide(self, accepted: Sequence[RequestRecord], now: datetime) -> Decision:
        generation = self.engine.live.generation
        waits = {r.request_id for r in accepted if self._is_held(r.request_id)}
        shards = self.engine.live.partition.num_shards
        policy = self.engine.config.erasure
        return next_batch(accepted, now, policy, generation.costs, shards, waits)

    def _is_held(self, request_id: str) -> bool:
        return bool(self._held_by(self._masked[request_id], but=request_id))

    def _held_by(self, asked: Erasure, *, but: str = "") -> str:
        """A request on hold, other than ``but``, that keeps ``asked`` from being done."""
        others = (key for key in sorted(self._held) if key != but)
        return next((key for key in others if meets(asked, self._masked[key])), "")

    def _needs_approval(self, ask: Ask) -> bool:
        asked, policy = ask.plan.erasure, self.engine.config.erasure
        nodes = len({*asked.nodes, *asked.labels, *asked.features})
        return needs_approval(nodes, len(asked.edges), policy) and not ask.approved_by

    def _finish_begun(self) -> list[str]:
        begun = [batch.batch_id for batch in self.engine.ledger.batches.list(state=OPEN_BATCH)]
        for batch_id in begun:
            self._carry_out(batch_id)
        return begun

    def _run_batch(self, records: Sequence[RequestRecord], reason: str) -> str:
        batch_id = Batch.schedule(self.engine, self.clock, records, reason)
        self._carry_out(batch_id)
        return batch_id

    def _carry_out(self, batch_id: str) -> None:
        Batch(self.engine, self.clock, batch_id, self._gathering, self._unmask).carry_out()

    def _require_environment(self) -> None:
        """Refuse to mix submodels of two environments in one generation."""
        from coordinator.verification import environment_changed

        changed = environment_changed(self.engine)
        if changed:
            raise ConfigError(
                f"{len(changed)} of {len(self.engine.live.generation.submodels)} submodels were "
                "trained in another environment (library versions or CPU level changed); call "
                "System.rebuild() to retrain them here, or restore that environment"
            )


def _submitted(record: RequestRecord) -> tuple[str, str, dict[str, Any]]:
    """What the audit log says of an intake."""
    detail = {"state": str(record.state), "records": dict(record.records)}
    return record.requested_by, record.request_id, detail


def _payload(ask: Ask) -> dict[str, Any]:
    """What the vault keeps of a request until it is closed."""
    people = [str(person) for person in ask.subjects]
    return ask.plan.erasure.to_json() | {"already": dict(ask.plan.already), "subjects": people}
