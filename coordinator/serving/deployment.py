"""The three classes as Ray Serve deployments: the one place here where Ray is applied.

``app`` builds the application from a mapping, for ``serve run`` and ``serve deploy``::

    import_path: coordinator.serving.deployment:app
    args: {home: /shared/home, replicas: 2}
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.digest import NodeId
from cluster.errors import NoLeaseError, UnweaveError
from coordinator.pools import ray as _environment  # noqa: F401 (declares it before Ray is imported)
from coordinator.serving.leases import Grant
from coordinator.serving.office import Office
from coordinator.serving.replica import Replica
from coordinator.serving.replica_loop import ReplicaLoop
from coordinator.serving.settings import ServeSettings

P = ParamSpec("P")
R = TypeVar("R")

APP = "unweave"
OFFICE, REPLICA, INGRESS = "Office", "Replica", "Ingress"
AT_ONCE = 1000  # calls that may wait in one process
THREADS = 64  # of the office: each replica holds one, each stream of events too
BATCH, BATCH_WAIT_S = 64, 0.002
HEALTH_S = 5
PATIENCE_S = 30  # for an answer of the office


class Served(BaseModel):
    """What is served, and how.

    Attributes:
        home: folder of the system, seen by every node.
        replicas: processes that answer predictions.
        pool: where shards are trained.
        num_cpus: of each of the processes; 0 leaves all cores to the shard actors.
        settings: the ``serve:`` section.
    """

    model_config = ConfigDict(extra="forbid")

    home: Path
    replicas: int = Field(default=1, ge=1)
    pool: str = "ray"
    num_cpus: float = Field(default=0, ge=0)
    settings: ServeSettings = ServeSettings()


class OfficeActor:
    """The office, its methods called in threads."""

    def __init__(self, served: Served) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "office")
        self._office = Office(served.home, pool=served.pool, settings=served.settings)

    async def ask(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method by its name."""
        call = partial(getattr(self._office, name), *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def check_health(self) -> None:
        """Whether it is still the writer; else Serve starts another one."""
        if not self._office.info()["ready"]:
            raise RuntimeError("another process holds the home's lease")

    def __del__(self) -> None:
        office = getattr(self, "_office", None)
        if office is not None:
            office.close()


class RayOffice:
    """Asks the office across Ray."""

    def __init__(self, handle: DeploymentHandle[Any] | None = None) -> None:
        self._handle = handle or serve.get_deployment_handle(OFFICE, APP)

    async def ask(
        self, method: Callable[Concatenate[Office, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a method of the office; its errors come out as they were raised."""
        try:
            found: R = await self._handle.ask.remote(method.__name__, args, kwargs)
        except RayTaskError as error:
            raise cause_of(error) from None
        return found

    # ---- from outside an event loop

    def lease(self, replica: str, generation: int | None, version: int) -> Grant:
        """See :meth:`Office.lease`."""
        return self.ask_now(Office.lease, replica, generation, version)

    def mask_of(self, generation: int) -> Grant:
        """See :meth:`Office.mask_of`."""
        return self.ask_now(Office.mask_of, generation)

    def ask_now(
        self, method: Callable[Concatenate[Office, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """:meth:`ask`, waiting for the answer."""
        try:
            answer = self._handle.ask.remote(method.__name__, args, kwargs)
            found: R = answer.result(timeout_s=PATIENCE_S)
        except RayTaskError as error:
            raise cause_of(error) from None
        return found


def cause_of(error: RayTaskError) -> BaseException:
    """What was raised on the other side."""
    cause = error.cause
    return cause if isinstance(cause, UnweaveError) else error


class ReplicaActor:
    """A replica that keeps itself under a lease."""

    def __init__(self, served: Served) -> None:
        self._name = f"replica-{uuid.uuid4().hex[:12]}"
        self._replica = Replica(served.home)
        self._loop = ReplicaLoop(self._replica, RayOffice(), self._name)
        self._loop.start()

    async def predict(self, ids: Sequence[NodeId], policy: str | None, top_k: int | None) -> Any:
        """See :meth:`Replica.predict`; an error is returned, so that it fails no other call."""
        found: Any = await self._batched((tuple(ids), policy, top_k))
        if isinstance(found, UnweaveError):
            raise found
        return found

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_S
    )
    async def _batched(self, calls: list[Any]) -> list[Any]:
        return await asyncio.to_thread(self._replica.predict_many, calls)

    def check_health(self) -> None:
        """Whether its thread lives."""
        self._loop.require_alive()


class RayReplicas:
    """Asks some replica, and another one where the first has no lease."""

    def __init__(self, replicas: int) -> None:
        self._handle = serve.get_deployment_handle(REPLICA, APP)
        self._tries = min(replicas + 1, 3)

    async def predict(
        self, ids: Sequence[NodeId], *, policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """See :class:`coordinator.serving.backend.ReplicaLink`."""
        for last in range(self._tries - 1, -1, -1):
            try:
                found: dict[str, Any] = await self._handle.predict.remote(ids, policy, top_k)
                return found
            except RayTaskError as error:
                cause = cause_of(error)
                if not isinstance(cause, NoLeaseError) or not last:
                    raise cause from None
            except (BackPressureError, RayServeException, ray.exceptions.RayActorError):
                if not last:
                    raise NoLeaseError("no replica answers at the moment; try again") from None
        raise AssertionError("the loop returns or raises")


def app(args: Mapping[str, Any]) -> serve.Application:
    """The application of one home.

    Args:
        args: the fields of :class:`Served`.
    """
    served = Served.model_validate(dict(args))

    def build() -> Any:
        from coordinator.serving.api.app import make_app

        return make_app(RayOffice(), RayReplicas(served.replicas), served.settings)

    options = {"num_cpus": served.num_cpus}
    common: dict[str, Any] = {
        "ray_actor_options": options,
        "max_ongoing_requests": AT_ONCE,
        "health_check_period_s": HEALTH_S,
    }
    office = serve.deployment(OfficeActor, name=OFFICE, num_replicas=1, **common)
    replica = serve.deployment(ReplicaActor, name=REPLICA, num_replicas=served.replicas, **common)
    ingress = serve.deployment(serve.ingress(build)(), name=INGRESS, num_replicas=1, **common)
    return ingress.bind(office.bind(served), replica.bind(served))
