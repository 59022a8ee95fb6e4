"""The three classes as Ray Serve deployments: the one place here where Ray is applied.

``app`` builds the application from a mapping, for ``serve run`` and ``serve deploy``::

    import_path: coordinator.serving.deployment:app
    args: {home: /shared/home, replicas: 2}
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Histogram

from cluster.digest import NodeId
from cluster.errors import HomeError, NoLeaseError, UnweaveError
from coordinator.pools import ray as _environment  # noqa: F401 (declares it before Ray is imported)
from coordinator.serving.leases import Grant
from coordinator.serving.logs import configure_logs
from coordinator.serving.office import Office
from coordinator.serving.replica import Replica
from coordinator.serving.replica_loop import ReplicaLoop
from coordinator.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

APP = "unweave"
OFFICE, REPLICA, INGRESS = "Office", "Replica", "Ingress"
AT_ONCE = 1000  # calls that may wait in one process
THREADS = 64  # of the office, for what is asked; as many for the leases that this may wait for
LENDING = frozenset({"lease", "mask_of"})
UNREACHABLE = (BackPressureError, RayServeException, RayActorError)
SILENT = "the office does not answer; it is being started again, try once more in a moment"
ANSWER_S = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
TRIES, PAUSE_S = 5, 0.25  # how often a prediction is tried while replicas lack a lease
BATCH, BATCH_WAIT_S = 64, 0.002
HEALTH_S = 5
PATIENCE_S = 30  # for an answer of the office to a replica, or of a replica to the ingress


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
        configure_logs()
        self._threads = ThreadPoolExecutor(THREADS, "office")
        self._lending = ThreadPoolExecutor(THREADS, "lending")
        self._office = Office(served.home, pool=served.pool, settings=served.settings)

    async def ask(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method by its name; an error is returned, since Serve logs what is raised."""
        call = partial(getattr(self._office, name), *args, **kwargs)
        try:
            threads = self._lending if name in LENDING else self._threads
            return await asyncio.get_running_loop().run_in_executor(threads, call)
        except Exception as error:
            return refused(error)

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
            found = await self._handle.ask.remote(method.__name__, args, kwargs)
        except UNREACHABLE:
            raise HomeError(SILENT) from None
        return cast(R, accepted(found))

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
            found = answer.result(timeout_s=PATIENCE_S)
        except (*UNREACHABLE, TimeoutError):
            raise HomeError(SILENT) from None
        return cast(R, accepted(found))


@dataclass(frozen=True)
class Refused:
    """What is returned in the place of a raised error."""

    error: UnweaveError


def refused(error: Exception) -> Refused:
    """An error as a value; of one that nobody foresaw the kind alone, since it may name records."""
    if isinstance(error, UnweaveError):
        return Refused(error)
    kind = type(error).__name__
    logger.error("unforeseen: %s", kind, exc_info=error, extra={"event": "failed", "code": kind})
    return Refused(UnweaveError(f"{kind}; the operator's log says where"))


def accepted(found: Any) -> Any:
    """What was returned, if it is no error."""
    if isinstance(found, Refused):
        raise found.error
    return found


class ReplicaActor:
    """A replica that keeps itself under a lease."""

    def __init__(self, served: Served) -> None:
        configure_logs()
        self._name = f"replica-{uuid.uuid4().hex[:12]}"
        self._seconds = Histogram(
            "unweave_replica_seconds", "What one batch of predictions took.", boundaries=ANSWER_S
        )
        self._replica = Replica(served.home)
        self._loop = ReplicaLoop(self._replica, RayOffice(), self._name)
        self._loop.start()

    async def predict(self, ids: Sequence[NodeId], policy: str | None, top_k: int | None) -> Any:
        """See :meth:`Replica.predict`; an error is returned, since Serve logs what is raised."""
        try:
            found: Any = await self._batched((tuple(ids), policy, top_k))
        except Exception as error:
            return refused(error)
        return Refused(found) if isinstance(found, UnweaveError) else found

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_S
    )
    async def _batched(self, calls: list[Any]) -> list[Any]:
        started = time.monotonic()
        found = await asyncio.to_thread(self._replica.predict_many, calls)
        self._seconds.observe(time.monotonic() - started)
        return found

    def check_health(self) -> None:
        """Whether its thread lives."""
        self._loop.require_alive()


class RayReplicas:
    """Asks some replica; where it has no lease, another one or the same after a short pause."""

    def __init__(self) -> None:
        self._handle = serve.get_deployment_handle(REPLICA, APP)

    async def predict(
        self, ids: Sequence[NodeId], *, policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """See :class:`coordinator.serving.backend.ReplicaLink`."""
        for left in range(TRIES - 1, -1, -1):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    found = await self._handle.predict.remote(ids, policy, top_k)
                return cast(dict[str, Any], accepted(found))
            except TimeoutError:  # it hangs; Serve ends it, and another one may answer
                raise NoLeaseError("a replica did not answer in time; try again") from None
            except NoLeaseError:
                if not left:
                    raise
            except UNREACHABLE:
                if not left:
                    raise NoLeaseError("no replica answers at the moment; try again") from None
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("the loop returns or raises")


def app(args: Mapping[str, Any]) -> serve.Application:
    """The application of one home.

    Args:
        args: the fields of :class:`Served`.
    """
    served = Served.model_validate(dict(args))

    def build() -> Any:
        from coordinator.serving.api.app import make_app

        configure_logs()
        return make_app(RayOffice(), RayReplicas(), served.settings)

    options = {"num_cpus": served.num_cpus}
    common: dict[str, Any] = {
        "ray_actor_options": options,
        "max_ongoing_requests": AT_ONCE,
        "health_check_period_s": HEALTH_S,
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
    }
    office = serve.deployment(OfficeActor, name=OFFICE, num_replicas=1, **common)
    replica = serve.deployment(ReplicaActor, name=REPLICA, num_replicas=served.replicas, **common)
    ingress = serve.deployment(serve.ingress(build)(), name=INGRESS, num_replicas=1, **common)
    return ingress.bind(office.bind(served), replica.bind(served))


def start(args: Mapping[str, Any], host: str, port: int) -> None:
    """Start Serve on the cluster that this process has joined, and the application on it."""
    serve.start(http_options={"host": host, "port": port})
    serve.run(app(args), name=APP, route_prefix="/")


def stop() -> None:
    """End Serve."""
    serve.shutdown()
