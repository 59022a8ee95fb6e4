"""What the benchmarks share: pools, temporary homes, provenance, Markdown tables."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cluster.graph import Graph
from cluster.readers.catalog import load_dataset
from coordinator.config import Config, load_config
from coordinator.pools import Pool
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from shards.recipe import choose_profile


def load(name: str) -> Graph:
    """A data set by name, or from a folder given as path."""
    return load_dataset(name)


def seeded(config: Any, seed: int, overrides: Mapping[str, Any] | None = None) -> Config:
    """A configuration whose roles, partition and trainings all use one seed."""
    seeds = {"seed": seed, "roles.seed": seed, "partition.seed": seed}
    return load_config(config, {**(overrides or {}), **seeds})


@contextmanager
def inline_pool(config: Config) -> Iterator[Pool]:
    """One child process for all systems of a benchmark."""
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


def provenance() -> str:
    """One line: commit, machine, load."""
    commit = _git("describe", "--always")
    if _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!README.md"):
        commit += " with local changes"
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"commit {commit or 'unknown'}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load average {load_average}"
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def mean_sd(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent."""
    array = np.asarray(values) * 100
    return f"{array.mean():.1f} ± {array.std(ddof=1) if len(array) > 1 else 0:.1f}"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"
