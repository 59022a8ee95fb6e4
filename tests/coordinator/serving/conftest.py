"""A served home: a planted graph, fitted once a module, behind an office with a settable clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from coordinator.pools.inline import InlinePool
from coordinator.serving.api.app import make_app
from coordinator.serving.backend import LocalOffice
from coordinator.serving.office import Office
from coordinator.serving.roles import ROLES
from coordinator.serving.settings import ServeSettings
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, planted

WINDOWS = {
    "erasure.cancel_window": "24h",
    "erasure.batch_window": "6h",
    "erasure.approve_above": 20,
}
QUIET = ServeSettings(run_batches=False)


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


def served_home(bench: Workbench, clock: Clock, home: Path, **options: Any) -> Path:
    """A fitted home that nobody holds."""
    system = bench.fit(planted(10), WINDOWS | options, home=home, clock=clock)
    system.close()
    return home


@pytest.fixture(scope="module")
def office(
    shared_bench: Workbench,
    pool: InlinePool,
    clock: Clock,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Office]:
    """One office for the tests of a module; it runs batches only when it is told to."""
    home = served_home(shared_bench, clock, tmp_path_factory.mktemp("office") / "home")
    with Office(home, pool, clock, QUIET) as office:
        yield office


@pytest.fixture
def ids(office: Office) -> list[Any]:
    """Ids that are here and that nobody asked to forget."""
    return list(office.system.graph.ids.tolist())


class Replicas:
    """Predicts with the office's own system, as one replica does."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.failure: Exception | None = None

    async def predict(
        self, ids: Sequence[Any], *, policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return await asyncio.to_thread(self._predict, list(ids), policy or "mask", top_k)

    def _predict(self, ids: list[Any], policy: str, top_k: int | None) -> dict[str, Any]:
        system, gone = self.office.system, self.office.gone(ids)
        here = [i for i in ids if system.graph.has_node(i)]
        found = system.predict(here)
        rows = dict(zip(here, found.proba.tolist(), strict=True))
        results = []
        for node_id, is_gone in zip(ids, gone, strict=True):
            if node_id in rows:
                proba = dict(zip(map(str, found.classes), rows[node_id], strict=True))
                label = max(proba, key=lambda name: proba[name])
                results.append({"id": node_id, "label": label, "proba": proba})
            else:
                error = {"code": "gone", "status": 410} if is_gone else {}
                results.append(
                    {"id": node_id, "error": error or {"code": "unknown", "status": 404}}
                )
        return {
            "generation": system.generation.number,
            "epoch": self.office.ledger.epoch(),
            "policy": policy,
            "stale_shards": self.office.stale_shards(),
            "shard_policies": {str(shard): policy for shard in self.office.stale_shards()},
            "results": results,
        }


@dataclass
class Api:
    """A client with a key of each role.

    Attributes:
        client: speaks to the app in process.
        keys: role -> its key.
    """

    client: TestClient
    keys: dict[str, str]
    replicas: Replicas

    def ask(self, method: str, path: str, role: str | None = "admin", **options: Any) -> Response:
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.keys[role]}"
        return self.client.request(method, path, headers=headers, **options)


def make_api(office: Office, settings: ServeSettings = QUIET) -> Api:
    replicas = Replicas(office)
    app = make_app(LocalOffice(office), replicas, settings)
    keys = {role: office.create_key(role, "test")["key"] for role in ROLES}
    return Api(TestClient(app, raise_server_exceptions=False), keys, replicas)


@pytest.fixture(scope="module")
def api(office: Office) -> Iterator[Api]:
    api = make_api(office)
    with api.client:
        yield api
