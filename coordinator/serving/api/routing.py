"""Routes that let nobody in without the right role, and read no body before that."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from coordinator.serving.api.bodies import (
    bounded,
    check_depth,
    check_length,
    read_body,
    require_json,
)
from coordinator.serving.api.door import Caller, Door
from coordinator.serving.api.meters import Meters
from coordinator.serving.api.models import ProblemOut
from coordinator.serving.api.problems import MEDIA_TYPE
from coordinator.serving.api.rates import Rates, Streams
from coordinator.serving.backend import OfficeLink, ReplicaLink
from coordinator.serving.settings import ServeSettings

RULE: Final = "__unweave_rule__"
WITH_BODY: Final = ("POST", "PUT", "PATCH")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Services:
    """What routes need; lies on ``app.state.services``.

    Attributes:
        office: the one process that writes.
        replicas: what predicts.
        settings: limits.
        door: lets callers in.
        rates: how often somebody may ask.
        streams: how many streams somebody has.
        meters: what is counted.
    """

    office: OfficeLink
    replicas: ReplicaLink
    settings: ServeSettings
    door: Door
    rates: Rates
    streams: Streams
    meters: Meters


@dataclass(frozen=True)
class Rule:
    """Who may use a route, and how its body is taken.

    Attributes:
        roles: any of these; None for everybody, without a key.
        is_file: whether the body is a file, which the route reads itself.
    """

    roles: tuple[str, ...] | None = None
    is_file: bool = field(default=False)


def allow(*roles: str, is_file: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Let these roles, and admin, use a route; a route without this is open to everybody."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, RULE, Rule(roles, is_file))
        return endpoint

    return mark


def rule_of(endpoint: Callable[..., Any]) -> Rule:
    """Who may use a route."""
    found: Rule = getattr(endpoint, RULE, Rule())
    return found


class GuardedRoute(APIRoute):
    """Asks for the key first, then takes the body within its limits, then lets FastAPI parse it."""

    def get_route_handler(self) -> Handler:
        """The handler with what comes before it."""
        handler, rule = super().get_route_handler(), rule_of(self.endpoint)
        takes_json = self.body_field is not None

        async def guarded(request: Request) -> Response:
            services = services_of(request)
            if rule.roles is not None:
                await services.door.admit(request, rule.roles)
            if request.method not in WITH_BODY:
                return await handler(request)
            settings = services.settings
            limit = settings.max_file_bytes if rule.is_file else settings.max_body_bytes
            check_length(request, limit)
            receive = bounded(request.receive, limit, settings.body_timeout_s)
            taken = Request(request.scope, receive)
            if not rule.is_file:
                body = await read_body(taken)
                if takes_json and body:
                    require_json(taken)
                    check_depth(body, settings.max_depth)
                taken._body = body  # read once; Starlette looks here first
            return await handler(taken)

        return guarded


def services_of(request: Request) -> Services:
    """What routes need."""
    found: Services = request.app.state.services
    return found


def caller_of(request: Request) -> Caller:
    """Who asks; only in routes that have a rule."""
    found: Caller = request.state.caller
    return found


Serving = Annotated[Services, Depends(services_of)]
Asker = Annotated[Caller, Depends(caller_of)]
BEARER: Final = HTTPBearer(
    scheme_name="key", description="an API key, uw_k1_..., or a JWT", auto_error=False
)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer beside success, for the OpenAPI document."""
    media = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": "a problem", "model": ProblemOut, "content": media}
        for status in statuses
    }


def new_router(tag: str, *, has_keys: bool = True) -> APIRouter:
    """A router of guarded routes."""
    return APIRouter(
        prefix="/v1" if has_keys else "",
        tags=[tag],
        route_class=GuardedRoute,
        dependencies=[Security(BEARER)] if has_keys else None,
        responses=problems(400, 401, 403, 422, 500, 503) if has_keys else problems(500, 503),
    )
