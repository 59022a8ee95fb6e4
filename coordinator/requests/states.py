"""The life of a request: its states, what may be done in each, and what that leads to."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a request stands; the values are what SQL, JSON and the command line show."""

    RECEIVED = "received"
    NEEDS_APPROVAL = "needs_approval"
    ON_HOLD = "on_hold"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    VERIFYING = "verifying"
    UNLEARNED = "unlearned"
    PURGING = "purging"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Action(StrEnum):
    """What is done to a request, by a person or by the coordinator."""

    ACCEPT = "accept"
    NEED_APPROVAL = "need_approval"
    MARK_DUPLICATE = "mark_duplicate"
    REJECT = "reject"
    APPROVE = "approve"
    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"
    EXTEND = "extend"
    EXPEDITE = "expedite"
    SCHEDULE = "schedule"
    START = "start"
    BUILT = "built"
    PUBLISH = "publish"
    PURGE = "purge"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"


_S, _A = State, Action
MASKED = frozenset({_S.ACCEPTED, _S.SCHEDULED, _S.RUNNING, _S.VERIFYING, _S.FAILED, _S.ON_HOLD})
CLOSED = frozenset({_S.COMPLETED, _S.CANCELLED, _S.REJECTED, _S.DUPLICATE})
OPEN = frozenset(set(_S) - CLOSED)
TRANSITIONS = {
    (_S.RECEIVED, _A.ACCEPT): _S.ACCEPTED,
    (_S.RECEIVED, _A.NEED_APPROVAL): _S.NEEDS_APPROVAL,
    (_S.RECEIVED, _A.MARK_DUPLICATE): _S.DUPLICATE,
    (_S.NEEDS_APPROVAL, _A.APPROVE): _S.ACCEPTED,
    (_S.NEEDS_APPROVAL, _A.REJECT): _S.REJECTED,
    (_S.NEEDS_APPROVAL, _A.CANCEL): _S.CANCELLED,
    (_S.NEEDS_APPROVAL, _A.HOLD): _S.ON_HOLD,
    (_S.ACCEPTED, _A.CANCEL): _S.CANCELLED,
    (_S.ON_HOLD, _A.CANCEL): _S.CANCELLED,
    (_S.ACCEPTED, _A.HOLD): _S.ON_HOLD,
    (_S.SCHEDULED, _A.HOLD): _S.ON_HOLD,
    (_S.FAILED, _A.HOLD): _S.ON_HOLD,
    (_S.ON_HOLD, _A.RELEASE): _S.ACCEPTED,
    (_S.ACCEPTED, _A.EXPEDITE): _S.ACCEPTED,
    (_S.ACCEPTED, _A.SCHEDULE): _S.SCHEDULED,
    (_S.SCHEDULED, _A.START): _S.RUNNING,
    (_S.RUNNING, _A.BUILT): _S.VERIFYING,
    (_S.VERIFYING, _A.PUBLISH): _S.UNLEARNED,
    (_S.UNLEARNED, _A.PURGE): _S.PURGING,
    (_S.PURGING, _A.COMPLETE): _S.COMPLETED,
    (_S.SCHEDULED, _A.FAIL): _S.ACCEPTED,
    (_S.RUNNING, _A.FAIL): _S.ACCEPTED,
    (_S.VERIFYING, _A.FAIL): _S.ACCEPTED,
    (_S.FAILED, _A.RETRY): _S.ACCEPTED,
}


def decide(record, action, now, *, by="", reason="", policy):
    from dataclasses import replace
    from cluster.errors import ApprovalError, TransitionError

    to = TRANSITIONS.get((record.state, action))
    if to is None or (action == _A.CANCEL and now > record.cancel_until):
        raise TransitionError(f"{record.request_id} is {record.state}: cannot {action}")
    v = {"state": to, "reason": reason}
    if action == _A.APPROVE:
        if by == record.requested_by:
            raise ApprovalError("four eyes")
        v["approved_by"] = by
    if to == _S.ACCEPTED and record.accepted_at is None:
        v["accepted_at"] = now
    if action == _A.NEED_APPROVAL:
        v["needs_approval"] = True
    if action == _A.HOLD:
        v["held_by"] = by
    if action == _A.RELEASE:
        v["held_by"] = ""
        if record.needs_approval and not record.approved_by:
            v["state"] = _S.NEEDS_APPROVAL
    if action == _A.FAIL:
        v["attempts"] = record.attempts + 1
        v["not_before"] = now + policy.backoff
        if v["attempts"] >= policy.max_attempts:
            v["state"] = _S.FAILED
    if action == _A.RETRY:
        v |= {"attempts": 0, "not_before": None}
    if action == _A.EXPEDITE:
        v |= {"priority": "urgent", "cancel_until": now}
    if action == _A.START:
        v["started_at"] = now
    if action == _A.PUBLISH:
        v["unlearned_at"] = now
    if action == _A.COMPLETE:
        v["completed_at"] = now
    return replace(record, **v)
