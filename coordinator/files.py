"""Files of ids: one parent request, and a part with a certificate of its own for each id.

The file is read to its end before anything is accepted. Then parts are accepted in commits; an
interruption leaves the parent ``received``, and the same file submitted again goes on where it
stopped, since a part's external id follows from the parent and the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from cluster.errors import SelectorError
from coordinator.accepting import Clerk
from coordinator.ask import Ask, count_named, erasure_text
from coordinator.asking import Asking
from coordinator.erasing import Erasing
from coordinator.erasure import Erasure
from coordinator.parents import FILE, in_state, parent_state, parts_of
from coordinator.reconcile import Progress
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import estimate
from coordinator.requests.states import Action, State, decide, needs_approval
from coordinator.results import Plan
from coordinator.selectors.cascade import Cascade
from coordinator.selectors.idfile import IdFile, Survey, iter_resolved, survey
from coordinator.selectors.selector import Resolved

COMMIT = 500  # parts of one transaction
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class FileIntake:
    """Accepts one file.

    Attributes:
        erasing: where it is asked.
        file: what is asked.
        ask: the options of the request, with a plan of the file.
        progress: called with (stage, done, total).
    """

    erasing: Erasing
    file: IdFile
    ask: Ask
    progress: Progress

    def accept(self, unknown: Literal["raise", "report"]) -> RequestRecord:
        """Make the request and all its parts durable; returns the request.

        Raises:
            SelectorError: the file is bad, or names unknown records; nothing was accepted.
            DuplicateError: the external id or key was used for something else.
            ApprovalError: it is large and nobody is named who asks, or the requester approves.
        """
        parent = self._known()
        if parent is not None and parent.state is not State.RECEIVED:
            return parent
        cascade = cascade_of(self.erasing, self.file)
        graph = self.erasing.engine.live.graph
        self.progress("reading the file", 0, 1)
        surveyed = survey(self.file, graph, cascade)
        self.progress("reading the file", 1, 1)
        if parent is None:
            if unknown == "raise":
                surveyed.require_known(self.file.path)
            is_large = self._is_large(surveyed, cascade)
            parent = self._begin(surveyed, is_large=is_large)
        parts = iter_resolved(self.file, graph, cascade, surveyed=surveyed, chunk=1)
        done = 0
        while chunk := list(islice(parts, COMMIT)):
            self._accept_parts(parent, chunk)
            done += len(chunk)
            self.progress("accepting", done, surveyed.records)
        return self._end(parent)

    # ---- the parent

    def _known(self) -> RequestRecord | None:
        """The request of the same id or key, or an unfinished one of the same file."""
        known = self.erasing.known(self.ask)
        if known is not None or self.ask.external_request_id or self.ask.idempotency_key:
            return known
        ledger = self.erasing.engine.ledger
        body = self.ask.body(ledger)
        begun = ledger.requests.find(kind=FILE, state=State.RECEIVED)
        return next((record for record in begun if record.body_digest == body), None)

    def _begin(self, surveyed: Survey, *, is_large: bool) -> RequestRecord:
        erasing, policy = self.erasing, self.erasing.engine.config.erasure
        ledger, now = erasing.engine.ledger, erasing.clock()
        record = replace(
            self.ask.received(ledger, policy, now),
            unknown=surveyed.unknown,
            needs_approval=is_large,
            approved_by=self.ask.approved_by,
        )
        if is_large:
            _check_approval(record, self.ask, now, erasing)
        else:
            decide(record, Action.ACCEPT, now, policy=policy)
        counts = {"lines": surveyed.lines, "unknown": surveyed.unknown}
        with ledger.write() as tx:
            ledger.requests.add(tx, [record], {}, {}, action="receive")
            detail = counts | {"records": surveyed.records, "repeated": surveyed.duplicates}
            ledger.audit.append(tx, "submit", record.requested_by, record.request_id, detail)
        return record

    def _end(self, parent: RequestRecord) -> RequestRecord:
        """Close the intake: from now on the parent follows its parts."""
        engine, now = self.erasing.engine, self.erasing.clock()
        records: dict[str, int] = {}
        shards: set[int] = set()
        for part in parts_of(engine.ledger, parent.request_id):
            shards |= set(part.shards)
            for kind, count in part.records.items():
                records[kind] = records.get(kind, 0) + count
        counts = engine.ledger.requests.child_counts(parent.request_id)
        after = replace(
            in_state(parent, parent_state(counts), now),
            accepted_at=now,
            records=records,
            shards=tuple(sorted(shards)),
            estimated_seconds=estimate(shards, engine.live.generation.costs),
        )
        after = Clerk.of(engine).signed(after)
        with engine.ledger.write() as tx:
            detail = f"{sum(counts.values())} parts"
            engine.ledger.requests.change_many(tx, [(parent, after)], "accept", detail, at=now)
        return after

    # ---- its parts

    def _is_large(self, surveyed: Survey, cascade: Cascade | None) -> bool:
        policy = self.erasing.engine.config.erasure
        if cascade is None:
            edges = surveyed.records if self.file.kind == "edges" else 0
            return needs_approval(surveyed.records - edges, edges, policy)
        nodes = edges = 0
        graph = self.erasing.engine.live.graph
        for part in iter_resolved(self.file, graph, cascade, surveyed=surveyed):
            named = count_named(part.erasure)
            nodes, edges = nodes + named[0], edges + named[1]
        return needs_approval(nodes, edges, policy)

    def _accept_parts(self, parent: RequestRecord, found: Sequence[Resolved]) -> None:
        parts = [(_selector(part), part.erasure, part.subjects) for part in found]
        plans = Asking(self.erasing).of_parts(found[0].kind, parts)
        mark = self.erasing.engine.ledger.mark
        self.erasing.submit(
            [
                replace(
                    self.ask,
                    plan=plan,
                    external_request_id=f"{parent.request_id}/"
                    + mark("part", parent.request_id, plan.kind, plan.selector).hex()[:32],
                    idempotency_key=None,
                    parent_id=parent.request_id,
                    is_large=parent.needs_approval,
                    received_at=parent.received_at,
                )
                for plan in plans
            ]
        )


def cascade_of(erasing: Erasing, file: IdFile) -> Cascade | None:
    """Everybody mapped, for a file of subjects.

    What goes with them beside those who were asked for before is looked up at acceptance.
    """
    people = erasing.engine.people
    if file.kind != "subjects" or people.map is None:
        return None
    return Cascade(erasing.engine.live.graph, people.map, people.rules)


def plan_file(asking: Asking, file: IdFile, unknown: Literal["raise", "report"]) -> Plan:
    """What a file would do as a whole.

    Raises:
        SelectorError: the file is bad, or names what is not here.
    """
    erasing = asking.erasing
    graph, cascade = erasing.engine.live.graph, cascade_of(erasing, file)
    surveyed = survey(file, graph, cascade)
    if unknown == "raise":
        surveyed.require_known(file.path)
    parts = list(iter_resolved(file, graph, cascade, surveyed=surveyed))
    made = asking.plan((part.erasure for part in parts), "report")
    subjects = tuple(chain.from_iterable(part.subjects for part in parts))
    selector = plan_of_file(asking, file).plan.selector
    return replace(made, kind=FILE, selector=selector, subjects=subjects)


def plan_of_file(asking: Asking, file: IdFile) -> Ask:
    """A request for a file before its options are known; reads the file for its digest."""
    digest, path = hashlib.sha256(), Path(file.path)
    if not path.is_file():
        raise SelectorError(f"{path} is no file; check the path")
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    empty = asking.erasing.plan(Erasure(), unknown="report")
    selector = f"{file.kind} {'sha256' if file.sha256 else 'plain'} {digest.hexdigest()}"
    return Ask(replace(empty, kind=FILE, selector=selector))


def _selector(part: Resolved) -> str:
    return part.subjects[0] if part.subjects else erasure_text(part.erasure)


def _check_approval(record: RequestRecord, ask: Ask, now: datetime, erasing: Erasing) -> None:
    """Refuse before anything is accepted what its parts would be refused for."""
    policy = erasing.engine.config.erasure
    fresh = replace(record, needs_approval=False, approved_by="")
    waiting = decide(fresh, Action.NEED_APPROVAL, now, policy=policy)
    if ask.approved_by:
        decide(waiting, Action.APPROVE, now, by=ask.approved_by, policy=policy)
