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
