"""How a home is served: the ``serve:`` section of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.requests.serving import ServingPolicy

MAX_PAGE: Final = 500  # items of one page of a list


class ServeSettings(BaseModel):
    """Limits and habits of the office and of the ingress; none decides what is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_batches: bool = Field(default=True, description="whether the office carries out batches")
    poll_s: float = Field(default=1.0, gt=0, description="longest pause between looks for work")
    max_pause_s: float = Field(default=60.0, gt=0, description="longest pause after a failure")
    plan_minutes: int = Field(default=30, ge=1, description="how long a plan is kept")
    max_plans: int = Field(default=1000, ge=1, description="plans kept; the oldest goes first")
    max_planned: int = Field(
        default=2_000_000, ge=1, description="records named by kept plans; the oldest goes first"
    )

    serving_policy: ServingPolicy = Field(
        default="mask",
        description="while shards retrain, where neither a call nor a request says another",
    )

    max_body_bytes: int = Field(default=1 << 20, ge=1024, description="largest JSON body")
    max_file_bytes: int = Field(default=64 << 20, ge=1024, description="largest file of ids")
    max_depth: int = Field(default=16, ge=2, description="deepest nesting of a JSON body")
    max_ids: int = Field(default=10_000, ge=1, description="most ids of one request or look-up")
    body_timeout_s: float = Field(default=30.0, gt=0, description="longest time for a body")
    max_header_bytes: int = Field(default=16 << 10, ge=1024, description="all headers together")
    predict_rate: str = Field(
        default="200/second", description="predict calls of one key, as '200/second'"
    )
    follow_s: float = Field(default=0.5, gt=0, description="pause between looks for new events")
    max_streams: int = Field(default=20, ge=1, description="streams of events of one key at a time")
    follow_longest_s: float = Field(
        default=300.0, gt=0, description="after this, a stream of events ends and is resumed"
    )
    jwks_file: Path | None = Field(default=None, description="keys that JWTs are checked with")
    jwt_issuer: str | None = Field(default=None, description="iss that a JWT must have")
    jwt_audience: str | None = Field(default=None, description="aud that a JWT must have")

    webhook_hosts: tuple[str, ...] = Field(
        default=(), description="hosts that callbacks may name; a leading dot means its subdomains"
    )
    webhook_private: bool = Field(
        default=False, description="whether callbacks may reach private addresses"
    )
    webhook_http: bool = Field(default=False, description="whether callbacks may go without TLS")
    delivery_days: int = Field(
        default=30, ge=4, description="how long deliveries that were made or given up are kept"
    )
    webhook_timeout_s: float = Field(default=10.0, gt=0, description="longest time of one call")

    @field_validator("predict_rate")
    @classmethod
    def _known_rate(cls, value: str) -> str:
        from limits import parse

        try:
            parse(value)
        except ValueError:
            raise ValueError(f"{value!r} is no rate; write for example '200/second'") from None
        return value
