"""One child process for all systems, and a bench that fits them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.pools.inline import InlinePool
from shards.config import ShardsConfig
from shards.recipe import choose_profile
from tests.coordinator.systems import Workbench


@pytest.fixture(scope="session")
def pool() -> Iterator[InlinePool]:
    config = ShardsConfig()
    pool = InlinePool(choose_profile(config), config, 3)
    yield pool
    pool.close()


@pytest.fixture
def bench(pool: InlinePool, tmp_path: Path) -> Iterator[Workbench]:
    bench = Workbench(pool, tmp_path)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def shared_bench(pool: InlinePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """For systems that the tests of a module only read."""
    bench = Workbench(pool, tmp_path_factory.mktemp("shared"))
    yield bench
    bench.close()
