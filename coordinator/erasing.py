"""What was asked and where it stands: intake, mask, batches, resumption.

Decisions are pure functions in :mod:`coordinator.requests`; this module carries them out. A batch
goes one way, each step one transaction, so that an interruption anywhere is finished by doing the
step again: scheduled, running (submodels are built), verifying (keys are derived again),
unlearned (published), purging (files are destroyed), completed (certificates).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
    UnweaveError,
)
from cluster.graph import Graph
from coordinator.acting import Step, resolve_again, take_step
from coordinator.ask import Ask, erasure_text, subject_marks
from coordinator.batch import OPEN as OPEN_BATCH
from coordinator.batch import UNPUBLISHED, Batch
from coordinator.certify import Gathering
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.mask import Mask
from coordinator.parents import FILE, refresh_parents
from coordinator.people import kept_map
from coordinator.planner import make_plan
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.regulations import clock_of
from coordinator.requests.scheduler import Decision, next_batch
from coordinator.requests.states import MASKED, OPEN, Action, State, decide
from coordinator.results import Plan, Receipt
from coordinator.selectors.arcs import check_rules
from coordinator.selectors.rules import SubjectRules
from coordinator.selectors.subjects import SubjectMap
from coordinator.tombstones import NODE, asked_marks, marks_of, split_erased

logger = logging.getLogger(__name__)


class Erasing:
    """Takes requests in and carries them out, for one opened home."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self.engine, self.clock = engine, clock
        self._mask, self._in_doubt = Mask(engine), False
        self._gathering = Gathering(engine)

    @property
    def mask(self) -> Mask:
        """What no answer reads; read back where a failure left it in doubt what was committed."""
        if self._in_doubt:
            self.engine.catch_up()
            self._mask.load()
            self._in_doubt = False
        return self._mask

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Around a change of requests: after a failure the ledger is asked what became of it."""
        try:
            yield
        except BaseException:
            self._in_doubt = True
            raise

    def load(self) -> None:
        """Read back what was accepted and is not forgotten yet."""
        self._in_doubt = True
        refresh_parents(self.engine.ledger, self.clock())

    def masked_graph(self) -> Graph:
        """The published graph less everything that was accepted to be forgotten."""
        return self.mask.graph()

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

    def set_subjects(self, subjects: SubjectMap, rules: SubjectRules | None) -> int:
        """See :meth:`coordinator.system.System.set_subjects`."""
        engine, ledger, mask = self.engine, self.engine.ledger, self.mask.copy()
        before = kept_map(ledger)
        check_rules(self.masked_graph(), rules)
        kept = engine.people.admitted(subjects)
        engine.people.write(kept)
        with self._changing(), ledger.write() as tx:
            engine.people.note(tx, kept)
            engine.people.note_rules(tx, rules)
            ledger.next_epoch(tx)
            detail = {"subjects": len(kept.subjects), "rows": kept.num_rows}
            ledger.audit.append(tx, "set_subjects", "", None, detail)
        self._in_doubt = True
        mask = self.mask.copy()
        with self._changing(), ledger.write() as tx:
            resolve_again(engine, tx, mask, (), self.clock())
        self._mask = mask
        engine.destroy(before - kept_map(ledger))
        return subjects.num_rows - kept.num_rows

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
        found = engine.ledger.erased_by(list(wanted), unlearned_only=True)
        epoch, plans = engine.ledger.epoch(), []
        for item, named in zip(asked, marks, strict=True):
            rest, already = split_erased(item, live.graph, named, found)
            plan = make_plan(live.graph, engine.index(), live.partition, live.generation, rest)
            if plan.unknown and unknown == "raise":
                kind = "edge" if all(isinstance(i, tuple) for i in plan.unknown) else "record"
                raise UnknownIdError(plan.unknown, "the graph", kind)
            plan = replace(plan, asked=item, epoch=epoch, already=already)
            plans.append(replace(plan, kind=item.kind, selector=erasure_text(item)))
        return plans

    def submit(self, asks: Sequence[Ask]) -> list[RequestRecord]:
        """Make requests durable, all in one transaction; from then on their records are masked.

        A request whose external id or idempotency key is known with the same body is that request;
        one whose records were all asked for before is a duplicate of the first that named them.

        Raises:
            DuplicateError: the key is known with another body.
            StalePlanError: a plan was made for another state of the graph.
        """
        known = [self.known(ask) for ask in asks]
        fresh = [ask for ask, record in zip(asks, known, strict=True) if record is None]
        self._require_current([ask.plan for ask in fresh])
        accepted = iter(self._accept(fresh) if fresh else ())
        return [record or next(accepted) for record in known]

    def known(self, ask: Ask) -> RequestRecord | None:
        """The request of the same external id or idempotency key.

        Raises:
            DuplicateError: that one asked for something else.
        """
        find = self.engine.ledger.requests.find
        found: list[RequestRecord] = []
        if ask.external_request_id:
            found += find(external_request_id=ask.external_request_id, limit=1)
        if ask.idempotency_key:
            found += find(idempotency_key=ask.idempotency_key, limit=1)
        for record in found:
            if record.body_digest != ask.body(self.engine.ledger):
                raise DuplicateError(
                    f"the id or key {ask.external_request_id or ask.idempotency_key!r} was used "
                    f"by request {record.request_id} for other records or options; use a new one, "
                    "or ask for the same again"
                )
        return found[0] if found else None

    def _require_current(self, plans: Sequence[Plan]) -> None:
        epoch, live = self.engine.ledger.epoch(), self.engine.live
        for plan in plans:
            if (plan.epoch, plan.generation_key) != (epoch, live.generation.key):
                raise StalePlanError(plan.epoch, epoch)

    def _accept(self, asks: Sequence[Ask]) -> list[RequestRecord]:
        ledger, now = self.engine.ledger, self.clock()
        graph, mask = self.engine.live.graph, self.mask.copy()
        records, marks, payloads = [], {}, {}
        with self._changing(), ledger.write() as tx:
            epoch = ledger.next_epoch(tx, 0)
            for ask in asks:
                plan = ask.plan
                own = marks_of(ledger, plan.erasure, graph) | subject_marks(ledger, plan.subjects)
                record = self._decided(ask, now)
                if record.state in MASKED:
                    epoch += 1
                    record = replace(record, epoch=epoch)
                    marks[record.request_id] = own
                    mask.put(record, plan.erasure, plan.subjects)
                if record.state in OPEN:
                    payloads[record.request_id] = ask.payload()
                records.append(record)
            ledger.next_epoch(tx, len(marks))
            ledger.requests.add(tx, records, payloads, marks)
            ledger.audit.append_many(tx, "submit", [_submitted(record) for record in records])
            if any(ask.plan.subjects for ask in asks) or mask.held & mask.people.keys():
                resolve_again(self.engine, tx, mask, records, now)
        self._mask = mask
        return records

    def new_record(self, ask: Ask, now: datetime) -> RequestRecord:
        """The record of a request that was just received."""
        plan, policy, ledger = ask.plan, self.engine.config.erasure, self.engine.ledger
        regulation = ask.regulation or policy.regulation
        clock = clock_of(
            ask.received_at or now, now, policy, regulation=regulation, priority=ask.priority
        )
        return RequestRecord(
            request_id=new_request_id(now),
            kind=plan.kind,
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
            body_digest=ask.body(ledger),
            parent_id=ask.parent_id,
            subject_ref=ask.subject_ref(ledger),
            records=plan.records,
            shards=plan.shards,
            estimated_seconds=plan.seconds,
            unknown=len(plan.unknown),
        )

    def _decided(self, ask: Ask, now: datetime) -> RequestRecord:
        """The record of a new request, in the state that intake decides.

        Only what is forgotten already makes a duplicate: another request that waits may still be
        cancelled, and this one must stand then.
        """
        plan, policy = ask.plan, self.engine.config.erasure
        record, why = self.new_record(ask, now), ask.reason
        if ask.asks_nothing and plan.already and not plan.unknown:
            marked = decide(record, Action.MARK_DUPLICATE, now, reason=why, policy=policy)
            return replace(marked, duplicate_of=next(iter(plan.already)))
        if not ask.needs_approval(policy):
            accepted = decide(record, Action.ACCEPT, now, reason=why, policy=policy)
            return replace(accepted, approved_by=ask.approved_by)
        waiting = decide(record, Action.NEED_APPROVAL, now, reason=why, policy=policy)
        if not ask.approved_by:
            return waiting
        return decide(waiting, Action.APPROVE, now, by=ask.approved_by, reason=why, policy=policy)

    def act(self, request_id: str, action: Action, *, by: str, reason: str = "") -> RequestRecord:
        """Approve, reject, cancel, hold, release, extend, retry or expedite a request.

        Raises:
            TransitionError: its state does not allow that, or no longer.
            ApprovalError: the requester approves.
        """
        step = Step(action, self.clock(), by, reason, self.engine.config.erasure)
        with self._changing():
            after, self._mask = take_step(self.engine, self.mask, self.record(request_id), step)
        if after.parent_id is not None:
            refresh_parents(self.engine.ledger, self.clock())
        return after

    # ---- batches

    def erase(self, ask: Ask) -> Receipt:
        """See :meth:`coordinator.system.System.erase`."""
        known = self.known(ask)
        if known is not None:
            return self._receipt_of(known)
        self._require_current([ask.plan])
        if ask.asks_nothing:
            return self._nothing_to_do(ask.plan)
        self._require_environment()
        held = self.mask.held_by(ask.plan.erasure)
        if held:
            raise HoldError(
                f"request {held} holds these records for a legal claim; release it first, or "
                "submit() the request, which then waits"
            )
        policy = self.engine.config.erasure
        if ask.needs_approval(policy) and not ask.approved_by:
            raise ApprovalError(
                "the request names more nodes and edges than erasure.approve_above = "
                f"{policy.approve_above}; pass requested_by= and approved_by=, or submit() it and "
                "let somebody else approve it"
            )
        (record,) = self._accept([ask])
        self._run_batch([record], "urgent")
        return self._receipt_of(self.record(record.request_id))

    def _receipt_of(self, record: RequestRecord) -> Receipt:
        if record.receipt is None:
            raise RequestError(
                f"request {record.request_id} of that id is {record.state} and has no receipt; "
                "see `unweave requests show`"
            )
        return Receipt.from_json(record.receipt)

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
        """Finish what was begun, do what waits for no window, try again what failed before.

        Another failure is noted in its request: it keeps neither a home from being opened nor
        another request from being done.
        """
        self.finish_published()
        if self._changed_environment():
            text = "another environment: what waits is left to System.rebuild() and then run()"
            logger.warning(text, extra={"event": "environment_changed"})
            return
        self._finish_begun()
        stuck = [r for r in self._accepted() if r.priority != "normal" or r.attempts]
        ready = self._decide([replace(r, not_before=None) for r in stuck], self.clock())
        if ready.batch:
            self._try([r for r in stuck if r.request_id in set(ready.batch)], "resumed")

    def finish_published(self) -> None:
        """Purge and certify what was published and interrupted; trains nothing."""
        for batch in self.engine.ledger.batches.list(state=OPEN_BATCH):
            found = self.engine.ledger.requests.find(batch_id=batch.batch_id)
            if not any(record.state in UNPUBLISHED for record in found):
                self._carry_out(batch.batch_id)

    def next_batch(self) -> Decision:
        """What would run now, and when to look again."""
        return self._decide(self._accepted(), self.clock())

    def _accepted(self) -> list[RequestRecord]:
        """Requests that a batch may take: a file's are its parts."""
        found = self.engine.ledger.requests.find(state=State.ACCEPTED)
        return [record for record in found if record.kind != FILE]

    def run(self) -> list[str]:
        """Carry out every batch that is due.

        A batch that fails leaves its requests to be tried again later, and what is published as it
        was.

        Returns:
            The batches that were completed.
        """
        done: list[str] = []
        while True:
            done += self._finish_begun()
            decision = self.next_batch()
            if not decision.batch:
                return done
            self._require_environment()
            records = [self.record(key) for key in decision.batch]
            batch_id = self._try(records, decision.text)
            done += [batch_id] if batch_id else []

    def _try(self, records: Sequence[RequestRecord], reason: str) -> str:
        """Carry out a batch; a failure is logged by code and shards, since its text may name ids.

        Returns:
            The batch, or nothing where it failed.

        Raises:
            Exception: it failed after it was published, and must go on before anything else.
        """
        try:
            return self._run_batch(records, reason)
        except LeaseError:
            raise
        except Exception as error:
            if self.engine.ledger.batches.list(state=OPEN_BATCH):
                raise
            code = error.code if isinstance(error, UnweaveError) else type(error).__name__
            shards = sorted({shard for record in records for shard in record.shards})
            text = "a batch failed with %s; its shards are %s"
            logger.error(text, code, shards, extra={"event": "batch_failed", "code": code})
        return ""

    def _decide(self, accepted: Sequence[RequestRecord], now: datetime) -> Decision:
        generation = self.engine.live.generation
        waits = {r.request_id for r in accepted if self.mask.is_held(r.request_id)}
        shards = self.engine.live.partition.num_shards
        policy = self.engine.config.erasure
        return next_batch(accepted, now, policy, generation.costs, shards, waits)

    def _finish_begun(self) -> list[str]:
        begun = [batch.batch_id for batch in self.engine.ledger.batches.list(state=OPEN_BATCH)]
        if begun:
            self._require_environment()
        for batch_id in begun:
            self._carry_out(batch_id)
        return begun

    def _run_batch(self, records: Sequence[RequestRecord], reason: str) -> str:
        batch_id = Batch.schedule(self.engine, self.clock, records, reason)
        self._carry_out(batch_id)
        return batch_id

    def _carry_out(self, batch_id: str) -> None:
        if self.engine.catch_up():
            self._in_doubt = True
        try:
            Batch(self.engine, self.clock, batch_id, self._gathering, self._unmask).carry_out()
        except BaseException:
            self._in_doubt = True
            raise
        finally:
            refresh_parents(self.engine.ledger, self.clock())

    def _unmask(self, request_ids: Iterable[str]) -> None:
        self.mask.drop(request_ids)

    def _changed_environment(self) -> list[int]:
        """Shards whose submodel this environment would train to other bits."""
        from coordinator.verification import environment_changed

        return environment_changed(self.engine)

    def _require_environment(self) -> None:
        """Refuse to mix submodels of two environments in one generation."""
        changed = self._changed_environment()
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
