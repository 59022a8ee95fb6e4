"""Clocks: when a request must be answered, by the calendar. Not legal advice.

A period counts from the day of receipt in the tenant's zone and ends at 23:59:59 of its last day
there. A month ends on the same date of the next month, or on that month's last day.

Weekends and holidays: EU law (Regulation 1182/71, Art. 3(4)) and the UK's regulator let a period
that ends on one run to the end of the next working day. No deadline here uses that unless a
calendar of working days is given: without one it falls on the day itself, which is never too late.
No deadline is ever moved to an earlier day either. CCPA counts calendar days and never moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from cluster.errors import RequestError
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.times import as_utc, show_time

if TYPE_CHECKING:
    from coordinator.requests.record import RequestRecord

WorkingDay = Callable[[date], bool]  # True for a day on which offices work

END_OF_DAY: Final = time(23, 59, 59)
CLOCK_SKEW: Final = timedelta(minutes=5)  # by which another machine's clock may be ahead of ours
OLDEST_RECEIPT: Final = timedelta(days=3650)
NORMAL, URGENT, REGULATOR = "normal", "urgent", "regulator"
PRIORITIES: Final = (NORMAL, URGENT, REGULATOR)
WARNINGS: Final = ((0.8, "soon"), (0.5, "half"))  # share of the time that is gone -> warning


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One rule's clock.

    Attributes:
        name: how requests name it.
        months, days: time to answer, from receipt.
        extended_months, extended_days: the same once extended; both 0: no extension.
        confirm_working_days: working days within which receipt must be confirmed, if it must.
        moves: whether the rule lets a deadline on a day off run to the next working day.
        keep_months: how long records of requests must be kept, if a rule says.
        source: where this is from.
    """

    name: str
    source: str
    months: int = 0
    days: int = 0
    extended_months: int = 0
    extended_days: int = 0
    confirm_working_days: int | None = None
    moves: bool = False
    keep_months: int | None = None


PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="gdpr",
            months=1,
            extended_months=3,
            moves=True,
            source="GDPR Art. 12(3): one month from receipt, two further months if the person is "
            "told in the first; Regulation (EEC, Euratom) 1182/71 Art. 3: ends of months, days off",
        ),
        Profile(
            name="uk_gdpr",
            months=1,
            extended_months=3,
            moves=True,
            source="UK GDPR Art. 12(3); ICO: the corresponding date of the next month, or that "
            "month's last day; extended, three months from the day of receipt",
        ),
        Profile(
            name="ccpa",
            days=45,
            extended_days=90,
            confirm_working_days=10,
            keep_months=24,
            source="11 CCR 7021: confirm in 10 business days, answer in 45 calendar days of "
            "receipt, 90 in all with notice; 11 CCR 7101: keep records of requests 24 months",
        ),
        Profile(
            name="contract",
            source="GDPR Art. 28(3)(g) and the contract: erasure.contract_days calendar days",
        ),
    )
}


@dataclass(frozen=True)
class Clock:
    """The times that follow from a receipt, in UTC.

    Attributes:
        received_at: as given.
        due_at: last moment to answer in.
        confirm_by: last moment to confirm receipt in, where a rule asks for that.
        target_at: our own aim, ``internal_target_days`` after receipt; no later than ``due_at``.
        cancel_until: until then the request may be cancelled.
    """

    received_at: datetime
    due_at: datetime
    confirm_by: datetime | None
    target_at: datetime
    cancel_until: datetime


def find_profile(name: str, policy: RequestPolicy) -> Profile:
    """The profile of that name; ``contract`` has the days of the policy.

    Raises:
        RequestError: there is no such profile.
    """
    if name not in PROFILES:
        raise RequestError(f"regulation is {name!r}; choose one of {sorted(PROFILES)}")
    profile = PROFILES[name]
    return replace(profile, days=policy.contract_days) if name == "contract" else profile


def clock_of(
    received_at: datetime,
    now: datetime,
    policy: RequestPolicy,
    *,
    regulation: str | None = None,
    priority: str = NORMAL,
    works: WorkingDay | None = None,
) -> Clock:
    """Every time that follows from a receipt.

    Args:
        received_at: when the controller got the request: possibly long before ``now``.
        now: when this system got it: the cancel window starts here.
        policy: its regulation holds where none is given.
        regulation: name of a profile.
        priority: normal, urgent or regulator; only a normal request has a cancel window.
        works: calendar of working days; without one no deadline moves, and Monday to Friday
            count as working days for ``confirm_by`` (too early beside a holiday, never too late).

    Raises:
        RequestError: the profile or priority is unknown, or the receipt is not in the past.
    """
    if priority not in PRIORITIES:
        raise RequestError(f"priority is {priority!r}; choose one of {list(PRIORITIES)}")
    profile = find_profile(regulation or policy.regulation, policy)
    received, now = as_utc(received_at, "received_at"), as_utc(now, "now")
    zone = ZoneInfo(policy.timezone)
    _check_receipt(received, now, zone)
    due = due_at(received, profile, zone, works=works)
    day = received.astimezone(zone).date()
    window = policy.cancel_window if priority == NORMAL else timedelta(0)
    confirm_by = None
    if profile.confirm_working_days is not None:
        last = _after_working_days(day, profile.confirm_working_days, works or is_weekday)
        confirm_by = _end_of(last, zone)
    return Clock(
        received,
        due,
        confirm_by,
        target_at=min(due, _end_of(day + timedelta(days=policy.internal_target_days), zone)),
        cancel_until=max(now, min(now + window, due)),
    )


def due_at(
    received_at: datetime,
    profile: Profile,
    zone: ZoneInfo,
    *,
    extended: bool = False,
    works: WorkingDay | None = None,
) -> datetime:
    """End of the period that began on the day of receipt in ``zone``, in UTC.

    An extension counts from receipt too (three months, 90 days), not from the first deadline:
    31 January is due on 28 February, and extended on 30 April.
    """
    months, days = profile.months, profile.days
    if extended:
        months, days = profile.extended_months, profile.extended_days
    received = as_utc(received_at, "received_at").astimezone(zone).date()
    last = received + relativedelta(months=months, days=days)
    if works is not None and profile.moves:
        last = _next_working_day(last, works)
    return _end_of(last, zone)


def extended_due(
    record: RequestRecord, policy: RequestPolicy, works: WorkingDay | None = None
) -> datetime:
    """When the request is due once extended.

    Raises:
        RequestError: its regulation has no extension.
    """
    profile = find_profile(record.regulation, policy)
    if not (profile.extended_months or profile.extended_days):
        raise RequestError(
            f"request {record.request_id} falls under {profile.name!r}, which has no extension; "
            "only gdpr, uk_gdpr and ccpa have one"
        )
    zone = ZoneInfo(policy.timezone)
    return due_at(record.received_at, profile, zone, extended=True, works=works)


def urgency(record: RequestRecord, now: datetime) -> str:
    """``late`` once overdue, ``soon`` from 80 % of the time, ``half`` from 50 %, else ``ok``."""
    now = as_utc(now, "now")
    if now > record.due_at:
        return "late"
    whole, gone = record.due_at - record.received_at, now - record.received_at
    return next((name for share, name in WARNINGS if gone >= share * whole), "ok")


def is_weekday(day: date) -> bool:
    """Monday to Friday: working days where no calendar knows better."""
    return day.weekday() < 5


def _check_receipt(received: datetime, now: datetime, zone: ZoneInfo) -> None:
    if received > now + CLOCK_SKEW:
        raise RequestError(
            f"received_at is {show_time(received, zone)}, in the future (it is now "
            f"{show_time(now, zone)}); give the time at which the request arrived"
        )
    if received < now - OLDEST_RECEIPT:
        raise RequestError(
            f"received_at is {show_time(received, zone)}, more than ten years ago; check the year"
        )


def _end_of(day: date, zone: ZoneInfo) -> datetime:
    """23:59:59 of the day in the zone, in UTC; where the clock shows it twice, the first."""
    return as_utc(datetime.combine(day, END_OF_DAY, zone), "due_at")


def _next_working_day(day: date, works: WorkingDay) -> date:
    """``day`` itself if it works, or the next that does; a year without one is no calendar."""
    for later in range(366):
        if works(day + timedelta(days=later)):
            return day + timedelta(days=later)
    raise RequestError(f"the calendar has no working day in the year after {day}; check it")


def _after_working_days(day: date, count: int, works: WorkingDay) -> date:
    for _ in range(count):
        day = _next_working_day(day + timedelta(days=1), works)
    return day
