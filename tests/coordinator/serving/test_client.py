"""The client, against the app in this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from coordinator import client as module
from coordinator.client import Client, ServiceError
from tests.coordinator.serving.conftest import Api


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with Client("http://testserver") as made:
        headers = {"Authorization": f"Bearer {api.keys['admin']}"}
        made._sync = TestClient(api.client.app, headers=headers)  # type: ignore[assignment]
        yield made


def test_ids_of_every_type_are_sent(client: Client, ids: list[Any]) -> None:
    asked = [*np.asarray(ids[:2]), ids[2], "a", uuid.UUID(int=7)]

    found = client.predict(asked).results

    assert [result["id"] for result in found] == [*ids[:3], "a", str(uuid.UUID(int=7))]
    assert ["error" in result for result in found] == [False] * 3 + [True] * 2
    assert client.plan("nodes", {"ids": np.asarray(ids[:2])})["records"]["nodes"] == 2
    assert client.plan("edges", {"pairs": [(uuid.UUID(int=7), ids[0])]})["unknown"] == 1


def test_events_end_with_the_request_though_all_of_them_were_seen(client: Client, ids: Any) -> None:
    made = client.erase(selector={"ids": [ids[0]]})["request_id"]
    client.cancel(made)

    seen = [event["seq"] for event in client.events(made)]

    assert seen == [1, 2]
    assert list(client.events(made, after=2)) == []


def test_events_of_a_service_that_is_gone_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    client._sync = httpx.Client(base_url="http://gone", transport=httpx.MockTransport(refuse))

    with pytest.raises(ServiceError, match="No answer"):
        list(client.events("req_00000000"))
