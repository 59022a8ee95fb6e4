"""When a request will probably be done: the scheduler's own rules, asked ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import FAR, estimate, next_batch
from coordinator.requests.states import IN_BATCH, State

MOST_STEPS: Final = 16  # looks of the scheduler at one request; each rule is one or two of them
PUBLISHED: Final = frozenset({State.UNLEARNED, State.PURGING})


def expected_completion(
    record: RequestRecord,
    now: datetime,
    policy: RequestPolicy,
    seconds: Mapping[int, float],
    num_shards: int,
    busy_until: datetime | None = None,
) -> datetime | None:
    """When a request will probably be completed; None where that is up to somebody.

    The scheduler is asked what it would do if this request were the only one that waits: cancel
    window, back-off, batch window and the press of its deadline decide on the start, the measured
    seconds of its shards on the rest. Company only makes the start earlier; purge and certificates
    count as no time.

    Args:
        record: the request; one on hold, failed, not approved, or closed has no such time.
        now: the time; no clock is read.
        policy: the knobs.
        seconds: shard -> training seconds, as last measured.
        num_shards: number of shards of the system.
        busy_until: when the batch at work will probably end; nothing else starts before.
    """
    takes = timedelta(seconds=min(estimate(record.shards, seconds), FAR.total_seconds()))
    free = max(now, busy_until or now)
    if record.state in PUBLISHED:
        return now
    if record.state in IN_BATCH:
        return max(free, (record.started_at or now) + takes)
    start = _start(record, free, policy, seconds, num_shards)
    return None if start is None else start + takes


def _start(
    record: RequestRecord,
    at: datetime,
    policy: RequestPolicy,
    seconds: Mapping[int, float],
    num_shards: int,
) -> datetime | None:
    for _ in range(MOST_STEPS):
        decision = next_batch([record], at, policy, seconds, num_shards)
        if decision.batch:
            return at
        if decision.wake_at is None:
            return None
        at = decision.wake_at
    return None
