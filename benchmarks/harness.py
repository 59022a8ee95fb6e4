"""What the benchmarks share: data sets, provenance, tuning, Markdown tables."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence

from cluster.graph import Graph
from cluster.readers.catalog import load_dataset
from coordinator.compare import tune_all
from coordinator.contenders import Contender
from coordinator.study import Study
from coordinator.trial import Task, Trial, seeded


def load(name: str) -> Graph:
    """A data set by name, or from a folder given as path."""
    return load_dataset(name)


def study_parser(description: str | None, home: str) -> argparse.ArgumentParser:
    """Options of a benchmark that compares systems under several seeds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--home", default=home, help="finished trials are kept here")
    parser.add_argument("--workers", type=int, default=1, help="trials at once")
    return parser


def tune_and_test(
    studies: Sequence[Study], rows: Sequence[Contender], budget: int, num_shards: int
) -> dict[str, list[Trial]]:
    """Trials on test nodes by row, one a seed.

    Args:
        studies: what is studied under seed 0, 1, ...; settings are chosen on the first.
        rows: who is measured.
        budget: settings that each may try on validation nodes.
        num_shards: of those that have shards.
    """
    found: dict[str, list[Trial]] = {row.name: [] for row in rows}
    grids = [row.choices(budget, num_shards) for row in rows]
    chosen = tune_all(studies[0], rows, grids, num_shards, None)
    for seed, study in enumerate(studies):
        tasks = [
            Task(row.name, seeded(row.config(design, num_shards), seed), "test")
            for row, design in zip(rows, chosen, strict=True)
        ]
        for trial in study.run(tasks):
            found[trial.name].append(trial)
    return found


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


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"
