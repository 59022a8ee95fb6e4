"""Schemathesis over the whole OpenAPI document, in process: whatever is sent, no server error."""

from __future__ import annotations

from collections import Counter
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
FEW, SOME, MANY = 5, 30, 100
ASKING = ("/v1/erasures", "/v1/erasure-plans", "/v1/subjects:lookup")
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
        graph, self.statuses = office.system.graph, Counter[int]()
        ids, u, v = graph.ids.tolist(), int(graph.src[0]), int(graph.dst[0])
        self.selectors: dict[str, Any] = {
            "nodes": {"ids": [ids[0], "nobody"]},
            "labels": {"ids": ids[1:3]},
            "features": {"ids": ids[3:5], "columns": ["f0"]},
            "edges": {"pairs": [[ids[u], ids[v]]]},
        }

    def fit(self, body: Any) -> Any:
        """The same body, but one that selects what is here."""
        if not isinstance(body, dict):
            return body
        kind = body.get("kind") or "nodes"
        others = ("plan_id", "callbacks", "received_at")
        kept = {name: value for name, value in body.items() if name not in others}
        selector = self.selectors.get(kind, body.get("selector"))
        return kept | {"kind": kind, "selector": selector}

    def send(self, method: str, path: str, examples: int) -> None:
        operation = self.schema[path][method]
        modes = [GenerationMode.POSITIVE]
        if operation.definition.raw.get("parameters") or operation.body:
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            self._send(operation, path, mode, examples)

    def _send(self, operation: Any, path: str, mode: GenerationMode, examples: int) -> None:
        @settings(max_examples=examples, derandomize=examples == FEW, **HABITS)
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            if mode is GenerationMode.POSITIVE and path in ASKING:
                case.body = self.fit(case.body)
            answer = case.call(headers=self.headers)
            self.statuses[answer.status_code] += 1
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


@pytest.mark.parametrize("path", ASKING)
def test_some_of_what_is_sent_succeeds(sender: Sender, path: str) -> None:
    sender.statuses.clear()
    sender.send("post", path, SOME)
    assert sender.statuses[200] + sender.statuses[201] >= 5, sender.statuses


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_much_of_what_the_document_allows_is_answered_as_it_says(
    sender: Sender, method: str, path: str
) -> None:
    sender.send(method, path, MANY)
