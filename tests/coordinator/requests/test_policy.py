"""The knobs as users write them, and records as plain JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import RequestError
from coordinator.requests.policy import RequestPolicy, parse_duration, show_duration
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.states import State
from tests.coordinator.requests.samples import HOUR, NOW, request


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("6h", 21600), ("30m", 1800), ("2d", 172800), ("0", 0), (0, 0), (90, 90)),
        *(("90", 90), ("1.5s", 1.5), ("1h30m", 5400), (" 1 H 30 M ", 5400), (0.25, 0.25)),
    ],
)
def test_durations_are_read_as_people_write_them(text: Any, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "6x", "h", "-1h", "30m1h", "six", None, True, [], "1e3", float("nan"), float("inf")],
)
def test_what_is_no_duration_is_refused_with_examples(text: Any) -> None:
    with pytest.raises(ValueError, match="not a duration; write for example '6h'"):
        parse_duration(text)


@pytest.mark.parametrize("value", [-1, "99999d", 1e9, timedelta(days=-1)])
def test_a_negative_or_endless_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not between 0 and 3650 days"):
        parse_duration(value)


@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_a_shown_duration_reads_back(value: timedelta) -> None:
    assert parse_duration(show_duration(value)) == value


def test_a_policy_survives_a_file() -> None:
    policy = RequestPolicy(batch_window="1h30m", cancel_window=0, backoff="0.5s", max_batch=7)

    plain = json.loads(json.dumps(policy.model_dump()))

    assert plain["batch_window"] == "1h30m" and plain["cancel_window"] == "0"
    assert RequestPolicy(**plain) == policy
    assert RequestPolicy.model_json_schema()["properties"]["batch_window"]["default"] == "6h"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("regulation", "hipaa", "'gdpr', 'uk_gdpr', 'ccpa' or 'contract'"),
        ("timezone", "Mars/Olympus", "'Mars/Olympus' is no time zone; give an IANA name"),
        ("timezone", "../etc/passwd", "is no time zone"),
        ("timezone", "", "is no time zone"),
        ("batch_window", "6 hours", "'6 hours' is not a duration"),
        ("max_batch", 0, "greater than or equal to 1"),
        ("all_shards_share", 0, "greater than 0"),
        ("early_flush_slack", 0.5, "greater than or equal to 1"),
        ("rearrival", "ignore", "'quarantine', 'block' or 'allow_as_new'"),
        ("batch_windw", "6h", "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_knob_is_named_with_what_is_allowed(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RequestPolicy(**{field: value})

    assert field in str(caught.value) and message in str(caught.value)


def test_a_record_survives_json() -> None:
    record = request(
        records={"nodes": 2}, shards=(1, 4), receipt={"seconds": 1.5}, completed_at=NOW
    )

    text = json.dumps(record.to_json())

    assert RequestRecord.from_json(json.loads(text)) == record
    assert '"received_at": "2026-03-02T09:00:00Z"' in text and '"state": "accepted"' in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"unknown fields \['colour'\]"),
        ({"state": "lost"}, "req_A cannot be read: 'lost' is not a valid State"),
        ({"due_at": "tomorrow"}, "req_A cannot be read: Invalid isoformat"),
        ({"due_at": "2026-03-02T09:00:00"}, "due_at is .* without a zone"),
        ({"shards": None}, "req_A cannot be read"),
    ],
)
def test_a_record_of_another_shape_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RequestRecord.from_json(request().to_json() | change)


def test_a_record_with_a_missing_field_is_refused() -> None:
    data = request().to_json()
    del data["due_at"]

    with pytest.raises(RequestError, match=r"missing \['due_at'\]"):
        RequestRecord.from_json(data)


def test_request_ids_are_ulids_that_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_request_id(NOW + hour * HOUR) for hour in range(50)]

    assert ids == sorted(ids)
    assert all(len(name) == len("req_") + 26 for name in ids)
    assert len({new_request_id(NOW) for _ in range(1000)}) == 1000
    # the specification's example: 1469918176385 ms is 01ARYZ6S41
    millis = NOW.fromtimestamp(1469918176.385, NOW.tzinfo)
    assert new_request_id(millis).startswith("req_01ARYZ6S41")


def test_states_are_written_as_words() -> None:
    assert State("needs_approval") is State.NEEDS_APPROVAL
    assert f"{State.ON_HOLD}" == "on_hold"
