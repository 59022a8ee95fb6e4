"""A trial: one design on one graph under one seed, and what came of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.config import RolesConfig
from cluster.digest import digest
from cluster.errors import GraphError
from cluster.graph import TEST, UNLABELLED, VAL, Change, Graph
from cluster.partitioners import check_room
from coordinator.config import Config, load_config
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from coordinator.pools.inline import InlinePool
from coordinator.preflight import check_config, require_labels
from coordinator.system import System
from shards.recipe import choose_profile

Measure = Literal["validation", "test"]


@dataclass(frozen=True)
class Design:
    """A named way to build a system.

    Attributes:
        name: what tables call it.
        overrides: dotted field -> value.
        base: preset or file that the overrides are applied to; None for the defaults.
    """

    name: str
    overrides: Mapping[str, Any]
    base: str | None = None

    def config(self, num_shards: int, settings: Mapping[str, Any] | None = None) -> Config:
        """The design at a number of shards; ``settings`` are applied last."""
        last = {"partition.num_shards": num_shards, **(settings or {})}
        return load_config(self.base, {**self.overrides, **last})


@dataclass(frozen=True)
class Task:
    """One trial to run: a configuration, already seeded, and what may be read of the graph."""

    name: str
    config: Config
    measure: Measure


@dataclass(frozen=True)
class Trial:
    """What one design did on one graph under one seed.

    Attributes:
        key: digest of everything that the row depends on.
        name: name of the design.
        data: name of the data set.
        seed: of roles, partition and trainings.
        shards: number of shards.
        guarantee: ``oblivious``, ``frozen`` or ``rederived``.
        settings: the resolved configuration.
        settings_digest: its digest.
        validation: accuracy on validation nodes that a choice may rest on (cross-fitted).
        test: accuracy on test nodes, None where it was not asked for.
        training_cpu_s: CPU seconds of all trainings.
        aggregator_cpu_s: CPU seconds of fitting the aggregator.
        one_share: expected cost of erasing one training node, as a share of all training.
        one_unsharded: the same in trainings of one model on the whole training graph.
        batch_share: expected cost of erasing one percent of the training nodes at once.
        batch_unsharded: the same in trainings of one model.
        seconds: wall seconds of the whole trial.
    """

    key: str
    name: str
    data: str
    seed: int
    shards: int
    guarantee: str
    settings: Mapping[str, Any]
    settings_digest: str
    validation: float
    test: float | None
    training_cpu_s: float
    aggregator_cpu_s: float
    one_share: float
    one_unsharded: float
    batch_share: float
    batch_unsharded: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)


def check_task(graph: Graph, task: Task) -> None:
    """Check what can be checked before anything is trained.

    Raises:
        ConfigError: the configuration does not fit itself or the graph.
        GraphError: there are no labels to learn or to judge by.
    """
    config = task.config
    check_config(config, None)
    require_labels(graph, config)
    check_room(graph, config.partition, config.roles)
    roles = {"validation": VAL} | ({"test": TEST} if task.measure == "test" else {})
    for name, role in roles.items():
        if not _labelled(graph, config.roles, role):
            raise GraphError(
                f"no {name} node has a label, so nothing can be judged; "
                f"check the label column and the shares in roles (seed {config.roles.seed})"
            )


def run_trial(key: str, data: str, graph: Graph, task: Task) -> Trial:
    """Fit one system in a temporary home and measure it."""
    started, config = time.perf_counter(), task.config
    with inline_pool(config) as pool:
        metered = MeteredPool(pool)
        with fitted(graph, config, metered) as system:
            training = metered.spent.pop("build", 0.0)
            fitting = sum(metered.spent.values())
            fitting += system.fit_breakdown["aggregator"]["cpu_seconds"]
            validation = system.validation()
            test = system.accuracy("test") if task.measure == "test" else None
            prices, guarantee = erasure_prices(system.status()), system.partition.guarantee
    settings = settings_of(config)
    return Trial(
        key=key,
        name=task.name,
        data=data,
        seed=config.seed,
        shards=config.partition.num_shards,
        guarantee=guarantee,
        settings=settings,
        settings_digest=str(digest("settings", settings)),
        validation=validation,
        test=test,
        training_cpu_s=round(training, 4),
        aggregator_cpu_s=round(fitting, 4),
        seconds=round(time.perf_counter() - started, 4),
        **prices,
    )


def settings_of(config: Config) -> dict[str, Any]:
    """What a trial depends on of a configuration: not where it lives nor how it was chosen."""
    return config.model_dump(exclude={"storage", "erasure", "tuned_on"})


def erasure_prices(status: Mapping[str, Any]) -> dict[str, float]:
    """Expected costs of a system, as shares of its training and in trainings of one model.

    A training costs the rows it reads; one model without shards reads each training node once.
    """
    shards = status["shards"]
    trained = sum(row["nodes"] + row["halo"] for row in shards if not row["silent"])
    unit = trained / max(sum(row["nodes"] for row in shards), 1)
    cost = status["erasure_cost"]
    return {
        "one_share": cost["one_uniform"],
        "one_unsharded": cost["one_uniform"] * unit,
        "batch_share": cost["batch_1_percent"],
        "batch_unsharded": cost["batch_1_percent"] * unit,
    }


class MeteredPool:
    """A pool that knows how much CPU time each method took its actors."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.spent: dict[str, float] = {}

    @property
    def size(self) -> int:
        """Number of actors."""
        return self._pool.size

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        before = self._pool.cpu_seconds()
        results = self._pool.map(method, jobs, progress)
        spent = self._pool.cpu_seconds() - before
        self.spent[method] = self.spent.get(method, 0.0) + spent
        return results

    def tell(self, method: str, job: Any) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        return self._pool.tell(method, job)

    def cpu_seconds(self) -> float:
        """CPU seconds that all actors have spent so far."""
        return self._pool.cpu_seconds()

    def close(self) -> None:
        """The pool belongs to who opened it."""


# ---- graphs, systems, seeds


def without_labels(graph: Graph, roles: RolesConfig, role: int) -> Graph:
    """The graph with no label on the nodes of a role, so that nothing can read one."""
    rows = (graph.roles(roles) == role) & (graph.y != UNLABELLED)
    return graph.apply(Change(labels=tuple(graph.ids[rows].tolist())))


def _labelled(graph: Graph, roles: RolesConfig, role: int) -> bool:
    return bool(((graph.roles(roles) == role) & (graph.y != UNLABELLED)).any())


def seeded(config: Any, seed: int, overrides: Mapping[str, Any] | None = None) -> Config:
    """A configuration whose roles, partition and trainings all use one seed."""
    seeds = {"seed": seed, "roles.seed": seed, "partition.seed": seed}
    return load_config(config, {**(overrides or {}), **seeds})


@contextmanager
def inline_pool(config: Config) -> Iterator[Pool]:
    """One child process for all systems of a study."""
    pool = InlinePool(choose_profile(config.shards), config.shards, config.partition.num_shards)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def fitted(graph: Graph, config: Config, pool: Pool, **options: Any) -> Iterator[System]:
    """A system in a temporary home."""
    with (
        tempfile.TemporaryDirectory() as home,
        System.fit(graph, config, Path(home) / "home", pool=pool, **options) as system,
    ):
        yield system
