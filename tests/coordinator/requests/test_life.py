"""Many requests over many days against a naive model that shares no code with the product.

What must always hold, as far as this layer decides it: (a) a request whose batch started is never
cancelled; (b) what held a completed request's records is gone; (c) a shard is in one batch at
most; (e) a request on hold is masked, and nothing of it is purged.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.errors import RequestError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.regulations import clock_of
from coordinator.requests.scheduler import next_batch
from coordinator.requests.states import MASKED, OPEN, Action, State, decide
from tests.coordinator.requests.samples import DAY, HOUR, NOW, request

NUM_SHARDS = 4
SHARD_SECONDS = 1800.0
SECONDS = dict.fromkeys(range(NUM_SHARDS), SHARD_SECONDS)
BATCH_STEPS = ("start", "built", "publish", "purge", "complete")
INSIDE = {"scheduled", "running", "verifying"}
FOLLOWS_ITS_BATCH = INSIDE | {"accepted", "unlearned", "purging"}


class Naive:
    """One request as the issue tells it, in words and hours."""

    def __init__(self, shards: set[int], now: datetime, asks: str, needs: bool, urgent: bool):
        self.where, self.shards, self.asks = "received", shards, asks
        self.needs, self.approved, self.urgent = needs, False, urgent
        self.started = self.extended = False
        self.failures, self.ready_from, self.retry_from = 0, now, now
        self.cancel_until = now if urgent else now + DAY
        self.due = now
        self.copies: set[str] = set()

    def expect(self, what: str, by: str, now: datetime, most: int) -> str | None:
        """Where the action leads, or None when it has to be refused."""
        at = self.where
        if what == "accept":
            return "accepted" if at == "received" and not self.needs else None
        if what == "need_approval":
            return "needs_approval" if at == "received" else None
        if what == "mark_duplicate":
            return "duplicate" if at == "received" else None
        if what == "reject":
            return "rejected" if at in ("received", "needs_approval", "on_hold") else None
        if what == "approve":
            return "accepted" if at == "needs_approval" and by != self.asks else None
        if what == "cancel":
            free = not self.started and now <= self.cancel_until
            may = at in ("accepted", "needs_approval", "on_hold")
            return "cancelled" if may and free else None
        if what == "hold":
            may = at in ("accepted", "needs_approval", "scheduled", "failed")
            return "on_hold" if may else None
        if what == "release" and at == "on_hold":
            return "needs_approval" if self.needs and not self.approved else "accepted"
        if what == "extend":
            closed = at in ("received", "duplicate", "rejected", "cancelled", "completed")
            return None if closed or self.extended or now > self.due else at
        if what == "expedite":
            waits = ("needs_approval", "on_hold", "accepted", "scheduled", "failed")
            return at if at in waits else None
        if what == "retry":
            return "accepted" if at == "failed" else None
        if what == "fail" and at in INSIDE:
            return "failed" if self.failures + 1 >= most else "accepted"
        line = {
            **{"schedule": ("accepted", "scheduled"), "start": ("scheduled", "running")},
            **{"built": ("running", "verifying"), "publish": ("verifying", "unlearned")},
            **{"purge": ("unlearned", "purging"), "complete": ("purging", "completed")},
        }
        return line[what][1] if what in line and line[what][0] == at else None

    def moved(self, what: str, to: str, now: datetime) -> None:
        """Bookkeeping after an action that was allowed."""
        self.where = to
        if what in ("accept", "approve"):
            self.ready_from = now
            self.copies = {f"graph {k}" for k in self.shards} | {"payload"}
        self.approved |= what == "approve"
        self.needs |= what == "need_approval"
        self.started |= what == "start"
        self.extended |= what == "extend"
        if what in ("retry", "release"):
            self.failures, self.retry_from = 0, now - 99 * DAY
        if what == "release" and not self.copies and to == "accepted":
            self.ready_from = now
            self.copies = {f"graph {k}" for k in self.shards} | {"payload"}
        if what == "expedite":
            self.urgent, self.retry_from = True, now - 99 * DAY
            self.cancel_until = min(now, self.cancel_until)
        if what == "fail":
            self.failures += 1
            minutes = min(10 * 2 ** (self.failures - 1), 60)
            waits = to == "accepted"
            self.retry_from = now + timedelta(minutes=minutes) if waits else now - 99 * DAY


class Life(RuleBasedStateMachine):
    """People and the coordinator act on requests in any order; the clock goes on."""

    @initialize(
        window=st.sampled_from([0, 1, 6]),
        limit=st.sampled_from([None, 2]),
        most=st.integers(1, 3),
    )
    def begin(self, window: int, limit: int | None, most: int) -> None:
        self.now, self.window, self.limit = NOW, window, limit
        self.policy = RequestPolicy(
            **{"batch_window": window * 3600, "max_batch": limit, "max_attempts": most},
            **{"backoff": "10m", "backoff_cap": "1h"},
        )
        self.records: dict[str, RequestRecord] = {}
        self.naive: dict[str, Naive] = {}
        self.batches: dict[str, set[str]] = {}

    # What people do.

    @rule(
        shards=st.sets(st.integers(0, NUM_SHARDS - 1), max_size=2),
        days_ago=st.sampled_from([0, 0, 12, 29, 40]),
        needs=st.booleans(),
        urgent=st.sampled_from([False, False, True]),
        accept=st.booleans(),
    )
    def submit(
        self, shards: set[int], days_ago: int, needs: bool, urgent: bool, accept: bool
    ) -> None:
        name, received = f"{len(self.records):03}", self.now - days_ago * DAY
        priority = "urgent" if urgent else "normal"
        clock = clock_of(received, self.now, self.policy, priority=priority)
        record = request(
            name,
            **{"state": State.RECEIVED, "priority": priority, "shards": tuple(sorted(shards))},
            **{"received_at": received, "due_at": clock.due_at, "needs_approval": needs},
            **{"cancel_until": clock.cancel_until, "accepted_at": None, "submitted_at": self.now},
        )
        model = Naive(shards, self.now, "ada", needs, urgent)
        model.due, model.cancel_until = clock.due_at, clock.cancel_until
        self.records[record.request_id], self.naive[record.request_id] = record, model
        if accept:
            self._try(record.request_id, "need_approval" if needs else "accept", "ada")

    @rule(data=st.data(), what=st.sampled_from([a.value for a in Action]), by=st.sampled_from("ag"))
    def anybody_tries_anything(self, data: st.DataObject, what: str, by: str) -> None:
        if self.records:
            name = data.draw(st.sampled_from(sorted(self.records)))
            coordinator_only = {"schedule", "fail", *BATCH_STEPS}
            if what in coordinator_only and self.naive[name].where in FOLLOWS_ITS_BATCH:
                return  # those follow the batch: see below
            self._try(name, what, {"a": "ada", "g": "grace"}[by])

    @rule(what=st.sampled_from(["approve", "hold", "release", "cancel", "expedite", "retry"]))
    def grace_does_it_wherever_she_can(self, what: str) -> None:
        for name in sorted(self.records):
            self._try(name, what, "grace")

    @rule(minutes=st.sampled_from([1, 30, 60, 360, 1440, 14400]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(data=st.data())
    def batches_break_and_everybody_cancels(self, data: st.DataObject) -> None:
        self.look_for_a_batch(data)
        for name, model in sorted(self.naive.items()):
            if model.where == "scheduled":
                self._try(name, "start", "")
            if model.where in ("running", "verifying"):
                self._try(name, "fail", "")
                self._try(name, "cancel", "ada")

    # What the coordinator does.

    @rule(data=st.data())
    def look_for_a_batch(self, data: st.DataObject) -> None:
        waiting = sorted(n for n, m in self.naive.items() if m.where == "accepted")
        held = set(data.draw(st.lists(st.sampled_from(waiting), max_size=1)) if waiting else [])
        open_requests = [r for r in self.records.values() if r.state in OPEN]

        decision = next_batch(
            open_requests, self.now, self.policy, SECONDS, NUM_SHARDS, frozenset(held)
        )

        assert decision.reason in self._reasons(held)
        assert list(decision.batch) == sorted(
            decision.batch, key=lambda name: (self.naive[name].due, name)
        )
        shards = set().union(*(self.naive[name].shards for name in decision.batch))
        assert set(decision.shards) == shards and not shards & self._busy()
        assert decision.all_shards == (len(shards) >= 0.9 * NUM_SHARDS)
        assert held.isdisjoint(decision.batch)
        assert self.limit is None or len(decision.batch) <= self.limit
        for name in decision.batch:
            model = self.naive[name]
            early = decision.reason != "deadline" and not self._is_ready(model)
            assert not early and self.now >= model.retry_from
            self._try(name, "schedule", "")
            self.records[name] = replace(self.records[name], batch_id=f"b{len(self.batches)}")
        if decision.batch:
            self.batches[f"b{len(self.batches)}"] = set(decision.batch)

    @rule(data=st.data(), steps=st.integers(1, 5), fails=st.booleans())
    def a_batch_goes_on(self, data: st.DataObject, steps: int, fails: bool) -> None:
        if not self.batches:
            return
        batch = data.draw(st.sampled_from(sorted(self.batches)))
        for _ in range(steps):
            members = {n for n in self.batches[batch] if self.records[n].batch_id == batch}
            places = {self.naive[name].where for name in members}
            assert len(places) <= 1  # they go together, but for those that were held
            if not members or places == {"completed"}:
                return
            inside = places <= INSIDE
            chain = ["scheduled", "running", "verifying", "unlearned", "purging"]
            step = BATCH_STEPS[chain.index(places.pop())]
            if step == "complete":
                self._purge()
            for name in sorted(members):
                self._try(name, "fail" if fails and inside else step, "")

    def _purge(self) -> None:
        """Destroy what holds the records of every request that says it is purged."""
        for name, record in self.records.items():
            if record.state is State.PURGING:
                self.naive[name].copies.clear()

    # What must hold.

    @invariant()
    def both_agree_where_every_request_is(self) -> None:
        for name, model in getattr(self, "naive", {}).items():
            record = self.records[name]
            assert record.state == model.where
            assert (record.started_at is not None) == model.started
            assert record.due_at >= model.due
            assert RequestRecord.from_json(record.to_json()) == record

    @invariant()
    def no_started_request_is_cancelled(self) -> None:  # (a)
        for record in getattr(self, "records", {}).values():
            assert record.state is not State.CANCELLED or record.started_at is None

    @invariant()
    def nothing_of_a_completed_request_is_left(self) -> None:  # (b)
        for name, model in getattr(self, "naive", {}).items():
            if self.records[name].state is State.COMPLETED:
                assert not model.copies and self.records[name].completed_at is not None

    @invariant()
    def no_shard_is_in_two_batches(self) -> None:  # (c)
        of_shard: dict[int, str | None] = {}
        for record in getattr(self, "records", {}).values():
            if record.state in INSIDE:
                for shard in record.shards:
                    assert of_shard.setdefault(shard, record.batch_id) == record.batch_id

    @invariant()
    def a_held_request_is_masked_and_whole(self) -> None:  # (e)
        for name, model in getattr(self, "naive", {}).items():
            if self.records[name].state is State.ON_HOLD:
                assert State.ON_HOLD in MASKED
                assert self.records[name].held_by
                accepted = self.records[name].accepted_at is not None
                assert len(model.copies) == accepted * (len(model.shards) + 1)
                assert self.records[name].unlearned_at is None

    def _try(self, name: str, what: str, by: str) -> None:
        model, record = self.naive[name], self.records[name]
        to = model.expect(what, by, self.now, self.policy.max_attempts)
        try:
            after = decide(record, Action(what), self.now, by=by, reason="so", policy=self.policy)
        except RequestError as error:
            assert to is None, f"refused: {error}"
            return
        assert to == after.state, f"{model.where} -> {what} -> {after.state}, expected {to}"
        self.records[name] = after
        model.moved(what, to, self.now)
        if what == "extend":
            assert after.due_at > model.due
            model.due = after.due_at

    def _busy(self) -> set[int]:
        return {k for m in self.naive.values() if m.where in INSIDE for k in m.shards}

    def _since(self, model: Naive) -> datetime:
        times = [model.ready_from, model.retry_from] + [model.cancel_until] * (not model.urgent)
        return max(times)

    def _is_ready(self, model: Naive) -> bool:
        return self._since(model) <= self.now

    def _reasons(self, held: set[str]) -> set[str]:
        """The one reason that the rules of the issue leave, told naively."""
        busy = self._busy()
        models = [
            model
            for name, model in self.naive.items()
            if model.where == "accepted" and name not in held and not model.shards & busy
        ]
        ready = [model for model in models if self._is_ready(model)]
        if any(model.urgent for model in ready):
            return {"urgent"}
        cost = SHARD_SECONDS * len(set().union(*(model.shards for model in ready)))
        for model in models:
            received = self.records[self._name(model)].received_at
            own = cost if model in ready else SHARD_SECONDS * len(model.shards)
            limit = min(model.due, received + 14 * DAY) if model in ready else model.due
            started = max(model.ready_from, model.retry_from) <= self.now
            if started and self.now + timedelta(seconds=3 * own) >= limit:
                return {"deadline"}
        if not ready:
            return {""}
        if self.limit is not None and len(ready) >= self.limit:
            return {"full"}
        waited = self.now - min(max(model.ready_from, model.cancel_until) for model in ready)
        if waited >= self.window * HOUR:
            return {"window"}
        touched = set().union(*(model.shards for model in models))
        if len(models) > 1 and len(touched) == 1 and 2 * waited >= self.window * HOUR:
            return {"single_shard"}
        return {""}

    def _name(self, model: Naive) -> str:
        return next(name for name, other in self.naive.items() if other is model)


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLifeOfRequests = Life.TestCase
