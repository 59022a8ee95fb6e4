"""The ingress as one FastAPI app; it holds nothing but limits and a short memory of keys."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from coordinator.serving.api import erasures, events, evidence, keys, overview, predict, probes
from coordinator.serving.api.door import Door
from coordinator.serving.api.guard import Guard
from coordinator.serving.api.meters import Meters
from coordinator.serving.api.models import ProblemOut
from coordinator.serving.api.problems import add_handlers
from coordinator.serving.api.rates import Rates, Streams
from coordinator.serving.api.routing import Services
from coordinator.serving.backend import OfficeLink, ReplicaLink
from coordinator.serving.console.router import make_console
from coordinator.serving.settings import ServeSettings

ROUTERS: Final = (
    predict.router,
    events.router,
    erasures.router,
    evidence.router,
    overview.router,
    keys.router,
    probes.router,
)


def make_app(
    office: OfficeLink, replicas: ReplicaLink, settings: ServeSettings | None = None
) -> FastAPI:
    """The app with every route of the REST interface, and the console.

    Args:
        office: asks the office, wherever it is.
        replicas: asks some replica.
        settings: limits.
    """
    chosen, meters = settings or ServeSettings(), Meters()
    app = FastAPI(
        title="unweave",
        version=version("unweave"),
        description="Predictions, and requests to forget; errors are RFC 9457 problems.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    rates, streams = Rates(chosen.predict_rate), Streams(chosen.max_streams)
    app.state.services = Services(
        office, replicas, chosen, Door(office, chosen), rates, streams, meters
    )
    add_handlers(app)
    app.add_middleware(Guard, settings=chosen, meters=meters)
    for router in (*ROUTERS, make_console(office)):
        app.router.routes.extend(router.routes)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; every error in it is a problem."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        found["components"]["schemas"]["Problem"] = ProblemOut.model_json_schema()
        for item in found["paths"].values():
            for operation in item.values():
                for status, answer in operation["responses"].items():
                    if status[0] in "45":
                        answer["content"].pop("application/json", None)
        app.openapi_schema = found
    return app.openapi_schema
