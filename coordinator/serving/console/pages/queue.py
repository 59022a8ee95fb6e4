"""The queue: which requests there are, and which would run next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Response

from coordinator.requests.states import State
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.office import Office

KINDS: Final = ("nodes", "edges", "features", "labels", "mixed", "subject", "predicate", "file")
OPEN_STATES, ANY = "open", "any"
STATES: Final = (OPEN_STATES, "closed", ANY, *map(str, State))
DUES: Final = (("", "any time"), ("0", "is late"), ("7", "7 days"), ("14", "14 days"))
BATCH_LIMIT: Final = 200  # waiting requests looked through for the next batch


async def queue(desk: Desk, visit: Visit) -> Response:
    """Requests, filtered and paged, and what would run next."""
    filters = {name: visit.query(name) for name in ("state", "kind", "due")}
    filters["state"] = filters["state"] or OPEN_STATES
    _check(filters)
    cursor = visit.query("cursor") or None
    found = await desk.ask(
        Office.find,
        state=None if filters["state"] == ANY else filters["state"],
        kind=filters["kind"] or None,
        due_before=_due_before(filters["due"]),
        cursor=cursor,
        limit=desk.settings.page_size,
    )
    waiting = await desk.ask(Office.find, state=State.ACCEPTED.value, limit=BATCH_LIMIT)
    status = await desk.ask(Office.status)
    chosen = {name: value for name, value in filters.items() if value not in ("", OPEN_STATES)}
    return desk.page(
        visit,
        "queue.html",
        requests=found["items"],
        next_cursor=found["next_cursor"],
        first=cursor is None,
        filters=filters,
        filtered=bool(chosen),
        address="queue" + (f"?{urlencode(chosen)}" if chosen else ""),
        states=STATES,
        kinds=KINDS,
        dues=DUES,
        counts=status["requests"],
        batch=_batch(waiting["items"]),
    )


def _check(filters: Mapping[str, str]) -> None:
    known = {
        "state": set(STATES),
        "kind": set(KINDS),
        "due": {value for value, _ in DUES},
    }
    for name, value in filters.items():
        if value and value not in known[name]:
            choices = ", ".join(sorted(known[name] - {""}))
            raise refusal(400, "No such filter", f"{name} is one of {choices}")


def _due_before(days: str) -> str | None:
    if not days:
        return None
    return (datetime.now(UTC) + timedelta(days=int(days))).isoformat().replace("+00:00", "Z")


def _batch(waiting: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What would go together: shards that several waiting requests reach are trained once."""
    reached = Counter(shard for item in waiting for shard in item["shards"])
    return {
        "requests": len(waiting),
        "shards": sorted(reached),
        "shared": sorted(shard for shard, count in reached.items() if count > 1),
        "opens_at": min((item["cancel_until"] for item in waiting), default=None),
        "due_at": min((item["due_at"] for item in waiting), default=None),
    }
