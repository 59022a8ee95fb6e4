"""A served home: a planted graph, fitted once a module, behind an office with a settable clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.pools.inline import InlinePool
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, planted

WINDOWS = {
    "erasure.cancel_window": "24h",
    "erasure.batch_window": "6h",
    "erasure.approve_above": 20,
}
QUIET = ServeSettings(run_batches=False)
MakeOffice = Callable[..., Office]


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
