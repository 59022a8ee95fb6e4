"""States of an erasure request."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a request stands."""

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
