"""Which requests run when, on small cases with answers worked out by hand."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RequestError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import Decision, estimate, next_batch
from coordinator.requests.states import State
from tests.coordinator.requests.samples import DAY, HOUR, NOW, request

SECONDS = dict.fromkeys(range(10), 600.0)  # ten shards of ten minutes


def ready(name: str, *shards: int, hours: float = 0, **fields: Any) -> RequestRecord:
    """A request whose cancel window ended ``hours`` ago, with far deadlines."""
    long_ago = dict.fromkeys(("received_at", "accepted_at"), NOW - 2 * DAY)
    times = {**long_ago, "cancel_until": NOW - hours * HOUR}
    return request(name, shards=shards, **{**times, **fields})


def decide(*records: RequestRecord, now: datetime = NOW, **options: Any) -> Decision:
    held = options.pop("held", ())
    return next_batch(records, now, RequestPolicy(**options), SECONDS, 10, held)


def test_nothing_waits_for_nothing() -> None:
    assert decide() == Decision()


def test_a_request_that_may_be_cancelled_waits_until_it_may_not() -> None:
    decision = decide(request("A", shards=(1,)))

    assert (decision.batch, decision.wake_at) == ((), NOW + DAY)


def test_the_first_ready_request_waits_the_window_and_takes_all_ready_ones_along() -> None:
    requests = [ready("A", 1, hours=2), ready("B", 2, hours=1), request("C", shards=(1,))]

    assert decide(*requests) == Decision(wake_at=NOW + 4 * HOUR)
    decision = decide(*requests, now=NOW + 4 * HOUR)

    assert (decision.batch, decision.reason) == (("req_A", "req_B"), "window")
    assert (decision.shards, decision.wake_at) == ((1, 2), None)
    assert "6h" in decision.text


def test_without_a_window_a_ready_request_runs_at_once() -> None:
    assert decide(ready("A", 1), batch_window=0).reason == "window"


def test_batches_list_the_earliest_deadline_first() -> None:
    late, soon = ready("A", 1, due_at=NOW + 9 * DAY), ready("B", 2, due_at=NOW + 2 * DAY)

    assert decide(late, soon, batch_window=0).batch == ("req_B", "req_A")


@pytest.mark.parametrize("priority", ["urgent", "regulator"])
def test_an_urgent_request_runs_at_once_and_takes_along_what_touches_no_further_shard(
    priority: str,
) -> None:
    decision = decide(
        request("A", shards=(1, 2), priority=priority),
        ready("B", 2),
        ready("C", 2, 3),
        request("D", shards=(1,)),  # may still be cancelled
        ready("E"),  # touches no shard at all
    )

    assert (set(decision.batch), decision.reason) == ({"req_A", "req_B", "req_E"}, "urgent")
    assert decision.shards == (1, 2)


def test_a_deadline_presses_when_three_estimates_are_left() -> None:
    # two shards of 600 s: 3 x 1200 s are one hour
    requests = [
        ready("A", 1, due_at=NOW + 3 * HOUR, hours=1),
        ready("B", 2, due_at=NOW + 9 * DAY),
        ready("C", 1, due_at=NOW + 9 * DAY),
    ]

    assert decide(*requests).wake_at == NOW + 2 * HOUR
    decision = decide(*requests, now=NOW + 2 * HOUR)

    assert (decision.batch, decision.reason) == (("req_A", "req_C"), "deadline")
    assert "first due 2026-03-02T12:00:00Z" in decision.text


def test_a_deadline_ends_the_cancel_window() -> None:
    record = request("A", shards=(1,), due_at=NOW + HOUR)

    assert decide(record).wake_at == NOW + HOUR / 2  # 3 x 600 s before it
    assert decide(record, now=NOW + HOUR / 2).reason == "deadline"


def test_a_late_request_runs_at_once_even_if_it_costs_nothing() -> None:
    assert decide(ready("A", due_at=NOW)).reason == "deadline"


def test_the_internal_target_presses_like_a_deadline() -> None:
    record = ready("A", 1, received_at=NOW - 13 * DAY)

    assert decide(record, internal_target_days=13).reason == "deadline"
    assert decide(record, internal_target_days=14).reason == ""


def test_max_batch_runs_when_it_is_full_and_fills_up_with_what_shares_the_shards() -> None:
    requests = [
        ready("A", 1, due_at=NOW + 5 * DAY),
        ready("B", 2, due_at=NOW + 6 * DAY),
        ready("C", 1, due_at=NOW + 7 * DAY),
    ]

    assert decide(*requests, max_batch=4).batch == ()
    decision = decide(*requests, max_batch=2)

    assert (decision.batch, decision.reason) == (("req_A", "req_C"), "full")
    assert decision.shards == (1,)


def test_max_batch_keeps_urgent_requests_before_those_that_ride_along() -> None:
    urgent = [request(name, shards=(1,), priority="urgent") for name in "AB"]
    riders = [ready("C", 1, due_at=NOW + DAY)]

    assert set(decide(*riders, *urgent, max_batch=2).batch) == {"req_A", "req_B"}


def test_one_shard_that_takes_all_runs_after_half_the_window() -> None:
    requests = [ready("A", 4, hours=1), ready("B", 4), request("C", shards=(4,))]

    assert decide(*requests).wake_at == NOW + 2 * HOUR
    decision = decide(*requests, now=NOW + 2 * HOUR)

    assert (decision.batch, decision.reason) == (("req_A", "req_B"), "single_shard")
    other = request("D", shards=(5,))
    assert decide(*requests, other, now=NOW + 2 * HOUR).batch == ()
    assert decide(requests[0], now=NOW + 2 * HOUR).batch == ()  # one request: nothing is shared


@pytest.mark.parametrize("state", [State.SCHEDULED, State.RUNNING, State.VERIFYING])
def test_a_shard_in_a_batch_is_left_alone_until_that_ends(state: State) -> None:
    running = ready("A", 1, 2, state=state)

    assert decide(running, request("B", shards=(2, 3), priority="urgent")).batch == ()
    assert decide(running, ready("C", 3), batch_window=0).batch == ("req_C",)
    purging = ready("A", 1, 2, state=State.PURGING)
    assert decide(purging, ready("D", 2), batch_window=0).batch == ("req_D",)


def test_requests_that_meet_a_held_one_wait() -> None:
    requests = [ready("A", 1), ready("B", 2)]

    assert decide(*requests, batch_window=0, held={"req_A"}).batch == ("req_B",)
    assert decide(*requests, batch_window=0, held={"req_A", "req_B"}) == Decision()


def test_only_accepted_requests_run() -> None:
    others = [
        ready(state, 1, state=state, priority="urgent") for state in State if state != "accepted"
    ]

    assert decide(*others, batch_window=0) == Decision()


@pytest.mark.parametrize("priority", ["normal", "urgent"])
def test_a_back_off_is_waited_for(priority: str) -> None:
    record = ready("A", 1, not_before=NOW + HOUR, due_at=NOW + HOUR / 2, priority=priority)

    assert decide(record, batch_window=0) == Decision(wake_at=NOW + HOUR)
    assert decide(record, batch_window=0, now=NOW + HOUR).batch == ("req_A",)


def test_an_approval_after_the_cancel_window_starts_the_wait_of_the_batch() -> None:
    record = request("A", shards=(1,), cancel_until=NOW - 5 * DAY, accepted_at=NOW)

    assert decide(record).wake_at == NOW + 6 * HOUR


def test_nearly_all_shards_are_called_what_they_are() -> None:
    requests = [ready(f"{shard}", shard) for shard in range(9)]

    decision = decide(*requests, batch_window=0)
    fewer = decide(*requests[:8], batch_window=0)

    assert decision.all_shards and "9 of 10 shards" in decision.text
    assert "in parallel" in decision.text
    assert not fewer.all_shards and "shards are hit" not in fewer.text


def test_an_estimate_counts_a_shard_once_and_an_unknown_one_as_the_slowest() -> None:
    assert estimate([1, 1, 2], {1: 2.0, 2: 3.0}) == 5
    assert estimate([1, 9], {1: 2.0, 2: 3.0}) == 5
    assert estimate([1], {}) == 0


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(RequestError, match="without a zone"):
        decide(now=datetime(2026, 3, 2))


def test_an_absurd_estimate_overflows_nothing() -> None:
    decision = next_batch([ready("A", 1)], NOW, RequestPolicy(), {1: 1e300}, 2)

    assert decision.reason == "deadline"


def test_ten_thousand_requests_are_one_batch_in_well_under_a_second() -> None:
    requests = [ready(f"{i:05}", i % 10, hours=6) for i in range(10_000)]

    start = time.perf_counter()
    decision = decide(*requests)

    assert (len(decision.batch), decision.all_shards) == (10_000, True)
    assert time.perf_counter() - start < 2  # about 0.1 s


hours = st.integers(-60, 60).map(lambda hour: hour * HOUR / 2)
some_requests = st.lists(
    st.builds(
        lambda shards, cancel, due, wait, state, priority: {
            **{"shards": tuple(sorted(shards)), "state": state, "priority": priority},
            **{"cancel_until": NOW + cancel, "due_at": NOW + due, "accepted_at": NOW - 9 * DAY},
            "not_before": None if wait is None else NOW + wait,
        },
        st.sets(st.integers(0, 4), max_size=3),
        hours,
        hours,
        st.none() | hours,
        st.sampled_from([State.ACCEPTED] * 4 + [State.RUNNING, State.ON_HOLD]),
        st.sampled_from(["normal"] * 5 + ["urgent"]),
    ),
    max_size=6,
).map(lambda cases: [request(str(i), **fields) for i, fields in enumerate(cases)])
some_policies = st.builds(
    lambda window, limit: RequestPolicy(batch_window=window, max_batch=limit),
    st.sampled_from(["0", "1h", "6h"]),
    st.sampled_from([None, 1, 3]),
)


@settings(max_examples=200, deadline=None)
@given(some_requests, some_policies, st.floats(0.01, 0.99))
def test_who_sleeps_until_woken_misses_nothing_and_never_spins(
    requests: list[RequestRecord], policy: RequestPolicy, share: float
) -> None:
    now = NOW
    for _ in range(60):
        decision = next_batch(requests, now, policy, SECONDS, 5)
        if decision.batch or decision.wake_at is None:
            break
        assert decision.wake_at > now
        between = now + (decision.wake_at - now) * share
        assert next_batch(requests, between, policy, SECONDS, 5) == decision
        now = decision.wake_at
    else:
        raise AssertionError("sixty looks, and no batch")
    if decision.wake_at is None and not decision.batch:
        assert next_batch(requests, now + 400 * DAY, policy, SECONDS, 5) == decision


@settings(max_examples=100, deadline=None)
@given(some_requests, some_policies, st.randoms(use_true_random=False))
def test_the_order_in_which_requests_are_listed_decides_nothing(
    requests: list[RequestRecord], policy: RequestPolicy, random: Any
) -> None:
    shuffled = random.sample(requests, len(requests))

    assert next_batch(shuffled, NOW, policy, SECONDS, 5) == next_batch(
        requests, NOW, policy, SECONDS, 5
    )
