"""Requests to put into ledgers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.ledger import Ledger
from coordinator.requests.record import Event, RequestRecord, new_request_id
from coordinator.requests.states import State

NOW = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)
SECRET_ID = "zanzibar-4711"


def record(number: int = 0, **changes: Any) -> RequestRecord:
    """An accepted request of one node."""
    received = NOW + timedelta(seconds=number)
    body: dict[str, Any] = {
        "request_id": new_request_id(received),
        "kind": "nodes",
        "state": State.ACCEPTED,
        "regulation": "gdpr",
        "priority": "normal",
        "received_at": received,
        "submitted_at": None,
        "due_at": received + timedelta(days=30),
        "cancel_until": received + timedelta(hours=24),
        "accepted_at": received,
        "started_at": None,
        "unlearned_at": None,
        "completed_at": None,
        "not_before": None,
        "attempts": 0,
        "requested_by": "ada",
        "approved_by": "",
        "needs_approval": False,
        "reason": "",
        "held_by": "",
        "extended": False,
        "external_request_id": None,
        "idempotency_key": None,
        "body_digest": "b" * 64,
        "parent_id": None,
        "duplicate_of": None,
        "batch_id": None,
        "epoch": None,
        "subject_ref": "5" * 64,
        "records": {"nodes": 1, "edges": 3},
        "shards": (0, 2),
        "estimated_seconds": 1.5,
        "unknown": 0,
        "certificate_id": None,
        "receipt": None,
    }
    return RequestRecord(**body | changes)


PAYLOAD = {"nodes": [["str", SECRET_ID]], "edges": [], "features": [], "labels": []}


def add(ledger: Ledger, *records: RequestRecord) -> None:
    """Add requests in one commit, each with a payload and a tombstone of its own."""
    with ledger.write() as tx:
        ledger.requests.add(
            tx,
            records,
            {r.request_id: PAYLOAD for r in records},
            {r.request_id: {ledger.mark("node", r.request_id): "node"} for r in records},
        )


def event(record: RequestRecord, action: str = "schedule", detail: str = "") -> Event:
    """An event that the ledger is to number."""
    return Event(record.request_id, 0, NOW, record.state, action, "bob", detail)
