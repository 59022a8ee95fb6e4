"""What the ingress does about replicas that hang or are gone, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import NoLeaseError

pytest.importorskip("ray")

from coordinator.serving import deployment


def replicas(answer: Callable[[], Awaitable[Any]]) -> deployment.RayReplicas:
    made = object.__new__(deployment.RayReplicas)
    remote = SimpleNamespace(remote=lambda *_: answer())
    made._handle = SimpleNamespace(predict=remote)  # type: ignore[assignment]
    return made


def test_a_replica_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "PATIENCE_S", 0.05)

    async def hang() -> Any:
        await asyncio.sleep(60)

    with pytest.raises(NoLeaseError, match="in time"):
        asyncio.run(replicas(hang).predict([1]))


def test_a_replica_without_a_lease_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "PAUSE_S", 0.0)
    answers: list[Any] = [deployment.Refused(NoLeaseError("not now")), {"results": []}]

    async def answer() -> Any:
        return answers.pop(0)

    assert asyncio.run(replicas(answer).predict([1])) == {"results": []}
