"""Expected completion: what the scheduler does is what was foretold."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.requests.forecast import expected_completion
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import next_batch
from coordinator.requests.states import CLOSED, State
from tests.coordinator.requests.samples import DAY, HOUR, NOW, POLICY, request

SECONDS = {0: 60.0, 1: 30.0}
MINUTE = timedelta(minutes=1)


def foretold(
    record: RequestRecord, now: datetime = NOW, busy_until: datetime | None = None, **policy: Any
) -> datetime | None:
    knobs = RequestPolicy(**policy) if policy else POLICY
    return expected_completion(record, now, knobs, SECONDS, 4, busy_until)


def test_a_normal_request_waits_for_its_cancel_and_batch_windows_and_its_shards() -> None:
    assert foretold(request(shards=(0,))) == NOW + DAY + 6 * HOUR + MINUTE
    assert foretold(request(shards=(0, 1))) == NOW + DAY + 6 * HOUR + 1.5 * MINUTE
    assert foretold(request(), batch_window="1h") == NOW + DAY + HOUR + MINUTE
    assert foretold(request(), now=NOW + 2 * DAY) == NOW + 2 * DAY + MINUTE


@pytest.mark.parametrize("priority", ["urgent", "regulator"])
def test_an_urgent_request_waits_for_nothing_but_the_batch_at_work(priority: str) -> None:
    record = request(priority=priority, cancel_until=NOW)

    assert foretold(record) == NOW + MINUTE
    assert foretold(record, busy_until=NOW + HOUR) == NOW + HOUR + MINUTE
    assert foretold(record, busy_until=NOW - HOUR) == NOW + MINUTE


def test_a_deadline_presses_through_the_windows() -> None:
    record = request(due_at=NOW + HOUR, shards=(0,))  # 3 estimates of a minute before it is due

    assert foretold(record) == NOW + HOUR - 3 * MINUTE + MINUTE


def test_a_back_off_is_waited_for() -> None:
    record = request(priority="urgent", not_before=NOW + HOUR, attempts=1)

    assert foretold(record) == NOW + HOUR + MINUTE


@pytest.mark.parametrize("state", ["scheduled", "running", "verifying"])
def test_a_request_in_a_batch_is_done_when_that_ends(state: str) -> None:
    record = request(state=State(state), started_at=NOW - 0.5 * MINUTE)

    assert foretold(record) == NOW + 0.5 * MINUTE
    assert foretold(record, busy_until=NOW + HOUR) == NOW + HOUR
    assert foretold(record, now=NOW + DAY) == NOW + DAY


@pytest.mark.parametrize(
    "state", [*sorted(CLOSED), State.RECEIVED, State.NEEDS_APPROVAL, State.ON_HOLD, State.FAILED]
)
def test_what_is_closed_or_up_to_somebody_has_no_such_time(state: State) -> None:
    assert foretold(request(state=state)) is None


@given(
    cancel=st.integers(0, 60),
    due=st.integers(1, 40 * 24),
    window=st.integers(0, 48),
    later=st.integers(0, 100),
    priority=st.sampled_from(["normal", "urgent", "regulator"]),
    shards=st.sets(st.integers(0, 3), min_size=1).map(lambda found: tuple(sorted(found))),
)
def test_alone_a_request_begins_when_it_was_foretold(
    cancel: int, due: int, window: int, later: int, priority: str, shards: tuple[int, ...]
) -> None:
    record = request(
        cancel_until=NOW + cancel * HOUR, due_at=NOW + due * HOUR, shards=shards, priority=priority
    )
    policy, now = RequestPolicy(batch_window=f"{window}h"), NOW + later * HOUR

    found = expected_completion(record, now, policy, {}, 4)  # nothing timed: begun is done

    assert found is not None and found >= now
    assert next_batch([record], found, policy, {}, 4).batch == (record.request_id,)
    if found > now:
        before = found - timedelta(microseconds=1)
        assert not next_batch([record], before, policy, {}, 4).batch
