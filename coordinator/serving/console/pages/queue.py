"""The queue: which requests there are, and which would run next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from fastapi import Response

from cluster.errors import UnweaveError
from coordinator.requests.states import Action, State
from coordinator.serving.api.problems import problem_of
from coordinator.serving.console.access import ACTIONS
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.office import Office

KINDS: Final = ("nodes", "edges", "features", "labels", "mixed", "subject", "predicate", "file")
OPEN_STATES, ANY = "open", "any"
STATES: Final = (OPEN_STATES, "closed", ANY, *map(str, State))
DUES: Final = (("", "any time"), ("0", "is late"), ("7", "7 days"), ("14", "14 days"))
ID_PREFIX: Final = "req_"  # fields of the form that name a request


@dataclass(frozen=True)
class Outcome:
    """What became of the requests that somebody approved together.

    Attributes:
        approved: how many were.
        refused: the others, each with why not.
    """

    approved: int
    refused: tuple[tuple[str, str], ...]


async def queue(desk: Desk, visit: Visit) -> Response:
    """Requests, filtered and paged, and what would run next."""
    filters = {name: visit.query(name) for name in ("state", "kind", "due")}
    filters["state"] = filters["state"] or OPEN_STATES
    return await _page(desk, visit, filters)


async def approve(desk: Desk, visit: Visit) -> Response:
    """Approve the chosen requests, each for itself; says of the others why not."""
    chosen = [name for name in visit.form if name.startswith(ID_PREFIX)]
    if not chosen:
        raise refusal(400, "Nothing was chosen", "tick the requests that you approve")
    reason, refused = visit.form.get("reason", "").strip(), []
    for request_id in chosen:
        try:
            await desk.ask(Office.act, request_id, Action.APPROVE.value, visit.who, reason)
        except UnweaveError as error:
            refused.append((request_id, problem_of(error).detail))
    outcome = Outcome(len(chosen) - len(refused), tuple(refused))
    filters = {"state": State.NEEDS_APPROVAL.value, "kind": "", "due": ""}
    return await _page(desk, visit, filters, outcome)


async def _page(
    desk: Desk, visit: Visit, filters: Mapping[str, str], outcome: Outcome | None = None
) -> Response:
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
    batches = await desk.ask(Office.coming_batches)
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
        batches=batches,
        outcome=outcome,
        choosing=filters["state"] == State.NEEDS_APPROVAL and visit.may(ACTIONS[Action.APPROVE]),
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
