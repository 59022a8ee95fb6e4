"""What the command line shows of plans and requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console

from coordinator.evidence.acceptance import brief
from coordinator.requests.record import Event, RequestRecord
from coordinator.requests.regulations import urgency
from coordinator.requests.states import CLOSED, State
from coordinator.requests.times import show_time
from coordinator.results import Plan
from coordinator.screens import new_table

DONE = ""  # urgency of what is closed
_PRIVATE = ("body_digest", "idempotency_key", "acceptance")


def request_json(record: RequestRecord, now: datetime) -> dict[str, Any]:
    """A request as plain JSON with its urgency."""
    data = {name: value for name, value in record.to_json().items() if name not in _PRIVATE}
    receipt = None if record.acceptance is None else brief(record.acceptance)
    return data | {"urgency": urgency_of(record, now), "acceptance_receipt": receipt}


def urgency_of(record: RequestRecord, now: datetime) -> str:
    """``ok``, ``half``, ``soon`` or ``late``; nothing once it is closed."""
    return DONE if record.state in CLOSED else urgency(record, now)


def show_plan(plan: Plan, found: Mapping[str, Any], zone: ZoneInfo, out: Path | None) -> None:
    """What would go, what it costs, what is destroyed, and by when."""
    console = Console()
    console.print(str(plan), highlight=False)
    if plan.full_retrain_seconds:
        saved = 1 - plan.seconds / plan.full_retrain_seconds
        console.print(f"saves {saved:.0%} of a full retrain", highlight=False)
    for why, count in plan.kept.items():
        console.print(f"{count} nodes {why}", highlight=False)
    purged = ", ".join(f"{count} {kind}" for kind, count in plan.purges.items()) or "nothing"
    console.print(f"destroys {purged}", highlight=False)
    due = show_time(datetime.fromisoformat(found["due_at"]), zone)
    console.print(f"due {due} ({found['regulation']}), if asked now", highlight=False)
    if plan.unknown:
        console.print(f"{len(plan.unknown)} of what is asked is not here", highlight=False)
    written = f", written to {out}" if out else ""
    console.print(f"{found['plan_id']}{written}", highlight=False)


def show_request(record: RequestRecord, found: Mapping[str, Any], zone: ZoneInfo) -> None:
    """One request, field by field."""
    table = new_table("request", record.request_id)
    table.columns[1].justify = "left"
    for name, value in _fields(record, found, zone):
        table.add_row(name, value)
    Console().print(table, highlight=False)


def _fields(
    record: RequestRecord, found: Mapping[str, Any], zone: ZoneInfo
) -> list[tuple[str, str]]:
    urgent = f", {found['urgency']}" if found["urgency"] else ""
    kinds = sorted(record.records, key=("nodes", "edges", "features", "labels").index)
    records = ", ".join(f"{record.records[k]} {k}" for k in kinds if record.records[k])
    fields = [
        ("state", str(record.state) + (f" ({record.reason})" if record.reason else "")),
        ("kind", record.kind),
        ("removes", records or "nothing held"),
        ("shards", ", ".join(map(str, record.shards)) or "none"),
        ("regulation", record.regulation),
        ("received", show_time(record.received_at, zone)),
        ("due", show_time(record.due_at, zone) + urgent),
    ]
    if record.state in (State.ACCEPTED, State.NEEDS_APPROVAL, State.ON_HOLD):
        fields.append(("cancellable until", show_time(record.cancel_until, zone)))
    optional = [
        ("unknown records", record.unknown or ""),
        ("parts", ", ".join(f"{n} {s}" for s, n in found.get("parts", {}).items())),
        ("cost", _cost(found.get("cost"))),
        ("serving policy", record.serving_policy or ""),
        ("asked by", record.requested_by),
        ("approved by", record.approved_by),
        ("held by", record.held_by),
        ("your id", record.external_request_id or ""),
        ("duplicate of", record.duplicate_of or ""),
        ("part of", record.parent_id or ""),
        ("failed batches", record.attempts or ""),
        ("expected", _expected(found.get("expected_completion_at"), zone)),
        ("accepted by key", found["acceptance_receipt"] and found["acceptance_receipt"]["key_id"]),
        ("completed", show_time(record.completed_at, zone) if record.completed_at else ""),
        ("certificate", record.certificate_id or ""),
    ]
    return fields + [(name, str(value)) for name, value in optional if value]


def _expected(text: str | None, zone: ZoneInfo) -> str:
    return "" if text is None else show_time(datetime.fromisoformat(text), zone)


def _cost(cost: Mapping[str, float] | None) -> str:
    if not cost:
        return ""
    return f"about {cost['estimated_s']:.2f} s (all shards: {cost['full_retrain_s']:.2f} s)"


def show_requests(records: Sequence[RequestRecord], now: datetime, zone: ZoneInfo) -> None:
    """One row a request."""
    table = new_table("request", "kind", "state", "due", "", "shards")
    for record in records:
        due, urgent = show_time(record.due_at, zone), urgency_of(record, now)
        shards = str(len(record.shards))
        table.add_row(record.request_id, record.kind, str(record.state), due, urgent, shards)
    console = Console()
    console.print(table, highlight=False)
    if not records:
        console.print("no request meets that; `unweave requests ls` lists all", highlight=False)


def show_events(events: Sequence[Event], zone: ZoneInfo) -> None:
    """One line an event."""
    console = Console()
    for event in events:
        by, detail = f" by {event.by}" * bool(event.by), f": {event.detail}" * bool(event.detail)
        line = f"{show_time(event.at, zone)}  {event.state}  {event.action}{by}{detail}"
        console.print(line, highlight=False, soft_wrap=True)
