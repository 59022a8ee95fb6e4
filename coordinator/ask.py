"""Ask: a request before it is accepted, and what the ledger keeps of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.regulations import clock_of
from coordinator.requests.serving import chosen_policy
from coordinator.requests.states import Action, State, decide, needs_approval
from coordinator.results import Plan

SUBJECT = "subject"  # kind of a request, and of the tombstone of a person


@dataclass(frozen=True)
class Ask:
    """A request before it is accepted.

    Attributes:
        plan: what is to be forgotten, planned on the graph as it is.
        regulation: profile of its deadlines; None for the configured one.
        priority: normal, urgent or regulator.
        requested_by: who asks.
        approved_by: who approved it already, for calls that do not wait.
        reason: why, for the log.
        external_request_id: the caller's own id, at most one request each.
        idempotency_key: key of this call; the same key with another body is refused.
        received_at: when the controller got it, where that was earlier; its clock starts then.
        parent_id: the request it is a part of.
        serving_policy: mask, exclude or block while its shards retrain; None: exclude of a
            regulator's request, else what the service has.
        is_large: whether a second person is needed; None: its own size decides.
    """

    plan: Plan
    regulation: str | None = None
    priority: str = "normal"
    requested_by: str = ""
    approved_by: str = ""
    reason: str = ""
    external_request_id: str | None = None
    idempotency_key: str | None = None
    received_at: datetime | None = None
    parent_id: str | None = None
    serving_policy: str | None = None
    is_large: bool | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether there is no record and no person to forget."""
        return self.plan.erasure.is_empty and not self.plan.subjects

    def needs_approval(self, policy: RequestPolicy) -> bool:
        """Whether a second person has to agree."""
        if self.is_large is not None:
            return self.is_large
        nodes, edges = count_named(self.plan.erasure)
        return needs_approval(nodes, edges, policy)

    def payload(self) -> dict[str, Any]:
        """What the vault keeps of it until it is closed."""
        return payload_of(self.plan.erasure, self.plan.subjects, self.plan.already)

    def body(self, ledger: Ledger) -> str:
        """Keyed digest of what is asked, in hex, whatever has become of it since."""
        options = [self.plan.kind, self.regulation or "", self.priority]
        if self.serving_policy is not None:  # digests of requests without one stay what they were
            options.append(self.serving_policy)
        return ledger.mark("request", *options, self.plan.selector).hex()

    def subject_ref(self, ledger: Ledger) -> str:
        """Keyed digest, in hex, of the person it is about, or else of what it names."""
        if self.plan.kind == SUBJECT:
            return subject_ref(ledger, self.plan.selector)
        return ledger.mark("selector", self.plan.selector).hex()

    def received(self, ledger: Ledger, policy: RequestPolicy, now: datetime) -> RequestRecord:
        """The record of this request as it comes in."""
        plan, regulation = self.plan, self.regulation or policy.regulation
        clock = clock_of(
            self.received_at or now, now, policy, regulation=regulation, priority=self.priority
        )
        return RequestRecord(
            request_id=new_request_id(now),
            kind=plan.kind,
            state=State.RECEIVED,
            regulation=regulation,
            priority=self.priority,
            received_at=clock.received_at,
            submitted_at=now,
            due_at=clock.due_at,
            cancel_until=clock.cancel_until,
            requested_by=self.requested_by,
            reason=self.reason,
            external_request_id=self.external_request_id,
            idempotency_key=self.idempotency_key,
            body_digest=self.body(ledger),
            parent_id=self.parent_id,
            subject_ref=self.subject_ref(ledger),
            records=plan.records,
            shards=plan.shards,
            estimated_seconds=plan.seconds,
            unknown=len(plan.unknown),
            serving_policy=chosen_policy(self.serving_policy, self.priority),
        )

    def decided(self, ledger: Ledger, policy: RequestPolicy, now: datetime) -> RequestRecord:
        """The same in the state that intake decides.

        Only what is forgotten already makes a duplicate: another request that waits may still be
        cancelled, and this one must stand then.

        Raises:
            ApprovalError: it is large, and nobody is named who asks, or the requester approves.
        """
        record, why = self.received(ledger, policy, now), self.reason
        if self.asks_nothing and self.plan.already and not self.plan.unknown:
            marked = decide(record, Action.MARK_DUPLICATE, now, reason=why, policy=policy)
            return replace(marked, duplicate_of=next(iter(self.plan.already)))
        if not self.needs_approval(policy):
            accepted = decide(record, Action.ACCEPT, now, reason=why, policy=policy)
            return replace(accepted, approved_by=self.approved_by)
        waiting = decide(record, Action.NEED_APPROVAL, now, reason=why, policy=policy)
        if not self.approved_by:
            return waiting
        return decide(waiting, Action.APPROVE, now, by=self.approved_by, reason=why, policy=policy)


def subject_ref(ledger: Ledger, subject: str) -> str:
    """How requests of one person are recognised: a keyed digest of the person's id, in hex."""
    return ledger.mark(SUBJECT, subject).hex()


def subject_marks(ledger: Ledger, subjects: tuple[str, ...]) -> dict[bytes, str]:
    """Tombstone -> kind for people."""
    return {ledger.mark(SUBJECT, subject): SUBJECT for subject in subjects}


def payload_of(erasure: Erasure, subjects: tuple[str, ...], already: Any) -> dict[str, Any]:
    """Plain JSON of the records and people to forget."""
    return erasure.to_json() | {"already": dict(already), "subjects": list(subjects)}


def erasure_text(erasure: Erasure) -> str:
    """The selector of a plain erasure as text."""
    return json.dumps(erasure.to_json(), sort_keys=True)


def count_named(erasure: Erasure) -> tuple[int, int]:
    """Number of nodes and of edges that an erasure names."""
    return len({*erasure.nodes, *erasure.labels, *erasure.features}), len(erasure.edges)
