"""Due dates against calendars that were read by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from cluster.errors import RequestError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import to_iso
from coordinator.requests.regulations import (
    PROFILES,
    clock_of,
    due_at,
    extended_due,
    find_profile,
    is_weekday,
    urgency,
)
from coordinator.requests.times import parse_time, show_time
from tests.coordinator.requests.samples import DAY, HOUR, NOW, POLICY, request

UTC_ZONE = ZoneInfo("UTC")


def due(regulation: str, received: str, zone: str = "UTC", **options: object) -> str:
    profile = find_profile(regulation, POLICY)
    received_at = datetime.fromisoformat(received)
    return to_iso(due_at(received_at, profile, ZoneInfo(zone), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-01-15T10:00Z", "2026-02-15T23:59:59Z"),
        ("2026-01-31T10:00Z", "2026-02-28T23:59:59Z"),  # no 31 February
        ("2024-01-31T10:00Z", "2024-02-29T23:59:59Z"),  # a leap year
        ("2028-02-29T10:00Z", "2028-03-29T23:59:59Z"),
        ("2026-03-31T10:00Z", "2026-04-30T23:59:59Z"),
        ("2026-12-31T23:59Z", "2027-01-31T23:59:59Z"),
        ("2026-02-28T00:00Z", "2026-03-28T23:59:59Z"),  # not the end of March
    ],
)
def test_a_month_ends_on_the_same_date_or_on_the_last_day(received: str, expected: str) -> None:
    assert due("gdpr", received) == due("uk_gdpr", received) == expected


@pytest.mark.parametrize(
    ("received", "zone", "expected"),
    [
        # 23:30 UTC on 31 January is 1 February in Berlin (UTC+1)
        ("2026-01-31T23:30Z", "Europe/Berlin", "2026-03-01T22:59:59Z"),
        # summer time begins on 29 March 2026: received at UTC+1, due at UTC+2
        ("2026-03-15T12:00Z", "Europe/Berlin", "2026-04-15T21:59:59Z"),
        # and ends on 25 October 2026: due on the very day
        ("2026-09-25T12:00Z", "Europe/Berlin", "2026-10-25T22:59:59Z"),
        # 03:00 UTC on 1 March is still 28 February in New York (UTC-5); due at UTC-4
        ("2026-03-01T03:00Z", "America/New_York", "2026-03-29T03:59:59Z"),
        # UTC+14 and UTC+5:45
        ("2026-01-31T11:00Z", "Pacific/Kiritimati", "2026-03-01T09:59:59Z"),
        ("2026-01-31T11:00Z", "Asia/Kathmandu", "2026-02-28T18:14:59Z"),
    ],
)
def test_a_day_is_the_tenants_day_on_both_ends(received: str, zone: str, expected: str) -> None:
    assert due("gdpr", received, zone) == expected


def test_where_the_last_minute_comes_twice_the_first_one_counts() -> None:
    # in Chile clocks go from 24:00 on 4 April 2026 back to 23:00, from UTC-3 to UTC-4
    assert due("gdpr", "2026-03-04T15:00Z", "America/Santiago") == "2026-04-05T02:59:59Z"


def test_ccpa_counts_45_calendar_days_and_90_once_extended() -> None:
    received = "2026-01-01T08:00Z"

    assert due("ccpa", received) == "2026-02-15T23:59:59Z"  # a Sunday; it does not move
    assert due("ccpa", received, works=is_weekday) == "2026-02-15T23:59:59Z"
    assert due("ccpa", received, extended=True) == "2026-04-01T23:59:59Z"


@pytest.mark.parametrize(
    ("received", "holidays", "expected"),
    [
        ("2026-01-02T08:00Z", (), "2026-01-16"),  # Friday; ten weekdays
        ("2026-01-03T08:00Z", (), "2026-01-16"),  # Saturday: Monday the 5th is day one
        ("2026-01-12T08:00Z", (date(2026, 1, 19),), "2026-01-27"),  # Martin Luther King's day
        ("2026-01-12T08:00Z", (), "2026-01-26"),  # without a calendar: early, never late
    ],
)
def test_ccpa_confirms_in_ten_business_days(
    received: str, holidays: tuple[date, ...], expected: str
) -> None:
    def works(day: date) -> bool:
        return is_weekday(day) and day not in holidays

    received_at = datetime.fromisoformat(received)
    calendar = works if holidays else None
    clock = clock_of(received_at, received_at, POLICY, regulation="ccpa", works=calendar)

    assert clock.confirm_by is not None
    assert to_iso(clock.confirm_by) == f"{expected}T23:59:59Z"


def test_an_extension_is_three_months_from_receipt() -> None:
    assert due("gdpr", "2026-01-31T10:00Z", extended=True) == "2026-04-30T23:59:59Z"
    assert due("uk_gdpr", "2025-11-30T10:00Z", extended=True) == "2026-02-28T23:59:59Z"


def test_a_contract_has_the_days_of_the_policy_and_no_extension() -> None:
    policy = RequestPolicy(regulation="contract", contract_days=10)

    clock = clock_of(NOW, NOW, policy)

    assert to_iso(clock.due_at) == "2026-03-12T23:59:59Z"
    assert clock.target_at == clock.due_at  # 14 days would be later
    with pytest.raises(RequestError, match="'contract', which has no extension"):
        extended_due(request(regulation="contract"), policy)


def test_a_weekend_moves_a_deadline_only_where_a_calendar_is_given_and_the_rule_lets_it() -> None:
    received = "2026-03-25T10:00Z"  # 25 April 2026 is a Saturday
    holidays = {date(2026, 4, 27)}  # and Monday is off, say

    def works(day: date) -> bool:
        return is_weekday(day) and day not in holidays

    assert due("gdpr", received) == "2026-04-25T23:59:59Z"
    assert due("gdpr", received, works=works) == "2026-04-28T23:59:59Z"
    assert due("contract", received, works=works) == "2026-04-24T23:59:59Z"  # 30 days, a Friday


def test_a_calendar_without_a_working_day_is_refused() -> None:
    with pytest.raises(RequestError, match="no working day in the year after 2026-02-15"):
        due("gdpr", "2026-01-15T10:00Z", works=lambda day: False)


def test_the_cancel_window_starts_now_not_at_receipt_and_ends_by_the_deadline() -> None:
    received = NOW - 20 * DAY

    assert clock_of(received, NOW, POLICY).cancel_until == NOW + DAY
    assert clock_of(NOW - 40 * DAY, NOW, POLICY).cancel_until == NOW  # late already
    for priority in ("urgent", "regulator"):
        assert clock_of(received, NOW, POLICY, priority=priority).cancel_until == NOW


def test_the_internal_target_is_14_days_after_receipt() -> None:
    assert to_iso(clock_of(NOW, NOW, POLICY).target_at) == "2026-03-16T23:59:59Z"


@pytest.mark.parametrize(
    ("days", "expected"),
    [(0, "ok"), (14.9, "ok"), (15, "half"), (23.9, "half"), (24, "soon"), (30, "soon")],
)
def test_warnings_come_at_half_and_at_four_fifths(days: float, expected: str) -> None:
    assert urgency(request(), NOW + days * DAY) == expected


def test_a_request_is_late_after_its_deadline() -> None:
    assert urgency(request(), NOW + 30 * DAY + timedelta(seconds=1)) == "late"


def test_unknown_profiles_and_priorities_name_the_known() -> None:
    with pytest.raises(RequestError, match=r"'lgpd'; choose one of \['ccpa', 'contract', 'gdpr'"):
        clock_of(NOW, NOW, POLICY, regulation="lgpd")
    with pytest.raises(RequestError, match=r"'asap'; choose one of \['normal', 'urgent'"):
        clock_of(NOW, NOW, POLICY, priority="asap")


def test_a_receipt_in_the_future_or_in_another_decade_is_refused() -> None:
    with pytest.raises(RequestError, match=r"2026-03-02 11:00:00 UTC \(2026-03-02 12:00:00 Europe"):
        clock_of(NOW + 2 * HOUR, NOW, RequestPolicy(timezone="Europe/Berlin"))
    with pytest.raises(RequestError, match="check the year"):
        clock_of(datetime(206, 3, 1, tzinfo=UTC), NOW, POLICY)
    clock_of(NOW + timedelta(minutes=1), NOW, POLICY)  # another machine's clock


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00Z"),
        ("2026-01-31T10:30:00+01:00", "2026-01-31T09:30:00Z"),
        (" 2026-01-31 ", "2026-01-30T23:00:00Z"),  # the day begins in Berlin
    ],
)
def test_times_are_read_with_their_zone_and_days_in_the_tenants(text: str, expected: str) -> None:
    assert to_iso(parse_time(text, "received_at", ZoneInfo("Europe/Berlin"))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("31.01.2026", "received_at is '31.01.2026', which is no ISO 8601 time"),
        ("2026-02-30", "no ISO 8601 time"),
        ("2026-13-01T00:00Z", "no ISO 8601 time"),
        ("", "no ISO 8601 time"),
        ("soon", "write 2026-01-31T09:30:00Z"),
        ("2026-01-31T09:30:00", "a time without a zone; give one"),
        ("0001-01-01T00:00:00+01:00", "outside the calendar"),
    ],
)
def test_malformed_times_are_refused_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message.replace(".", r"\.")):
        parse_time(text, "received_at", UTC_ZONE)


def test_a_time_without_a_zone_is_refused_everywhere() -> None:
    naive = datetime(2026, 3, 2)

    for call in (
        lambda: clock_of(naive, NOW, POLICY),
        lambda: clock_of(NOW, naive, POLICY),
        lambda: request(due_at=naive),
        lambda: urgency(request(), naive),
    ):
        with pytest.raises(RequestError, match="without a zone"):
            call()


def test_times_are_shown_in_utc_and_in_the_tenants_zone() -> None:
    assert show_time(NOW, UTC_ZONE) == "2026-03-02 09:00:00 UTC"
    assert (
        show_time(NOW, ZoneInfo("Asia/Kathmandu"))
        == "2026-03-02 09:00:00 UTC (2026-03-02 14:45:00 Asia/Kathmandu)"
    )


def test_a_time_in_another_zone_is_stored_in_utc() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=-7)))

    assert request(received_at=local).received_at.tzinfo is UTC
    assert request(received_at=local) == request()


def test_every_profile_names_its_source_and_ccpa_keeps_records_24_months() -> None:
    assert all(profile.source for profile in PROFILES.values())
    assert PROFILES["ccpa"].keep_months == 24
