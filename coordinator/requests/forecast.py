"""What will run when, and when a request will be done: the scheduler's rules, asked ahead."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import FAR, Decision, estimate, next_batch
from coordinator.requests.states import IN_BATCH, State

MOST_STEPS: Final = 16  # looks of the scheduler for one batch; each rule is one or two of them
PUBLISHED: Final = frozenset({State.UNLEARNED, State.PURGING})


@dataclass(frozen=True)
class Coming:
    """A batch that is foretold.

    Attributes:
        starts_at: when it begins.
        ends_at: when its shards will be trained.
        decision: its requests, its shards, and why it begins then.
    """

    starts_at: datetime
    ends_at: datetime
    decision: Decision


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
    free = max(now, busy_until or now)
    if record.state in PUBLISHED:
        return now
    if record.state in IN_BATCH:
        takes = _training_time(record.shards, seconds)
        return max(free, (record.started_at or now) + takes)
    coming = coming_batches([record], free, policy, seconds, num_shards, most=1)
    return coming[0].ends_at if coming else None


def coming_batches(
    waiting: Sequence[RequestRecord],
    at: datetime,
    policy: RequestPolicy,
    seconds: Mapping[int, float],
    num_shards: int,
    held: Container[str] = (),
    *,
    most: int,
) -> list[Coming]:
    """The batches that the scheduler will begin if nothing else is asked and nobody acts.

    Args:
        waiting: requests that are accepted.
        at: when the first can begin.
        policy: the knobs.
        seconds: shard -> training seconds, as last measured; one batch runs after the other.
        num_shards: number of shards of the system.
        held: ids that wait for the end of a hold.
        most: so many at most.
    """
    found: list[Coming] = []
    left = list(waiting)
    for _ in range(MOST_STEPS * most):
        decision = next_batch(left, at, policy, seconds, num_shards, held)
        if decision.batch:
            gone = set(decision.batch)
            left = [record for record in left if record.request_id not in gone]
            begins, at = at, at + _training_time(decision.shards, seconds)
            found.append(Coming(begins, at, decision))
            if len(found) == most:
                break
        elif decision.wake_at is None:
            break
        else:
            at = decision.wake_at
    return found


def _training_time(shards: Sequence[int], seconds: Mapping[int, float]) -> timedelta:
    """How long shards probably take, within any calendar."""
    return timedelta(seconds=min(estimate(shards, seconds), FAR.total_seconds()))
