"""Probes, metrics, the version, and a page that lists the routes."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST

from coordinator.serving.api.problems import ProblemError
from coordinator.serving.api.routing import Serving, new_router
from coordinator.serving.office import Office

router = new_router("probes", has_keys=False)
METHODS: Final = ("get", "post", "put", "patch", "delete")
VERSION: Final = ("version", "issuer", "generation", "epoch")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: Serving) -> dict[str, Any]:
    """Whether the office is there and is the one that writes."""
    found = await services.office.ask(Office.info)
    if not found["ready"]:
        raise ProblemError(503, "the office is not ready", headers={"Retry-After": "1"})
    return {"status": "ready", "generation": found["generation"], "epoch": found["epoch"]}


@router.get("/version")
async def version(services: Serving) -> dict[str, Any]:
    """What runs here."""
    found = await services.office.ask(Office.info)
    return {name: found[name] for name in VERSION}


@router.get("/metrics", response_class=Response)
async def metrics(services: Serving) -> Response:
    """Metrics as Prometheus reads them."""
    found = await services.office.ask(Office.metrics)
    return Response(services.meters.text(found), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every route, from the OpenAPI document; nothing is loaded from anywhere else."""
    document = request.app.openapi()
    rows = [
        f"<tr><td>{method.upper()}<td><code>{escape(path)}</code>"
        f"<td>{escape(item[method].get('summary', ''))}"
        f"<td>{escape(item[method].get('description', ''))}"
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    title = escape(document["info"]["title"])
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<h1>{title}</h1><p><a href="/openapi.json">openapi.json</a>'
        f"<table><tr><th>method<th>route<th>what<th>more{''.join(rows)}</table></html>"
    )
