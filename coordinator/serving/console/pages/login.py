"""Logging in and out."""

from __future__ import annotations

from fastapi import Response
from fastapi.responses import HTMLResponse

from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.console.sessions import COOKIE, path_of
from coordinator.serving.office import Office


async def form(desk: Desk, visit: Visit) -> Response:
    """The form; whoever is logged in already goes to the overview."""
    return desk.redirect(visit, "/") if visit.role else _form(desk, visit)


async def login(desk: Desk, visit: Visit) -> Response:
    """Start a session for a key."""
    client = visit.request.client.host if visit.request.client else ""
    wait_s = desk.brake.wait_s(client)
    if wait_s > 0:
        seconds = int(wait_s) + 1
        detail = f"too many failed attempts from your address; try again in {seconds} s"
        raise refusal(429, "Slow down", detail, retry_after_s=seconds)
    key = await desk.ask(Office.authenticate, visit.form.get("key", "").strip())
    if key is None:
        desk.brake.failed(client)
        return _form(desk, visit, "No such key, or it is no longer valid.", 401)
    desk.brake.passed(client)
    response = desk.redirect(visit, "/")
    desk.sessions.write(desk.sessions.start(key["key_id"]), visit.request, response)
    return response


async def logout(desk: Desk, visit: Visit) -> Response:
    """End the session, here and for every copy of its cookie."""
    desk.sessions.end(visit.session)
    response = desk.redirect(visit, "/login")
    response.delete_cookie(COOKIE, path=path_of(visit.request))
    return response


def _form(desk: Desk, visit: Visit, failed: str = "", status: int = 200) -> HTMLResponse:
    session = visit.session if visit.session.sid else desk.sessions.start()
    visit = Visit(visit.request, session)
    lifetime = desk.settings.session_lifetime.total_seconds()
    page = desk.page(visit, "login.html", code=status, failed=failed, lifetime=lifetime)
    desk.sessions.write(session, visit.request, page)
    return page
