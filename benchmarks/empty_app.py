"""A Serve application that does nothing, in the shape of the service; see benchmarks.overhead."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from coordinator.serving.deployment import BATCH, BATCH_WAIT_S

NAME = "Nothing"


class Ids(BaseModel):
    """The body."""

    ids: list[int | str]


class Nothing:
    """Gives back what it got."""

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def answer(self, calls: list[Any]) -> list[Any]:
        """One call each."""
        return calls


def routes() -> FastAPI:
    """One route that parses a body and asks the other deployment."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Ids) -> Any:
        return await serve.get_deployment_handle(NAME, "empty").answer.remote(body.ids)

    return app


def empty_app() -> serve.Application:
    """An ingress and a batched deployment."""
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0}}
    nothing = serve.deployment(Nothing, name=NAME, **options)
    return serve.deployment(serve.ingress(routes)(), name="Front", **options).bind(nothing.bind())
