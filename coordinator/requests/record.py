"""One request as a value: what the ledger stores and the state machine changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from cluster.errors import RequestError
from coordinator.requests.serving import ServingPolicy
from coordinator.requests.states import State
from coordinator.requests.times import as_utc, to_iso

CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_TIME_CHARS, ULID_RANDOM_CHARS, ULID_RANDOM_BYTES = 10, 16, 10
TIMES: Final = (
    "received_at",
    "submitted_at",
    "due_at",
    "cancel_until",
    "accepted_at",
    "started_at",
    "unlearned_at",
    "completed_at",
    "not_before",
)


@dataclass(frozen=True)
class RequestRecord:
    """A request to forget; every time in it is in UTC, and it names no record of the graph.

    Attributes:
        request_id: ``req_`` and a ULID: sorts by the time of receipt.
        kind: nodes, edges, features, labels, mixed, subject, predicate or file.
        state: where it stands.
        regulation: profile that gave ``due_at`` (:mod:`coordinator.requests.regulations`).
        priority: normal, urgent or regulator.
        serving_policy: mask, exclude or block, until live models are without its records; None:
            that of the service.
        received_at: when the controller got the request: the clock starts here.
        due_at: last moment to answer in.
        cancel_until: until then it may be cancelled, and no batch takes it.
        submitted_at: when it reached this system, if later.
        accepted_at: when its records vanished from serving.
        started_at: when its batch first ran.
        unlearned_at: when models that never saw the records went live.
        completed_at: when the last copy was purged and the certificate issued.
        not_before: back-off after a failure; no batch takes it earlier.
        attempts: batches of it that failed, since the last ``retry``.
        requested_by: who asked.
        approved_by: who approved, empty until then.
        needs_approval: large or marked: somebody else has to approve it.
        reason: why it is in this state, as last given.
        held_by: who put it on hold, empty when it is not.
        extended: its deadline was moved once, which is as often as it may.
        external_request_id: the controller's own id of it; one request each.
        idempotency_key: the caller's key against sending the same twice.
        body_digest: keyed HMAC of what was asked, to tell a repeat from another request.
        parent_id: the request it is a part of (a file of ids).
        duplicate_of: the request that asked for the same.
        batch_id: batch that took it last.
        epoch: graph epoch it was accepted at.
        subject_ref: keyed HMAC of the selector, in hex.
        records: kind -> number of records that go.
        shards: shards that have to be retrained for it, as planned.
        estimated_seconds: training seconds of those shards.
        unknown: asked records that the graph does not hold.
        acceptance: signed receipt of its acceptance; None before, and where it was never accepted.
        certificate_id: evidence of its completion.
        receipt: what the erasure did, in numbers.
    """

    request_id: str
    kind: str
    state: State
    regulation: str
    priority: str
    received_at: datetime
    due_at: datetime
    cancel_until: datetime
    submitted_at: datetime | None = None
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    unlearned_at: datetime | None = None
    completed_at: datetime | None = None
    not_before: datetime | None = None
    attempts: int = 0
    requested_by: str = ""
    approved_by: str = ""
    needs_approval: bool = False
    reason: str = ""
    held_by: str = ""
    extended: bool = False
    external_request_id: str | None = None
    idempotency_key: str | None = None
    body_digest: str = ""
    parent_id: str | None = None
    duplicate_of: str | None = None
    batch_id: str | None = None
    epoch: int | None = None
    subject_ref: str = ""
    records: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[int, ...] = ()
    estimated_seconds: float = 0.0
    unknown: int = 0
    serving_policy: ServingPolicy | None = None
    acceptance: str | None = None
    certificate_id: str | None = None
    receipt: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Bring every time to UTC; a naive one is refused."""
        for name in TIMES:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_utc(value, name))

    def to_json(self) -> dict[str, Any]:
        """Plain values: ISO times with ``Z``, a list of shards; never the id of a record."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in TIMES:
            data[name] = None if data[name] is None else to_iso(data[name])
        return data | {
            "state": self.state.value,
            "records": dict(self.records),
            "shards": list(self.shards),
            "receipt": None if self.receipt is None else dict(self.receipt),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RequestRecord:
        """The record that :meth:`to_json` gave.

        Raises:
            RequestError: a field is unknown or missing, or a value is none of its kind.
        """
        names = {item.name for item in fields(cls)}
        unknown, missing = sorted(set(data) - names), sorted(names - set(data))
        if unknown or missing:
            raise RequestError(
                f"not a request of this version: unknown fields {unknown}, missing {missing}"
            )
        values = dict(data)
        try:
            values["state"] = State(values["state"])
            for name in TIMES:
                if values[name] is not None:
                    values[name] = datetime.fromisoformat(values[name])
            values["shards"] = tuple(int(shard) for shard in values["shards"])
        except (TypeError, ValueError) as error:
            raise RequestError(f"request {data['request_id']} cannot be read: {error}") from None
        return cls(**values)


@dataclass(frozen=True)
class Event:
    """One line of a request's history; ``seq`` counts from 1 within the request."""

    request_id: str
    seq: int
    at: datetime
    state: State
    action: str
    by: str = ""
    detail: str = ""


def new_request_id(now: datetime) -> str:
    """``req_`` and a ULID of ``now``: ids of different milliseconds sort by time.

    Reference:
        https://github.com/ulid/spec. Deviation: ids within one millisecond are in random order.
    """
    millis = int(as_utc(now, "now").timestamp() * 1000)
    return (
        "req_"
        + _crockford(millis, ULID_TIME_CHARS)
        + _crockford(int.from_bytes(os.urandom(ULID_RANDOM_BYTES), "big"), ULID_RANDOM_CHARS)
    )


def _crockford(value: int, width: int) -> str:
    shifts = range(5 * (width - 1), -1, -5)
    return "".join(CROCKFORD[value >> shift & 31] for shift in shifts)
