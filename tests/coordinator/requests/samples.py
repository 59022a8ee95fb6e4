"""Requests for tests, at a fixed time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import State

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)  # a Monday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = RequestPolicy()
PLAIN = RequestRecord(
    request_id="req_A",
    kind="nodes",
    state=State.ACCEPTED,
    regulation="gdpr",
    priority="normal",
    received_at=NOW,
    due_at=NOW + 30 * DAY,
    cancel_until=NOW + DAY,
    accepted_at=NOW,
    requested_by="ada",
)


def request(name: str = "A", **fields: Any) -> RequestRecord:
    """An accepted request of one shard, due in 30 days, that may be cancelled for 24 h."""
    return replace(PLAIN, request_id=f"req_{name}", **{"shards": (0,), **fields})
