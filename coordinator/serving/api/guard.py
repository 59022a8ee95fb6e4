"""Around every answer: header limits, security headers, the access log, and no error unanswered."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.serving.api.meters import Meters
from coordinator.serving.api.problems import ProblemError, unexpected
from coordinator.serving.settings import ServeSettings

access = logging.getLogger("unweave.access")
logger = logging.getLogger(__name__)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED: Final = "unmatched"
API: Final = "/v1/"
CLIENT_LEFT: Final = 499  # in the log alone, as nginx has it: nobody is there to be answered
CSP: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
HEADERS: Final = {
    b"content-security-policy": CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """The outermost layer of the ingress."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, meters: Meters) -> None:
        self.app, self.settings, self.meters = app, settings, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            size = sum(len(name) + len(value) for name, value in scope["headers"])
            if size > self.settings.max_header_bytes:
                await answer.problem(ProblemError(431, "the headers are too long"), receive)
            else:
                await self.app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = CLIENT_LEFT
        except Exception as error:
            text = "a route failed with %s"
            extra = {"event": "route_failed", "route": route_of(scope)}
            logger.error(text, type(error).__name__, exc_info=error, extra=extra)
            if answer.status is None:
                await answer.problem(unexpected(), receive)
        finally:
            self._note(scope, answer)

    def _note(self, scope: Scope, answer: _Answer) -> None:
        """One line and one count a request: by the route's template, never by what was sent."""
        seconds = time.perf_counter() - answer.started
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route, status = route_of(scope), answer.status or 0
        self.meters.note(method, route, status, seconds)
        caller = scope.get("state", {}).get("caller")
        extra = {
            "event": "access",
            "method": method,
            "route": route,
            "status": status,
            "duration_s": round(seconds, 6),
            "role": getattr(caller, "role", None),
            "key_id": getattr(caller, "key_id", None),
        }
        access.info("%s %s %d", method, route, status, extra=extra)


class _Answer:
    """Sends one answer, with the headers that all have."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.status: int | None = None
        self.started = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._headers(list(message.get("headers", [])))}
        await self._send(message)

    def _headers(self, found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        known = {name.lower() for name, _ in found}
        more = dict(HEADERS)
        if self._scope["path"].startswith(API) or (self.status or 0) >= 400:
            more[b"cache-control"] = b"no-store"
        return found + [(name, value) for name, value in more.items() if name not in known]

    async def problem(self, problem: ProblemError, receive: Receive) -> None:
        """Answer with a problem."""
        await problem.response()(self._scope, receive, self.send)


def route_of(scope: Scope) -> str:
    """Template of the route that serves a request."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", UNMATCHED))
