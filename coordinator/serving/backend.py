"""How the ingress reaches the office: across Ray, or in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from cluster.digest import NodeId

if TYPE_CHECKING:
    from coordinator.serving.office import Office

P = ParamSpec("P")
R = TypeVar("R")


class OfficeLink(Protocol):
    """Asks the office, wherever it is."""

    async def ask(
        self, method: Callable[Concatenate[Office, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a method of the office; its errors come out as they were raised."""
        ...


class ReplicaLink(Protocol):
    """Asks some replica."""

    async def predict(
        self, ids: Sequence[NodeId], *, policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """What :meth:`coordinator.serving.replica.Replica.predict` answers.

        Raises:
            NoLeaseError: no replica holds a lease; the caller may try again.
            StaleShardError: a node's shard is being retrained, and its policy is ``block``.
        """
        ...


class LocalOffice:
    """An office in this process."""

    def __init__(self, office: Office) -> None:
        self.office = office

    async def ask(
        self, method: Callable[Concatenate[Office, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call the method in a thread."""
        return await asyncio.to_thread(method, self.office, *args, **kwargs)
