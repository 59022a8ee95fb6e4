"""One request: where it stands, what it costs, what was done about it, and what may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Response

from coordinator.requests.states import NEED_REASON, Action, State
from coordinator.serving.console.access import ACTIONS
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.pages.request_facts import (
    about,
    impact,
    receipt_facts,
    steps_of,
)
from coordinator.serving.console.refusals import refusal
from coordinator.serving.office import Office

TRAINED: Final = frozenset({State.VERIFYING, State.UNLEARNED, State.PURGING})
GRAVE: Final = frozenset({Action.REJECT, Action.CANCEL})
TITLES: Final[Mapping[Action, tuple[str, str, str]]] = {
    Action.APPROVE: (
        "Approve",
        "You confirm that this is to be forgotten. Not by whoever asked: four eyes.",
        "Approved.",
    ),
    Action.REJECT: ("Reject", "It is turned down; the person is told the reason.", "Rejected."),
    Action.EXPEDITE: (
        "Do it at once",
        "It skips its window and can no longer be cancelled.",
        "It is done at once.",
    ),
    Action.HOLD: (
        "Put on hold",
        "For a legal claim, say: masked, but nothing is destroyed.",
        "Put on hold.",
    ),
    Action.RELEASE: ("Release", "The hold ends; the request goes on.", "Released."),
    Action.EXTEND: (
        "Extend the deadline",
        "Once, as the regulation allows; the person has to be told the reason.",
        "The deadline was extended.",
    ),
    Action.RETRY: ("Try again", "After it failed for good.", "It is tried again."),
    Action.CANCEL: (
        "Cancel",
        "It is taken back while its window is open; its records are read again.",
        "Cancelled.",
    ),
}


async def request(desk: Desk, visit: Visit) -> Response:
    """One request with everything that may be done about it."""
    values = await _values(desk, visit)
    did = visit.query("did")
    said = next((text for action, (_, _, text) in TITLES.items() if action == did), "")
    if did == "submit":
        said = "The request was taken; this page is its receipt."
    return desk.page(
        visit, "request.html", **values, did=said, actions=_actions(values["item"], visit.role)
    )


async def request_live(desk: Desk, visit: Visit) -> Response:
    """What changes by itself, for htmx."""
    return desk.page(visit, "request_live.html", **await _values(desk, visit))


async def act(desk: Desk, visit: Visit) -> Response:
    """Do something about a request."""
    request_id, name = (visit.request.path_params[key] for key in ("request_id", "action"))
    roles = ACTIONS.get(name)
    if roles is None:
        choices = ", ".join(ACTIONS)
        raise refusal(404, "No such action", f"choose one of {choices}")
    if not visit.may(roles):
        raise refusal(403, "Not allowed", f"that needs the role {' or '.join(sorted(roles))}")
    reason = visit.form.get("reason", "").strip()
    await desk.ask(Office.act, request_id, name, visit.who, reason)
    return desk.redirect(visit, f"/requests/{request_id}?did={name}")


async def _values(desk: Desk, visit: Visit) -> dict[str, Any]:
    request_id = visit.request.path_params["request_id"]
    item = await desk.ask(Office.request, request_id)
    events = await desk.ask(Office.events, request_id)
    return {
        "item": item,
        "events": events,
        "steps": steps_of(item, events),
        "progress": item["progress"],
        "shards": _shards(item),
        "impact": impact(item),
        "about": about(item),
        "receipt": receipt_facts(item["receipt"]),
    }


def _shards(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far each shard of the batch at work is: a share of one, None while it is trained."""
    progress = item["progress"]
    if not progress:
        return []
    trained = set(item["shards"] if item["state"] in TRAINED else progress["shards_trained"])
    if item["state"] == State.SCHEDULED:
        return [{"shard": shard, "stage": "waiting", "share": 0} for shard in item["shards"]]
    return [
        {"shard": shard, "stage": "trained", "share": 1}
        if shard in trained
        else {"shard": shard, "stage": "in training", "share": None}
        for shard in item["shards"]
    ]


def _actions(item: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    return [
        {
            "name": action.value,
            "title": title,
            "help": text,
            "needs_reason": action in NEED_REASON,
            "is_grave": action in GRAVE,
        }
        for action, (title, text, _) in TITLES.items()
        if action in item["actions"] and role in ACTIONS[action]
    ]
