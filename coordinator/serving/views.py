"""Plain JSON of plans, requests, events and shards, as the office answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from coordinator.evidence.acceptance import brief
from coordinator.requests.record import Event, RequestRecord
from coordinator.requests.regulations import urgency
from coordinator.requests.states import CLOSED, IN_BATCH, MASKED, allowed
from coordinator.requests.times import to_iso
from coordinator.results import Plan

_TIMES = (
    "submitted_at",
    "received_at",
    "accepted_at",
    "started_at",
    "unlearned_at",
    "completed_at",
    "due_at",
    "cancel_until",
)
_SAME = (
    "request_id",
    "external_request_id",
    "kind",
    "reason",
    "regulation",
    "priority",
    "serving_policy",
    "requested_by",
    "approved_by",
    "held_by",
    "needs_approval",
    "batch_id",
    "parent_id",
    "duplicate_of",
    "attempts",
    "certificate_id",
)
PEOPLES = ("approve", "reject", "cancel", "hold", "release", "extend", "expedite", "retry")


def iso(value: datetime | None) -> str | None:
    """ISO 8601 in UTC with ``Z``."""
    return None if value is None else to_iso(value)


def request_view(
    record: RequestRecord,
    now: datetime,
    full_retrain_s: float,
    callbacks: Sequence[Mapping[str, Any]] = (),
    progress: Mapping[str, Any] | None = None,
    expected_at: datetime | None = None,
) -> dict[str, Any]:
    """A request as everybody outside sees it; every field is always there, and none is an id.

    Args:
        record: the request.
        now: for its urgency.
        full_retrain_s: seconds that training all shards took.
        callbacks: who is told of it.
        progress: what its batch is doing, where it is the one at work.
        expected_at: when it will probably be completed.
    """
    receipt = record.receipt
    actual = None if receipt is None else receipt.get("seconds")
    same = {name: getattr(record, name) for name in _SAME}
    times = {name: iso(getattr(record, name)) for name in _TIMES}
    return (
        same
        | times
        | {
            "state": str(record.state),
            "epoch": record.epoch,
            "is_closed": record.state in CLOSED,
            "urgency": "" if record.state in CLOSED else urgency(record, now),
            "actions": [str(a) for a in allowed(record.state) if str(a) in PEOPLES],
            "impact": {kind: int(n) for kind, n in sorted(record.records.items())}
            | {"unknown": record.unknown},
            "shards": list(record.shards),
            "cost": {
                "estimated_s": round(record.estimated_seconds, 6),
                "actual_s": actual,
                "full_retrain_s": round(full_retrain_s, 6),
            },
            "receipt": None if receipt is None else dict(receipt),
            "callbacks": [dict(item) for item in callbacks],
            "progress": dict(progress) if progress and record.state in IN_BATCH else None,
            "masked": record.state in MASKED,
            "expected_completion_at": iso(expected_at),
            "acceptance_receipt": None if record.acceptance is None else brief(record.acceptance),
            "links": links_of(record),
        }
    )


def links_of(record: RequestRecord) -> dict[str, str]:
    """Where the rest of a request is to be read; only what is there by now."""
    own = f"/v1/erasures/{record.request_id}"
    there = {
        "self": own,
        "events": f"{own}/events",
        "acceptance": f"{own}/acceptance" if record.acceptance else "",
        "receipt": f"{own}/receipt" if record.receipt is not None else "",
        "certificate": f"/v1/certificates/{record.certificate_id}" if record.certificate_id else "",
        "parent": f"/v1/erasures/{record.parent_id}" if record.parent_id else "",
    }
    return {name: path for name, path in there.items() if path}


def event_view(event: Event) -> dict[str, Any]:
    """One change of a request's state."""
    return {
        "seq": event.seq,
        "at": iso(event.at),
        "state": str(event.state),
        "action": event.action,
        "by": event.by,
        "reason": event.detail,
    }


def plan_view(
    plan: Plan, plan_id: str, regulation: str, due_at: datetime, expires_at: datetime
) -> dict[str, Any]:
    """A plan: counts and shards; of ids, only those the caller gave and that are not here."""
    return {
        "plan_id": plan_id,
        "kind": plan.kind,
        "epoch": plan.epoch,
        "records": {kind: int(n) for kind, n in plan.records.items()},
        "shards": [int(shard) for shard in plan.shards],
        "estimated_seconds": round(plan.seconds, 6),
        "full_retrain_seconds": round(plan.full_retrain_seconds, 6),
        "purges": {kind: int(n) for kind, n in plan.purges.items()},
        "kept": {why: int(n) for why, n in plan.kept.items()},
        "already": {key: int(n) for key, n in plan.already.items()},
        "unknown": len(plan.unknown),
        "unknown_ids": [_shown(item) for item in plan.unknown],
        "subjects": len(plan.subjects),
        "regulation": regulation,
        "due_at": iso(due_at),
        "expires_at": iso(expires_at),
    }


def _shown(item: Any) -> Any:
    if isinstance(item, tuple):
        return [_shown(part) for part in item]
    return item if isinstance(item, int | str) else str(item)
