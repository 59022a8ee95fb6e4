"""What every page goes through: who asks, may they, was the form ours, and safe headers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from cluster.errors import UnweaveError
from coordinator.serving.api.problems import ProblemError, problem_of, unexpected
from coordinator.serving.backend import OfficeLink
from coordinator.serving.console.forms import is_same_origin, read_form
from coordinator.serving.console.refusals import LoginNeededError, refusal
from coordinator.serving.console.render import Templates
from coordinator.serving.console.sessions import LoginBrake, Session, Sessions, path_of
from coordinator.serving.console.settings import ConsoleSettings
from coordinator.serving.console.static import read_static
from coordinator.serving.office import Office

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_KEPT: Final = "no-store"


@dataclass(frozen=True)
class Visit:
    """One request of one browser.

    Attributes:
        request: as it came.
        session: its session; one without a key before the login.
        role: role of the key; empty before the login.
        note: what the key is called.
        form: fields of the form that was sent.
    """

    request: Request
    session: Session
    role: str = ""
    note: str = ""
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """The name under which this visitor acts, as the API's callers: nobody can choose it."""
        return f"key:{self.session.key_id}"

    def query(self, name: str) -> str:
        """A parameter of the address; never the id of a record."""
        return str(self.request.query_params.get(name, "")).strip()

    def may(self, roles: frozenset[str]) -> bool:
        """Whether the visitor has one of the roles."""
        return self.role in roles


Handler = Callable[["Desk", Visit], Awaitable[Response]]


class Desk:
    """Serves pages.

    Args:
        office: answers everything.
        settings: knobs.
        menu: entries of the menu, each with ``path, name, roles``.
    """

    def __init__(
        self, office: OfficeLink, settings: ConsoleSettings, menu: Sequence[Any] = ()
    ) -> None:
        self.office, self.settings, self.menu = office, settings, menu
        self.static = read_static()
        self.templates = Templates({name: file.version for name, file in self.static.items()})
        self.sessions, self.brake = Sessions(settings), LoginBrake()

    async def ask(
        self, method: Callable[Concatenate[Office, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a method of the office."""
        return await self.office.ask(method, *args, **kwargs)

    def endpoint(
        self, handler: Handler, roles: frozenset[str] | None
    ) -> Callable[[Request], Awaitable[Response]]:
        """A route's function: the handler behind every check.

        Args:
            handler: makes the page.
            roles: who may; None for everybody, logged in or not.
        """

        async def serve(request: Request) -> Response:
            return secured(await self._answer(request, handler, roles))

        return serve

    async def static_file(self, request: Request) -> Response:
        """A file that is the same for everybody."""
        file = self.static.get(request.path_params["name"])
        return secured(Response(status_code=404) if file is None else file.response())

    async def _answer(
        self, request: Request, handler: Handler, roles: frozenset[str] | None
    ) -> Response:
        visit = Visit(request, Session(""))
        try:
            visit = await self._visit(request, needs_login=roles is not None)
            if roles is not None and not visit.may(roles):
                raise refusal(403, "Not allowed", _who_may(visit.role, roles))
            if request.method == "POST":
                visit = await self._with_form(visit)
            return await handler(self, visit)
        except LoginNeededError:
            if "hx-request" in request.headers:  # a part of a page: have the whole one reloaded
                return Response(status_code=401, headers={"HX-Refresh": "true"})
            return RedirectResponse(f"{path_of(request)}/login", 303)
        except ProblemError as problem:
            return self.refuse(visit, problem)
        except UnweaveError as error:
            return self.refuse(visit, problem_of(error))
        except Exception as error:
            # the message may name records; its kind does not
            extra = {"event": "console_failed", "code": type(error).__name__}
            logger.error("a page of the console failed", extra=extra)
            return self.refuse(visit, unexpected())

    async def _visit(self, request: Request, *, needs_login: bool) -> Visit:
        session = self.sessions.read(request)
        if session is not None and session.key_id:
            key = await self._key(session.key_id)
            if key is not None:
                return Visit(request, session, key["role"], key["note"])
            session = None
        if needs_login:
            raise LoginNeededError
        return Visit(request, session or Session(""))

    async def _key(self, key_id: str) -> dict[str, Any] | None:
        """The key as it is now; None once it was deleted or is over."""
        keys = await self.ask(Office.list_keys)
        return next((key for key in keys if key["key_id"] == key_id and key["is_valid"]), None)

    async def _with_form(self, visit: Visit) -> Visit:
        form = await read_form(visit.request, self.settings)
        token = form.pop("csrf", "")
        known = bool(visit.session.sid) and self.sessions.is_csrf_token(visit.session, token)
        if not known or not is_same_origin(visit.request):
            raise refusal(
                403,
                "This form is not from here",
                "it has no valid token of your session; open the page again and send it from there",
            )
        return Visit(visit.request, visit.session, visit.role, visit.note, form)

    def page(self, visit: Visit, template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
        """A page out of a template."""
        common = {
            "base": path_of(visit.request),
            "path": visit.request.url.path,
            "visit": visit,
            "menu": self.menu,
            "csrf": self.sessions.csrf_token(visit.session),
            "refresh_s": self.settings.refresh_s,
        }
        return HTMLResponse(self.templates.render(template, common | values), code)

    def redirect(self, visit: Visit, path: str) -> RedirectResponse:
        """To another page of the console, by GET."""
        return RedirectResponse(f"{path_of(visit.request)}{path}", 303)

    def refuse(self, visit: Visit, problem: ProblemError) -> HTMLResponse:
        """The page that says why not."""
        page = self.page(visit, "refusal.html", code=problem.status, problem=problem)
        page.headers["HX-Reswap"] = "none"  # a part of a page stays as it was
        page.headers.update(problem.headers)
        return page


def secured(response: Response) -> Response:
    """The response with the headers that every one has; kept by nobody unless it says so."""
    for name, value in SECURITY_HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", NOT_KEPT)
    return response


def _who_may(role: str, roles: frozenset[str]) -> str:
    wanted = " or ".join(sorted(roles))
    return f"your key has the role {role}; this needs {wanted}. Ask an admin for such a key."
