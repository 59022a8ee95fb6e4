"""Schemathesis over the whole OpenAPI document, in process: whatever is sent, no server error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coordinator.serving.api.app import make_app
from coordinator.serving.backend import LocalOffice
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.serving.conftest import Replicas

OPEN = ServeSettings(
    run_batches=False,
    predict_rate="100000/second",
    follow_longest_s=0.01,
    webhook_hosts=("*",),
)
FEW, MANY = 5, 100
HABITS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}
NOBODY: Any = None
OPERATIONS = [
    (method, path)
    for path, item in make_app(NOBODY, NOBODY).openapi()["paths"].items()
    for method in item
]
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


class Sender:
    """Sends what schemathesis thinks of, with the key of an admin."""

    def __init__(self, office: Office) -> None:
        self.schema: Any = schemathesis.openapi.from_asgi(
            "/openapi.json", make_app(LocalOffice(office), Replicas(office), OPEN)
        )
        key = office.create_key("admin", "test")["key"]
        self.headers = {"Authorization": f"Bearer {key}"}

    def send(self, method: str, path: str, examples: int) -> None:
        operation = self.schema[path][method]
        modes = [GenerationMode.POSITIVE]
        if operation.definition.raw.get("parameters") or operation.body:
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:

            @settings(max_examples=examples, derandomize=examples == FEW, **HABITS)
            @given(case=operation.as_strategy(generation_mode=mode))
            def run(case: Any) -> None:
                answer = case.call(headers=self.headers)
                case.validate_response(answer, checks=CHECKS)

            run()


@pytest.fixture(scope="module")
def sender(office: Office) -> Iterator[Sender]:
    yield Sender(office)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(
    sender: Sender, method: str, path: str
) -> None:
    sender.send(method, path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_much_of_what_the_document_allows_is_answered_as_it_says(
    sender: Sender, method: str, path: str
) -> None:
    sender.send(method, path, MANY)
