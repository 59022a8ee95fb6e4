"""A request as a value, and the events of its life."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from coordinator.requests.states import State

TIMES = (
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
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """An erasure request without the records it names.

    Attributes:
        request_id: ``"req_"`` and a ULID, sortable by time.
        kind: nodes, edges, features, labels, mixed, subject, predicate or file.
        state: where it stands.
        regulation: profile that set the due date.
        priority: normal, urgent or regulator.
        received_at: when it came in; all times are aware and UTC.
        submitted_at: when the person asked, if told.
        due_at: when it must be done.
        cancel_until: until when it may be cancelled.
        accepted_at: when it became binding.
        started_at: when its batch began.
        unlearned_at: when models without the records went live.
        completed_at: when everything was purged.
        not_before: earliest next try after a failure.
        attempts: failed tries.
        requested_by: who asked.
        approved_by: who approved.
        needs_approval: whether a second person must approve.
        reason: of the last change.
        held_by: who holds it.
        extended: whether the due date was extended.
        external_request_id: the controller's name of the request.
        idempotency_key: key under which the same body gives the same request.
        body_digest: keyed HMAC of what was asked.
        parent_id: the request of the file this is part of.
        duplicate_of: the request that asked for the same before.
        batch_id: the batch it runs in.
        epoch: graph epoch given at acceptance.
        subject_ref: keyed HMAC of the selector; never an id.
        records: number of nodes, edges, features and labels that go.
        shards: shards that would retrain, as planned.
        estimated_seconds: as planned.
        unknown: asked records that were never here.
        certificate_id: its certificate.
        receipt: what the caller was told at the end.
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
    certificate_id: str | None = None
    receipt: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; times in ISO 8601 with Z."""
        body = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in TIMES:
            body[name] = _time_to_json(body[name])
        receipt = None if self.receipt is None else dict(self.receipt)
        return body | {
            "state": self.state.value,
            "records": dict(self.records),
            "shards": list(self.shards),
            "receipt": receipt,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        body = dict(data)
        for name in TIMES:
            body[name] = _time_from_json(body.get(name))
        body |= {"state": State(data["state"]), "shards": tuple(data["shards"])}
        return cls(**body)


@dataclass(frozen=True)
class Event:
    """One change of a request."""

    request_id: str
    seq: int
    at: datetime
    state: State
    action: str
    by: str
    detail: str


def new_request_id(now: datetime) -> str:
    """``"req_"`` and a ULID: 48 bits of milliseconds, 80 random bits, Crockford's base 32."""
    number = int(now.timestamp() * 1000) << 80 | secrets.randbits(80)
    return "req_" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def _time_to_json(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time_from_json(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
