"""A request as rows for people: its way through the states, impact, cost, receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coordinator.serving.console.render import (
    show_count,
    show_records,
    show_seconds,
    show_time,
    show_words,
)

WAY: Final = (
    "received",
    "accepted",
    "scheduled",
    "running",
    "verifying",
    "unlearned",
    "purging",
    "completed",
)
POLICIES: Final[Mapping[str | None, str]] = {
    None: "as the service is set",
    "mask": "mask: shards that saw it go on voting",
    "exclude": "exclude: shards that saw it have no vote",
    "block": "block: what those shards own gets no answer",
}
Rows = list[tuple[str, Any]]


def steps_of(item: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The way of a request, each step with the time at which it was last taken.

    A state beside the way (on hold, failed, ...) stands where the request left it.
    """
    state = item["state"]
    reached = {event["state"]: event["at"] for event in events}
    reached.setdefault("received", item["submitted_at"] or item["received_at"])
    if state in WAY:
        here = WAY.index(state)
        steps = [_step(name, reached, done=i < here) for i, name in enumerate(WAY)]
        steps[here] |= {"is_here": True, "look": "done" if state == "completed" else ""}
        return steps
    before = [name for name in WAY if name in reached]
    steps = [_step(name, reached, done=True) for name in before]
    steps.append(_step(state, reached, done=False) | {"is_here": True, "look": "off"})
    if not item["is_closed"]:
        steps += [_step(name, {}, done=False) for name in WAY if name not in before]
    return steps


def _step(name: str, reached: Mapping[str, str], *, done: bool) -> dict[str, Any]:
    at = reached.get(name) if done or name in reached else None
    look = "done" if done else ""
    return {"name": name, "at": at, "look": look, "note": "", "is_here": False}


def impact(item: Mapping[str, Any]) -> Rows:
    """What goes and what that takes."""
    cost = item["cost"] or {}
    rows: Rows = [
        ("Removes", show_records(item["impact"])),
        ("Not here", _unknown(item["impact"])),
        ("Shards", ", ".join(map(str, item["shards"])) or "none"),
        ("Masked", _masked(item)),
        ("Estimated", show_seconds(cost.get("estimated_s"))),
        ("Took", show_seconds(cost["actual_s"]) if cost.get("actual_s") is not None else ""),
        ("All shards", show_seconds(cost.get("full_retrain_s"))),
        ("Failed batches", str(item["attempts"] or "")),
    ]
    return _filled(rows)


def about(item: Mapping[str, Any]) -> Rows:
    """Who asked for what, under which rule, by when."""
    waits = item["state"] in ("accepted", "needs_approval", "on_hold")
    rows: Rows = [
        ("Kind", show_words(item["kind"])),
        ("Regulation", item["regulation"]),
        ("Priority", item["priority"]),
        ("Answers until done", POLICIES[item["serving_policy"]]),
        ("Received", show_time(item["received_at"])),
        ("Due", show_time(item["due_at"])),
        ("Expected", _time(item["expected_completion_at"])),
        ("Cancellable until", show_time(item["cancel_until"]) if waits else ""),
        ("Asked by", item["requested_by"]),
        ("Approved by", item["approved_by"]),
        ("Your id", item["external_request_id"] or ""),
        ("Part of", item["parent_id"] or ""),
        ("Same as", item["duplicate_of"] or ""),
        ("Batch", item["batch_id"] or ""),
        *acceptance(item["acceptance_receipt"]),
    ]
    return _filled(rows)


def acceptance(receipt: Mapping[str, str] | None) -> Rows:
    """The signed receipt of acceptance in short."""
    if receipt is None:
        return []
    return [("Acceptance receipt", f"{receipt['digest']}, signed by key {receipt['key_id']}")]


def receipt_facts(receipt: Mapping[str, Any] | None) -> Rows:
    """What the erasure did, in numbers."""
    if receipt is None:
        return []
    shards = ", ".join(map(str, receipt["shards_retrained"]))
    return [
        ("Generation", str(receipt["generation"])),
        ("Graph epoch", str(receipt["epoch"])),
        ("Retrained", f"shards {shards}" if shards else "no shard held it"),
        ("Removed", show_records(receipt["records"])),
        ("Took", show_seconds(receipt["seconds"])),
    ]


def _time(text: str | None) -> str:
    return "" if text is None else show_time(text)


def _unknown(impact: Mapping[str, int]) -> str:
    return show_count(impact["unknown"], "records") if impact["unknown"] else ""


def _masked(item: Mapping[str, Any]) -> str:
    if item["masked"]:
        return "yes: no answer reads these records"
    if item["state"] in ("unlearned", "purging", "completed"):
        return "no longer needed: no model knows them"
    return "no"


def _filled(rows: Rows) -> Rows:
    return [(name, value) for name, value in rows if value not in ("", None)]
