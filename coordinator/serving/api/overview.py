"""Shards, the shard graph, artefacts and deliveries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Response

from coordinator.serving.api.erasures import Cursor, Limit
from coordinator.serving.api.models import Page
from coordinator.serving.api.routing import Asker, Serving, allow, new_router, problems
from coordinator.serving.office import Office
from coordinator.serving.picture import draw_alone
from coordinator.serving.roles import APPROVER, AUDITOR, OPERATOR, REQUESTER, VIEWER

router = new_router("overview")
VIEWERS = (VIEWER, REQUESTER, APPROVER, OPERATOR, AUDITOR)
SVG = "image/svg+xml"


@router.get("/status")
@allow(*VIEWERS)
async def read_status(services: Serving) -> dict[str, Any]:
    """What is published, what waits, and how the shards are."""
    found = await services.office.ask(Office.status)
    return {name: value for name, value in found.items() if name != "home"}


@router.get("/shards")
@allow(*VIEWERS)
async def list_shards(services: Serving) -> dict[str, Any]:
    """Every shard."""
    return {"items": await services.office.ask(Office.shards)}


@router.get("/shards/{shard}", responses=problems(404))
@allow(*VIEWERS)
async def read_shard(
    shard: Annotated[int, Path(ge=0, lt=2**31)], services: Serving
) -> dict[str, Any]:
    """One shard, its neighbours and its artefacts."""
    return await services.office.ask(Office.shard, shard)


@router.get("/shard-graph.svg", responses={200: {"content": {SVG: {}}}}, response_class=Response)
@allow(*VIEWERS)
async def draw_shards(services: Serving) -> Response:
    """The shard graph as a picture."""
    found = await services.office.ask(Office.shard_graph)
    return Response(draw_alone(found), media_type=SVG)


@router.get("/shard-graph")
@allow(*VIEWERS)
async def read_shard_graph(services: Serving) -> dict[str, Any]:
    """Shards, and the number of boundary edges between each two of them."""
    return await services.office.ask(Office.shard_graph)


@router.get("/history")
@allow(*VIEWERS)
async def read_history(
    services: Serving, days: Annotated[int, Query(ge=1, le=730)] = 30
) -> dict[str, Any]:
    """What was asked and done in the last days, and what it cost."""
    return await services.office.ask(Office.history, days)


@router.get("/artifacts", response_model=Page)
@allow(OPERATOR, AUDITOR)
async def list_artefacts(services: Serving, cursor: Cursor = None, limit: Limit = 50) -> Any:
    """Stored artefacts; those that are not live go with the next purge."""
    return await services.office.ask(Office.artefacts, cursor, limit)


@router.get("/backups")
@allow(OPERATOR, AUDITOR)
async def list_backups(services: Serving) -> dict[str, Any]:
    """Copies that are kept, and until when."""
    return {"items": await services.office.ask(Office.backups)}


@router.get("/deliveries")
@allow(OPERATOR)
async def list_deliveries(
    services: Serving,
    state: Annotated[str | None, Query(pattern=r"^[a-z]{1,20}$")] = None,
    request_id: Annotated[str | None, Query(pattern=r"^req_[0-9A-Za-z]{8,40}$")] = None,
) -> dict[str, Any]:
    """Callbacks that were made, wait, or are dead."""
    return {"items": await services.office.ask(Office.deliveries, state, request_id)}


@router.post("/deliveries/{delivery_id}:redeliver", responses=problems(404))
@allow(OPERATOR)
async def redeliver(
    delivery_id: Annotated[str, Path(pattern=r"^dlv_[0-9a-f]{26}$")],
    services: Serving,
    caller: Asker,
) -> dict[str, Any]:
    """Try a delivery again."""
    return await services.office.ask(Office.redeliver, delivery_id, caller.name)
