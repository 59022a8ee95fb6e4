"""Every address of the console, with the roles that may open it."""

from __future__ import annotations

from typing import Final, NamedTuple

from fastapi import APIRouter, Response

from coordinator.serving.backend import OfficeLink
from coordinator.serving.console.access import (
    ACTIONS,
    ADMINS,
    ASKERS,
    AUDITORS,
    EVERYBODY,
    KEEPERS,
    OPERATORS,
    PEOPLE,
    STAFF,
)
from coordinator.serving.console.desk import Desk, Handler, Visit
from coordinator.serving.console.pages import (
    admin,
    costs,
    erasing,
    evidence,
    login,
    queue,
    request,
    shards,
)
from coordinator.serving.console.refusals import refusal
from coordinator.serving.console.settings import PREFIX, ConsoleSettings


class Address(NamedTuple):
    """One route; ``roles`` is None where nobody has to be logged in."""

    method: str
    path: str
    handler: Handler
    roles: frozenset[str] | None


class MenuItem(NamedTuple):
    """One entry of the menu."""

    path: str
    name: str
    roles: frozenset[str]


async def _nowhere(desk: Desk, visit: Visit) -> Response:
    raise refusal(404, "No such page", "choose a page from the menu")


async def _to_overview(desk: Desk, visit: Visit) -> Response:
    return desk.redirect(visit, "/")


ADDRESSES: Final = (
    Address("GET", "", _to_overview, None),
    Address("GET", "/login", login.form, None),
    Address("POST", "/login", login.login, None),
    Address("POST", "/logout", login.logout, EVERYBODY),
    Address("GET", "/", shards.overview, PEOPLE),
    Address("GET", "/live", shards.overview_live, PEOPLE),
    Address("GET", "/shards", shards.shard_graph, PEOPLE),
    Address("GET", "/shards/{number}", shards.shard, PEOPLE),
    Address("GET", "/models", shards.models, PEOPLE),
    Address("GET", "/costs", costs.costs, PEOPLE),
    Address("GET", "/costs/data", costs.costs_data, PEOPLE),
    Address("GET", "/queue", queue.queue, STAFF),
    Address("POST", "/queue/approve", queue.approve, ACTIONS["approve"]),
    Address("GET", "/requests/{request_id}", request.request, STAFF),
    Address("GET", "/requests/{request_id}/live", request.request_live, STAFF),
    Address("POST", "/requests/{request_id}/{action}", request.act, STAFF),
    Address("GET", "/erase", erasing.form, ASKERS),
    Address("POST", "/erase/look-up", erasing.look_up, ASKERS),
    Address("POST", "/erase/preview", erasing.preview, ASKERS),
    Address("POST", "/erase/confirm", erasing.confirm, ASKERS),
    Address("GET", "/certificates", evidence.certificates, STAFF),
    Address("GET", "/certificates/{certificate_id}", evidence.certificate, STAFF),
    Address("GET", "/certificates/{certificate_id}/envelope", evidence.envelope, STAFF),
    Address("GET", "/issuer-keys", evidence.issuer_keys, STAFF),
    Address("GET", "/artefacts", evidence.artefacts, KEEPERS),
    Address("GET", "/audit", evidence.audit, AUDITORS),
    Address("GET", "/settings", admin.settings, OPERATORS),
    Address("POST", "/settings/keys", admin.make_key, ADMINS),
    Address("POST", "/settings/keys/{key_id}/delete", admin.delete_key, ADMINS),
    Address("POST", "/settings/deliveries/{delivery_id}", admin.redeliver, OPERATORS),
    Address("GET", "/{anything:path}", _nowhere, None),
)
MENU: Final = (
    MenuItem("/", "Overview", PEOPLE),
    MenuItem("/shards", "Shard graph", PEOPLE),
    MenuItem("/queue", "Queue", STAFF),
    MenuItem("/erase", "New erasure", ASKERS),
    MenuItem("/certificates", "Certificates", STAFF),
    MenuItem("/costs", "Cost and latency", PEOPLE),
    MenuItem("/models", "Models", PEOPLE),
    MenuItem("/artefacts", "Artefact ledger", KEEPERS),
    MenuItem("/audit", "Audit log", AUDITORS),
    MenuItem("/settings", "Settings", OPERATORS),
)


def make_console(office: OfficeLink, settings: ConsoleSettings | None = None) -> APIRouter:
    """The console as a router that brings its prefix ``/console`` along.

    Args:
        office: answers every page.
        settings: knobs; sessions end with the process unless they have a secret.
    """
    desk = Desk(office, settings or ConsoleSettings(), MENU)
    router = APIRouter(include_in_schema=False)
    router.add_api_route(PREFIX + "/static/{name}", desk.static_file, methods=["GET"])
    for method, path, handler, roles in ADDRESSES:
        router.add_api_route(PREFIX + path, desk.endpoint(handler, roles), methods=[method])
    return router
