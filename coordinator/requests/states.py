"""The life of a request: its states, what may be done in each, and what that leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import ApprovalError, HoldError, TransitionError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.regulations import NORMAL, URGENT, extended_due
from coordinator.requests.times import as_utc, to_iso

if TYPE_CHECKING:
    from coordinator.requests.record import RequestRecord


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


MASKED: Final = frozenset(
    {
        State.ACCEPTED,
        State.SCHEDULED,
        State.RUNNING,
        State.VERIFYING,
        State.FAILED,
        State.ON_HOLD,
    }
)  # the records of such a request are left out of every answer; later no model knows them
CLOSED: Final = frozenset({State.DUPLICATE, State.REJECTED, State.COMPLETED, State.CANCELLED})
OPEN: Final = frozenset(State) - CLOSED
IN_BATCH: Final = frozenset({State.SCHEDULED, State.RUNNING, State.VERIFYING})  # shards are busy

_LIFE: Final[Mapping[State, Mapping[Action, State]]] = {
    State.RECEIVED: {
        Action.ACCEPT: State.ACCEPTED,
        Action.NEED_APPROVAL: State.NEEDS_APPROVAL,
        Action.MARK_DUPLICATE: State.DUPLICATE,
        Action.REJECT: State.REJECTED,
    },
    State.NEEDS_APPROVAL: {
        Action.APPROVE: State.ACCEPTED,
        Action.REJECT: State.REJECTED,
        Action.CANCEL: State.CANCELLED,
        Action.HOLD: State.ON_HOLD,
    },
    State.ON_HOLD: {
        Action.RELEASE: State.ACCEPTED,  # or NEEDS_APPROVAL, when nobody has approved it yet
        Action.REJECT: State.REJECTED,
        Action.CANCEL: State.CANCELLED,
    },
    State.ACCEPTED: {
        Action.CANCEL: State.CANCELLED,
        Action.HOLD: State.ON_HOLD,
        Action.SCHEDULE: State.SCHEDULED,
    },
    State.SCHEDULED: {
        Action.START: State.RUNNING,
        Action.HOLD: State.ON_HOLD,
        Action.FAIL: State.ACCEPTED,  # or FAILED, after the last attempt
    },
    State.RUNNING: {Action.BUILT: State.VERIFYING, Action.FAIL: State.ACCEPTED},
    State.VERIFYING: {Action.PUBLISH: State.UNLEARNED, Action.FAIL: State.ACCEPTED},
    State.UNLEARNED: {Action.PURGE: State.PURGING},
    State.PURGING: {Action.COMPLETE: State.COMPLETED},
    State.FAILED: {Action.RETRY: State.ACCEPTED, Action.HOLD: State.ON_HOLD},
}
_EXPEDITABLE: Final = (
    State.NEEDS_APPROVAL,
    State.ON_HOLD,
    State.ACCEPTED,
    State.SCHEDULED,
    State.FAILED,
)

TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    **{(state, action): to for state, row in _LIFE.items() for action, to in row.items()},
    **{(state, Action.EXTEND): state for state in OPEN - {State.RECEIVED}},
    **{(state, Action.EXPEDITE): state for state in _EXPEDITABLE},
}
MOST_DOUBLINGS: Final = 40  # of the back-off; the cap is reached long before
NEED_REASON: Final = frozenset({Action.REJECT, Action.HOLD, Action.EXTEND})


def allowed(state: State) -> tuple[Action, ...]:
    """What may be done in this state, in the order of :class:`Action`."""
    return tuple(action for action in Action if (state, action) in TRANSITIONS)


def may_return(record: RequestRecord, now: datetime) -> bool:
    """Whether the records of a masked request may yet be read again: held, or to be cancelled."""
    if record.state is State.ON_HOLD:
        return True
    waits = record.state is State.ACCEPTED and record.started_at is None
    return waits and now < record.cancel_until


def needs_approval(num_nodes: int, num_edges: int, policy: RequestPolicy) -> bool:
    """Whether a request that names so many nodes and edges needs a second person."""
    return num_nodes + num_edges > policy.approve_above


def decide(
    record: RequestRecord,
    action: Action,
    now: datetime,
    *,
    by: str = "",
    reason: str = "",
    policy: RequestPolicy,
) -> RequestRecord:
    """The record after an action; nothing else changes, and no clock is read.

    ``batch_id`` and ``duplicate_of`` are the caller's to set with SCHEDULE and MARK_DUPLICATE; a
    request that goes back from a batch loses its ``batch_id``.

    Args:
        record: the request before.
        action: what is done.
        now: when; an aware time.
        by: who does it; needed to approve and to hold.
        reason: why; needed to reject, hold and extend.
        policy: the knobs.

    Raises:
        TransitionError: the state or the clock does not allow the action, or a reason is missing.
        ApprovalError: the requester approves, or nobody is named.
        HoldError: a hold on a request that is past it, or a release of one that is not on hold.
        RequestError: ``now`` has no zone, or an extension has no profile.
    """
    now = as_utc(now, "now")
    if (record.state, action) not in TRANSITIONS:
        raise _refusal(record, action)
    if action in NEED_REASON and not reason.strip():
        raise TransitionError(
            f"{action} of request {record.request_id} needs a reason; it goes into the audit log "
            "and to the person who asked"
        )
    state = TRANSITIONS[record.state, action]
    kept = record.reason if state is record.state else ""
    changed = replace(record, state=state, reason=reason or kept)
    effect = _EFFECTS.get(action)
    return changed if effect is None else replace(changed, **effect(record, now, by, policy))


Changes = dict[str, Any]


def _accept(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if record.needs_approval:
        raise TransitionError(
            f"request {record.request_id} needs approval; only {Action.NEED_APPROVAL} leads there"
        )
    return {"accepted_at": now}


def _need_approval(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if not _person(record.requested_by):
        raise ApprovalError(
            f"request {record.request_id} needs a second person's approval, but nobody is named "
            "as the one who asks; give requested_by"
        )
    return {"needs_approval": True}


def _approve(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if not _person(by):
        raise ApprovalError(f"say who approves request {record.request_id}; give by")
    if _person(by) == _person(record.requested_by):
        raise ApprovalError(
            f"{by!r} asked for request {record.request_id} and cannot approve it too; "
            "somebody else has to (four eyes)"
        )
    return {"approved_by": by, "accepted_at": now}


def _cancel(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if record.started_at is not None:
        raise TransitionError(
            f"request {record.request_id} cannot be cancelled: a batch with it started at "
            f"{to_iso(record.started_at)}"
        )
    if now > record.cancel_until:
        raise TransitionError(
            f"request {record.request_id} could be cancelled until "
            f"{to_iso(record.cancel_until)}; it is now {to_iso(now)}"
        )
    return {}


def _hold(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if not _person(by):
        raise HoldError(f"say who puts request {record.request_id} on hold; give by")
    return {"held_by": by, "batch_id": None}


def _release(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    unheld: Changes = {"held_by": "", "attempts": 0, "not_before": None}
    if record.needs_approval and not record.approved_by:
        return unheld | {"state": State.NEEDS_APPROVAL}
    return unheld | {"accepted_at": record.accepted_at or now}


def _extend(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    if record.extended:
        raise TransitionError(
            f"request {record.request_id} was extended before, to {to_iso(record.due_at)}; "
            "a deadline moves once"
        )
    if now > record.due_at:
        raise TransitionError(
            f"request {record.request_id} was due at {to_iso(record.due_at)}; only a deadline "
            "that has not passed can be extended"
        )
    return {"extended": True, "due_at": max(record.due_at, extended_due(record, policy))}


def _expedite(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    return {
        "priority": URGENT if record.priority == NORMAL else record.priority,
        "cancel_until": min(record.cancel_until, now),
        "not_before": None,
    }


def _fail(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    attempts = record.attempts + 1
    failed: Changes = {"attempts": attempts, "batch_id": None}
    if attempts >= policy.max_attempts:
        return failed | {"state": State.FAILED, "not_before": None}
    seconds = policy.backoff.total_seconds() * 2 ** min(attempts - 1, MOST_DOUBLINGS)
    wait = timedelta(seconds=min(seconds, policy.backoff_cap.total_seconds()))
    return failed | {"not_before": now + wait}


def _retry(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    return {"attempts": 0, "not_before": None}


def _start(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    return {"started_at": record.started_at or now}


def _publish(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    return {"unlearned_at": now, "not_before": None}


def _complete(record: RequestRecord, now: datetime, by: str, policy: RequestPolicy) -> Changes:
    return {"completed_at": now}


_EFFECTS: Final[
    Mapping[Action, Callable[[RequestRecord, datetime, str, RequestPolicy], Changes]]
] = {
    Action.ACCEPT: _accept,
    Action.NEED_APPROVAL: _need_approval,
    Action.APPROVE: _approve,
    Action.CANCEL: _cancel,
    Action.HOLD: _hold,
    Action.RELEASE: _release,
    Action.EXTEND: _extend,
    Action.EXPEDITE: _expedite,
    Action.FAIL: _fail,
    Action.RETRY: _retry,
    Action.START: _start,
    Action.PUBLISH: _publish,
    Action.COMPLETE: _complete,
}


def _person(name: str) -> str:
    """The name as four eyes compare it: ``Ada`` and ``ada `` are one."""
    return name.strip().casefold()


def _refusal(record: RequestRecord, action: Action) -> TransitionError | HoldError:
    possible = ", ".join(allowed(record.state)) or "nothing, it is closed"
    message = (
        f"request {record.request_id} is {record.state}, so it cannot take the action {action}; "
        f"allowed are: {possible}"
    )
    return (HoldError if action in (Action.HOLD, Action.RELEASE) else TransitionError)(message)
