"""``POST /v1/predict``."""

from __future__ import annotations

from typing import Any

from coordinator.serving.api.models import PredictIn, PredictOut
from coordinator.serving.api.problems import ProblemError
from coordinator.serving.api.routing import Asker, Serving, allow, new_router, problems
from coordinator.serving.roles import PREDICTOR

router = new_router("predictions")


@router.post("/predict", response_model=PredictOut, responses=problems(413, 415, 429))
@allow(PREDICTOR)
async def predict(body: PredictIn, services: Serving, caller: Asker) -> Any:
    """Predict nodes; an id that was forgotten answers 410 in its place, an unknown one 404."""
    services.rates.take(caller.name)
    if len(body.ids) > services.settings.max_ids:
        raise ProblemError(422, f"{len(body.ids)} ids; {services.settings.max_ids} at most")
    return await services.replicas.predict(body.ids, policy=body.policy, top_k=body.top_k)
