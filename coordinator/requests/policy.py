"""The knobs of requests, deadlines and batches: the ``erasure:`` section of the configuration."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
)

SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
PARTS: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
LONGEST: Final = timedelta(days=3650)
HINT: Final = "write for example '6h', '30m', '2d', '1h30m', '0', or a number of seconds"


def parse_duration(value: str | int | float | timedelta) -> timedelta:
    """``"6h"``, ``"30m"``, ``"2d"``, ``"1h30m"``, ``"0"`` or seconds as a length of time.

    Raises:
        ValueError: it is no duration, is negative, or is longer than ten years.
    """
    found: timedelta | None = None
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10:
        found = timedelta(seconds=value)
    elif isinstance(value, str) and len(value) <= 40:
        parts = PARTS.fullmatch(value.strip().lower().replace(" ", ""))
        if parts and any(parts.groups()):
            numbers = zip(parts.groups(), SECONDS.values(), strict=True)
            seconds = sum(float(number or 0) * unit for number, unit in numbers)
            found = timedelta(seconds=min(seconds, 1e10))
    if found is None:
        raise ValueError(f"{value!r} is not a duration; {HINT}")
    if not timedelta(0) <= found <= LONGEST:
        raise ValueError(f"{value!r} is not between 0 and {LONGEST.days} days; {HINT}")
    return found


def show_duration(value: timedelta) -> str:
    """The shortest text that :func:`parse_duration` reads back: ``"1h30m"``."""
    left, text = value, ""
    for unit in ("d", "h", "m"):
        count, left = divmod(left, timedelta(seconds=SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    seconds = f"{left.total_seconds():f}".rstrip("0").rstrip(".")
    return text + f"{seconds}s" if left else text or "0"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": ["string", "number"], "description": HINT}),
]


def _duration(default: str, description: str) -> Any:
    return Field(
        default=parse_duration(default),
        description=description,
        json_schema_extra={"default": default},  # as a file has it, not ISO 8601
    )


class RequestPolicy(BaseModel):
    """When a request must be answered, who has to agree, and which of them run together.

    It decides when shards retrain, never what comes out: no field of it enters a key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    regulation: Literal["gdpr", "uk_gdpr", "ccpa", "contract"] = Field(
        default="gdpr", description="profile of a request that names none"
    )
    contract_days: int = Field(
        default=30, ge=1, le=3650, description="calendar days of the profile contract"
    )
    issuer: str = Field(default="", description="who signs certificates; default: the home's id")
    timezone: str = Field(default="UTC", description="IANA zone that days end in")
    internal_target_days: int = Field(
        default=14, ge=1, description="days after receipt by which we mean to be done"
    )
    cancel_window: Duration = _duration(
        "24h", "how long a normal request may be cancelled and no batch takes it"
    )
    batch_window: Duration = _duration(
        "6h", "how long the first request of a batch waits for others after its cancel window"
    )
    max_batch: int | None = Field(
        default=None, ge=1, description="ready requests that run at once, and at most together"
    )
    early_flush_slack: float = Field(
        default=3.0, ge=1, description="run now when less than this many estimates are left"
    )
    all_shards_share: float = Field(
        default=0.9, gt=0, le=1, description="share of shards from which a batch counts as all"
    )
    approve_above: int = Field(
        default=1000, ge=0, description="more nodes and edges than this need a second person"
    )
    max_attempts: int = Field(default=5, ge=1, description="failed batches until it stays failed")
    backoff: Duration = _duration("30s", "wait after the first failure; doubles with each")
    backoff_cap: Duration = _duration("1h", "longest wait after a failure")
    rearrival: Literal["quarantine", "block", "allow_as_new"] = Field(
        default="quarantine",
        description="what becomes of an erased id in a graph that is given again; allow_as_new "
        "waits for a command that adds records, and quarantines until then",
    )
    lease: Duration = _duration("15s", "how long a coordinator that went silent stays the writer")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"{value!r} is no time zone; give an IANA name such as 'UTC' or 'Europe/Berlin'"
            ) from None
        return value
