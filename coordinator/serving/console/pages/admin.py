"""Settings: API keys, holds, dead letters, retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import Response

from coordinator.requests.states import State
from coordinator.serving.console.access import ADMINS
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.office import Office
from coordinator.serving.roles import ROLES

HOLD_LIMIT: Final = 100
LONGEST_DAYS: Final = 3650
DID: Final = {
    "delete": "The key was deleted, and its sessions with it.",
    "redeliver": "The callback is sent again.",
}


async def settings(desk: Desk, visit: Visit) -> Response:
    """Everything that is set while it runs."""
    return await _page(desk, visit)


async def make_key(desk: Desk, visit: Visit) -> Response:
    """A new key, shown in this one answer."""
    role, days = visit.form.get("role", ""), visit.form.get("days", "").strip()
    if role not in ROLES:
        raise refusal(400, "No such role", f"choose one of {', '.join(ROLES)}")
    note = visit.form.get("note", "").strip()
    made = await desk.ask(Office.create_key, role, visit.who, expires_at=_expiry(days), note=note)
    return await _page(desk, visit, made=made)


def _expiry(days: str) -> str | None:
    if not days:
        return None
    if not (days.isascii() and days.isdigit() and 1 <= int(days) <= LONGEST_DAYS):
        detail = f"days is a number from 1 to {LONGEST_DAYS}, or empty"
        raise refusal(400, "No such time", detail)
    at = datetime.now(UTC) + timedelta(days=int(days))
    return at.isoformat().replace("+00:00", "Z")


async def delete_key(desk: Desk, visit: Visit) -> Response:
    """End a key and its sessions."""
    await desk.ask(Office.delete_key, visit.request.path_params["key_id"], visit.who)
    return desk.redirect(visit, "/settings?did=delete")


async def redeliver(desk: Desk, visit: Visit) -> Response:
    """Try a dead callback again."""
    await desk.ask(Office.redeliver, visit.request.path_params["delivery_id"], visit.who)
    return desk.redirect(visit, "/settings?did=redeliver")


async def _page(desk: Desk, visit: Visit, made: dict[str, Any] | None = None) -> Response:
    held = await desk.ask(Office.find, state=State.ON_HOLD.value, limit=HOLD_LIMIT)
    return desk.page(
        visit,
        "settings.html",
        keys=await _keys(desk) if visit.may(ADMINS) else [],
        roles=ROLES,
        made=made,
        did=DID.get(visit.query("did"), ""),
        holds=held["items"],
        dead=await desk.ask(Office.deliveries, "dead"),
        backups=await desk.ask(Office.backups),
    )


async def _keys(desk: Desk) -> list[dict[str, Any]]:
    """Keys that somebody may yet use."""
    return [key for key in await desk.ask(Office.list_keys) if key["is_valid"]]
