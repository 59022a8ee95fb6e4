"""Which requests run now, as which batch, and why: a pure function of the open requests.

A batch retrains each of its shards once, however many of its requests touch it. So requests wait
for company, but never past what a deadline allows.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from coordinator.requests.policy import RequestPolicy, show_duration
from coordinator.requests.record import RequestRecord
from coordinator.requests.regulations import NORMAL
from coordinator.requests.states import IN_BATCH, State
from coordinator.requests.times import as_utc, to_iso

URGENT, DEADLINE, FULL = "urgent", "deadline", "full"
WINDOW, SINGLE_SHARD, WAIT = "window", "single_shard", ""
SINGLE_SHARD_LEAST: Final = 2  # requests that one shard has to absorb, for an early flush
SINGLE_SHARD_SHARE: Final = 0.5  # of the batch window that the first of them has to wait
FAR: Final = timedelta(days=36500)  # longer than any deadline, within any calendar
NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Decision:
    """What to run now, or when to ask again.

    Attributes:
        batch: request ids, earliest deadline first; empty: nothing runs now.
        reason: urgent, deadline, full, window or single_shard; empty with an empty batch.
        wake_at: with an empty batch: when the answer changes by itself; None: not before a
            request comes, changes or leaves a batch.
        all_shards: the batch touches nearly all shards, so it is close to a full retrain.
        shards: those the batch retrains.
        text: the reason in words, for events, logs and screens.
    """

    batch: tuple[str, ...] = ()
    reason: str = WAIT
    wake_at: datetime | None = None
    all_shards: bool = False
    shards: tuple[int, ...] = ()
    text: str = ""


def estimate(shards: Iterable[int], seconds: Mapping[int, float]) -> float:
    """Training seconds of these shards, one after the other.

    A shard that was never timed counts as the slowest that was.
    """
    asked = set(shards)
    timed = asked & seconds.keys()
    slowest = max(seconds.values(), default=0.0) if timed != asked else 0.0
    return math.fsum(seconds[shard] for shard in timed) + slowest * (len(asked) - len(timed))


def next_batch(
    open_requests: Sequence[RequestRecord],
    now: datetime,
    policy: RequestPolicy,
    seconds: Mapping[int, float],
    num_shards: int,
    held: Container[str] = (),
) -> Decision:
    """The batch that should start now, or when to look again.

    The first rule that holds decides:

    1. urgent: an urgent or a regulator's request runs at once and takes along ready requests
       that touch no further shard.
    2. deadline: less than ``early_flush_slack`` estimates are left to the deadline (or to the
       internal target) of a ready request, the estimate being the seconds of all shards that
       ready requests touch; or less than so many of its own are left to the deadline of one that
       could still be cancelled. It takes along ready requests that touch no further shard.
    3. full: ``max_batch`` requests are ready.
    4. window: the first ready request has waited ``batch_window``.
    5. single_shard: every waiting request touches the same one shard, and the first has waited
       half the window: then each shard still retrains at most twice in a window.

    A request is ready when its cancel window, back-off and acceptance are over. Requests whose
    shards a batch is at work on wait for its end, so no shard is ever in two batches.

    Args:
        open_requests: all open requests, in any order; those in a batch make its shards busy.
        now: the time; no clock is read.
        policy: the knobs.
        seconds: shard -> training seconds, as last measured.
        num_shards: number of shards of the system.
        held: ids that wait, for their records meet those of a request on hold.
    """
    now = as_utc(now, "now")
    busy = {s for record in open_requests if record.state in IN_BATCH for s in record.shards}
    waiting = [
        record
        for record in open_requests
        if record.state is State.ACCEPTED
        and record.request_id not in held
        and busy.isdisjoint(record.shards)
    ]
    waiting.sort(key=_deadline_first)
    desk = _Desk(tuple(waiting), now, policy, seconds, num_shards)
    return desk.decide()


def _deadline_first(record: RequestRecord) -> tuple[datetime, str]:
    return record.due_at, record.request_id


def _is_urgent(record: RequestRecord) -> bool:
    return record.priority != NORMAL


def _may_run_at(record: RequestRecord) -> datetime:
    """End of back-off and acceptance: before, nothing can make it run."""
    return max(record.not_before or record.received_at, record.accepted_at or record.received_at)


def _ready_at(record: RequestRecord) -> datetime:
    first = _may_run_at(record)
    return first if _is_urgent(record) else max(first, record.cancel_until)


def _window_from(record: RequestRecord) -> datetime:
    """When its batch window began; a batch that failed does not begin it again."""
    return max(record.accepted_at or record.received_at, record.cancel_until)


def _shards_of(records: Iterable[RequestRecord]) -> set[int]:
    return {shard for record in records for shard in record.shards}


@dataclass(frozen=True)
class _Desk:
    """One look at the requests that may run, earliest deadline first."""

    waiting: tuple[RequestRecord, ...]
    now: datetime
    policy: RequestPolicy
    seconds: Mapping[int, float]
    num_shards: int

    def decide(self) -> Decision:
        ready = [record for record in self.waiting if _ready_at(record) <= self.now]
        urgent = [record for record in ready if _is_urgent(record)]
        if urgent:
            text = f"{len(urgent)} request(s) cannot wait"
            return self._run(urgent, ready, URGENT, text)
        press_at = self._press_times(ready)
        pressing = [r for r in self.waiting if press_at.get(r.request_id, NEVER) <= self.now]
        if pressing:
            first = to_iso(pressing[0].due_at)
            text = f"{len(pressing)} deadline(s) or internal target(s) press; first due {first}"
            return self._run(pressing, ready, DEADLINE, text)
        if not ready:
            return Decision(wake_at=self._wake_at(ready, press_at))
        limit, window = self.policy.max_batch, show_duration(self.policy.batch_window)
        if limit is not None and len(ready) >= limit:
            return self._run(ready, ready, FULL, f"{len(ready)} requests are ready")
        waited = self.now - min(map(_window_from, ready))
        if waited >= self.policy.batch_window:
            return self._run(ready, ready, WINDOW, f"the first waited the batch window ({window})")
        if self._on_one_shard() and waited >= self.policy.batch_window * SINGLE_SHARD_SHARE:
            text = f"one shard takes all, and the first waited half the batch window ({window})"
            return self._run(ready, ready, SINGLE_SHARD, text)
        return Decision(wake_at=self._wake_at(ready, press_at))

    def _press_times(self, ready: Sequence[RequestRecord]) -> dict[str, datetime]:
        """Request id -> when its deadline makes it run, for all whose back-off is over."""
        slack = self._slack(_shards_of(ready))
        target = timedelta(days=self.policy.internal_target_days)
        times = {r.request_id: min(r.due_at, r.received_at + target) - slack for r in ready}
        for record in self.waiting:
            if record.request_id not in times and _may_run_at(record) <= self.now:
                times[record.request_id] = record.due_at - self._slack(record.shards)
        return times

    def _slack(self, shards: Iterable[int]) -> timedelta:
        """``early_flush_slack`` x the estimate of these shards."""
        seconds = self.policy.early_flush_slack * estimate(shards, self.seconds)
        return timedelta(seconds=min(seconds, FAR.total_seconds()))

    def _on_one_shard(self) -> bool:
        shards = _shards_of(self.waiting)
        return len(shards) == 1 < self.num_shards and len(self.waiting) >= SINGLE_SHARD_LEAST

    def _run(
        self,
        heads: Sequence[RequestRecord],
        riders: Sequence[RequestRecord],
        reason: str,
        text: str,
    ) -> Decision:
        """Take the heads, then the riders that touch no further shard, up to ``max_batch``.

        Where not all heads fit, each in order brings along those that touch no further shard.
        """
        limit = self.policy.max_batch or len(self.waiting)
        chosen: dict[str, RequestRecord] = {}
        if len(heads) <= limit:
            chosen = {record.request_id: record for record in heads}
        shards = _shards_of(chosen.values())
        for head in heads:
            if len(chosen) < limit and head.request_id not in chosen:
                chosen[head.request_id] = head
                shards |= set(head.shards)
                _add_riders(chosen, heads, shards, limit)
        _add_riders(chosen, riders, shards, limit)
        nearly_all = len(shards) >= max(1, self.policy.all_shards_share * self.num_shards)
        if nearly_all:
            text += (
                f"; {len(shards)} of {self.num_shards} shards are hit, nearly a full retrain: "
                "all of them run in parallel"
            )
        batch = sorted(chosen.values(), key=_deadline_first)
        ids = tuple(record.request_id for record in batch)
        return Decision(ids, reason, None, nearly_all, tuple(sorted(shards)), text)

    def _wake_at(
        self, ready: Sequence[RequestRecord], press_at: Mapping[str, datetime]
    ) -> datetime | None:
        """The first time at which a rule may hold that does not hold now."""
        times = list(press_at.values())
        for record in self.waiting:
            times += [_may_run_at(record), _ready_at(record)]
        if ready:
            first, window = min(map(_window_from, ready)), self.policy.batch_window
            share = SINGLE_SHARD_SHARE if self._on_one_shard() else 1
            times.append(first + window * share)
        return min((time for time in times if time > self.now), default=None)


def _add_riders(
    chosen: dict[str, RequestRecord],
    riders: Sequence[RequestRecord],
    shards: set[int],
    limit: int,
) -> None:
    for record in riders:
        if len(chosen) >= limit:
            return
        if record.request_id not in chosen and shards.issuperset(record.shards):
            chosen[record.request_id] = record
