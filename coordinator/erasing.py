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
    RequestError,
    StalePlanError,
    UnknownIdError,
)
from cluster.graph import Graph
from coordinator.accepting import Clerk
from coordinator.acting import Step, resolve_again, take_step
from coordinator.ask import Ask, erasure_text, subject_marks
from coordinator.batch import OPEN as OPEN_BATCH
from coordinator.batch import UNPUBLISHED, Batch, letting_fail
from coordinator.certify import Gathering
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.ledger.batch_table import Batch as BatchRow
from coordinator.locking import locked
from coordinator.mask import Mask
from coordinator.parents import FILE, refresh_parents
from coordinator.people import kept_map
from coordinator.planner import make_plan
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import Decision, next_batch
from coordinator.requests.states import MASKED, OPEN, Action, State
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
        with self.engine.locks.state:
            if self._in_doubt:
                self.engine.catch_up()
                mask = Mask(self.engine)
                mask.load()
                self._mask, self._in_doubt = mask, False
            return self._mask

    @property
    def last_mask(self) -> Mask:
        """The mask as it was put last, for whoever only tells of it; waits for nobody."""
        return self._mask

    def _put(self, mask: Mask) -> None:
        self._mask = mask
        self.engine.mask_moved()

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

    @locked
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

    @locked
    def set_subjects(self, subjects: SubjectMap, rules: SubjectRules | None) -> int:
        """See :meth:`coordinator.system.System.set_subjects`."""
        engine, ledger, mask = self.engine, self.engine.ledger, self.mask.copy()
        before = kept_map(ledger)
        check_rules(engine.live.graph, rules)
        kept = engine.people.admitted(subjects)
        engine.people.write(kept)
        with self._changing(), engine.people.as_if(kept, rules), ledger.write() as tx:
            engine.people.note(tx, kept)
            engine.people.note_rules(tx, rules)
            ledger.next_epoch(tx)
            detail = {"subjects": len(kept.subjects), "rows": kept.num_rows}
            ledger.audit.append(tx, "set_subjects", "", None, detail)
            resolve_again(engine, tx, mask, (), self.clock(), remapped=True)
        self._put(mask)
        engine.destroy(before - kept_map(ledger))
        return subjects.num_rows - kept.num_rows

    # ---- intake

    def plan(self, asked: Erasure, *, unknown: Literal["raise", "report"]) -> Plan:
        """See :meth:`coordinator.system.System.plan`."""
        return self.plan_many([asked], unknown=unknown)[0]

    @locked
    def plan_many(
        self, asked: Sequence[Erasure], *, unknown: Literal["raise", "report"]
    ) -> list[Plan]:
        """Plans of several requests, each on the graph as it is, with one look at the ledger.

        Raises:
            UnknownIdError: a record is not in the graph and was not forgotten before.
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

    @locked
    def submit(self, asks: Sequence[Ask]) -> list[RequestRecord]:
        """Make requests durable, all in one transaction; from then on their records are masked.

        A request whose external id or idempotency key is known with the same body is that request;
        one whose records were all forgotten before is a duplicate of the first that named them.

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
        clerk = Clerk.of(self.engine)
        with self._changing(), ledger.write() as tx:
            epoch = ledger.next_epoch(tx, 0)
            for ask in asks:
                plan = ask.plan
                own = marks_of(ledger, plan.erasure, graph) | subject_marks(ledger, plan.subjects)
                record = ask.decided(ledger, self.engine.config.erasure, now)
                if record.state in MASKED:
                    epoch += 1
                    record = clerk.signed(replace(record, epoch=epoch))
                    marks[record.request_id] = own
                    mask.put(record, plan.erasure, plan.subjects)
                if record.state in OPEN:
                    payloads[record.request_id] = ask.payload()
                records.append(record)
            ledger.next_epoch(tx, len(marks))
            ledger.requests.add(tx, records, payloads, marks)
            ledger.audit.append_many(tx, "submit", [_submitted(record) for record in records])
            if any(ask.plan.subjects for ask in asks) or mask.held & mask.people.keys():
                again = resolve_again(self.engine, tx, mask, records, now)
                records = [again.get(record.request_id, record) for record in records]
        self._put(mask)
        return records

    @locked
    def act(self, request_id: str, action: Action, *, by: str, reason: str = "") -> RequestRecord:
        """Approve, reject, cancel, hold, release, extend, retry or expedite a request.

        Raises:
            TransitionError: its state does not allow that, or no longer.
            ApprovalError: the requester approves.
        """
        step = Step(action, self.clock(), by, reason, self.engine.config.erasure)
        with self._changing():
            after, mask = take_step(self.engine, self.mask, self.record(request_id), step)
        self._put(mask)
        if after.parent_id is not None:
            refresh_parents(self.engine.ledger, self.clock())
        return after

    # ---- batches

    def erase(self, ask: Ask) -> Receipt:
        """See :meth:`coordinator.system.System.erase`."""
        with self.engine.locks.batches:
            accepted = self._accept_urgent(ask)
            if isinstance(accepted, Receipt):
                return accepted
            self._run_batch([accepted], "urgent")
            return self._receipt_of(self.record(accepted.request_id))

    @locked
    def _accept_urgent(self, ask: Ask) -> RequestRecord | Receipt:
        """The request, to be carried out now; or the receipt of what was done before."""
        known = self.known(ask)
        if known is not None:
            return self._receipt_of(known)
        self._require_current([ask.plan])
        if ask.asks_nothing:
            return self._nothing_to_do(ask.plan)
        self._require_environment()
        held = self.mask.held_by(ask.plan.erasure, ask.plan.subjects)
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
        return record

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
        with self.engine.locks.batches:
            self._settle()

    def _settle(self) -> None:
        self.engine.ledger.settle_keys()
        self.finish_published()
        if self._changed_environment():
            text = "another environment: what waits is left to System.rebuild() and then run()"
            logger.warning(text, extra={"event": "environment_changed"})
            return
        begun = [self._of_batch(batch.batch_id) for batch in self._begun()]
        tried = {record.request_id for records in begun for record in records}
        self._finish_begun()
        waiting = [r for r in self.accepted() if r.request_id not in tried]
        stuck = [r for r in waiting if r.priority != "normal" or r.attempts]
        ready = self._decide([replace(r, not_before=None) for r in stuck], self.clock())
        if ready.batch:
            records = [r for r in stuck if r.request_id in set(ready.batch)]
            batch_id = self._schedule(records, "resumed")
            if batch_id:
                self._try(batch_id, records)

    def finish_published(self) -> None:
        """Purge and certify what was published and interrupted; trains nothing."""
        for batch in self._begun():
            if not any(r.state in UNPUBLISHED for r in self._of_batch(batch.batch_id)):
                self._carry_out(batch.batch_id)

    def _begun(self) -> Sequence[BatchRow]:
        return self.engine.ledger.batches.list(state=OPEN_BATCH)

    def _of_batch(self, batch_id: str) -> list[RequestRecord]:
        return self.engine.ledger.requests.find(batch_id=batch_id)

    @locked
    def next_batch(self) -> Decision:
        """What would run now, and when to look again."""
        return self._decide(self.accepted(), self.clock())

    def accepted(self, limit: int | None = None) -> list[RequestRecord]:
        """Requests that a batch may take, the first ``limit`` of them: a file's are its parts."""
        found = self.engine.ledger.requests.find(state=State.ACCEPTED, limit=limit)
        return [record for record in found if record.kind != FILE]

    def run(self) -> list[str]:
        """Carry out every batch that is due.

        A batch that fails leaves its requests to be tried again later, and what is published as it
        was.

        Returns:
            The batches that were completed.
        """
        done: list[str] = []
        with self.engine.locks.batches:
            self.engine.ledger.settle_keys()
            while True:
                done += self._finish_begun()
                with self.engine.locks.state:
                    decision = self.next_batch()
                    if not decision.batch:
                        return done
                    self._require_environment()
                    records = [self.record(key) for key in decision.batch]
                    batch_id = self._schedule(records, decision.text)
                if batch_id and self._try(batch_id, records):
                    done.append(batch_id)

    def _try(self, batch_id: str, records: Sequence[RequestRecord]) -> bool:
        """Carry out a batch, whose failure stands in nobody's way; whether it was completed."""
        shards = {shard for record in records for shard in record.shards}
        with letting_fail(self.engine.ledger, shards, batch_id):
            self._carry_out(batch_id)
            return True
        return False

    def _decide(self, accepted: Sequence[RequestRecord], now: datetime) -> Decision:
        generation = self.engine.live.generation
        waits = {r.request_id for r in accepted if self.mask.is_held(r.request_id)}
        shards = self.engine.live.partition.num_shards
        policy = self.engine.config.erasure
        return next_batch(accepted, now, policy, generation.costs, shards, waits)

    def _finish_begun(self) -> list[str]:
        """Finish batches that were interrupted; one that cannot be built again is put back.

        Returns:
            Those that were completed.
        """
        begun, done = self._begun(), []
        if begun:
            self._require_environment()
        for batch in begun:
            with letting_fail(self.engine.ledger, batch.shards, batch.batch_id):
                self._carry_out(batch.batch_id)
                done.append(batch.batch_id)
        return done

    def _run_batch(self, records: Sequence[RequestRecord], reason: str) -> None:
        batch_id = self._schedule(records, reason)
        if batch_id:
            self._carry_out(batch_id)

    @locked
    def _schedule(self, records: Sequence[RequestRecord], reason: str) -> str:
        """Put requests into a batch; nothing where none of them is to run after all."""
        records = self._resolved(records)
        return Batch.schedule(self.engine, self.clock, records, reason) if records else ""

    def _resolved(self, records: Sequence[RequestRecord]) -> Sequence[RequestRecord]:
        """Requests about to run, naming what goes with their people if nobody else went before.

        What they share with somebody who still waits stays with that one, who may yet come back.
        Those that now meet a request on hold are left out.
        """
        running = {record.request_id for record in records}
        if running.isdisjoint(self.mask.people):
            return records
        mask = self.mask.copy()
        with self._changing(), self.engine.ledger.write() as tx:
            again = resolve_again(self.engine, tx, mask, records, self.clock(), running=running)
        self._put(mask)
        found = [again.get(record.request_id, record) for record in records]
        return [record for record in found if not mask.is_held(record.request_id)]

    def _carry_out(self, batch_id: str) -> None:
        with self.engine.locks.state:
            if self.engine.catch_up():
                self._in_doubt = True
        try:
            Batch(self.engine, self.clock, batch_id, self._gathering, self._published).carry_out()
        except BaseException:
            self._in_doubt = True
            raise
        finally:
            with self.engine.locks.state:
                refresh_parents(self.engine.ledger, self.clock())

    @locked
    def _published(self, request_ids: Iterable[str]) -> None:
        """Unmask what a batch published; people who wait may own alone what others shared."""
        mask = self.mask.copy()
        mask.drop(request_ids)
        if mask.people:
            with self._changing(), self.engine.ledger.write() as tx:
                resolve_again(self.engine, tx, mask, (), self.clock())
        self._put(mask)

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
