"""Points in time: aware, in UTC inside, in the tenant's zone for people."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from cluster.errors import RequestError

DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
EXAMPLES: Final = "2026-01-31T09:30:00Z, 2026-01-31T10:30:00+01:00 or the day 2026-01-31"


def as_utc(value: datetime, name: str) -> datetime:
    """``value`` in UTC; a time without a zone is refused, for no zone can be guessed.

    Raises:
        RequestError: ``value`` is naive, or outside the calendar.
    """
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise RequestError(
            f"{name} is {value.isoformat()}, a time without a zone; give one, for example "
            f"{value.isoformat()}Z, or in Python datetime(..., tzinfo=UTC)"
        )
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise RequestError(f"{name} is {value.isoformat()}, outside the calendar") from None


def to_iso(value: datetime) -> str:
    """ISO 8601 in UTC with ``Z``: ``2026-01-31T23:59:59Z``."""
    return as_utc(value, "time").isoformat().replace("+00:00", "Z")


def parse_time(text: str, name: str, zone: ZoneInfo) -> datetime:
    """An ISO 8601 time with its zone, in UTC; a bare day begins when it does in ``zone``.

    Raises:
        RequestError: ``text`` (called ``name`` in the message) is no time, or has no zone.
    """
    stripped = text.strip()
    try:
        if DAY.fullmatch(stripped):
            return as_utc(datetime.combine(date.fromisoformat(stripped), time(), zone), name)
        value = datetime.fromisoformat(stripped)
    except ValueError as error:
        raise RequestError(
            f"{name} is {text!r}, which is no ISO 8601 time ({error}); write {EXAMPLES}"
        ) from None
    return as_utc(value, name)


def show_time(value: datetime, zone: ZoneInfo) -> str:
    """The time in UTC and, where that differs, in the tenant's zone."""
    utc = as_utc(value, "time")
    text = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    local = utc.astimezone(zone)
    if local.utcoffset() == utc.utcoffset():
        return text
    return f"{text} ({local:%Y-%m-%d %H:%M:%S} {zone.key})"
