"""Every step of a request's life, allowed and refused, by table."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from cluster.errors import ApprovalError, HoldError, RequestError, TransitionError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.states import (
    CLOSED,
    MASKED,
    OPEN,
    TRANSITIONS,
    Action,
    State,
    allowed,
    decide,
    needs_approval,
)
from tests.coordinator.requests.samples import DAY, HOUR, NOW, POLICY, request

TABLE = """
received        accept          accepted
received        need_approval   needs_approval
received        mark_duplicate  duplicate
received        reject          rejected
needs_approval  approve         accepted
needs_approval  reject          rejected
needs_approval  cancel          cancelled
needs_approval  hold            on_hold
needs_approval  extend          needs_approval
needs_approval  expedite        needs_approval
on_hold         release         accepted
on_hold         reject          rejected
on_hold         cancel          cancelled
on_hold         extend          on_hold
on_hold         expedite        on_hold
accepted        cancel          cancelled
accepted        hold            on_hold
accepted        schedule        scheduled
accepted        extend          accepted
accepted        expedite        accepted
scheduled       start           running
scheduled       hold            on_hold
scheduled       fail            accepted
scheduled       extend          scheduled
scheduled       expedite        scheduled
running         built           verifying
running         fail            accepted
running         extend          running
verifying       publish         unlearned
verifying       fail            accepted
verifying       extend          verifying
unlearned       purge           purging
unlearned       extend          unlearned
purging         complete        completed
purging         extend          purging
failed          retry           accepted
failed          hold            on_hold
failed          extend          failed
failed          expedite        failed
"""
STEPS = {(State(a), Action(b)): State(c) for a, b, c in map(str.split, TABLE.split("\n")[1:-1])}


def act(record: Any, action: Action, now: datetime = NOW, **options: Any) -> Any:
    options = {"by": "grace", "reason": "asked for", "policy": POLICY, **options}
    return decide(record, action, now, **options)


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_every_action_in_every_state_does_what_the_table_says(state: State, action: Action) -> None:
    record = request(state=state)

    if (state, action) in STEPS:
        assert act(record, action).state is STEPS[state, action]
    else:
        with pytest.raises((TransitionError, HoldError)) as caught:
            act(record, action)
        text = str(caught.value)
        assert record.request_id in text and f"is {state}," in text
        assert all(possible in text for possible in allowed(state))


def test_the_table_of_the_code_is_this_one() -> None:
    assert dict(TRANSITIONS) == STEPS


def test_closed_states_allow_nothing_and_all_others_something() -> None:
    assert {state for state in State if not allowed(state)} == CLOSED
    assert set(State) == OPEN | CLOSED and not OPEN & CLOSED
    assert MASKED <= OPEN


def test_a_request_runs_through_with_its_times() -> None:
    record = request(state=State.RECEIVED, accepted_at=None)
    steps = ["accept", "schedule", "start", "built", "publish", "purge", "complete"]

    for hour, step in enumerate(steps):
        record = act(record, Action(step), NOW + hour * HOUR)

    assert record.state is State.COMPLETED
    times = (record.accepted_at, record.started_at, record.unlearned_at, record.completed_at)
    assert [(time - NOW) / HOUR for time in times if time] == [0, 2, 4, 6]


def test_a_cancel_is_refused_after_its_window_and_says_when_that_was() -> None:
    record = request()

    assert act(record, Action.CANCEL, NOW + DAY).state is State.CANCELLED
    with pytest.raises(TransitionError, match="until 2026-03-03T09:00:00Z; it is now 2026-03-03"):
        act(record, Action.CANCEL, NOW + DAY + timedelta(seconds=1))


@pytest.mark.parametrize("state", [State.ACCEPTED, State.ON_HOLD])
def test_a_request_whose_batch_once_started_cannot_be_cancelled(state: State) -> None:
    record = request(state=state, started_at=NOW)

    with pytest.raises(TransitionError, match="started at 2026-03-02T09:00:00Z"):
        act(record, Action.CANCEL)


@pytest.mark.parametrize("by", ["ada", "Ada ", "ADA"])
def test_who_asked_cannot_approve(by: str) -> None:
    with pytest.raises(ApprovalError, match="four eyes"):
        act(request(state=State.NEEDS_APPROVAL), Action.APPROVE, by=by)


def test_an_approval_names_who_gave_it() -> None:
    record = request(state=State.NEEDS_APPROVAL, accepted_at=None)

    approved = act(record, Action.APPROVE, NOW + HOUR)

    assert (approved.approved_by, approved.accepted_at) == ("grace", NOW + HOUR)
    with pytest.raises(ApprovalError, match="say who"):
        act(record, Action.APPROVE, by=" ")


def test_a_request_that_needs_approval_names_who_asks_and_is_not_accepted_past_it() -> None:
    record = request(state=State.RECEIVED)

    with pytest.raises(ApprovalError, match="requested_by"):
        act(replace(record, requested_by=""), Action.NEED_APPROVAL)
    with pytest.raises(TransitionError, match="needs approval"):
        act(replace(record, needs_approval=True), Action.ACCEPT)
    assert act(record, Action.NEED_APPROVAL).needs_approval


def test_a_request_above_the_size_needs_approval() -> None:
    policy = RequestPolicy(approve_above=100)

    assert not needs_approval(60, 40, policy)
    assert needs_approval(60, 41, policy)


@pytest.mark.parametrize(
    ("needed", "approved_by", "to"),
    [
        (True, "", State.NEEDS_APPROVAL),
        (True, "grace", State.ACCEPTED),
        (False, "", State.ACCEPTED),
    ],
)
def test_a_release_goes_back_to_where_approval_stands(
    needed: bool, approved_by: str, to: State
) -> None:
    record = request(needs_approval=needed, approved_by=approved_by, batch_id="b1")
    held = act(record, Action.HOLD, by="lawyer", reason="claim 12")

    released = act(held, Action.RELEASE)

    assert (held.held_by, held.reason, held.batch_id) == ("lawyer", "claim 12", None)
    assert (released.state, released.held_by) == (to, "")


def test_a_hold_names_who_wants_it_and_why() -> None:
    with pytest.raises(HoldError, match="say who"):
        act(request(), Action.HOLD, by="")
    with pytest.raises(TransitionError, match="hold of request req_A needs a reason"):
        act(request(), Action.HOLD, reason=" ")


@pytest.mark.parametrize(
    "state", [State.RUNNING, State.VERIFYING, State.PURGING, State.COMPLETED, State.CANCELLED]
)
def test_a_hold_comes_too_late_once_the_batch_runs(state: State) -> None:
    with pytest.raises(HoldError, match=f"is {state}"):
        act(request(state=state), Action.HOLD)


def test_failures_back_off_twice_as_long_each_time_and_then_stay_failed() -> None:
    policy = RequestPolicy(max_attempts=5, backoff="20m", backoff_cap="1h")
    record, waits = request(state=State.RUNNING, batch_id="b1"), []

    for _ in range(4):
        record = act(record, Action.FAIL, policy=policy)
        waits.append((record.not_before - NOW) / timedelta(minutes=1))
        assert (record.state, record.batch_id) == (State.ACCEPTED, None)
        record = replace(record, state=State.RUNNING)
    record = act(record, Action.FAIL, policy=policy, reason="shards 3, 5 did not build")

    assert waits == [20, 40, 60, 60]
    assert (record.state, record.attempts, record.not_before) == (State.FAILED, 5, None)
    assert record.reason == "shards 3, 5 did not build"
    again = act(record, Action.RETRY)
    assert (again.state, again.attempts) == (State.ACCEPTED, 0)


def test_a_thousand_failures_wait_no_longer_than_the_cap() -> None:
    policy = RequestPolicy(max_attempts=10_000)

    record = act(request(state=State.RUNNING, attempts=2000), Action.FAIL, policy=policy)

    assert record.not_before == NOW + HOUR


def test_an_extension_counts_from_receipt_happens_once_and_keeps_its_reason() -> None:
    record = act(request(), Action.EXTEND, reason="many requests")

    assert record.due_at.isoformat() == "2026-06-02T23:59:59+00:00"
    assert (record.extended, record.reason) == (True, "many requests")
    with pytest.raises(TransitionError, match="moves once"):
        act(record, Action.EXTEND)


def test_an_extension_is_refused_late_without_reason_or_without_a_rule() -> None:
    late = request(due_at=NOW - HOUR, received_at=NOW - 31 * DAY)

    with pytest.raises(TransitionError, match="not passed"):
        act(late, Action.EXTEND)
    with pytest.raises(TransitionError, match="needs a reason"):
        act(request(), Action.EXTEND, reason="")
    with pytest.raises(RequestError, match="no extension"):
        act(request(regulation="contract"), Action.EXTEND)


def test_an_expedited_request_waits_for_nothing() -> None:
    record = act(request(not_before=NOW + HOUR), Action.EXPEDITE, NOW + HOUR)

    assert (record.priority, record.cancel_until) == ("urgent", NOW + HOUR)
    assert record.not_before is None
    regulator = act(request(priority="regulator"), Action.EXPEDITE)
    assert regulator.priority == "regulator"


def test_a_reason_stays_until_the_state_changes() -> None:
    record = act(request(), Action.EXTEND, reason="many requests")

    assert act(record, Action.EXPEDITE, reason="").reason == "many requests"
    assert act(record, Action.SCHEDULE, reason="").reason == ""


def test_a_rejection_is_explained() -> None:
    with pytest.raises(TransitionError, match="needs a reason"):
        act(request(state=State.RECEIVED), Action.REJECT, reason="")


def test_a_decision_refuses_a_time_without_zone() -> None:
    with pytest.raises(RequestError, match="without a zone"):
        act(request(), Action.CANCEL, datetime(2026, 3, 2))


def test_refusals_survive_pickling_and_have_their_codes() -> None:
    for error in (TransitionError("a"), ApprovalError("a"), HoldError("a")):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.code, copy.exit_code) == ("a", error.code, 2)
    codes = [kind.code for kind in (TransitionError, ApprovalError, HoldError)]
    assert codes == ["UW-E011", "UW-E012", "UW-E013"]
